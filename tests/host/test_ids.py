"""Ids that are drawn in advance are nobody else's, whoever forks, and whenever."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest

from fallom._host import forks
from fallom._host.forks import new_mark
from fallom._host.ids import Ids
from tests.support.processes import in_child, in_child_of_c

Fork = Callable[[Callable[[], Any]], Any]


@pytest.fixture(params=[in_child, in_child_of_c], ids=["by Python", "in C"])
def fork(request: pytest.FixtureRequest) -> Fork:
    """Do something in a forked child and give what it says; in C no hook of Python's runs."""
    found: Fork = request.param
    return found


@pytest.fixture(params=["page", "pid", "no page"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the kernel empty pages at a fork, or not know such pages, or give the process no page more."""
    if request.param == "pid":
        monkeypatch.setattr(forks, "_WIPE_ON_FORK", -1)
    elif request.param == "no page":
        monkeypatch.setattr(forks.mmap, "mmap", refuse)


def refuse(*_: Any) -> Any:
    raise OSError(errno.ENOMEM, "more maps than a process may have")


@pytest.mark.usefixtures("kernel")
def test_a_mark_is_gone_in_a_child_and_stays_in_its_parent(fork: Fork) -> None:
    mark = new_mark()
    assert mark[0]
    assert fork(lambda: bool(mark[0])) is False
    assert mark[0]


@pytest.mark.usefixtures("kernel")
def test_a_mark_of_a_child_is_gone_in_the_grandchild(fork: Fork) -> None:
    def child() -> Any:
        mark = new_mark()
        assert mark[0]
        return fork(lambda: bool(mark[0]))

    assert fork(child) is False


def test_where_the_kernel_takes_any_advice_the_mark_compares_the_pid(
    monkeypatch: pytest.MonkeyPatch, fork: Fork
) -> None:
    # As some emulators do: the advice is taken, and the page is not emptied.
    monkeypatch.setattr(forks, "_WIPE_ON_FORK", 0)
    monkeypatch.setattr(forks, "_NO_ADVICE", 0)
    mark = new_mark()
    assert fork(lambda: bool(mark[0])) is False


@pytest.mark.usefixtures("kernel")
def test_parent_and_child_never_have_the_same_ids(fork: Fork) -> None:
    ids = Ids()
    seen = {b"".join(ids.new()) for _ in range(10)}  # some are drawn and not given yet
    childs = set(map(bytes.fromhex, fork(lambda: [b"".join(ids.new()).hex() for _ in range(100)])))
    ours = {b"".join(ids.new()) for _ in range(100)}
    assert len(seen | childs | ours) == 210


def test_an_id_is_given_once_and_has_the_length_that_traces_have() -> None:
    ids = Ids()
    given = [ids.new() for _ in range(1000)]
    assert {(len(trace_id), len(span_id)) for trace_id, span_id in given} == {(16, 8)}
    assert len({t for t, _ in given}) == len({s for _, s in given}) == 1000
