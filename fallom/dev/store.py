"""``Store``: what the local cloud received, in one SQLite file.

Who writes: one thread of one process, one transaction a request, so what was committed is whole.
Who reads: any thread, through a connection of its own. What may go wrong: a file that is not ours
is refused and left untouched; a process killed with -9 loses nothing that was committed (WAL with
``synchronous=NORMAL``; a power cut may cost the last transactions, which a development tool can
bear).

Every table keeps every row that came in: a span that was sent twice is two rows. ``stats`` counts
rows (received) and distinct identities (distinct), so that a test can tell loss from repetition.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from fallom._core.errors import ConfigurationError

__all__ = ["ExposureRow", "FetchRow", "MetricsRow", "SpanRow", "Store"]

_APPLICATION_ID: Final = 0x464C4D31  # "FLM1": how we know a file of ours from somebody else's
_LAYOUT: Final = 1
_BUSY_TIMEOUT_S: Final = 30.0  # two clouds on one file wait for each other's short transactions

_SCHEMA: Final = """
CREATE TABLE spans (
    id INTEGER PRIMARY KEY, trace_id TEXT NOT NULL, span_id TEXT NOT NULL,
    parent_span_id TEXT NOT NULL, name TEXT NOT NULL, kind INTEGER NOT NULL,
    start_unix_ns INTEGER NOT NULL, end_unix_ns INTEGER NOT NULL,
    status INTEGER NOT NULL, status_message TEXT NOT NULL,
    session_id TEXT, config_key TEXT,
    resource TEXT NOT NULL, attributes TEXT NOT NULL, events TEXT NOT NULL,
    received_unix_ns INTEGER NOT NULL, request_id TEXT NOT NULL
);
CREATE INDEX spans_identity ON spans (trace_id, span_id);
CREATE INDEX spans_metrics ON spans (trace_id, span_id) WHERE name = 'fallom.metrics';
CREATE TABLE exposures (
    id INTEGER PRIMARY KEY, config_key TEXT NOT NULL, config_version INTEGER NOT NULL,
    session_id TEXT NOT NULL, assigned_model TEXT NOT NULL,
    received_unix_ns INTEGER NOT NULL, request_id TEXT NOT NULL
);
CREATE INDEX exposures_identity ON exposures (config_key, config_version, session_id);
CREATE TABLE metrics (
    id INTEGER PRIMARY KEY, config_key TEXT NOT NULL, session_id TEXT NOT NULL,
    data TEXT NOT NULL, received_unix_ns INTEGER NOT NULL, request_id TEXT NOT NULL
);
CREATE TABLE fetches (
    id INTEGER PRIMARY KEY, method TEXT NOT NULL, path TEXT NOT NULL, status INTEGER NOT NULL,
    received_unix_ns INTEGER NOT NULL, duration_ns INTEGER NOT NULL,
    user_agent TEXT NOT NULL, authorization_hash TEXT NOT NULL,
    request_bytes INTEGER NOT NULL, request_id TEXT NOT NULL
);
CREATE INDEX fetches_path ON fetches (path);
"""

_TABLES: Final = ("spans", "exposures", "metrics", "fetches")

_STATS: Final = """
SELECT
    (SELECT count(*) FROM spans),
    (SELECT count(*) FROM (SELECT DISTINCT trace_id, span_id FROM spans)),
    (SELECT count(*) FROM spans WHERE name = 'fallom.metrics'),
    (SELECT count(*) FROM (
        SELECT DISTINCT trace_id, span_id FROM spans WHERE name = 'fallom.metrics')),
    (SELECT count(*) FROM exposures),
    (SELECT count(*) FROM (
        SELECT DISTINCT config_key, config_version, session_id FROM exposures)),
    (SELECT count(*) FROM metrics),
    (SELECT count(*) FROM (SELECT DISTINCT config_key, session_id, data FROM metrics))
"""
_STATS_NAMES: Final = ("spans", "metric_spans", "exposures", "metrics")


class SpanRow(NamedTuple):
    """A span as stored; ids in hex, JSON as text. Field names are those of the table."""

    trace_id: str
    span_id: str
    parent_span_id: str
    name: str
    kind: int
    start_unix_ns: int
    end_unix_ns: int
    status: int
    status_message: str
    session_id: str | None
    config_key: str | None
    resource: str
    attributes: str
    events: str
    received_unix_ns: int
    request_id: str


class ExposureRow(NamedTuple):
    """One call of ``POST /sessions``."""

    config_key: str
    config_version: int
    session_id: str
    assigned_model: str
    received_unix_ns: int
    request_id: str


class MetricsRow(NamedTuple):
    """One call of ``POST /spans``; ``data`` is JSON text with sorted keys."""

    config_key: str
    session_id: str
    data: str
    received_unix_ns: int
    request_id: str


class FetchRow(NamedTuple):
    """One answered request; status 0 means that the connection was cut before an answer."""

    method: str
    path: str
    status: int
    received_unix_ns: int
    duration_ns: int
    user_agent: str
    authorization_hash: str  # 16 hex digits of SHA-256; empty when the header did not come
    request_bytes: int
    request_id: str


_Row = SpanRow | ExposureRow | MetricsRow | FetchRow
_TABLE_OF: Final[dict[type, tuple[str, Sequence[str]]]] = {
    SpanRow: ("spans", SpanRow._fields),
    ExposureRow: ("exposures", ExposureRow._fields),
    MetricsRow: ("metrics", MetricsRow._fields),
    FetchRow: ("fetches", FetchRow._fields),
}


class Store:
    """One SQLite file. Methods block for the time of one statement or transaction.

    Not safe for two threads at once: whoever shares one gives each thread its own ``Store``.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, and make it (0600) when it is not there.

        Raises:
            ConfigurationError: The path cannot be used or holds something that is not ours.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with contextlib.suppress(FileExistsError):  # side files get the mode of this one
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare()
            except sqlite3.Error:
                self._connection.close()
                raise
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(
                f"--db {path}: {error}; expected a file that may be written, either new or made by "
                "`fallom dev`. Give another path, or remove the file to start afresh.",
                "db",
            ) from None

    def _prepare(self) -> None:
        run = self._connection.execute
        with self._transaction(immediate=True):
            (application_id,) = run("PRAGMA application_id").fetchone()
            (layout,) = run("PRAGMA user_version").fetchone()
            (tables,) = run("SELECT count(*) FROM sqlite_master").fetchone()
            if tables and application_id != _APPLICATION_ID:
                raise sqlite3.DatabaseError("the database belongs to another program")
            if layout > _LAYOUT:
                raise sqlite3.DatabaseError("a newer version of fallom made this database")
            if not tables:
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    run(statement)
                run(f"PRAGMA application_id = {_APPLICATION_ID}")
                run(f"PRAGMA user_version = {_LAYOUT}")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")

    @contextlib.contextmanager
    def _transaction(self, *, immediate: bool = False) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE" if immediate else "BEGIN")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def add(self, rows: Iterable[_Row]) -> None:
        """Store rows of any kinds in one transaction; all of them or none."""
        by_kind: dict[type, list[_Row]] = {}
        for row in rows:
            by_kind.setdefault(type(row), []).append(row)
        with self._transaction(immediate=True):
            for kind, of_kind in by_kind.items():
                table, fields = _TABLE_OF[kind]
                marks = ", ".join("?" * len(fields))
                self._connection.executemany(
                    f"INSERT INTO {table} ({', '.join(fields)}) VALUES ({marks})",  # noqa: S608
                    of_kind,
                )

    def clear(self) -> None:
        """Forget everything that was received."""
        with self._transaction(immediate=True):
            for table in _TABLES:
                self._connection.execute(f"DELETE FROM {table}")  # noqa: S608

    def stats(self) -> dict[str, Any]:
        """Count what came: rows and distinct identities of each kind, and requests by path."""
        with self._transaction():  # one picture, however many rows come in meanwhile
            counts = self._connection.execute(_STATS).fetchone()
            fetches = self._connection.execute(
                "SELECT path, count(*) FROM fetches GROUP BY path ORDER BY path"
            ).fetchall()
        result: dict[str, Any] = {
            name: {"received": counts[2 * i], "distinct": counts[2 * i + 1]}
            for i, name in enumerate(_STATS_NAMES)
        }
        result["fetches"] = dict(fetches)
        return result

    def rows(self, table: str, after: int, limit: int) -> list[dict[str, Any]]:
        """Give up to ``limit`` rows with an id above ``after``, oldest first."""
        assert table in _TABLES, table
        cursor = self._connection.execute(
            f"SELECT * FROM {table} WHERE id > ? ORDER BY id LIMIT ?",  # noqa: S608
            (after, limit),
        )
        return _named(cursor)

    def rows_by_id(self, ids: Sequence[int]) -> list[dict[str, Any]]:
        """Give these rows of ``spans``, as far as they are still there."""
        marks = ", ".join("?" * len(ids))
        cursor = self._connection.execute(
            f"SELECT * FROM spans WHERE id IN ({marks}) ORDER BY id",  # noqa: S608
            list(ids),
        )
        return _named(cursor)

    def last_span(self) -> int:
        """Give the id of the newest span; 0 when there is none."""
        (last,) = self._connection.execute("SELECT coalesce(max(id), 0) FROM spans").fetchone()
        return int(last)

    def fetches_of(self, path: str, limit: int) -> list[dict[str, Any]]:
        """Give the last requests for a path, newest first."""
        cursor = self._connection.execute(
            "SELECT status, received_unix_ns, user_agent FROM fetches WHERE path = ? "
            "ORDER BY id DESC LIMIT ?",
            (path, limit),
        )
        return _named(cursor)

    def keep_newest(self, spans_max: int, indexed: int) -> int:
        """Delete all but the newest spans; give the id of the oldest one kept.

        Ids are never used again while a newer row is there, so what is deleted is not seen twice. The span
        ``indexed``, and what came after it, stays: the index goes on from there.
        """
        oldest = max(1, min(indexed, self.last_span() - spans_max + 1))
        with self._transaction(immediate=True):
            self._connection.execute("DELETE FROM spans WHERE id < ?", (oldest,))
        return oldest

    def keep_newest_fetches(self, fetches_max: int) -> None:
        """Delete all but the newest requests."""
        with self._transaction(immediate=True):
            self._connection.execute(
                "DELETE FROM fetches WHERE id <= (SELECT coalesce(max(id), 0) FROM fetches) - ?",
                (fetches_max,),
            )

    def close(self) -> None:
        """Close the connection; the file stays."""
        self._connection.close()


def _named(cursor: sqlite3.Cursor) -> list[dict[str, Any]]:
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]
