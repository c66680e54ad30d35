"""A process records one span while the flusher is about to leave, and ends: the span is not stuck.

Every flusher leaves as soon as it may, and its leaving is held open in all places that matter: while it
ends its threads, between "I am leaving" and the last look, and between the last look and the freeing of the
leader's lock. Each span must arrive before the next one is recorded, so that no later process helps.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fallom.dev.server import LocalCloud
from tests.support.scripts import ROOT, start_script

DRIVERS = 3
SPANS = 100  # by each driver

SLOW_BOOT = """
import runpy, sys, time
sys.path.insert(0, {root!r})
import fallom._flusher.loop, fallom._flusher.ship
from fallom._flusher.election import Election
from fallom._host.control import ControlPage
fallom._flusher.loop.TICK_S = fallom._flusher.ship.TICK_S = 0.01
fallom._flusher.loop.BEAT_EVERY_NS = 0
beat, resign = ControlPage.beat, Election.resign
stop = fallom._flusher.loop.SyncThread.stop
def slow_beat(self, monotonic_ns):
    beat(self, monotonic_ns)
    if monotonic_ns == 0: time.sleep(0.02)
def slow_resign(self):
    time.sleep(0.02)
    resign(self)
def slow_stop(self):
    time.sleep(0.03)
    stop(self)
ControlPage.beat, Election.resign = slow_beat, slow_resign
fallom._flusher.loop.SyncThread.stop = slow_stop
runpy.run_path({boot!r}, run_name="__main__")
"""

DRIVER = """
import os, random, sys, time
import fallom
from fallom import trace
from fallom._core.settings import resolve_settings
from fallom._flusher.targets import target_hashes
from fallom._host.place import Place
from fallom._spool.survey import marks_of

settings = resolve_settings({}, os.environ)
place = Place.find(settings.state_dir, settings.namespace, os.environ)
targets = target_hashes(settings)
in_the_window = 0

def wait_until(condition, what):
    give_up = time.monotonic() + 60  # the flusher is niced, and the machine may be busy
    while not condition():
        if time.monotonic() > give_up:
            sys.exit(f"span {number}: {what}")
        time.sleep(0.001)

for number in range(int(sys.argv[1])):
    if number % 2:  # while it says that it is leaving
        wait_until(place.page.is_leaving, "no flusher left")
        time.sleep(random.uniform(0, 0.05))
    else:  # at any moment since it delivered the one before
        time.sleep(random.uniform(0, 0.15))
    if os.fork() == 0:
        fallom.init()
        trace.span({}, config_key="app", session_id=f"{sys.argv[2]}-{number}")
        os._exit(0)
    os.wait()
    wait_until(lambda: not marks_of(place.directory.spool, targets), "stuck")
"""


@pytest.mark.timeout(240)
def test_a_lone_span_is_never_stuck_behind_a_leaving_flusher(
    cloud: LocalCloud, tmp_path: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_boot = tmp_path / "slow_boot.py"
    boot = ROOT / "fallom/_flusher/boot.py"
    slow_boot.write_text(SLOW_BOOT.format(root=str(ROOT), boot=str(boot)))
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexec {sys.executable} -I {slow_boot}\n")
    python.chmod(0o755)
    monkeypatch.setenv("FALLOM_LINGER", "0")
    monkeypatch.setenv("FALLOM_PYTHON", str(python))
    drivers = [
        start_script(
            DRIVER,
            tmp_path,
            {"FALLOM_STATE_DIR": str(state_dir / f"driver{driver}")},
            str(SPANS),
            f"driver{driver}",
        )
        for driver in range(DRIVERS)
    ]
    outcomes = [(driver.communicate(timeout=200)[1], driver.returncode) for driver in drivers]
    assert outcomes == [("", 0)] * DRIVERS
    assert cloud.stats()["spans"] == {"received": DRIVERS * SPANS, "distinct": DRIVERS * SPANS}
