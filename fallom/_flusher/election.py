"""The election: of all processes that want to be the flusher of a namespace, one holds ``leader.lock``.

Only flusher processes ever hold it. A worker only probes it (see ``spawn``), with the same kind of lock:
under a pre-forking server a lock taken by the master would stay with that idle process for ever.
"""

from __future__ import annotations

import os
from typing import Any

__all__ = ["LEADER_LOCK", "Election"]

LEADER_LOCK = "leader.lock"


class Election:
    """The leader's lock of one namespace."""

    def __init__(self, path: str) -> None:
        """Prepare to stand; ``path`` is the namespace's directory."""
        # filelock is what every one of our candidates uses; a worker never loads it (90 ms).
        from filelock import FileLock

        self._path = os.path.join(path, LEADER_LOCK)
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
        """Try to become the leader; blocks for at most ``wait_s``."""
        from filelock import Timeout

        try:
            self._lock.acquire(timeout=wait_s)
        except Timeout:
            return False
        self._identity = _identity_of(self._path)
        return True

    def is_won(self) -> bool:
        """Tell whether the lock is still the one that others see: the directory may be gone."""
        return bool(self._lock.is_locked) and _identity_of(self._path) == self._identity

    def resign(self) -> None:
        """Free the lock for the next."""
        self._lock.release()


def _identity_of(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return found.st_dev, found.st_ino
