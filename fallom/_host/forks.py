"""Forks are normal events: the guard that holds one off, and the pid that tells one happened.

Hooks run for forks that Python makes; a fork made in C (uWSGI) runs none. So a hook is only ever a
help, and whoever owns state that must not cross a fork also compares the pid before it acts.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

__all__ = ["ForkGuard"]


class ForkGuard:
    """Holds off ``os.fork`` while something is open that must not cross it (a SQLite connection).

    Re-entrant, so that a fork by the holder itself (from a signal handler) does not deadlock. In the
    child the lock is made anew: another thread of the parent may have held it.
    """

    def __init__(self, on_child: Callable[[], None] | None = None) -> None:
        """Register the hooks; ``on_child`` runs in a child that Python forked, and may not block."""
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._on_child = on_child
        _register(weakref.ref(self))

    def held(self) -> AbstractContextManager[None]:
        """Give a context within which no other thread of this process can fork."""
        return _held(self)

    def before_fork(self) -> None:
        """Wait until nobody is inside ``held``; at most one read of the database long."""
        self.current_lock().acquire()

    def after_fork_in_parent(self) -> None:
        """Let the others go on."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Make the lock anew and tell the owner."""
        self._lock = threading.RLock()
        self._pid = os.getpid()
        if self._on_child is not None:
            self._on_child()

    def current_lock(self) -> threading.RLock:
        """Give the lock of this process; a fork made in C ran no hook and left the parent's."""
        if os.getpid() != self._pid:
            self._lock = threading.RLock()
            self._pid = os.getpid()
        return self._lock


@contextmanager
def _held(guard: ForkGuard) -> Iterator[None]:
    with guard.current_lock():
        yield


def _register(reference: weakref.ref[ForkGuard]) -> None:
    """Register hooks that hold the guard weakly: hooks can never be unregistered."""

    def call(name: str) -> Callable[[], None]:
        def hook() -> None:
            guard = reference()
            if guard is not None:
                getattr(guard, name)()

        return hook

    os.register_at_fork(
        before=call("before_fork"),
        after_in_parent=call("after_fork_in_parent"),
        after_in_child=call("after_fork_in_child"),
    )
