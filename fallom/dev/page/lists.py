"""The lists: traces and sessions, chosen by filters, a page at a time; and what can be chosen.

An address never makes a query that reads without end: a search that goes through more texts than it may
in its time gives what it found, and where to go on.
"""

from __future__ import annotations

import sqlite3
import time
from typing import Any, Final, NamedTuple

from fallom.dev.page.filters import LABELS, Filters, match_of

__all__ = ["Listing", "Overview", "choices", "list_sessions", "list_traces", "overview"]

ROWS: Final = 50
_SEARCH_S: Final = 0.12  # of the 0.2 that a view may take
_SCAN_STEP: Final = 500
_ABOVE_MAX: Final = 500  # spans of earlier pages that are looked at, so that no trace comes twice
_SCAN_TEXTS_MAX: Final = 20_000  # without FTS5: the newest texts, by LIKE
_CHOICES_MAX: Final = 60


class Listing(NamedTuple):
    """A page of a list; ``more`` is where the next one begins, None at the end."""

    rows: list[dict[str, Any]]
    more: int | None
    is_cut: bool = False  # a search stopped before it had seen everything


class Overview(NamedTuple):
    """How much there is."""

    traces: int
    sessions: int
    spans: int
    errors: int


def overview(index: sqlite3.Connection) -> Overview:
    """Count what is indexed."""
    row = index.execute(
        "SELECT (SELECT count(*) FROM trace), (SELECT count(*) FROM session), "
        "(SELECT count(*) FROM span), (SELECT count(*) FROM trace WHERE errors > 0)"
    ).fetchone()
    return Overview(*row)


def choices(index: sqlite3.Connection) -> dict[str, list[tuple[str, int]]]:
    """Give for each filter its most frequent values, with their counts of traces."""
    found: dict[str, list[tuple[str, int]]] = {}
    query = "SELECT value, traces FROM label_count WHERE name = ? ORDER BY traces DESC LIMIT ?"
    for name in LABELS:
        if name != "meta":
            found[name] = [tuple(row) for row in index.execute(query, (name, _CHOICES_MAX))]
    rows = index.execute(
        "SELECT substr(name, 6) || '=' || value, traces FROM label_count "
        "WHERE name >= 'meta:' AND name < 'meta;' ORDER BY traces DESC LIMIT ?",
        (_CHOICES_MAX,),
    )
    found["meta"] = [tuple(row) for row in rows]
    return found


def list_traces(index: sqlite3.Connection, filters: Filters, after: int) -> Listing:
    """List traces.

    Args:
        index: The index.
        filters: Which.
        after: Where the page begins: for the newest the id before, for other orders how many to pass.
    """
    conditions, values = _conditions(filters)
    if filters.search and filters.sort == "newest":
        return _searched(index, filters, conditions, values, after)
    if filters.search:
        ids = [row["id"] for row in _searched(index, filters, conditions, values, 0, 2000).rows]
        marks = ", ".join("?" * len(ids))
        conditions, values = [f"trace.id IN ({marks})"], list(ids)
    source = "trace"
    if filters.sort == "newest":
        order = "trace.id DESC"
        if after:
            conditions.append("trace.id < ?")
            values.append(after)
        if filters.labels:  # the order of the label's own index is that of the list
            source = "label AS first CROSS JOIN trace ON trace.id = first.trace"
            conditions += ["first.name = ?", "first.value = ?"]
            values += _rarest(index, filters)
            order = "first.trace DESC"
        offset = 0
    else:
        field = "duration_ns" if filters.sort == "slowest" else "tokens"
        order, offset = f"trace.{field} DESC, trace.id DESC", after
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    rows = index.execute(
        f"SELECT {_COLUMNS} FROM {source} {_SESSION} {where} ORDER BY {order} LIMIT ? OFFSET ?",  # noqa: S608
        (*values, ROWS + 1, offset),
    ).fetchall()
    more = None
    if len(rows) > ROWS:
        more = rows[ROWS - 1]["id"] if filters.sort == "newest" else offset + ROWS
    return Listing([dict(row) for row in rows[:ROWS]], more)


def list_sessions(index: sqlite3.Connection, filters: Filters, after: int) -> Listing:
    """List sessions, the one with the newest span first.

    Args:
        index: The index.
        filters: Which; a session is one of them if a trace of it is.
        after: The ``updated`` of the last session of the page before; 0 for the first page.
    """
    conditions, values = ["session.updated < ?"], [after or 1 << 62]
    within, of_traces = _conditions(filters)
    if filters.search:
        found = _searched(index, filters, within, of_traces, 0, 1000)
        ids = list(dict.fromkeys(row["session"] for row in found.rows if row["session"]))
        conditions.append(f"session.id IN ({', '.join('?' * len(ids))})")
        values += ids
    elif within:
        conditions.append(
            "EXISTS (SELECT 1 FROM trace WHERE trace.session = session.id "  # noqa: S608
            f"AND {' AND '.join(within)})"
        )
        values += of_traces
    rows = index.execute(
        f"SELECT * FROM session WHERE {' AND '.join(conditions)} "  # noqa: S608
        "ORDER BY session.updated DESC LIMIT ?",
        (*values, ROWS + 1),
    ).fetchall()
    more = rows[ROWS - 1]["updated"] if len(rows) > ROWS else None
    return Listing([dict(row) for row in rows[:ROWS]], more)


_COLUMNS: Final = "trace.*, session.session_id, session.customer_id"
_SESSION: Final = "LEFT JOIN session ON session.id = trace.session"


def _conditions(filters: Filters) -> tuple[list[str], list[Any]]:
    conditions: list[str] = []
    values: list[Any] = []
    for name, value in filters.labels:
        conditions.append(
            "EXISTS (SELECT 1 FROM label WHERE label.name = ? AND label.value = ? "
            "AND label.trace = trace.id)"
        )
        values += [name, value]
    window = filters.window(time.time_ns())
    if window is not None:
        conditions.append("trace.id IN (SELECT id FROM trace WHERE start_ns >= ? AND start_ns < ?)")
        values += window
    if filters.has_error:
        conditions.append("trace.errors > 0")
    if filters.slower_ms:
        conditions.append("trace.duration_ns > ?")
        values.append(int(filters.slower_ms * 1e6))
    if filters.tokens_min:
        conditions.append("trace.tokens >= ?")
        values.append(filters.tokens_min)
    return conditions, values


def _rarest(index: sqlite3.Connection, filters: Filters) -> tuple[str, str]:
    query = "SELECT traces FROM label_count WHERE name = ? AND value = ?"

    def count(label: tuple[str, str]) -> int:
        row = index.execute(query, label).fetchone()
        return row[0] if row else 0

    return min(filters.labels, key=count)


def _searched(
    index: sqlite3.Connection,
    filters: Filters,
    conditions: list[str],
    values: list[Any],
    before: int,
    rows_max: int = ROWS,
) -> Listing:
    """Go through the spans whose text matches, newest first, as long as there is time."""
    give_up = time.monotonic() + _SEARCH_S
    found: dict[int, dict[str, Any]] = {}
    at = before or 1 << 62
    while True:
        ids = _matching(index, filters.search, at)
        if not ids:
            return Listing(list(found.values()), None)
        where = f"AND {' AND '.join(conditions)}" if conditions else ""
        rows = index.execute(
            f"SELECT span.id AS of_span, {_COLUMNS} FROM span "  # noqa: S608
            f"JOIN trace ON trace.id = span.trace {_SESSION} "
            f"WHERE span.id IN ({', '.join(map(str, ids))}) {where} ORDER BY span.id DESC",
            values,
        ).fetchall()
        shown = _found_above(index, filters.search, {row["id"] for row in rows}, before)
        for row in rows:
            if row["id"] not in found and row["id"] not in shown:
                if len(found) == rows_max:
                    return Listing(list(found.values()), at)
                found[row["id"]] = dict(row)
            at = row["of_span"]
        at = min(at, ids[-1])
        if time.monotonic() > give_up:
            return Listing(list(found.values()), at, is_cut=True)


def _found_above(index: sqlite3.Connection, search: str, traces: set[int], before: int) -> set[int]:
    """Give those of ``traces`` that have a matching span on an earlier page, from ``before`` on."""
    if not before or not traces:
        return set()
    rows = index.execute(
        f"SELECT id, trace FROM span WHERE trace IN ({', '.join(map(str, traces))}) "  # noqa: S608
        "AND id >= ? LIMIT ?",
        (before, _ABOVE_MAX),
    )
    spans: dict[int, int] = dict(rows.fetchall())
    if not spans:
        return set()
    among = f"AND rowid IN ({', '.join(map(str, spans))})"
    found = _matching(index, search, max(spans) + 1, min(spans), among)
    return {spans[span_id] for span_id in found}


def _matching(
    index: sqlite3.Connection, search: str, before: int, since: int = 0, among: str = ""
) -> list[int]:
    """Give the newest spans from ``since`` to ``before`` whose text matches."""
    match = match_of(search)
    if not match:
        return []
    made = index.execute("SELECT sql FROM sqlite_master WHERE name = 'text'").fetchone()[0]
    if made.startswith("CREATE VIRTUAL"):
        values: list[Any] = [match]
        condition = "text MATCH ?"
    else:  # SQLite was built without FTS5
        pattern = search.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        condition = "rowid > (SELECT max(rowid) FROM text) - ? AND content LIKE ? ESCAPE '\\'"
        values = [_SCAN_TEXTS_MAX, f"%{pattern}%"]
    rows = index.execute(
        f"SELECT rowid FROM text WHERE {condition} AND rowid < ? AND rowid >= ? {among} "  # noqa: S608
        "ORDER BY rowid DESC LIMIT ?",
        (*values, before, since, _SCAN_STEP),
    )
    return [row[0] for row in rows]
