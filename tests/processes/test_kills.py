"""Workers and flushers are killed at random moments: nothing acknowledged is lost, little is sent twice."""

from __future__ import annotations

import os
import random
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import fallom
from fallom import trace
from fallom.dev.server import LocalCloud
from tests.support.flushers import wait_for
from tests.support.scripts import ROOT
from tests.support.storm import SLOW_ANSWERS, Storm, count_delivered

KILLS = 50
FLUSHER_KILLS = 8  # of these; each waits for the next flusher
TAKEOVERS = 3
TAKEOVER_S = 2.0

FORKING_BOOT = """
import ctypes, runpy, sys
sys.path.insert(0, {root!r})
from fallom._flusher.election import Election
win = Election.win
def win_and_fork(self, wait_s):
    won = win(self, wait_s)
    if won:
        # Made in C: no hook of Python's runs, and the child keeps every descriptor, the lock's too.
        child = ctypes.CDLL(None).fork()
        if child == 0:
            ctypes.CDLL(None).pause()
        with open({children!r}, "a") as children:
            children.write(f"{{child}}\\n")
    return won
Election.win = win_and_fork
runpy.run_path({boot!r}, run_name="__main__")
"""


@pytest.fixture
def forked_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Each leader forks a child that outlives it; their pids are in the file given."""
    children = tmp_path / "children"
    children.touch()
    boot = str(ROOT / "fallom/_flusher/boot.py")
    forking_boot = tmp_path / "forking_boot.py"
    forking_boot.write_text(FORKING_BOOT.format(root=str(ROOT), children=str(children), boot=boot))
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -I {forking_boot} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("FALLOM_PYTHON", str(python))
    yield children
    for pid in children.read_text().split():
        os.kill(int(pid), signal.SIGKILL)


def test_fifty_kills_of_workers_and_flushers_lose_nothing(
    cloud: LocalCloud, tmp_path: Path
) -> None:
    cloud.fault(SLOW_ANSWERS)
    with Storm(tmp_path, writers=3) as storm:
        kills = [storm.kill_a_writer] * (KILLS - FLUSHER_KILLS)
        kills += [storm.kill_the_flusher] * FLUSHER_KILLS
        random.shuffle(kills)
        for kill in kills:
            time.sleep(random.uniform(0, 0.2))  # the moment of a kill is what is random here
            kill()
        wait_for(storm.is_flusher_there, what="a flusher after the last kill")
        storm.end()
        acknowledged = storm.sessions()
        fallom.init()
        assert fallom.flush(30) == 0
        assert fallom.status()["dropped"] == {}
        delivered = count_delivered(tmp_path / "cloud.db")
    assert acknowledged - delivered.sessions == set(), "acknowledged and lost"
    assert delivered.forged == []
    assert delivered.broken_bounds(storm.flusher_kills) == []


def takeovers() -> list[float]:
    """Kill the flusher some times while this process records; give how long each takeover took."""
    fallom.init()
    pids: set[int] = set()
    took = []
    for _ in range(TAKEOVERS):
        pid = wait_for(lambda: next_flusher(pids), what="a flusher")
        pids.add(pid)
        time.sleep(random.uniform(0, 0.5))  # a beat has that period
        os.kill(pid, signal.SIGKILL)
        killed_s = time.monotonic()
        wait_for(lambda: next_flusher(pids), what="the next flusher")
        took.append(time.monotonic() - killed_s)
    return took


def next_flusher(before: set[int]) -> int | None:
    trace.span({}, config_key="app", session_id="s")
    pid = fallom.status()["flusher"]["pid"]
    return pid if pid not in before else None


def test_a_killed_flusher_is_replaced_within_two_seconds_while_somebody_calls(
    cloud: LocalCloud,
) -> None:
    took = takeovers()
    # The middle one: this machine may be busy with something else for a moment.
    assert statistics.median(took) < TAKEOVER_S, took
    assert fallom.flush(20) == 0


def test_a_killed_flusher_is_replaced_though_a_forked_child_of_it_lives(
    cloud: LocalCloud, forked_children: Path
) -> None:
    took = takeovers()
    assert statistics.median(took) < TAKEOVER_S, took
    assert fallom.flush(20) == 0
    assert len(forked_children.read_text().split()) > TAKEOVERS
