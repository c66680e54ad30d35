"""Beyond one machine: a fleet in virtual time, and what a fleet of a size asks of its servers."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.bench import Bench, expect
from benchmarks.scale import ROUND_TRIP_S, Load, Outage, fetches_of_a_fleet, spans_of_a_fleet
from benchmarks.table import Table
from fallom._core.settings import Settings

OUTAGE = Outage(300, 900)
DURATION_S = 1500
INTERVAL_S = Settings().sync_interval_s
CALLS_S, METRICS_S, NEW_SESSIONS_S = 50, 10, 10  # a second, of a host
SENT_SPAN_BYTES = (
    400  # the benchmark's texts repeat and take 85 to 120; real ones compress to a third
)
SPOOLED_CALL_BYTES, SPOOLED_METRICS_BYTES = 1500, 350  # where `flusher` has not been measured
PEAK_AFTER_MAX = 3.0  # of the mean before: then nobody would call it a herd


def played(bench: Bench) -> Table:
    """Play fleets through an outage."""
    hosts, lanes = bench.sized(3000, 500), bench.sized(300, 50)
    started_at_once = fetches_of_a_fleet(hosts, DURATION_S, Outage(-2, -1), starts_within_s=0)
    loads = {
        "config API": fetches_of_a_fleet(hosts, DURATION_S, OUTAGE),
    }
    requests, spans = spans_of_a_fleet(lanes, DURATION_S, OUTAGE, CALLS_S + METRICS_S)
    loads["collectors, requests"], loads["collectors, spans"] = requests, spans
    columns = (
        "a second",
        "peak before",
        "first minute out",
        "later out",
        "first minute after",
    )
    table = Table("scale", f"{hosts:,} hosts through an outage of 10 minutes", columns)
    for name, load in loads.items():
        row = {"row": name, columns[0]: load.mean(100, 300)}
        row.update(zip(columns[1:], ratios(load), strict=True))
        if load is not spans:  # which come in full batches, for they have waited
            expect(row["first minute after"] <= PEAK_AFTER_MAX, f"a herd after the outage: {row}")
        table.rows.append(row)
        if load is not requests:  # looks like the spans, without their peak
            table.curves[name] = list(load.per_second)
    table.curves["config API, all started in the same second"] = list(started_at_once.per_second)
    table.notes = [
        "Virtual time; schedule, jitter and backoff are the package's own. Peaks are of the busiest "
        "second, as multiples of the mean before the outage.",
        f"Three listings a host each {INTERVAL_S:.0f} s. To the collectors {CALLS_S + METRICS_S} spans a "
        f"second of {lanes} hosts each; a batch is answered after {ROUND_TRIP_S * 1000:.0f} ms.",
        "All hosts started in one second: the busiest second is "
        + ", ".join(
            f"{started_at_once.peak(start, start + 30) / started_at_once.mean(30, 600):.1f} x after "
            f"{start // 60} min"
            for start in (60, 300, 900)
        )
        + ".",
    ]
    return table


def fleet(_: Bench) -> Table:
    """Calculate what fleets ask of their servers, from the figures that the assumptions name."""
    columns = ("config API requests/s", "exposures/s", "spans/s", "collector MB/s", "spool an hour MiB",
               "fits 512 MiB")  # fmt: skip
    table = Table("fleet", "What a fleet asks of its servers", columns)
    call_bytes = spooled_bytes("calls to a model", SPOOLED_CALL_BYTES)
    metrics_bytes = spooled_bytes("10 attributes", SPOOLED_METRICS_BYTES)
    hour = 3600 * (CALLS_S * call_bytes + METRICS_S * metrics_bytes) / 2**20
    for hosts in (10, 1_000, 100_000):
        table.rows.append(
            {
                "row": f"{hosts:,} hosts",
                columns[0]: hosts * 3 / INTERVAL_S,
                columns[1]: hosts * NEW_SESSIONS_S,
                columns[2]: hosts * (CALLS_S + METRICS_S),
                columns[3]: hosts * (CALLS_S + METRICS_S) * SENT_SPAN_BYTES / 1e6,
                columns[4]: hour,
                columns[5]: "yes" if hour < 512 else f"no: {512 / hour * 60:.0f} minutes do",
            }
        )
    table.notes = [
        f"Of a span on the wire, compressed: {SENT_SPAN_BYTES} bytes (texts that repeat less than those of "
        f"the benchmark); in the spool, of a call {call_bytes:,.0f} and of metrics "
        f"{metrics_bytes:.0f} bytes; spool: of one host.",
    ]
    return table


def spooled_bytes(kind: str, otherwise: float) -> float:
    """Give what a record takes in the spool, as it was measured last."""
    measured = Path(__file__).resolve().parent.parent / "results/flusher.json"
    rows = json.loads(measured.read_text())["rows"] if measured.exists() else []
    found = [
        row["spooled bytes"] for row in rows if row["row"].endswith(kind) and "fallom" in row["row"]
    ]
    return float(found[-1]) if found else otherwise


def ratios(load: Load) -> list[float]:
    """Give the peaks before, early in, late in, and after the outage, as multiples of the mean before."""
    mean, start, end = load.mean(100, 300), int(OUTAGE.start_s), int(OUTAGE.end_s)
    times = ((100, start), (start, start + 60), (start + 60, end), (end, end + 60))
    return [load.peak(*each) / mean for each in times]


TABLES = {"scale": played, "fleet": fleet}
