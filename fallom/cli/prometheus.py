"""The status in Prometheus's text form, for a node exporter's textfile collector or a script."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["prometheus_text"]

_DESTINATIONS = ("spans", "metrics", "exposures")


def prometheus_text(status: Mapping[str, Any]) -> str:
    """Give a status, as ``fallom.status`` has it, in the text exposition format 0.0.4."""
    where = {"namespace": status["namespace"]}
    lines: list[str] = []
    for name, kind, help_text, samples in _metrics(status):
        rows = [(labels, value) for labels, value in samples if value is not None]
        if rows:
            lines += [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]
            for labels, value in rows:
                lines.append(f"{name}{_labels({**where, **labels})} {_number(value)}")
    return "".join(f"{line}\n" for line in lines)


_Samples = Iterable[tuple[Mapping[str, str], "float | None"]]


def _metrics(status: Mapping[str, Any]) -> Iterator[tuple[str, str, str, _Samples]]:
    flusher, spool, sent = status["flusher"], status["spool"], status["sent"]
    snapshot = status["snapshot"]

    def one(value: float | None) -> _Samples:
        return [({}, value)]

    delivered = [({"destination": d}, sent.get(f"{d}_accepted", 0)) for d in _DESTINATIONS]
    dropped = [({"reason": reason}, count) for reason, count in status["dropped"].items()]
    yield "fallom_flusher_up", "gauge", "Whether a flusher lives.", one(int(flusher["is_alive"]))
    yield (
        "fallom_delivery_paused_seconds",
        "gauge",
        "For how long nothing is sent.",
        one(flusher.get("paused_s") or 0),
    )
    yield (
        "fallom_recorded_total",
        "counter",
        "Records that came into the spool.",
        one(status["recorded"]),
    )
    yield "fallom_delivered_total", "counter", "Records the server accepted.", delivered
    yield "fallom_dropped_total", "counter", "Records given up, by reason.", dropped
    yield (
        "fallom_sampled_out_total",
        "counter",
        "Spans left out by sampling.",
        one(status["sampled_out"]),
    )
    yield "fallom_batches_total", "counter", "Batches sent.", one(sent.get("batches_sent", 0))
    yield (
        "fallom_batches_retried_total",
        "counter",
        "Batches sent again.",
        one(sent.get("batches_retried", 0)),
    )
    yield (
        "fallom_delivery_seconds_total",
        "counter",
        "Time that batches took.",
        one(sent.get("delivery_ms", 0) / 1e3),
    )
    yield (
        "fallom_flusher_starts_total",
        "counter",
        "Flushers that began to lead.",
        one(sent.get("flusher_starts", 0)),
    )
    yield (
        "fallom_waiting_records",
        "gauge",
        "Records not accepted yet.",
        one(spool["waiting_records"]),
    )
    yield "fallom_waiting_bytes", "gauge", "Their size.", one(spool["unaccepted_bytes"])
    yield (
        "fallom_lag_seconds",
        "gauge",
        "Age of the oldest record that waits.",
        one(spool["oldest_age_s"] or 0),
    )
    yield (
        "fallom_spool_bytes",
        "gauge",
        "What the spool takes on its disk.",
        one(spool["allocated_bytes"]),
    )
    yield "fallom_spool_limit_bytes", "gauge", "What it may take.", one(spool["limit_bytes"])
    yield from _targets(status["targets"])
    yield "fallom_dead_bytes", "gauge", "What was refused for good.", one(status["dead"]["bytes"])
    yield (
        "fallom_snapshot_age_seconds",
        "gauge",
        "Since configs or prompts changed.",
        one(snapshot["age_s"]),
    )
    yield (
        "fallom_snapshot_checked_age_seconds",
        "gauge",
        "Since they were last fetched.",
        one(snapshot["checked_age_s"]),
    )


def _targets(targets: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, str, _Samples]]:
    """Give the families of extra targets, where there are any."""
    if not targets:
        return
    yield (
        "fallom_target_delivered_total",
        "counter",
        "Records that an extra target accepted.",
        [({"target": each["name"]}, each["accepted"]) for each in targets],
    )
    yield (
        "fallom_target_dropped_total",
        "counter",
        "Records that an extra target will not get, by reason.",
        [
            ({"target": each["name"], "reason": reason}, count)
            for each in targets
            for reason, count in each["dropped"].items()
        ],
    )
    yield (
        "fallom_target_waiting_bytes",
        "gauge",
        "What an extra target has not accepted yet.",
        [({"target": each["name"]}, each.get("unaccepted_bytes", 0)) for each in targets],
    )


def _labels(labels: Mapping[str, str]) -> str:
    shown = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{shown}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    return repr(value) if isinstance(value, float) else str(value)
