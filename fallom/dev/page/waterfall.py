"""``waterfall``: the spans of a trace as rows, each below its parent, with its bar. Pure.

Positions are percentages of the trace's time. A span whose parent is not there (not arrived, or of
another program) stands at the top with a mark; a cycle of parents is cut where it closes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

__all__ = ["SPANS_MAX", "Step", "attempts_of", "waterfall"]

SPANS_MAX: Final = 1000  # of one trace that are drawn
_DEPTH_MAX: Final = 24  # of indentation; deeper ones are drawn at this depth
_MIN_WIDTH: Final = 0.35  # per cent: what is shorter would not be seen


class Step(NamedTuple):
    """A row of the waterfall. x, width, first are percentages of the whole."""

    span: Mapping[str, Any]
    depth: int
    is_orphan: bool
    x: float
    width: float
    first: float | None  # where the first piece of a stream came


def waterfall(spans: Sequence[Mapping[str, Any]]) -> list[Step]:
    """Give the rows, in the order of the tree, children by start."""
    if not spans:
        return []
    start = min(span["start_ns"] for span in spans)
    whole = max(1, max(span["end_ns"] for span in spans) - start)
    return [_step(span, depth, is_orphan, start, whole) for span, depth, is_orphan in _walk(spans)]


def attempts_of(row: Mapping[str, Any]) -> list[tuple[float, int]]:
    """Give (position within the span in per cent, number) of each attempt of a retried call."""
    start, whole = row["start_unix_ns"], max(1, row["end_unix_ns"] - row["start_unix_ns"])
    found = []
    for event in json.loads(row["events"]):
        if event["name"] == "fallom.attempt":
            at = 100 * (event["unix_ns"] - start) / whole
            number = event["attributes"].get("fallom.attempt.number")
            found.append((min(100.0, max(0.0, at)), number if isinstance(number, int) else 0))
    return found


def _walk(
    spans: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[Mapping[str, Any], int, bool]]:
    known = {span["span_id"] for span in spans}
    children: dict[str, list[Mapping[str, Any]]] = {}
    for span in sorted(spans, key=lambda span: (span["start_ns"], -span["end_ns"], span["id"])):
        parent = span["parent"]
        is_top = parent not in known or parent == span["span_id"]
        children.setdefault("" if is_top else parent, []).append(span)
    seen: set[int] = set()
    for root in [*children.get("", ()), *spans]:  # the second half only serves cycles
        waiting = [(root, 0)]
        while waiting:
            span, depth = waiting.pop()
            if span["id"] in seen:
                continue
            seen.add(span["id"])
            yield span, min(depth, _DEPTH_MAX), depth == 0 and bool(span["parent"])
            below = children.get(span["span_id"], ())
            waiting += [(child, depth + 1) for child in reversed(below)]


def _step(span: Mapping[str, Any], depth: int, is_orphan: bool, start: int, whole: int) -> Step:
    duration = span["end_ns"] - span["start_ns"]
    width = max(_MIN_WIDTH, 100 * duration / whole)
    x = min(100 - width, 100 * (span["start_ns"] - start) / whole)
    first = span["first_token_ns"]
    at = 100 * (span["start_ns"] + first - start) / whole if 0 < first <= duration else None
    return Step(span, depth, is_orphan, max(0.0, x), width, at)
