"""The election: one leader, whoever dies, and no lock that outlives its process for ever."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fallom._flusher.election import LEADER_LOCK, Election, is_led
from fallom._host.control import ControlPage
from fallom._host.files import File, open_directory, open_file
from tests.support.flushers import wait_for
from tests.support.processes import Child, at_once, in_child


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "namespace"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def root(place: Path) -> Iterator[File]:
    opened = open_directory(str(place))
    yield opened
    opened.close()


@pytest.fixture
def page(root: File) -> Iterator[ControlPage]:
    opened = ControlPage.open(root)
    yield opened
    opened.close()


@pytest.fixture
def leader(place: Path) -> Iterator[Callable[..., Child]]:
    """Start a process that leads, and give it once it does."""
    ends: list[int] = []

    def start(also: Callable[[], None] = lambda: None) -> Child:
        read_end, write_end = os.pipe()

        def live() -> None:
            election = Election(str(place))
            assert election.win(10.0)
            also()
            os.write(write_end, b".")
            while True:
                signal.pause()

        child = Child(live)
        os.read(read_end, 1)
        ends.extend((read_end, write_end))
        return child

    yield start
    for end in ends:
        os.close(end)


def test_the_first_wins_and_the_second_does_not_wait_longer_than_told(place: Path) -> None:
    first, second = Election(str(place)), Election(str(place))
    assert first.win(0.0)
    assert first.is_won()
    assert not second.win(0.0)
    assert not second.win(0.05)
    assert not second.is_won()
    first.resign()
    assert not first.is_won()
    assert second.win(0.0)
    second.resign()


def test_of_many_that_stand_at_once_one_wins(place: Path, tmp_path: Path) -> None:
    tried = tmp_path / "tried"
    tried.mkdir()

    def stand(number: int) -> bool:
        election = Election(str(place))
        is_won = election.win(0.0)
        (tried / str(number)).touch()
        wait_for(lambda: len(list(tried.iterdir())) == 8)  # or the next could win after this one
        return is_won

    assert sum(at_once(8, stand)) == 1


def test_the_lock_of_a_killed_leader_is_free(place: Path, leader: Callable[..., Child]) -> None:
    child = leader()
    election = Election(str(place))
    assert not election.win(0.0)
    child.kill()
    assert election.win(5.0)
    election.resign()


def test_a_leader_whose_lock_file_is_gone_has_lost(place: Path) -> None:
    election = Election(str(place))
    election.win(0.0)
    (place / LEADER_LOCK).unlink()
    assert not election.is_won()
    other = Election(str(place))
    assert other.win(0.0)
    assert not election.is_won()
    other.resign()


def test_the_lock_file_is_private(place: Path) -> None:
    election = Election(str(place))
    election.win(0.0)
    assert {path.stat().st_mode & 0o777 for path in place.iterdir()} == {0o600}
    election.resign()


# The probe.


def test_a_probe_tells_whether_there_is_a_leader_and_leaves_the_lock_free(
    place: Path, root: File, page: ControlPage, leader: Callable[..., Child]
) -> None:
    assert not is_led(root, page, time.monotonic_ns())
    assert not is_led(root, page, time.monotonic_ns())
    child = leader()
    assert is_led(root, page, time.monotonic_ns())
    child.kill()
    assert not is_led(root, page, time.monotonic_ns())
    election = Election(str(place))
    assert election.win(0.0)
    election.resign()


def test_a_leader_that_is_suspended_keeps_its_lock(
    place: Path, root: File, page: ControlPage, leader: Callable[..., Child]
) -> None:
    child = leader()
    os.kill(child.pid, signal.SIGSTOP)
    assert is_led(root, page, time.monotonic_ns())
    assert (place / LEADER_LOCK).exists()
    child.kill()


def test_the_lock_that_a_forked_child_of_a_dead_leader_holds_is_done_away_with(
    place: Path, root: File, page: ControlPage, leader: Callable[..., Child], tmp_path: Path
) -> None:
    orphan_file = tmp_path / "orphan"

    def fork() -> None:
        pid = ctypes.PyDLL(None).fork()  # in C: filelock has a hook for forks of Python's
        if pid == 0:
            while True:
                signal.pause()
        orphan_file.write_text(str(pid))

    child = leader(also=fork)
    orphan = int(orphan_file.read_text())
    try:
        assert is_led(root, page, time.monotonic_ns())
        child.kill()
        os.kill(orphan, 0)
        assert not Election(str(place)).win(0.0), "or this test tests nothing"
        assert not is_led(root, page, time.monotonic_ns())
        election = Election(str(place))
        assert wait_for(lambda: election.win(0.0))
        assert in_child(lambda: is_led(root, page, time.monotonic_ns()))
        election.resign()
    finally:
        os.kill(orphan, signal.SIGKILL)


def test_while_somebody_beats_nobodys_lock_is_an_orphans(
    place: Path, root: File, page: ControlPage
) -> None:
    foreign = open_file(root, LEADER_LOCK, os.O_RDWR | os.O_CREAT)
    foreign.lock()
    page.beat(time.monotonic_ns())
    assert is_led(root, page, time.monotonic_ns())
    assert (place / LEADER_LOCK).exists()
    foreign.close()
