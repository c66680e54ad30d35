"""A wrapped LLM call beside the bare client's: what tracing adds, by library."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.bench import Bench, Entry, expect
from benchmarks.contestant import Contestant
from benchmarks.table import Table

KINDS = ("create", "stream", "async")
LIBRARIES = (
    ("**fallom**", "fallom", "fallom"),
    ("langfuse", "langfuse", "langfuse"),
    ("OpenInference", "openinference", "openinference"),
    ("OpenTelemetry's (genai)", "opentelemetry_openai", "opentelemetry"),
    ("LangSmith", "langsmith", "langsmith"),
)


def llm(bench: Bench) -> Table:
    """Run bare and traced calls of each kind in turns."""
    columns: tuple[str, ...] = ("bare us", "overhead us", "of best peer %", "with delivery us")
    columns += ("spans a call", "texts a call")
    table = Table("llm", "A wrapped LLM call beside the bare one, CPU", columns)
    entries = [
        Entry(
            name,
            *(peer, "llm", "compare"),
            environ=bench.ours("process", bench.receiver.url) if peer == "fallom" else {},
            options={"library": library, "kind": KINDS[0]},
        )
        for name, peer, library in LIBRARIES
    ]
    with bench.contestants(entries) as pairs:
        for kind in KINDS:
            for entry, contestant in pairs:
                contestant.reopen(
                    "compare", {**entry.options, "kind": kind, "url": bench.receiver.url}
                )
            table.rows += _kind(bench, kind, pairs)
    table.notes = [
        "CPU time of the calling thread, lower quartile of each block, blocks of bare and of traced "
        "calls in turns, and the median of their differences; the provider answers on loopback. "
        "*stream*: 500 pieces. *With delivery*: of the whole process, exporter included; fallom delivers "
        "in its flusher.",
        "Every traced call is counted at the receiver by distinct ids. *Texts a call*: those of question "
        "and answer that came; 2 where a library delivers the content of both.",
    ]
    return table


def _kind(bench: Bench, kind: str, pairs: list[tuple[Entry, Contestant]]) -> list[dict[str, Any]]:
    blocks = bench.sized(16 if kind == "stream" else 24, 4)
    found: dict[str, list[dict[str, Any]]] = {}
    counted: dict[str, float] = {}
    texts: dict[str, float] = {}
    for _, contestant in pairs:
        contestant.order("warm", calls=2)
        contestant.order("answers")
    for _ in range(bench.sized(bench.repeats, 2)):
        for entry, contestant in pairs:
            bench.receiver.clear()
            contestant.order("warm", calls=blocks)
            told = contestant.order("answers")
            found.setdefault(f"{entry.name} {kind}", []).append(told)
            spans, calls = bench.receiver.distinct(), told["traced calls"]
            counted[f"{entry.name} {kind}"] = spans / calls
            texts[f"{entry.name} {kind}"] = bench.receiver.texts() / calls
            is_ours = entry.peer == "fallom"
            expect(
                spans == calls if is_ours else spans >= calls,
                f"{entry.name}: {spans} spans of {calls} calls",
            )
    rows = []
    for name, each in found.items():
        rows.append(
            {
                "row": name,
                "bare us": statistics.median(one["bare_us"] for one in each),
                "overhead us": statistics.median(one["overhead_us"] for one in each),
                "with delivery us": statistics.median(one["all_overhead_us"] for one in each),
                "spans a call": counted[name],
                "texts a call": texts[name],
                "repeats": len(each),
            }
        )
    peers = [row["overhead us"] for row in rows if "fallom" not in row["row"]]
    for row in rows if peers else []:
        row["of best peer %"] = 100 * row["overhead us"] / min(peers)
    return rows


TABLES = {"llm": llm}
