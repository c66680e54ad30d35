"""The election: of all processes that want to be the flusher of a namespace, one holds ``leader.lock``.

Only flusher processes ever hold it. A worker only probes it (see ``spawn``), with the same kind of lock:
under a pre-forking server a lock taken by the master would stay with that idle process for ever.

A child that the leader forked in C inherits that lock and keeps it when the leader dies. So the leader
also holds a POSIX record lock, of ``leader.alive``, which is the process's own and dies with it: a lock
that is held while that one is free, and nobody beats, is an orphan's. Its file is then removed, under
``spawn.lock``, and the next leader makes a new one.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

from fallom._host.control import ControlPage
from fallom._host.files import File, open_directory, open_file

__all__ = ["CANDIDATE_WAIT_S", "SPAWN_LOCK", "Election", "free_orphaned", "is_led"]

CANDIDATE_WAIT_S = 1.0  # of one that a worker started, for a leader that is about to leave
LEADER_LOCK = "leader.lock"
SPAWN_LOCK = "spawn.lock"  # of whoever starts a flusher or does away with an orphan's lock
_LEADER_ALIVE = "leader.alive"
_PROBE_S = 1.0  # a worker that probes holds that lock for some microseconds


class Election:
    """The leader's lock of one namespace."""

    def __init__(self, path: str) -> None:
        """Prepare to stand; ``path`` is the namespace's directory."""
        # filelock is what every one of our candidates uses; a worker never loads it (90 ms).
        from filelock import FileLock

        self._directory = path
        self._path = os.path.join(path, LEADER_LOCK)
        self._alive: File | None = None
        self._identity: tuple[int, int] | None = None
        self._lock: Any = FileLock(
            self._path,
            mode=0o600,
            thread_local=False,
            fallback_to_soft=False,  # existence of a file is no lock: it outlives a crash
            preserve_lock_file=True,
            poll_interval=0.02,
        )

    def win(self, wait_s: float) -> bool:
        """Try to become the leader; blocks for at most ``wait_s``.

        Raises:
            OSError: What stands in the lock's place is no file of ours, or cannot be opened.
        """
        from filelock import Timeout

        self._check()
        try:
            self._lock.acquire(timeout=wait_s)
        except Timeout:
            return False
        self._identity = _identity_of(self._path)
        self._alive = _say_alive(self._directory)
        return True

    def _check(self) -> None:
        """Refuse a file of several names, which filelock truncates on Python 3.10."""
        directory = open_directory(self._directory)
        try:
            open_file(directory, LEADER_LOCK, os.O_RDWR | os.O_CREAT).close()
        finally:
            directory.close()

    def is_won(self) -> bool:
        """Tell whether the lock is still the one that others see: the directory may be gone."""
        return bool(self._lock.is_locked) and _identity_of(self._path) == self._identity

    def resign(self) -> None:
        """Free the lock for the next."""
        if self._alive is not None:
            self._alive.close()
        self._lock.release()


def is_led(root: File, page: ControlPage, monotonic_ns: int) -> bool:
    """Probe the leader's lock; only under ``spawn.lock``.

    Held means alive, whatever the beat says: the leader may be suspended. But for an orphan's lock,
    which is done away with here.

    Raises:
        OSError: The lock cannot be probed.
    """
    leader = open_file(root, LEADER_LOCK, os.O_RDWR | os.O_CREAT)
    try:
        if leader.lock():
            return False
    finally:
        leader.close()
    if page.is_alive(monotonic_ns) or not _is_orphaned(root):
        return True
    with contextlib.suppress(FileNotFoundError):
        os.unlink(LEADER_LOCK, dir_fd=root.fd)
    return False


def free_orphaned(root: File, page: ControlPage, monotonic_ns: int) -> None:
    """Do away with an orphan's lock, if that is what the leader's lock is. Does not block or raise.

    For a candidate that waits and that no worker started: under a supervisor, workers probe nothing.
    """
    with contextlib.suppress(OSError):  # looked at again a second later
        spawn = open_file(root, SPAWN_LOCK, os.O_RDWR | os.O_CREAT)
        try:
            if spawn.lock():
                is_led(root, page, monotonic_ns)
        finally:
            spawn.close()


def _is_orphaned(root: File) -> bool:
    """Tell whether the process that held the leader's lock is gone; False when nobody can know."""
    try:
        alive = open_file(root, _LEADER_ALIVE, os.O_RDWR)
    except OSError:
        return False
    try:
        return alive.try_lock_process()
    except OSError:
        return False
    finally:
        alive.close()


def _say_alive(path: str) -> File | None:
    """Take the lock that dies with this process; None, and one can live without, if it is refused."""
    with contextlib.suppress(OSError):
        directory = open_directory(path)
        try:
            alive = open_file(directory, _LEADER_ALIVE, os.O_RDWR | os.O_CREAT)
        finally:
            directory.close()
        give_up = time.monotonic() + _PROBE_S
        while not alive.try_lock_process():
            if time.monotonic() >= give_up:
                return None
            time.sleep(0.001)
        return alive
    return None


def _identity_of(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return found.st_dev, found.st_ino
