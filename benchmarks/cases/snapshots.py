"""Snapshots: how a change reaches all workers, and what many prompts cost a worker."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.bench import Bench, Entry, expect
from benchmarks.table import Table

USED = 10  # prompts that a worker uses, of however many there are


def snapshot(bench: Bench) -> Table:
    """Publish snapshots of different sizes, change one prompt again and again, and read them."""
    sizes = (10, 1_000, 10_000) if bench.is_quick else (10, 1_000, 10_000, 100_000)
    columns = ("get us", "first use ms", "refresh ms", "refresh CPU ms", "publish ms", "worker MiB")
    table = Table("snapshot", f"Snapshots of many prompts, of which a worker uses {USED}", columns)
    for size in sizes:
        entry = Entry(
            f"{size} prompts",
            *("fallom", "publishing", "snapshot"),
            environ=bench.ours(),
            options={"size": size, "used": USED},
        )
        with bench.contestants([entry]) as pairs:
            told: list[dict[str, Any]] = []
            for _ in range(bench.repeats):
                pairs[0][1].order("warm", calls=1)
                told.append(pairs[0][1].order("answers"))
        expect(all(each["is_new"] for each in told), f"{size} prompts: a change was not seen")
        row = {"row": entry.name, "repeats": len(told)}
        row.update({name: statistics.median(each[name] for each in told) for name in columns})
        table.rows.append(row)
    names = ("get us", "refresh ms", "worker MiB")
    table.curves = {"prompts": [float(size) for size in sizes]}
    table.curves.update({name: [row[name] for row in table.rows] for name in names})
    table.notes = [
        "Refresh: the first `prompts.get` after a change of one prompt was published, its text checked; "
        "publish: of that one change, in the flusher. Worker MiB: resident memory above that before the "
        "first read.",
    ]
    return table


def propagation(bench: Bench) -> Table:
    """Publish while many workers read; every call that begins after it must see it."""
    columns = (
        "workers",
        "stale calls",
        "next call ms p50",
        "next call ms max",
        "fetches of a host",
    )
    table = Table("propagation", "From a publish to every worker of a host", columns)
    publishes = bench.sized(bench.repeats, 3)
    for workers in (8, 64) if not bench.is_quick else (8, 16):
        entry = Entry(
            f"{workers} workers",
            *("fallom", "publishing", "propagation"),
            environ=bench.ours(),
            options={"workers": workers, "publishes": publishes, "seconds": bench.sized(5, 3)},
        )
        with bench.contestants([entry]) as pairs:
            told = pairs[0][1].order("answers")
        expect(told["stale"] == 0, f"{told['stale']} calls after the publish had the old model")
        expect(told["seen"] == workers * publishes, f"{told['seen']} workers saw a publish")
        took = sorted(told["took_ms"])
        table.rows.append(
            {
                "row": entry.name,
                "workers": workers,
                "stale calls": told["stale"],
                "next call ms p50": took[len(took) // 2],
                "next call ms max": took[-1],
                "fetches of a host": told["fetches"],
                "publishes": publishes,
            }
        )
    table.notes = [
        "Each worker calls `models.get` all 20 ms. Next call: how long that call takes which reads the "
        "new snapshot; all others read memory. Stale: calls that began after the publish and gave the "
        "old model.",
        f"Fetches: listings asked for in {bench.sized(5, 3)} s at an interval of 1 s by the one flusher "
        "of these workers (three an interval). A peer that polls in each worker makes as many for each "
        "of them.",
    ]
    return table


TABLES = {"snapshot": snapshot, "propagation": propagation}
