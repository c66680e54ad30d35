"""The guard that holds a fork off, and what is left of it in the child."""

from __future__ import annotations

import gc
import os
import sys
import threading
import weakref

import pytest

from fallom._host.forks import ForkGuard, ProcessLock
from tests.support.processes import in_child, in_child_of_c


def test_no_fork_happens_while_another_thread_is_within() -> None:
    guard = ForkGuard()
    is_within, is_forking, order = threading.Event(), threading.Event(), []

    def read() -> None:
        with guard.held():
            is_within.set()
            is_forking.wait()
            # The fork can only be waiting now, or not have begun.
            order.append("read")

    thread = threading.Thread(target=read)
    thread.start()
    is_within.wait()
    before = guard.before_fork

    def waiting() -> None:
        is_forking.set()
        before()
        order.append("fork")

    guard.before_fork = waiting  # type: ignore[method-assign]
    in_child(lambda: None)
    thread.join()
    assert order == ["read", "fork"]


def test_the_holder_itself_may_fork() -> None:
    guard = ForkGuard()
    with guard.held():
        assert in_child(lambda: "alive") == "alive"
    with guard.held():
        pass


def test_the_parent_goes_on_after_a_fork() -> None:
    guard = ForkGuard()
    in_child(lambda: None)
    thread = threading.Thread(target=lambda: guard.held().__enter__())
    thread.start()
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_the_child_has_a_lock_of_its_own_and_its_owner_is_told() -> None:
    told = []
    guard = ForkGuard(on_child=lambda: told.append(os.getpid()))

    def use() -> tuple[bool, int]:
        thread = threading.Thread(target=lambda: guard.held().__enter__())
        thread.start()
        thread.join(timeout=10)
        return told == [os.getpid()], threading.active_count()

    assert in_child(use) == (True, 1)
    assert told == []


@pytest.mark.parametrize("act", ["read", "fork"])
def test_a_child_that_was_forked_in_c_is_not_stuck_on_the_lock_of_a_lost_thread(act: str) -> None:
    guard = ForkGuard()
    is_within, may_end = threading.Event(), threading.Event()

    def read() -> None:
        with guard.held():
            is_within.set()
            may_end.wait()

    thread = threading.Thread(target=read)
    thread.start()
    is_within.wait()

    def go_on() -> str:
        if act == "fork":
            return str(in_child(lambda: "alive"))
        with guard.held():
            return "alive"

    try:
        assert in_child_of_c(go_on) == "alive"
    finally:
        may_end.set()
        thread.join()


def test_threads_that_are_first_in_a_child_forked_in_c_get_the_same_lock() -> None:
    held, rounds = ProcessLock(threading.RLock), 50
    held.current().acquire()

    def ask() -> list[object]:
        sys.setswitchinterval(1e-6)
        given: list[object] = []
        threads = [threading.Thread(target=lambda: given.append(held.current())) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [id(lock) for lock in given]

    for _ in range(rounds):
        assert len(set(in_child_of_c(ask))) == 1
    held.current().release()


def test_the_hooks_do_not_keep_a_guard_alive() -> None:
    guard = ForkGuard()
    reference = weakref.ref(guard)
    del guard
    gc.collect()
    assert reference() is None
    assert in_child(lambda: "alive") == "alive"
