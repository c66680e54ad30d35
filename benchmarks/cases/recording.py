"""Recording: a span of ten attributes, alone, in floods, from many processes, and with fsync."""

from __future__ import annotations

from benchmarks.bench import Bench, Entry, expect
from benchmarks.table import Table

NAMES = ("span", "durability")
FLOOR = "floor: pack and write"


def run(bench: Bench, names: tuple[str, ...]) -> list[Table]:
    """Measure what was asked for."""
    found = {"span": span, "durability": durability}
    return [found[name](bench) for name in names]


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
    calls, singles = bench.sized(5_000, 1_500), bench.sized(3_000, 1_000)
    on_disk = {entries[number].name for number in (0, 1, 2, 9, 10, 11)}
    kept: dict[str, float] = {}
    with bench.contestants(entries) as pairs:
        rounds = bench.match(pairs, calls, singles)
        for entry, contestant in pairs:
            told = contestant.order("answers")
            if entry.name in on_disk:
                parts = [int(calls * entry.share), int(singles * entry.share)]
                recorded = max(20, parts[0] // 20) + bench.repeats * sum(parts)
                expect(
                    told["written"] == recorded, f"{entry.name}: {told['written']} of {recorded}"
                )
                kept[entry.name] = 100.0
    table = bench.table("span", "`trace.span`, 10 attributes", rounds, FLOOR)
    table.columns = (*table.columns[:4], "CPU us in all", *table.columns[4:])
    table.notes = [
        "What is on disk was read back and counted. What peers hold in memory was delivered to a local "
        "receiver between the rounds; how much of it arrives under load is the next table.",
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
    ]
    with bench.contestants(entries) as pairs:
        rounds = bench.match(pairs, bench.sized(4_000, 1_000), bench.sized(2_000, 1_000))
    table = bench.table("durability", "What `fsync` costs", rounds, FLOOR)
    table.notes = [
        "With `interval` the flusher syncs once a second beside the caller; it was running.",
    ]
    return table
