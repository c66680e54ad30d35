"""The tick: what it notices that no file tells, and whom it wakes for it."""

from __future__ import annotations

import errno
import faulthandler
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fallom._core.settings import Settings
from fallom._flusher import loop
from fallom._flusher.election import Election
from fallom._flusher.loop import QUIET_LOOK_EVERY_NS, Flusher
from fallom._host.control import ControlPage
from fallom._host.directory import StateDirectory
from fallom._host.files import File
from fallom._spool.segment import Destination
from fallom._spool.watch import Watch
from tests.support.spools import Segment


class Ticking:
    """A flusher whose main thread is the test, and whose lanes only say that they were woken."""

    def __init__(self, base: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        base.mkdir(mode=0o700)
        directory = StateDirectory(str(base), settings.namespace)
        page = ControlPage.open(directory.root)
        self.spool: File = directory.spool
        self._election = Election(directory.path)
        assert self._election.win(0.0)
        self._flusher = Flusher(settings, directory, page, self._election, threading.Event())
        self._flusher._all_lanes = self._flusher._lanes = self._flusher._main_lanes()
        self.woken: list[str] = []
        for lane in self._flusher._lanes:
            monkeypatch.setattr(lane, "wake", lambda lane=lane: self.woken.append(lane.name))
        self._now_ns = 10**12

    @property
    def flusher(self) -> Flusher:
        return self._flusher

    def look(self) -> list[str]:
        """Tick when a look is due, and give the lanes that it woke."""
        self.woken.clear()
        self._now_ns += QUIET_LOOK_EVERY_NS
        assert self._flusher._tick(self._now_ns)
        return self.woken

    def close(self) -> None:
        for lane in self._flusher._lanes:
            lane._reader.close()
        self._election.resign()


@pytest.fixture
def ticking(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Ticking]:
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda *_, **__: None)
    made = Ticking(tmp_path / "state", settings, monkeypatch)
    yield made
    made.close()


def test_lanes_are_woken_by_a_file_that_grew_and_not_without_a_cause(ticking: Ticking) -> None:
    segment = Segment(ticking.spool, resource={})
    ticking.look()
    assert ticking.look() == []
    segment.add(["k", 1])
    assert sorted(ticking.look()) == ["exposures", "metrics", "traces"]
    segment.file.close()


def test_lanes_are_woken_when_a_writer_was_killed_which_changes_no_file(ticking: Ticking) -> None:
    segment = Segment(ticking.spool, resource={}, destination=Destination.WISHES)
    assert segment.file.lock()
    ticking.look()
    assert ticking.look() == []
    watch = Watch(ticking.spool)
    watch.has_changed()
    segment.file.close()  # what the kernel does for the killed, and with it goes the lock
    assert not watch.has_changed()
    assert sorted(ticking.look()) == ["exposures", "metrics", "traces"]


def test_a_tick_that_the_system_refuses_does_not_end_the_flusher(
    ticking: Ticking, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = [OSError(errno.EMFILE, "Too many open files"), OSError(errno.EIO, "I/O error")]
    said: list[str] = []

    def tick(now_ns: int) -> bool:
        if refusals:
            raise refusals.pop()
        ticking.flusher._stop.set()
        return True

    monkeypatch.setattr(loop, "TICK_S", 0.0)
    monkeypatch.setattr(ticking.flusher, "_tick", tick)
    monkeypatch.setattr(ticking.flusher, "_say", said.append)
    assert ticking.flusher.run(once=False, lingers=True) == 0
    assert refusals == []
    assert any("Too many open files" in sentence for sentence in said)


@pytest.mark.parametrize("what", ["a signal", "a higher version", "a drain without progress"])
def test_while_the_system_refuses_every_tick_it_leaves_when_it_has_to(
    ticking: Ticking, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def tick(now_ns: int) -> bool:
        if what == "a signal":
            ticking.flusher._stop.set()
        if what == "a higher version":
            ticking.flusher._page.set_successor(1 << 60)
        raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr(loop, "TICK_S", 0.0)
    monkeypatch.setattr(loop, "ONCE_PATIENCE_S", 0.0)
    monkeypatch.setattr(ticking.flusher, "_tick", tick)
    monkeypatch.setattr(ticking.flusher, "_is_idle", lambda: False)
    assert ticking.flusher.run(once=what.startswith("a drain"), lingers=True) == 0
