"""Recording: a span of ten attributes, alone, in floods, from many processes, and with fsync."""

from __future__ import annotations

from benchmarks.bench import Bench, Entry, expect
from benchmarks.contestant import Contestant
from benchmarks.table import Table

FLOOR = "floor: pack and write"
DELIVERED = 100  # calls of those who hold what they record in memory, and send it later


def span(bench: Bench) -> Table:
    """Measure a span with ten attributes, and count what is on disk or was delivered."""
    entries = [
        Entry(FLOOR, "fallom", "floor", "span"),
        Entry("floor: with ids and a time", "fallom", "floor", "span.ids"),
        Entry(
            "**fallom** `trace.span`, on disk", "fallom", "fallom_now", "span", environ=bench.ours()
        ),
        Entry("OpenTelemetry, in memory", "opentelemetry", "opentelemetry_sdk", "span", 0.3),
        Entry("ddtrace, in memory", "ddtrace", "datadog", "span", 0.3),
        Entry("langfuse, in memory", "langfuse", "langfuse_sdk", "span", 0.1),
        Entry("logfire, in memory", "logfire", "logfire_sdk", "span", 0.1),
        Entry("sentry, in memory", "sentry", "sentry", "span", 0.02),
        Entry("fallom 0.2.7, a thread a call", "fallom_0_2_7", "fallom_0_2_7", "span", 0.02),
        Entry("a line by logging, on disk", "queues", "queues", "logging", 0.5),
        Entry("litequeue, on disk", "queues", "queues", "litequeue", 0.2),
        Entry("diskcache Deque, on disk", "queues", "queues", "diskcache", 0.1),
    ]
    calls, singles = bench.sized(10_000, 1_500), bench.sized(10_000, 1_000)
    with bench.contestants(entries) as pairs:
        rounds = bench.match(pairs, calls, singles)
        for entry, contestant in pairs:
            if "on disk" in entry.name or "floor" in entry.name:
                _all_on_disk(bench, entry, contestant, calls, singles)
            else:
                bench.expect_delivered(entry, contestant, DELIVERED)
    table = bench.table("span", "`trace.span`, 10 attributes", rounds, FLOOR)
    table.columns = (*table.columns[:4], "CPU us in all", *table.columns[4:])
    table.notes = [
        "What is on disk was read back and counted. What peers hold in memory was delivered to a local "
        f"receiver between the rounds: of {DELIVERED} calls after them all arrived, counted by ids. How "
        "much arrives under load is the next table.",
        "CPU us is the caller's thread; in all: with the threads of the process and, of peers in "
        "memory, the delivery. Of fallom the flusher delivers, see `flusher`.",
    ]
    return table


def durability(bench: Bench) -> Table:
    """Measure what each policy of syncing costs the caller."""
    entries = [
        Entry(FLOOR, "fallom", "floor", "span"),
        Entry(
            "floor: and `fdatasync`", "fallom", "floor", "span", 0.05, options={"fdatasync": True}
        ),
        *(
            Entry(
                f"**fallom**, `fsync` {policy}",
                "fallom",
                "fallom_now",
                "span",
                0.05 if policy == "always" else 1.0,
                bench.ours("process" if policy == "interval" else "external", FALLOM_FSYNC=policy),
            )
            for policy in ("none", "interval", "always")
        ),
        Entry("Weave's log, written by the call", "weave", "weave_wal", "span.inline", 0.05),
        Entry("Weave's log, written by its threads", "weave", "weave_wal", "span", 0.05),
    ]
    calls, singles = bench.sized(10_000, 1_000), bench.sized(10_000, 1_000)
    with bench.contestants(entries) as pairs:
        rounds = bench.match(pairs, calls, singles)
        for entry, contestant in pairs:
            _all_on_disk(bench, entry, contestant, calls, singles)
    bench.miss("Vector: neither PyPI nor Debian nor npm has its agent")
    table = bench.table("durability", "What `fsync` costs", rounds, FLOOR)
    table.columns = (*table.columns[:4], "CPU us in all", *table.columns[4:])
    table.notes = [
        "With `interval` the flusher syncs once a second beside the caller; it was running.",
        "Weave's write-ahead log syncs every 64 lines or half a second; a call is two lines. By default "
        "threads of its client write, after the call has returned: then a crash can cost what they have "
        "not written yet. `CPU us in all` counts them.",
        "What each has on disk was read back and counted.",
    ]
    return table


def _all_on_disk(
    bench: Bench, entry: Entry, contestant: Contestant, calls: int, singles: int
) -> None:
    parts = [int(calls * entry.share), int(singles * entry.share)]
    recorded = max(20, parts[0] // 20) + bench.repeats * sum(parts)
    written = contestant.order("answers")["written"]
    expect(written == recorded, f"{entry.name}: {written} of {recorded} are on disk")


TABLES = {"span": span, "durability": durability}
