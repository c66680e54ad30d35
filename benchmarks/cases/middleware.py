"""The middleware: a request of an application that sets a session, with it and without."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.bench import Bench, Entry, expect
from benchmarks.table import Table

WAYS: tuple[tuple[str, dict[str, Any] | None], ...] = (
    ("bare", None),
    ("**fallom** `FallomMiddleware`", {}),
    ("**fallom** `FallomMiddleware(extract=True)`", {"extract": True}),
)


def middleware(bench: Bench) -> Table:
    """Call applications as their servers do."""
    entries = [
        Entry(
            f"{path.upper()}, {way}",
            *("fallom", "requests_served", path, 1.0, bench.ours()),
            {"middleware": given},
        )
        for path in ("wsgi", "asgi")
        for way, given in WAYS
    ]
    with bench.contestants(entries) as pairs:
        rounds = bench.match(pairs, bench.sized(20_000, 3_000), bench.sized(2_000, 500))
        for entry, contestant in pairs:
            told = contestant.order("answers")
            expect(told["body"] == "ok", f"{entry.name} answered {told['body']}")
            is_bare = entry.options["middleware"] is None
            expect(
                (told["session after"] is None) != is_bare,
                f"{entry.name} left the session {told['session after']}",
            )
    columns = ("CPU us", "CPU x cal", "CPU us more", "p50", "p99", "p99.9")
    table = bench.table("middleware", "A request through the middleware", rounds)
    table.columns, table.curves = columns, {}
    for row, entry in zip(table.rows, entries, strict=True):
        bare = rounds[f"{entry.path.upper()}, {WAYS[0][0]}"]
        row["CPU us more"] = statistics.median(
            (mine["cpu_ns"] - theirs["cpu_ns"]) / 1000
            for mine, theirs in zip(rounds[entry.name], bare, strict=True)
        )
    table.notes = [
        "The application is called as a server does, without a server: it sets its session and answers two "
        "bytes. More: than the bare one of the same repeat. Checked: the session that a request set is "
        "gone behind the middleware, and is not without it. `extract=True` reads a `traceparent`.",
    ]
    return table


TABLES = {"middleware": middleware}
