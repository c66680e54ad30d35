"""Reading: what workers know of the snapshot.

The fast path is one comparison, the page's generation with the one last read, and one dict lookup: no
lock, no system call. When the generation moved, one connection reads the new manifest and those entries
that changed among the ones this process uses, decodes them, and swaps one reference: a caller sees the
state of before or of after. An entry that was never used is read when it first is. Of a large section,
which is in shards, those are read that hold keys in use, and again when they changed.

Nothing is open between two calls, and a fork waits while a connection is (``held``). Whatever fails keeps
what is held and is tried again a second later, or as soon as the generation moves. No method raises.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from fallom._core.assignment import CompiledConfig, CompiledTest
from fallom._core.errors import PayloadError
from fallom._core.prompt import CompiledPrompt
from fallom._host.forks import ProcessLock
from fallom._snapshot.database import DATABASE_NAME, DatabaseError, Rows, StrPath, reading
from fallom._snapshot.entries import Compiled, Kind, decode_entry, hash_of
from fallom._snapshot.index import Index, Name, is_same_shard
from fallom._snapshot.manifest import Root, decode_root

if TYPE_CHECKING:
    from fallom._snapshot.bootstrap import Bootstrap
    from fallom._snapshot.history import History

__all__ = ["SnapshotInfo", "SnapshotReader"]

RETRY_S = 1.0  # after a failure that the generation does not tell the end of
BUSY_TIMEOUT_S = 0.05  # a commit takes milliseconds, and the caller has an answer without this read
BUSY_TIMEOUT_FIRST_S = 0.25  # where it has none; guess: longer would hurt more than a fallback does
TURN_TIMEOUT_S = 0.5  # to wait for another thread's read, where nothing is held

_CONFIG, _PROMPT, _AB_TEST = Kind


class SnapshotInfo(NamedTuple):
    """What is held, for people.

    Attributes:
        generation: Of the manifest that is held; 0 if there is none.
        published_unix_ns: When it was published.
        counts: How many keys there are of "config", "prompt", "ab_test".
        removed: Keys that the server no longer lists; they still serve.
        last_error: Why the last read failed; None if it did not.
    """

    generation: int
    published_unix_ns: int
    counts: dict[str, int]
    removed: tuple[str, ...]
    last_error: str | None

    def age_s(self, unix_ns: int) -> float | None:
        """Give the seconds since it was published; None if nothing was."""
        if not self.published_unix_ns:
            return None
        return max(0.0, (unix_ns - self.published_unix_ns) / 1e9)


class _Held:
    """One state; it only grows, by entries that are used for the first time."""

    __slots__ = ("hashes", "ready", "root", "seen")

    def __init__(self, seen: int, root: Root) -> None:
        self.seen = seen  # the page's generation, as of before the database was opened
        self.root = root
        # By (kind, key, version or None for the current one): what is compiled, and of which entry.
        self.ready: dict[Name, Any] = {}
        self.hashes: dict[Name, str] = {}

    def add(self, name: Name, entry_hash: str, compiled: Compiled) -> None:
        self.hashes[name] = entry_hash
        self.ready[name] = compiled


class SnapshotReader:
    """The snapshot of one process. Safe for threads and across forks."""

    def __init__(
        self,
        directory: Callable[[], StrPath | None],
        generation: Callable[[], int],
        held: Callable[[], AbstractContextManager[object]],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        busy_timeout_first_s: float = BUSY_TIMEOUT_FIRST_S,
    ) -> None:
        """Read nothing yet.

        Args:
            directory: Gives the snapshot's directory; None while there is no state directory.
            generation: Gives the page's generation; 0 if nothing was ever published.
            held: Gives a context within which no thread of this process can fork.
            monotonic: The clock, for retries.
            busy_timeout_s: How long a read waits for a commit.
            busy_timeout_first_s: The same, where nothing is held that could serve instead.
        """
        self._directory = directory
        self._generation = generation
        self._hold_forks = held
        self._monotonic = monotonic
        self._busy_timeout_s = busy_timeout_s
        self._busy_timeout_first_s = busy_timeout_first_s
        self._held = _Held(-1, Root())
        # The page's generation as of before what is held was read, or an earlier one.
        self.seen = -1
        self.bootstrap: Bootstrap = {}  # what serves for a kind of which nothing was published
        self._lock = ProcessLock(threading.Lock)
        self._retry_at_s = 0.0
        self._failed_generation = -1
        self._unreadable: dict[str, float] = {}  # hash -> when its row is looked at again
        self._index = Index()
        self._last_error: str | None = None

    def config(self, key: str, version: int | None = None) -> CompiledConfig | None:
        """Give a config; None if it is not known. Version None is the current one."""
        held = self._held
        if held.seen == self._generation():
            ready: CompiledConfig | None = held.ready.get((_CONFIG, key, version))
            if ready is not None:
                return ready
        found: CompiledConfig | None = self._find((_CONFIG, key, version))
        return found

    def prompt(self, key: str, version: int | None = None) -> CompiledPrompt | None:
        """Give a prompt; None if it is not known. Version None is the current one."""
        held = self._held
        if held.seen == self._generation():
            ready: CompiledPrompt | None = held.ready.get((_PROMPT, key, version))
            if ready is not None:
                return ready
        found: CompiledPrompt | None = self._find((_PROMPT, key, version))
        return found

    def ab_test(self, key: str) -> CompiledTest | None:
        """Give a prompt A/B test; None if it is not known."""
        held = self._held
        if held.seen == self._generation():
            ready: CompiledTest | None = held.ready.get((_AB_TEST, key, None))
            if ready is not None:
                return ready
        found: CompiledTest | None = self._find((_AB_TEST, key, None))
        return found

    def is_empty(self) -> bool:
        """Tell whether nothing was ever published, as far as this process can read."""
        return self._current().root.generation == 0 and not self.bootstrap

    def info(self) -> SnapshotInfo:
        """Tell what is held, after a look at the page."""
        root = self._current().root
        return SnapshotInfo(
            root.generation,
            root.published_unix_ns,
            {kind.name.lower(): len(root.sections.get(kind, ())) for kind in Kind},
            root.removed(),
            self._last_error,
        )

    @contextmanager
    def history(self) -> Iterator[History]:
        """Open what was published in the past, while forks are held off.

        Raises:
            DatabaseError: It cannot be read.
        """
        from fallom._snapshot.history import opened_history  # of those who look back

        directory = self._directory()
        if directory is None:
            raise DatabaseError("there is no state directory")
        with self._hold_forks(), opened_history(directory) as history:
            yield history

    def _find(self, name: Name) -> Any:
        """Look further: is there a new generation, is this entry one that was never used?"""
        held = self._current()
        found = held.ready.get(name)
        if found is not None:
            return found
        if self.bootstrap and name[0] not in held.root.sections:
            return self.bootstrap.get(name)
        wanted = self._index.next_row(held.root, name)
        if wanted is None or self._unreadable.get(wanted, 0.0) > self._monotonic():
            return None
        lock = self._turn(TURN_TIMEOUT_S)
        if lock is not None:
            try:
                self._read_entry(name)
            finally:
                lock.release()
        return self._held.ready.get(name)

    def _current(self) -> _Held:
        """Give the current state, after reading a new one if the generation moved."""
        held = self._held
        generation = self._generation()
        if held.seen == generation:
            return held
        if generation == self._failed_generation and self._monotonic() < self._retry_at_s:
            return held
        lock = self._turn(0 if held.root.generation else TURN_TIMEOUT_S)
        if lock is not None:
            try:
                self._read_manifest()
            finally:
                lock.release()
        return self._held

    def _turn(self, timeout_s: float) -> threading.Lock | None:
        """Take the lock; None if another thread reads meanwhile, and what is held has to do."""
        lock = self._lock.current()
        return lock if lock.acquire(timeout=timeout_s) else None

    def _read_manifest(self) -> None:
        """Read the current manifest, and what changed among the entries in use."""
        held = self._held
        seen = self._generation()  # before the database is opened: what comes later is read later
        if held.seen == seen:
            return  # another thread did it
        try:
            with self._open(is_first=held.root.generation == 0) as rows:
                self._last_error = None
                self._hold(self._newer(rows, held, seen))
        except (DatabaseError, PayloadError) as error:
            self._last_error = str(error)
            self._failed_generation = seen
            self._retry_at_s = self._monotonic() + RETRY_S
        else:
            self._failed_generation = -1

    def _newer(self, rows: Rows, held: _Held, seen: int) -> _Held:
        data = rows.manifest()
        if data is None:
            raise DatabaseError("the database holds no manifest")
        newer = _Held(seen, decode_root(data).over(held.root))
        names = list(held.ready.items())  # a copy: another thread may be adding to it
        by_hash = {held.hashes[name]: compiled for name, compiled in names}
        for name, compiled in names:
            before = held.hashes[name]
            if is_same_shard(held.root, newer.root, name):
                newer.add(name, before, compiled)
                continue
            try:
                entry_hash = self._index.find(rows, newer.root, name)
                if entry_hash is not None:  # None: a version that is no longer kept
                    fresh = by_hash.get(entry_hash) or self._decoded(rows, entry_hash)
                    newer.add(name, entry_hash, fresh)
            except PayloadError as error:  # a damaged row must not take away what serves
                self._last_error = str(error)
                newer.add(name, before, compiled)
        return newer

    def _read_entry(self, name: Name) -> None:
        """Read one entry that was not used before."""
        held = self._held
        wanted = self._index.next_row(held.root, name)
        if name in held.ready or wanted is None:
            return  # another thread did it, or found that it is gone
        seen = self._generation()
        try:
            with self._open(is_first=self._last_error is None) as rows:
                self._last_error = None
                try:
                    found = self._stored(rows, held.root, name)
                except PayloadError:  # many generations behind: look once at the newest
                    held = self._newer(rows, held, seen)
                    found = self._stored(rows, held.root, name)
        except (DatabaseError, PayloadError) as error:
            self._last_error = str(error)
            self._leave_alone(wanted)
            return
        if found is not None:
            held.add(name, *found)
        self._hold(held)

    def _hold(self, held: _Held) -> None:
        self._held = held
        self.seen = held.seen  # behind it: who reads between the two takes what is held for older

    def _stored(self, rows: Rows, root: Root, name: Name) -> tuple[str, Compiled] | None:
        """Give a name's entry and its hash; None if it is not known."""
        entry_hash = self._index.find(rows, root, name)
        return None if entry_hash is None else (entry_hash, self._decoded(rows, entry_hash))

    def _decoded(self, rows: Rows, entry_hash: str) -> Compiled:
        """Read and decode one entry.

        Raises:
            PayloadError: It is missing or damaged.
        """
        data = rows.entry(entry_hash)
        try:
            if data is None or hash_of(data) != entry_hash:
                state = "missing" if data is None else "damaged"
                raise PayloadError(f"entry {entry_hash} is {state}")
            return decode_entry(data)
        except PayloadError:
            self._leave_alone(entry_hash)
            raise

    def _leave_alone(self, entry_hash: str) -> None:
        """Do not look at this entry's row for a second."""
        if len(self._unreadable) > 1000:  # hashes of the past; nobody looks them up any more
            self._unreadable.clear()
        self._unreadable[entry_hash] = self._monotonic() + RETRY_S

    @contextmanager
    def _open(self, is_first: bool) -> Iterator[Rows]:
        """Open the database while forks are held off."""
        directory = self._directory()
        if directory is None:
            raise DatabaseError("there is no state directory")
        timeout_s = self._busy_timeout_first_s if is_first else self._busy_timeout_s
        path = os.path.join(directory, DATABASE_NAME)
        with self._hold_forks(), reading(path, timeout_s) as rows:
            yield rows
