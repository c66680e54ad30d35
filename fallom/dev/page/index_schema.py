"""The page's index as a database: its tables, how it is opened, and when it is thrown away.

The index is derived: whatever is wrong with the file (another layout, damage, a store that was
replaced), it is emptied and filled again from the store.

| table | one row for each | for |
| --- | --- | --- |
| span | span, however often it came | the waterfall, the way from text to trace |
| trace, session | trace, session, with sums | the lists |
| label, label_count | value of a filter in a trace, and how many traces have it | the filters |
| text | span | the search |
| assignment, usage, metric | session in an experiment | the experiments |
| worker, worker_config | process, and the config version in its spans | who has switched |
| served | version of a config or test that was served | the weights of the past |
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Final

__all__ = ["INDEX_TABLES", "open_index"]

_APPLICATION_ID: Final = 0x464C4D50  # "FLMP"
_LAYOUT: Final = 2
_BUSY_TIMEOUT_S: Final = 10.0
INDEX_TABLES: Final = (
    "session trace span label label_count assignment usage metric worker worker_config served text"
).split()

_SCHEMA: Final = """
CREATE TABLE position (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    span INTEGER NOT NULL, span_mark TEXT NOT NULL,
    exposure INTEGER NOT NULL, metric INTEGER NOT NULL
);
INSERT INTO position VALUES (1, 0, '', 0, 0);
CREATE TABLE session (
    id INTEGER PRIMARY KEY, session_id TEXT NOT NULL UNIQUE,
    config_key TEXT NOT NULL, customer_id TEXT NOT NULL,
    first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL, updated INTEGER NOT NULL,
    traces INTEGER NOT NULL, calls INTEGER NOT NULL, errors INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, question TEXT NOT NULL
);
CREATE INDEX session_updated ON session (updated);
CREATE TABLE trace (
    id INTEGER PRIMARY KEY, trace_id TEXT NOT NULL UNIQUE, session INTEGER,
    config_key TEXT NOT NULL, name TEXT NOT NULL, root INTEGER NOT NULL,
    start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL, duration_ns INTEGER NOT NULL,
    spans INTEGER NOT NULL, calls INTEGER NOT NULL, tools INTEGER NOT NULL,
    errors INTEGER NOT NULL, retries INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, tokens INTEGER NOT NULL,
    first_token_ns INTEGER NOT NULL, models TEXT NOT NULL,
    question TEXT NOT NULL, answer TEXT NOT NULL
);
CREATE INDEX trace_session ON trace (session);
CREATE INDEX trace_start ON trace (start_ns);
CREATE INDEX trace_duration ON trace (duration_ns);
CREATE INDEX trace_tokens ON trace (tokens);
CREATE INDEX trace_errors ON trace (id) WHERE errors > 0;
CREATE TABLE span (
    id INTEGER PRIMARY KEY, trace INTEGER NOT NULL, span_id TEXT NOT NULL,
    parent TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL,
    start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL, is_error INTEGER NOT NULL,
    model TEXT NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    first_token_ns INTEGER NOT NULL, times INTEGER NOT NULL
);
CREATE UNIQUE INDEX span_identity ON span (trace, span_id);
CREATE TABLE label (
    name TEXT NOT NULL, value TEXT NOT NULL, trace INTEGER NOT NULL,
    PRIMARY KEY (name, value, trace)
) WITHOUT ROWID;
CREATE INDEX label_trace ON label (trace);
CREATE TABLE label_count (
    name TEXT NOT NULL, value TEXT NOT NULL, traces INTEGER NOT NULL, PRIMARY KEY (name, value)
) WITHOUT ROWID;
CREATE INDEX label_common ON label_count (name, traces);
CREATE TABLE assignment (
    kind TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, session_id TEXT NOT NULL,
    model TEXT, variant INTEGER, reason TEXT NOT NULL, first_ns INTEGER NOT NULL,
    PRIMARY KEY (kind, key, version, session_id)
) WITHOUT ROWID;
CREATE INDEX assignment_session ON assignment (session_id);
CREATE TABLE usage (
    kind TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, session_id TEXT NOT NULL,
    calls INTEGER NOT NULL, errors INTEGER NOT NULL, duration_ns INTEGER NOT NULL,
    first_token_ns INTEGER NOT NULL, streams INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    PRIMARY KEY (kind, key, version, session_id)
) WITHOUT ROWID;
CREATE TABLE metric (
    session_id TEXT NOT NULL, field TEXT NOT NULL, config_key TEXT NOT NULL,
    value REAL, is_flag INTEGER NOT NULL, shown TEXT NOT NULL, at_ns INTEGER NOT NULL,
    PRIMARY KEY (session_id, field, config_key)
) WITHOUT ROWID;
CREATE TABLE worker (
    id INTEGER PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, service TEXT NOT NULL,
    first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL, spans INTEGER NOT NULL,
    UNIQUE (host, pid)
);
CREATE TABLE worker_config (
    worker INTEGER NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL,
    first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL, PRIMARY KEY (key, worker, version)
) WITHOUT ROWID;
CREATE TABLE served (
    kind TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL,
    content TEXT NOT NULL, first_ns INTEGER NOT NULL, PRIMARY KEY (kind, key, version)
) WITHOUT ROWID;
"""
_WITH_FTS: Final = "CREATE VIRTUAL TABLE text USING fts5(content, tokenize='unicode61')"
_WITHOUT_FTS: Final = "CREATE TABLE text (content TEXT NOT NULL)"


def open_index(path: Path, *, is_writer: bool) -> sqlite3.Connection:
    """Open the index at ``path``; whoever writes it also makes it, mode 0600.

    Raises:
        sqlite3.Error: It cannot be opened; for a reader also when it is not made yet.
    """
    if not is_writer:
        reader = _connected(path)
        reader.execute("PRAGMA query_only = ON")
        return reader
    try:
        return _made(path)
    except sqlite3.OperationalError:  # locked, or the disk refuses: nothing is wrong with the file
        raise
    except sqlite3.DatabaseError:  # damaged, of another program, of another layout
        for ending in ("", "-wal", "-shm"):
            Path(f"{path}{ending}").unlink(missing_ok=True)
        return _made(path)


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",  # never made by whoever only reads
        uri=True,
        timeout=_BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.row_factory = sqlite3.Row
    try:
        connection.execute("PRAGMA cache_size = -32768")
    except sqlite3.Error:  # the first look at the file
        connection.close()
        raise
    return connection


def _made(path: Path) -> sqlite3.Connection:
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    connection = _connected(path)
    try:
        run = connection.execute
        application_id = run("PRAGMA application_id").fetchone()[0]
        layout = run("PRAGMA user_version").fetchone()[0]
        if (application_id, layout) == (_APPLICATION_ID, _LAYOUT):
            run("SELECT span FROM position").fetchone()
        elif run("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise sqlite3.DatabaseError("not this layout")
        else:
            _create(connection)
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = OFF")  # derived: after a power cut it is made anew
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _create(connection: sqlite3.Connection) -> None:
    run = connection.execute
    run("BEGIN IMMEDIATE")
    for statement in filter(str.strip, _SCHEMA.split(";")):
        run(statement)
    try:
        run(_WITH_FTS)
    except sqlite3.OperationalError:  # built without it: the newest texts are scanned instead
        run(_WITHOUT_FTS)
    run(f"PRAGMA application_id = {_APPLICATION_ID}")
    run(f"PRAGMA user_version = {_LAYOUT}")
    run("COMMIT")
