"""The status in Prometheus's text form, for a node exporter's textfile collector or a script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["prometheus_text"]

_DESTINATIONS = ("spans", "metrics", "exposures")


def prometheus_text(status: Mapping[str, Any]) -> str:
    """Give a status, as ``fallom.status`` has it, in the text exposition format 0.0.4."""
    where = {"namespace": status["namespace"]}
    lines: list[str] = []
    for name, help_text, samples in _families(status):
        rows = [(labels, value) for labels, value in samples if value is not None]
        if rows:
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]
            for labels, value in rows:
                lines.append(f"{name}{_labels({**where, **labels})} {_number(value)}")
    return "".join(f"{line}\n" for line in lines)


_Samples = Sequence[tuple[Mapping[str, str], "float | None"]]
_Family = tuple[str, str, _Samples]  # name, help, labels and value of each


def _families(status: Mapping[str, Any]) -> Iterator[_Family]:
    flusher, spool, sent = status["flusher"], status["spool"], status["sent"]
    snapshot, paused_s = status["snapshot"], flusher.get("paused_s") or 0
    delivered = [({"destination": d}, sent.get(f"{d}_accepted", 0)) for d in _DESTINATIONS]
    dropped = [({"reason": reason}, count) for reason, count in status["dropped"].items()]
    delivery_s = sent.get("delivery_ms", 0) / 1e3
    lag_s = spool["oldest_age_s"] or 0
    yield _one("flusher_up", "Whether a flusher lives.", int(flusher["is_alive"]))
    yield _one("delivery_paused_seconds", "For how long nothing is sent.", paused_s)
    yield _one("recorded_total", "Records that came into the spool.", status["recorded"])
    yield "fallom_delivered_total", "Records the server accepted.", delivered
    yield "fallom_dropped_total", "Records given up, by reason.", dropped
    yield _one("sampled_out_total", "Spans left out by sampling.", status["sampled_out"])
    yield _one("batches_total", "Batches sent.", sent.get("batches_sent", 0))
    yield _one("batches_retried_total", "Batches sent again.", sent.get("batches_retried", 0))
    yield _one("delivery_seconds_total", "Time that batches took.", delivery_s)
    yield _one(
        "flusher_starts_total", "Flushers that began to lead.", sent.get("flusher_starts", 0)
    )
    yield _one("waiting_records", "Records not accepted yet.", spool["waiting_records"])
    yield _one("waiting_bytes", "Their size.", spool["unaccepted_bytes"])
    yield _one("lag_seconds", "Age of the oldest record that waits.", lag_s)
    yield _one("spool_bytes", "What the spool takes on its disk.", spool["allocated_bytes"])
    yield _one("spool_limit_bytes", "What it may take.", spool["limit_bytes"])
    yield from _targets(status["targets"])
    yield _one("dead_bytes", "What was refused for good.", status["dead"]["bytes"])
    yield _one("snapshot_age_seconds", "Since configs or prompts changed.", snapshot["age_s"])
    yield _one(
        "snapshot_checked_age_seconds", "Since they were last fetched.", snapshot["checked_age_s"]
    )


def _one(name: str, help_text: str, value: float | None) -> _Family:
    return f"fallom_{name}", help_text, [({}, value)]


def _targets(targets: Sequence[Mapping[str, Any]]) -> Iterator[_Family]:
    """Give the families of extra targets; without any they have no samples, and are left out."""
    yield (
        "fallom_target_delivered_total",
        "Records that an extra target accepted.",
        [({"target": each["name"]}, each["accepted"]) for each in targets],
    )
    yield (
        "fallom_target_dropped_total",
        "Records that an extra target will not get, by reason.",
        [
            ({"target": each["name"], "reason": reason}, count)
            for each in targets
            for reason, count in each["dropped"].items()
        ],
    )
    yield (
        "fallom_target_waiting_bytes",
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
