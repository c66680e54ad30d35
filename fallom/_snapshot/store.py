"""The one place that loads diskcache: bytes in rows, and nothing else.

Stock diskcache unpickles what a row says is a pickle (CVE-2025-69872; its JSONDisk does too) and reads
and deletes the files that a row names. ``RowDisk`` does neither: it calls nothing of its base class.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import diskcache

from fallom._snapshot.database import DatabaseBrokenError, DatabaseError, translated

__all__ = ["COMMIT_TIMEOUT_S", "RowDisk", "opened"]

COMMIT_TIMEOUT_S = (
    5.0  # readers hold the file for milliseconds; guess: one that is longer is stopped
)

_RAW = 1  # diskcache's mode for "the value is in the row, as it is"

# Each is also written to the database's settings, in whose absence diskcache's defaults would hold.
_SETTINGS = {
    "statistics": 0,  # counting reads would make them writes
    "tag_index": 0,
    "eviction_policy": "none",  # the publisher removes what no manifest names, and nothing else
    "size_limit": 1 << 62,
    "cull_limit": 0,
    "sqlite_auto_vacuum": 1,
    "sqlite_cache_size": 8192,
    "sqlite_journal_mode": "delete",  # WAL readers create a file: impossible on a full disk
    "sqlite_mmap_size": 0,  # a map of a file that shrinks is SIGBUS
    "sqlite_synchronous": 2,  # a rollback journal needs it to survive a power loss; publishes are rare
    "disk_min_file_size": 1 << 40,  # above any value: side files are read as misses when replaced
    "disk_pickle_protocol": 0,
}


class RowDisk(diskcache.Disk):  # type: ignore[misc]  # diskcache has no types
    """Text keys and bytes values, in the row, raw. Whatever else a row says is refused."""

    def put(self, key: Any) -> tuple[str, bool]:
        """Give the database's form of a key."""
        if type(key) is not str:
            _refuse(f"a key of type {type(key).__name__}")
        return key, True

    def get(self, key: Any, raw: Any) -> str:
        """Give the key of a row."""
        if not raw or type(key) is not str:
            _refuse("a key that is not raw text")
        return key

    def store(
        self, value: Any, read: Any, key: Any = diskcache.UNKNOWN
    ) -> tuple[int, int, None, memoryview]:
        """Give the columns of a value: size, mode, file name, value."""
        if read or type(value) is not bytes:
            _refuse(f"a value of type {type(value).__name__}")
        return 0, _RAW, None, sqlite3.Binary(value)

    def fetch(self, mode: Any, filename: Any, value: Any, read: Any) -> bytes:
        """Give the value of a row."""
        if mode != _RAW or filename is not None or read or type(value) is not bytes:
            _refuse(f"a row of mode {mode!r}")
        return value

    def filename(self, key: Any = None, value: Any = None) -> NoReturn:
        """Refuse to name a file beside the database."""
        _refuse("a value beside the database")

    def remove(self, file_path: Any) -> None:
        """Leave alone whatever file a row names; it was not made by us."""


@contextmanager
def opened(directory: str) -> Iterator[diskcache.Cache]:
    """Open diskcache on a directory whose database was looked at, or is new; close it at the end.

    Opening is some forty writing statements, 7 ms and more, and fails on a full disk: only for
    publishing.

    Raises:
        DatabaseError: It cannot be opened or written; also from within the block.
    """
    plain, fd = _unexpanded(directory)
    try:
        cache = diskcache.Cache(plain, timeout=COMMIT_TIMEOUT_S, disk=RowDisk, **_SETTINGS)
        try:
            yield cache
        finally:
            cache.close()  # rolls back what was not committed
    except sqlite3.Error as error:
        raise translated(directory, error) from None
    except diskcache.Timeout:
        raise DatabaseError(f"{directory}: locked for {COMMIT_TIMEOUT_S:g} s") from None
    finally:
        if fd >= 0:
            os.close(fd)


def _unexpanded(directory: str) -> tuple[str, int]:
    """Give a spelling of the path that diskcache's expansion of ``$NAME`` leaves alone."""
    if os.path.expandvars(directory) == directory:
        return directory, -1
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    return f"/dev/fd/{fd}", fd


def _refuse(found: str) -> NoReturn:
    raise DatabaseBrokenError(f"{found} was refused; expected text keys and bytes in the row")
