"""``read_trace``: one trace, with the span that somebody wants to see."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from fallom.dev.page.waterfall import SPANS_MAX, Step, attempts_of, waterfall

__all__ = ["DrawnStep", "Trace", "read_trace"]

_RETRIED_MAX = 50


class DrawnStep(NamedTuple):
    """A row of the waterfall as it is drawn."""

    step: Step
    attempts: list[tuple[float, int]]  # within the span, in per cent: (position, number)
    is_chosen: bool


class Trace(NamedTuple):
    """A trace from the index."""

    trace: dict[str, Any]
    spans: list[dict[str, Any]]
    labels: list[tuple[str, str]]
    chosen: int  # row of the store
    retried: list[int]
    left_out: int

    def steps(self, rows: Sequence[dict[str, Any]]) -> list[DrawnStep]:
        """Give the waterfall; ``rows`` are whole rows of the spans that were retried."""
        attempts = {row["id"]: attempts_of(row) for row in rows}
        return [
            DrawnStep(step, attempts.get(step.span["id"], []), step.span["id"] == self.chosen)
            for step in waterfall(self.spans)
        ]


def read_trace(index: sqlite3.Connection, trace_id: str, span_id: str) -> Trace | None:
    """Give a trace, or None; without ``span_id`` the span that is likely wanted is chosen."""
    found = index.execute(
        "SELECT trace.*, session.session_id, session.customer_id FROM trace "
        "LEFT JOIN session ON session.id = trace.session WHERE trace.trace_id = ?",
        (trace_id,),
    ).fetchone()
    if found is None:
        return None
    rows = index.execute(
        "SELECT * FROM span WHERE trace = ? ORDER BY id LIMIT ?", (found["id"], SPANS_MAX)
    )
    spans = [dict(row) for row in rows]
    if not spans:
        return None
    labels = index.execute(
        "SELECT DISTINCT name, value FROM label WHERE trace = ? ORDER BY name, value LIMIT 60",
        (found["id"],),
    )
    chosen = next((span for span in spans if span["span_id"] == span_id), None)
    if chosen is None:
        chosen = min(spans, key=_unlikeliness)
    retried = [span["id"] for span in spans if span["kind"] == "llm"][:_RETRIED_MAX]
    return Trace(
        dict(found),
        spans,
        [(row["name"], row["value"]) for row in labels],
        chosen["id"],
        retried if found["retries"] else [],
        found["spans"] - len(spans),
    )


def _unlikeliness(span: dict[str, Any]) -> tuple[bool, bool, int]:
    """Order spans: what failed first, then calls of a model, then what began first."""
    return (not span["is_error"], span["kind"] != "llm", span["start_ns"])
