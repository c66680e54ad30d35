"""The snapshot's database, as it is read: one SQLite file, ``cache.db``, in the snapshot's directory.

It is written through diskcache by one process, the flusher (``store``, ``publish``), and read by workers
with the standard library (``reader``). The file, its side files, its schema and its rows are data from
outside: each is looked at before it is believed.

Table ``Cache``, as diskcache lays it out; the columns that we use:

| column | we write | a reader asks for |
| --- | --- | --- |
| key | text: ``e:<hash>``, ``s:<hash>``, ``m:<generation, 20 digits>`` | that text |
| raw | 1 | 1 |
| mode | 1: the value is in the row, as it is | 1 |
| filename | null: never a file beside the database | - |
| value | the bytes | a blob, not longer than its kind may be |

The keys are of an entry, a shard, a manifest. The current manifest is that of the highest generation.
Rollback journal, never WAL: a WAL reader has to create a file, which is impossible on a full disk. So a
``-wal`` or ``-shm`` beside the database was not made by us, and the database is not opened. Opened as
``mode=rw``: that never creates it, and can roll back what a killed publisher left, which ``ro`` cannot.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from fallom._core.digest import sha256
from fallom._snapshot.entries import ENTRY_BYTES_MAX
from fallom._snapshot.manifest import MANIFEST_BYTES_MAX
from fallom._snapshot.shards import SHARD_BYTES_MAX

if TYPE_CHECKING:
    import sqlite3

StrPath: TypeAlias = "str | os.PathLike[str]"  # a worker does not load ``pathlib``

__all__ = [
    "DATABASE_NAME",
    "SIDE_FILES",
    "DatabaseBrokenError",
    "DatabaseError",
    "DatabaseMissingError",
    "Rows",
    "StrPath",
    "entry_key",
    "look_at",
    "manifest_key",
    "reading",
    "shard_key",
    "translated",
]

DATABASE_NAME = "cache.db"
SIDE_FILES = ("-journal", "-wal", "-shm")

# SHA-256 of what diskcache 5.6.3 creates: its table Cache, and its whole schema. A trigger, view or
# column that it did not make could run SQL of somebody else's within our statements.
_TABLE_SHA256 = "91cc7608cfaf5665b530d44e21a064ac8a58764d781c4fbe0c7e132de0b0b0ff"
_SCHEMA_SHA256 = "178201e31c634b6beee69a6d229040c7c0f8482c77288d9f8cd320e0a97e1ec1"
_SETTINGS = (  # a row of another name would become an attribute of diskcache's cache, or a pragma
    "count size hits misses statistics tag_index eviction_policy size_limit cull_limit "
    "sqlite_auto_vacuum sqlite_cache_size sqlite_journal_mode sqlite_mmap_size sqlite_synchronous "
    "disk_min_file_size disk_pickle_protocol"
).split()

# How SQLite words what may pass by itself. Whatever else it says of a database means that it is broken.
_PASSING = (
    "locked",
    "busy",
    "disk i/o error",
    "is full",
    "unable to open",
    "readonly",
    "interrupted",
    "out of memory",
)

_TURN_S = 0.001

_SELECT = (
    "SELECT value FROM Cache WHERE key = ? AND raw = 1 AND mode = 1"
    " AND typeof(value) = 'blob' AND length(value) <= ?"
)
_SELECT_MANIFESTS = (
    "SELECT key, value FROM Cache WHERE key >= 'm:' AND key < 'm;' AND raw = 1 AND mode = 1"
    " AND typeof(value) = 'blob' AND length(value) <= ? ORDER BY key DESC LIMIT ?"
)
_SELECT_HASHES = "SELECT key FROM Cache WHERE key >= ? AND key < ? AND raw = 1"
_SELECT_FOREIGN = (
    "SELECT count(*) FROM Cache WHERE raw IS NOT 1 OR mode IS NOT 1 OR filename IS NOT NULL"
    " OR expire_time IS NOT NULL OR typeof(key) <> 'text' OR typeof(value) <> 'blob'"
)


class DatabaseError(Exception):
    """The database cannot be read now; what is held stays good, and it may work a second later."""


class DatabaseMissingError(DatabaseError):
    """There is no database: nothing was published, or the directory was removed."""


class DatabaseBrokenError(DatabaseError):
    """This is no database of ours, or no longer one; the flusher sets it aside and makes another."""


def entry_key(entry_hash: str) -> str:
    """Give the key of an entry's row."""
    return f"e:{entry_hash}"


def shard_key(shard_hash: str) -> str:
    """Give the key of a shard's row."""
    return f"s:{shard_hash}"


def manifest_key(generation: int) -> str:
    """Give the key of a manifest's row; texts that sort as the generations do."""
    return f"m:{generation:020d}"


def look_at(path: StrPath) -> None:
    """Look at the database and its side files, without opening or following anything.

    Raises:
        DatabaseMissingError: There is none.
        DatabaseBrokenError: One of them is not a regular file of ours with one name.
        DatabaseError: The system does not say.
    """
    for suffix in ("", *SIDE_FILES):
        try:
            found = os.lstat(f"{path}{suffix}")
        except FileNotFoundError:
            if not suffix:
                raise DatabaseMissingError(f"{path} does not exist") from None
            continue
        except OSError as error:
            raise DatabaseError(f"{path}{suffix}: {error.strerror or error}") from None
        problem = _problem(found, suffix)
        if problem:
            raise DatabaseBrokenError(f"{path}{suffix} {problem}")


def _problem(found: os.stat_result, suffix: str) -> str:
    if suffix in ("-wal", "-shm"):
        return "exists, and a snapshot has no such file"
    if not stat.S_ISREG(found.st_mode):
        return "is not a regular file"
    if found.st_uid != os.geteuid():
        return "belongs to another user"
    if found.st_nlink > 1:  # 0: it was unlinked just now, as a journal is at the end of a commit
        return "has more than one name"
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o022 or mode & 0o600 != 0o600:
        return f"may be written to by others, or not by us (mode {mode:04o})"
    return "is empty" if found.st_size == 0 and not suffix else ""


@contextmanager
def reading(path: StrPath, busy_timeout_s: float) -> Iterator[Rows]:
    """Open the database, begin one read transaction, and close it again.

    All reads within see one state. Nothing of SQLite may be open across a fork: call it where forks are
    held off. Blocks for at most ``busy_timeout_s``, while a publisher commits.

    Raises:
        DatabaseError: It cannot be read; also from within the block.
    """
    from urllib.parse import quote  # a worker loads what is needed here at its first read

    try:
        import sqlite3
    except ImportError as error:  # a Python that was built without it
        raise DatabaseError(f"this Python has no sqlite3: {error}") from None

    look_at(path)
    connection: sqlite3.Connection | None = None
    try:
        # Two slashes and an absolute path, so that no part of the path is read as a host.
        uri = f"file://{quote(os.fsencode(os.path.abspath(path)))}?mode=rw"
        connection = sqlite3.connect(
            uri, uri=True, timeout=0, isolation_level=None, cached_statements=0
        )
        connection.text_factory = bytes  # text need not be text
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA mmap_size = 0")  # a map of a file that shrinks is SIGBUS
        connection.execute("BEGIN")
        _wait_for_turn(connection, busy_timeout_s)
        yield Rows(connection)
    except sqlite3.Error as error:
        raise translated(path, error) from None
    finally:
        if connection is not None:
            connection.close()


def translated(path: StrPath, error: sqlite3.Error) -> DatabaseError:
    """Tell what may pass by itself from what means that the database is broken."""
    text = str(error)
    if any(words in text.lower() for words in _PASSING):
        return DatabaseError(f"{path}: {text}")
    return DatabaseBrokenError(f"{path}: {text}")


def _wait_for_turn(connection: sqlite3.Connection, busy_timeout_s: float) -> None:
    """Take the shared lock by the first SELECT; after that nothing has to be waited for.

    SQLite's own busy handler sleeps longer and longer, up to 100 ms, and so misses the gaps that a
    publisher leaves between two short commits.
    """
    import sqlite3  # loaded already

    give_up_s = time.monotonic() + busy_timeout_s
    while True:
        try:
            return _check_table(connection)
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() >= give_up_s:
                raise
            time.sleep(_TURN_S)


def _check_table(connection: sqlite3.Connection) -> None:
    found = connection.execute(
        "SELECT type, sql FROM sqlite_master WHERE name = 'Cache'"
    ).fetchall()
    if len(found) != 1 or _sha256(found) != _TABLE_SHA256:
        raise DatabaseBrokenError("the database has not the table that a snapshot has")


class Rows:
    """One read transaction."""

    __slots__ = ("_connection",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Read by an open connection; ``reading`` closes it."""
        self._connection = connection

    def entry(self, entry_hash: str) -> bytes | None:
        """Give an entry's bytes, unchecked; None if there is no such row."""
        return self._value(entry_key(entry_hash), ENTRY_BYTES_MAX)

    def shard(self, shard_hash: str) -> bytes | None:
        """Give a shard's bytes, unchecked; None if there is no such row."""
        return self._value(shard_key(shard_hash), SHARD_BYTES_MAX)

    def manifest(self) -> bytes | None:
        """Give the current manifest's bytes, unchecked; None if nothing was published."""
        found = self.manifests(1)
        return found[0][1] if found else None

    def manifests(self, count: int) -> list[tuple[str, bytes]]:
        """Give key and bytes of the newest manifests, newest first."""
        rows = self._connection.execute(_SELECT_MANIFESTS, (MANIFEST_BYTES_MAX, count))
        return [(key.decode("utf-8", "replace"), value) for key, value in rows]

    def manifest_keys(self) -> list[str]:
        """Give the keys of all manifests, newest first."""
        rows = self._connection.execute(
            "SELECT key FROM Cache WHERE key >= 'm:' AND key < 'm;' ORDER BY key DESC"
        )
        return [key.decode("utf-8", "replace") for (key,) in rows]

    def entry_hashes(self) -> set[str]:
        """Give the hashes of all entries that are stored."""
        return self._hashes("e:", "e;")

    def shard_hashes(self) -> set[str]:
        """Give the hashes of all shards that are stored."""
        return self._hashes("s:", "s;")

    def check(self) -> None:
        """Look whether diskcache may be let at this database: schema, settings, rows, pages.

        Raises:
            DatabaseBrokenError: It may not.
        """
        execute = self._connection.execute
        schema = execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name")
        if _sha256(schema.fetchall()) != _SCHEMA_SHA256:
            raise DatabaseBrokenError("the database has not the schema that diskcache gives it")
        known = ",".join("?" * len(_SETTINGS))
        foreign = f"SELECT count(*) FROM Settings WHERE key NOT IN ({known})"  # noqa: S608 - marks
        if execute(foreign, _SETTINGS).fetchone()[0]:
            raise DatabaseBrokenError("the database has settings that diskcache does not know")
        if execute("PRAGMA journal_mode").fetchone()[0] != b"delete":
            raise DatabaseBrokenError("the database is not in rollback mode")
        if execute(_SELECT_FOREIGN).fetchone()[0]:
            raise DatabaseBrokenError("the database has rows that are not plain bytes")
        if execute("PRAGMA quick_check(1)").fetchone()[0] != b"ok":
            raise DatabaseBrokenError("the database is damaged")

    def _hashes(self, first: str, beyond: str) -> set[str]:
        rows = self._connection.execute(_SELECT_HASHES, (first, beyond))
        return {key[2:].decode("utf-8", "replace") for (key,) in rows}

    def _value(self, key: str, bytes_max: int) -> bytes | None:
        found = self._connection.execute(_SELECT, (key, bytes_max)).fetchone()
        return None if found is None else found[0]


def _sha256(rows: list[tuple[bytes | None, ...]]) -> str:
    return sha256(repr(rows).encode()).hexdigest()
