"""``forget_spans``: the index without spans whose rows in the store are gone."""

from __future__ import annotations

import sqlite3
from typing import Final

__all__ = ["forget_spans"]

_TOUCHED: Final = (
    "SELECT DISTINCT span.trace, trace.session FROM span JOIN trace ON trace.id = span.trace "
    "WHERE span.id < ?"
)
_FORGET: Final = (
    "DELETE FROM trace WHERE NOT EXISTS (SELECT 1 FROM span WHERE span.trace = trace.id)",
    "DELETE FROM label WHERE NOT EXISTS (SELECT 1 FROM trace WHERE trace.id = label.trace)",
    "DELETE FROM label_count",
    "INSERT INTO label_count SELECT name, value, count(*) FROM label GROUP BY name, value",
    "DELETE FROM session WHERE NOT EXISTS (SELECT 1 FROM trace WHERE trace.session = session.id)",
)
_RECOUNT_TRACE: Final = """
UPDATE trace SET
    (spans, calls, tools, errors, input_tokens, output_tokens, tokens, start_ns, duration_ns) = (
    SELECT count(*), sum(kind = 'llm'), sum(kind = 'tool'), sum(is_error), sum(input_tokens),
        sum(output_tokens), sum(input_tokens + output_tokens), min(start_ns),
        max(end_ns) - min(start_ns)
    FROM span WHERE span.trace = trace.id)
WHERE id = ?
"""
_RECOUNT_SESSION: Final = """
UPDATE session SET (traces, calls, errors, input_tokens, output_tokens, first_ns) = (
    SELECT count(*), sum(calls), sum(errors), sum(input_tokens), sum(output_tokens), min(start_ns)
    FROM trace WHERE trace.session = session.id)
WHERE id = ?
"""


def forget_spans(index: sqlite3.Connection, before: int) -> bool:
    """Drop them, traces and sessions that have none left, and count again what lost some.

    Args:
        index: The writer's connection, in a transaction.
        before: The first span that stays.

    Returns:
        Whether there were any.
    """
    touched = index.execute(_TOUCHED, (before,)).fetchall()
    if not index.execute("DELETE FROM span WHERE id < ?", (before,)).rowcount:
        return False
    index.execute("DELETE FROM text WHERE rowid < ?", (before,))
    for statement in _FORGET:
        index.execute(statement)
    index.executemany(_RECOUNT_TRACE, [(trace,) for trace, _ in touched])
    index.executemany(_RECOUNT_SESSION, {(session,) for _, session in touched})
    return True
