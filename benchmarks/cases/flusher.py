"""The flusher's throughput: from the spool to what the server has accepted, per second of CPU."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, Entry, expect
from benchmarks.contestant import Contestant
from benchmarks.table import Table

MIB = 1 << 10  # of ru_maxrss, which is in KiB


def flusher(bench: Bench) -> Table:
    """Drain spools of two kinds of spans, and have peers encode and post the same."""
    columns = (
        "spans a CPU s",
        "x OpenTelemetry",
        "spans a second",
        "peak MiB",
        "bytes a span",
        "spooled bytes",
    )
    table = Table("flusher", "The flusher: spool to accepted, gzip", columns)
    for kind, is_llm in (("10 attributes", False), ("calls to a model", True)):
        table.rows += _matched(bench, kind, is_llm)
    table.notes = [
        "Calls to a model: 20 attributes with the texts, about 1.3 kB a span.",
        "Of fallom: CPU time of a whole `fallom flusher --once`, user and system, less that of one with an "
        "empty spool; it reads and checks the frames, encodes, compresses, posts, and writes offsets. "
        "Distinct ids at the receiver are counted: all.",
        "Of the others only encoding, compressing and posting of batches of 512 that are in memory.",
        "Spans a second: of the whole process, its start included; it runs at nice 10.",
    ]
    return table


def _matched(bench: Bench, kind: str, is_llm: bool) -> list[dict[str, Any]]:
    options = {"is_llm": is_llm}
    entries = [
        Entry(f"floor: protobuf (upb), {kind}", "fallom", "shipping", "upb", options=options),
        Entry(
            f"OpenTelemetry's exporter, {kind}",
            *("opentelemetry", "opentelemetry_sdk", "export"),
            options=options,
        ),
    ]
    small, big = (bench.sized(20_000, 4_000), bench.sized(150_000, 12_000))
    ours: dict[int, list[dict[str, Any]]] = {small: [], big: []}
    rounds: dict[str, list[dict[str, Any]]] = {entry.name: [] for entry in entries}
    repeats = bench.sized(bench.repeats, 2)
    with bench.contestants(entries) as pairs:
        for repeat in range(repeats):
            for entry, contestant in pairs:
                found = contestant.order(
                    "round", calls=bench.sized(20, 8), singles=0, cal_calls=2000
                )
                rounds[entry.name].append(found)
            ours[small].append(_drained(bench, small, options))
            if repeat < max(1, repeats // 4):
                ours[big].append(_drained(bench, big, options))
    rows = []
    for name, each in rounds.items():
        if each:
            rate = statistics.median(512e9 / one["process_ns"] for one in each)
            rows.append({"row": name, "spans a CPU s": rate, "repeats": len(each)})
    theirs = rows[-1]["spans a CPU s"] if len(rows) == 2 else None
    for size, runs in ours.items():
        names = ("spans a CPU s", "spans a second", "peak MiB", "bytes a span", "spooled bytes")
        row = {name: statistics.median(one[name] for one in runs) for name in names}
        name = f"**fallom** flusher, {size:,} spans, {kind}"
        rows.append({"row": name, **row, "repeats": len(runs)})
    for row in rows if theirs else []:
        row["x OpenTelemetry"] = row["spans a CPU s"] / theirs
    return rows


def _drained(bench: Bench, spans: int, options: dict[str, Any]) -> dict[str, Any]:
    environ = bench.ours(url=bench.receiver.url)
    empty = _flusher(environ)
    filler = Contestant("filler", "fallom", "shipping", "fill", options, environ)
    filler.order("warm", calls=spans)
    dropped = filler.order("answers")["dropped"]
    filler.close()
    expect(not dropped, f"dropped while filling: {dropped}")
    spooled = sum(p.stat().st_size for p in Path(environ["FALLOM_STATE_DIR"]).rglob("spool/*"))
    bench.receiver.clear()
    full = _flusher(environ)
    counts = bench.receiver.counts()["otlp"]
    expect(counts["distinct"] == counts["all"] == spans, f"{counts} of {spans}")
    cpu_s, took_s = full["cpu_s"] - empty["cpu_s"], full["took_s"]
    return {
        "spans a CPU s": spans / cpu_s,
        "spans a second": spans / took_s,
        "peak MiB": full["peak_mib"],
        "bytes a span": counts["bytes"] / spans,
        "spooled bytes": spooled / spans,
    }


def _flusher(environ: Mapping[str, str]) -> dict[str, float]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("FALLOM_", "OTEL_"))}
    begun_s = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "fallom", "flusher", "--once"],
        env={**clean, **environ},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    expect(process.returncode == 0, f"the flusher ended with {process.returncode}")
    return {
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "took_s": time.monotonic() - begun_s,
        "peak_mib": usage.ru_maxrss / MIB,
    }


TABLES = {"flusher": flusher}
