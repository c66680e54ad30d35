"""Forks are normal events: the guard that holds one off, and the pid that tells one happened.

Hooks run for forks that Python makes; a fork made in C (uWSGI) runs none. So a hook is only ever a
help, and whoever owns state that must not cross a fork also compares the pid before it acts.
"""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Generic, Protocol, TypeVar

__all__ = ["ForkGuard", "ForkMark", "ProcessLock", "new_mark"]

L = TypeVar("L")

_WIPE_ON_FORK = 18  # MADV_WIPEONFORK, Linux 4.14; Python has no name for it
_NO_ADVICE = -1


class ForkMark(Protocol):
    """``mark[0]`` is true in the process that made it, and false in every one forked from it since."""

    def __getitem__(self, at: int, /) -> int:
        """Give what the kernel left of the mark."""


def new_mark() -> ForkMark:
    """Give a mark of this process.

    A byte of a page that the kernel empties for a forked child, whoever made the fork: reading it takes
    12 ns, where ``os.getpid`` takes 130 and cannot tell a child in a PID namespace of its own. Where
    the kernel has no such pages, or takes any advice without a word (some emulators do), or where this
    process has all the maps that it may have, the mark compares the pid.
    """
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        page.madvise(_WIPE_ON_FORK)
    except OSError:
        return _PidMark()
    try:
        page.madvise(_NO_ADVICE)
    except OSError:
        page[0] = 1
        return memoryview(page)
    return _PidMark()


class ProcessLock(Generic[L]):
    """A lock of which each process has its own: what a thread held at a fork is free in the child.

    After a fork made in C two threads may be the first to ask for it. Both get the same one:
    ``setdefault`` is one step.
    """

    __slots__ = ("_by_pid", "_make")

    def __init__(self, make: Callable[[], L]) -> None:
        """Make the lock of this process; ``make`` is ``threading.Lock`` or ``threading.RLock``."""
        self._make = make
        self._by_pid = {os.getpid(): make()}

    def current(self) -> L:
        """Give the lock of this process. Does not block."""
        pid = os.getpid()
        lock = self._by_pid.get(pid)
        if lock is None:
            lock = self._by_pid.setdefault(pid, self._make())
            self._by_pid = {pid: lock}  # without those of ancestors, whose numbers come again
        return lock


class ForkGuard:
    """Holds off ``os.fork`` while something is open that must not cross it (a SQLite connection).

    Re-entrant, so that a fork by the holder itself (from a signal handler) does not deadlock. In the
    child the lock is made anew: another thread of the parent may have held it.
    """

    def __init__(self, on_child: Callable[[], None] | None = None) -> None:
        """Register the hooks; ``on_child`` runs in a child that Python forked, and may not block."""
        self._lock = ProcessLock(threading.RLock)
        self._on_child = on_child
        _register(weakref.ref(self))

    def held(self) -> AbstractContextManager[object]:
        """Give a context within which no other thread of this process can fork."""
        return self._lock.current()

    def before_fork(self) -> None:
        """Wait until nobody is inside ``held``; at most one read of the database long."""
        self._lock.current().acquire()

    def after_fork_in_parent(self) -> None:
        """Let the others go on."""
        self._lock.current().release()

    def after_fork_in_child(self) -> None:
        """Tell the owner."""
        if self._on_child is not None:
            self._on_child()


class _PidMark:
    """The mark of a system that keeps nothing from a child."""

    __slots__ = ("_pid",)

    def __init__(self) -> None:
        self._pid = os.getpid()

    def __getitem__(self, at: int, /) -> int:
        return os.getpid() == self._pid


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
