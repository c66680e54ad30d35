"""Running a function in forked children: what they found, or what went wrong there."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import time
import traceback
import warnings
import weakref
from collections.abc import Callable
from typing import Any


class Child:
    """A forked process that runs a function and hands back what it returns."""

    def __init__(self, body: Callable[[], Any], fork: Callable[[], int] = os.fork) -> None:
        self._read_end, write_end = os.pipe()
        with warnings.catch_warnings():  # of Python 3.12: the test runner has threads
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = fork()
        if self.pid == 0:
            status = 1
            try:
                os.close(self._read_end)
                found: tuple[bool, Any] = True, body()
                status = 0
            except BaseException:
                found = False, traceback.format_exc()
            try:
                with os.fdopen(write_end, "wb") as pipe:
                    pickle.dump(found, pipe)
            finally:
                os._exit(status)
        os.close(write_end)
        self._ended = weakref.finalize(self, _end, self.pid)  # of a test that failed

    def result(self) -> Any:
        """Wait for the child and give what its function returned."""
        with os.fdopen(self._read_end, "rb") as pipe:
            raw = pipe.read()
        self.wait()
        if not raw:
            raise AssertionError("the child died")
        is_good, found = pickle.loads(raw)
        assert is_good, found
        return found

    def kill(self) -> None:
        """Kill it at once."""
        self._ended()
        os.close(self._read_end)

    def wait(self) -> None:
        """Wait until it has ended."""
        self._ended.detach()
        os.waitpid(self.pid, 0)


def _end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def in_child(body: Callable[[], Any]) -> Any:
    """Run a function in a forked child and give what it returned."""
    return Child(body).result()


def fork_in_c() -> int:
    """Fork as a host written in C does: none of Python's hooks run."""
    # PyDLL keeps the interpreter's lock, or the child could not go on without another thread.
    return int(ctypes.PyDLL(None).fork())


def in_child_of_c(body: Callable[[], Any]) -> Any:
    """Run a function in a child that was forked in C and give what it returned."""
    return Child(body, fork_in_c).result()


def at_once(count: int, body: Callable[[int], Any]) -> list[Any]:
    """Run a function in ``count`` children that all begin at the same moment."""
    start_ns = time.monotonic_ns() + 50_000_000

    def begin(number: int) -> Any:
        while time.monotonic_ns() < start_ns:
            pass
        return body(number)

    children = [Child(lambda number=number: begin(number)) for number in range(count)]
    return [child.result() for child in children]
