"""Floods: 50,000 spans as fast as threads or processes can record them, and how many of them arrive."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from benchmarks.bench import Bench, Entry, expect
from benchmarks.contestant import Contestant
from benchmarks.table import Table, distribution, percentiles

FLOOR = "floor: bare appends"
LONG_QUEUE = Entry(
    "OpenTelemetry, a queue of 65,536",
    *("opentelemetry", "opentelemetry_sdk", "span", 1.0),
    {"OTEL_BSP_MAX_QUEUE_SIZE": "65536"},
)
CONTROL = 1000  # spans, slowly: all of them must arrive, or the counting is wrong


def _entries(bench: Bench) -> list[Entry]:
    return [
        Entry(
            "**fallom** `trace.span`",
            "fallom",
            "fallom_now",
            "span",
            environ=bench.ours("process", bench.receiver.url),
            options={"delivered": True},
        ),
        Entry("OpenTelemetry", "opentelemetry", "opentelemetry_sdk", "span"),
        Entry("ddtrace", "ddtrace", "datadog", "span"),
    ]


def flood(bench: Bench) -> Table:
    """Flood each contestant from 8 threads, several times, and count what arrives."""
    spans, repeats = bench.sized(50_000, 10_000), bench.sized(bench.repeats, 2)
    entries = [Entry(FLOOR, "fallom", "floor", "span"), *_entries(bench), LONG_QUEUE]
    found: dict[str, list[dict[str, Any]]] = {}
    with bench.contestants(entries) as pairs:
        for entry, contestant in pairs[1:]:
            bench.expect_delivered(entry, contestant, CONTROL)
        for _ in range(repeats):
            for entry, contestant in pairs:
                bench.receiver.clear()
                told = contestant.order(
                    "flood", calls=spans, threads=8, begin_ns=time.monotonic_ns() + 50_000_000
                )
                told["kept"] = spans if entry.name == FLOOR else bench.settled(spans)
                is_whole = entry.peer != "fallom" or told["kept"] == spans
                expect(is_whole, f"{entry.name}: {told['kept']} of {spans} spans arrived")
                found.setdefault(entry.name, []).append(told)
        written = pairs[0][1].order("answers")["written"]
        expect(written == spans * repeats, f"the floor wrote {written} of {spans * repeats}")
        dropped = pairs[1][1].order("answers")["dropped"]
        expect(not dropped, f"fallom dropped {dropped}")
    title = f"{spans:,} spans at once from 8 threads"
    columns = ("p50", "p99", "p99.9", "p99 x floor", "kept %", "CPU us a span", "with delivery")
    table = Table("flood", title, columns)
    for name, rounds in found.items():
        row = {"row": name, **_row(rounds, spans), "repeats": repeats}
        table.rows.append(row)
        row["p99 x floor"] = row["p99"] / table.rows[0]["p99"]
        table.curves[name] = distribution(row.pop("singles"))
    table.notes = [
        f"Latencies of a call in us, of all calls of {repeats} floods; kept: distinct ids that a receiver "
        "decoded after the contestant said that it had flushed, with two minutes to do so.",
        f"Control: of {CONTROL:,} spans recorded one after the other and flushed, each contestant "
        "delivered all, to the same receiver.",
        "OpenTelemetry's queue holds 2,048 spans by default; with a longer one it keeps them in memory.",
        "With delivery: with the CPU of exporter threads, and of fallom's flusher.",
    ]
    return table


def processes(bench: Bench) -> Table:
    """Record the same from more and more processes at once; the machine's cores are the limit."""
    spans = bench.sized(50_000, 8_000)
    counts = (1, 2, 4, 8, 16) if not bench.is_quick else (1, 4)
    columns = ("processes", "spans a second", "CPU us a span", "p50", "p99", "p99.9", "kept %")
    table = Table("processes", f"{spans:,} spans from several processes", columns)
    for make in _entries(bench):
        for count in counts:
            entries = [replace(make, name=f"{make.name} {n}") for n in range(count)]
            with bench.contestants(entries) as pairs:
                if len(pairs) < count:
                    continue
                for _, contestant in pairs:
                    contestant.order("warm", calls=100)
                table.rows.append(_at_once(bench, make.name, [c for _, c in pairs], spans))
    table.curves = {
        f"{what}: {name}": [row[what] for row in table.rows if row["row"] == name]
        for what in ("processes", "spans a second", "CPU us a span", "kept %")
        for name in dict.fromkeys(row["row"] for row in table.rows)
    }
    table.notes = [
        "One thread a process, all beginning at the same moment; spans a second: until the last of them "
        "has recorded its share. Of fallom, all processes share one flusher.",
    ]
    return table


def _at_once(bench: Bench, name: str, them: list[Contestant], spans: int) -> dict[str, Any]:
    bench.receiver.clear()
    each = spans // len(them)
    begin_ns = time.monotonic_ns() + 200_000_000
    for contestant in them:
        contestant.begin("flood", calls=each, threads=1, begin_ns=begin_ns)
    told = [contestant.wait() for contestant in them]
    recorded = sum(one["calls"] for one in told)
    singles = sorted(ns / 1000 for one in told for ns in one["singles_ns"])
    kept = bench.settled(recorded)
    if "fallom" in name:
        expect(kept == recorded, f"{kept} of {recorded} spans of {len(them)} processes arrived")
    took_s = (max(one["ended_ns"] for one in told) - begin_ns) / 1e9
    return {
        "row": name,
        "processes": len(them),
        "spans a second": recorded / took_s,
        "CPU us a span": sum(one["process_ns"] for one in told) / recorded / 1000,
        **percentiles(singles),
        "kept %": 100 * kept / recorded,
    }


def _row(rounds: list[dict[str, Any]], spans: int) -> dict[str, Any]:
    singles = sorted(ns / 1000 for each in rounds for ns in each["singles_ns"])
    total = spans * len(rounds)
    return {
        "singles": singles,
        **percentiles(singles),
        "kept %": 100 * sum(each["kept"] for each in rounds) / total,
        "CPU us a span": sum(each["process_ns"] for each in rounds) / total / 1000,
        "with delivery": sum(each["all_cpu_ns"] for each in rounds) / total / 1000,
    }


TABLES = {"flood": flood, "processes": processes}
