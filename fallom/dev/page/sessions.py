"""``read_session``: one session as a conversation, its calls in order, with its metrics."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from fallom.dev.page.details import Detail, detail_of

__all__ = ["Session", "Turn", "read_session"]

_TURNS: Final = 40  # traces on a page
_CALLS_MAX: Final = 120  # whose messages are shown on a page


class Turn(NamedTuple):
    """A trace of a session: what was asked last, and what was answered."""

    trace: dict[str, Any]
    calls: list[Detail]


class Session(NamedTuple):
    """A session from the index."""

    session: dict[str, Any]
    traces: list[dict[str, Any]]
    span_ids: list[int]
    metrics: list[dict[str, Any]]
    assignments: list[dict[str, Any]]
    more: int | None

    def turns(self, rows: Sequence[dict[str, Any]]) -> list[Turn]:
        """Give the traces with their calls; ``rows`` are whole rows of the store."""
        calls: dict[str, list[Detail]] = {}
        for row in sorted(rows, key=lambda row: row["start_unix_ns"]):
            calls.setdefault(row["trace_id"], []).append(detail_of(row))
        return [Turn(trace, calls.get(trace["trace_id"], [])) for trace in self.traces]


def read_session(index: sqlite3.Connection, session_id: str, after: int) -> Session | None:
    """Give a session, or None; ``after`` is the position of its first trace that is wanted."""
    row = index.execute("SELECT * FROM session WHERE session_id = ?", (session_id,)).fetchone()
    if row is None:
        return None
    traces = index.execute(
        "SELECT * FROM trace WHERE session = ? ORDER BY start_ns, id LIMIT ? OFFSET ?",
        (row["id"], _TURNS + 1, after),
    ).fetchall()
    ids = [trace["id"] for trace in traces[:_TURNS]]
    spans = index.execute(
        f"SELECT id FROM span WHERE trace IN ({', '.join('?' * len(ids))}) "  # noqa: S608
        "AND kind IN ('llm', 'tool', 'retrieval') ORDER BY id LIMIT ?",
        (*ids, _CALLS_MAX),
    )
    metrics = index.execute(
        "SELECT field, shown, at_ns, config_key FROM metric WHERE session_id = ? "
        "ORDER BY field LIMIT 200",
        (session_id,),
    )
    assignments = index.execute(
        "SELECT * FROM assignment WHERE session_id = ? ORDER BY kind, key, version LIMIT 100",
        (session_id,),
    )
    return Session(
        dict(row),
        [dict(trace) for trace in traces[:_TURNS]],
        [span["id"] for span in spans],
        [dict(one) for one in metrics],
        [dict(one) for one in assignments],
        after + _TURNS if len(traces) > _TURNS else None,
    )
