"""``read_session``: one session as a conversation, its calls in order, with its metrics."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from fallom.dev.page.details import Detail, detail_of
from fallom.dev.page.messages import Message, Part

__all__ = ["Call", "Session", "Turn", "read_session"]

_TURNS: Final = 40  # traces on a page
_CALLS_MAX: Final = 120  # whose messages are shown on a page


class Call(NamedTuple):
    """A call within a session: what of its messages is new there, and what was shown already."""

    detail: Detail
    earlier: list[Message]
    new: list[Message]


class Turn(NamedTuple):
    """A trace of a session."""

    trace: dict[str, Any]
    calls: list[Call]


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
        details: dict[str, list[Detail]] = {}
        for row in sorted(rows, key=lambda row: row["start_unix_ns"]):
            details.setdefault(row["trace_id"], []).append(detail_of(row))
        seen: set[tuple[str, tuple[Part, ...]]] = set()
        turns = []
        for trace in self.traces:
            of_trace = details.get(trace["trace_id"], [])
            has_tools = any(detail.kind == "tool" for detail in of_trace)
            turns.append(Turn(trace, [_call(detail, seen, has_tools) for detail in of_trace]))
        return turns


def _call(detail: Detail, seen: set[tuple[str, tuple[Part, ...]]], has_tools: bool) -> Call:
    """Sort a call's messages; a tool's result stands at the tool's own span, where there is one."""
    earlier: list[Message] = []
    new: list[Message] = []
    for message in detail.asked:
        is_known = (message.role, message.parts) in seen or (has_tools and message.role == "tool")
        (earlier if is_known else new).append(message)
    seen |= {(message.role, message.parts) for message in [*detail.asked, *detail.said]}
    return Call(detail, earlier, new)


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
