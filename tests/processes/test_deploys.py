"""Several applications, users and versions on one host, each with its own flusher."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import IO

import psutil
import pytest

import fallom
from fallom import trace
from fallom._flusher.election import Election
from fallom._version import __version__
from fallom.dev.server import LocalCloud
from tests.support.flushers import flusher_pids, leader_pids, wait_for
from tests.support.processes import Child
from tests.support.scripts import ROOT

WORKER = """
import sys, fallom
from fallom import trace
fallom.init()
print("ready", flush=True)
for line in sys.stdin:
    name, count = line.split()
    for number in range(int(count)):
        trace.span({"n": number}, config_key="app", session_id=f"{name}-{number}")
    print(name, flush=True)
"""


class Worker:
    """A process of an application that records when it is told to."""

    def __init__(self, folder: Path, python: str = sys.executable, **environ: str) -> None:
        path = folder / "worker.py"
        path.write_text(WORKER)
        self.process = subprocess.Popen(
            [python, str(path)],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._read("ready")

    def record(self, name: str, count: int) -> None:
        stdin: IO[str] = self.process.stdin  # type: ignore[assignment]
        stdin.write(f"{name} {count}\n")
        stdin.flush()
        self._read(name)

    def _read(self, expected: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == expected

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def sessions(cloud: LocalCloud) -> set[str]:
    return {row["attributes"]["fallom.session_id"] for row in cloud.spans()}


def names(word: str, count: int) -> set[str]:
    return {f"{word}-{number}" for number in range(count)}


def test_two_applications_with_different_keys_never_mix(
    cloud: LocalCloud, tmp_path: Path, state_dir: Path
) -> None:
    workers = {key: Worker(tmp_path, FALLOM_API_KEY=key) for key in ("first", "second")}
    try:
        for key, worker in workers.items():
            worker.record(key, 100)
        expected = names("first", 100) | names("second", 100)
        wait_for(lambda: sessions(cloud) == expected)
        assert len(leader_pids(state_dir)) == 2
        for pid in flusher_pids(state_dir):
            os.kill(pid, signal.SIGKILL)
        for key, worker in workers.items():
            worker.record(f"{key}-again", 100)
        expected |= names("first-again", 100) | names("second-again", 100)

        def are_all_there() -> bool:
            for key, worker in workers.items():  # the next call is what finds that nobody leads
                worker.record(f"{key}-again", 1)
            return sessions(cloud) == expected

        wait_for(are_all_there)
        assert len(leader_pids(state_dir)) == 2
    finally:
        for worker in workers.values():
            worker.end()
    keys = {row["request_id"]: row["authorization_hash"] for row in cloud.fetches()}
    sent_as = {
        (keys[row["request_id"]], row["attributes"]["fallom.session_id"].partition("-")[0])
        for row in cloud.spans()
    }
    assert len(sent_as) == 2, "a request with one key held records of the other"
    assert len(set(keys.values()) - {""}) == 2


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """An environment of its own with an older version of the package."""
    path = tmp_path / "older"
    venv.create(path, symlinks=True, with_pip=False)
    (packages,) = path.glob("lib/python*/site-packages")
    shutil.copytree(ROOT / "fallom", packages / "fallom")
    (packages / "fallom/_version.py").write_text('__version__ = "0.0.9"\n')
    shared = [entry for entry in sys.path if "site-packages" in entry]
    (packages / "dependencies.pth").write_text("\n".join(shared) + "\n")
    return path


def test_a_deploy_takes_over_and_serves_old_workers_whose_environment_is_deleted(
    cloud: LocalCloud, tmp_path: Path, state_dir: Path, older: Path
) -> None:
    old = Worker(tmp_path, str(older / "bin/python"), PYTHONPATH="")
    new = None
    try:
        old.record("old", 50)
        expected = names("old", 50)
        wait_for(lambda: sessions(cloud) == expected, what="the older version's records")
        (old_pid,) = leader_pids(state_dir)
        new = Worker(tmp_path)
        new.record("new", 50)
        wait_for(lambda: not psutil.pid_exists(old_pid), what="the older flusher to leave")
        fallom.init(flusher="external")
        wait_for(lambda: fallom.status()["flusher"]["version"] == __version__, what="the hand-over")
        shutil.rmtree(older)
        old.record("orphaned", 50)
        expected |= names("new", 50) | names("orphaned", 50)
        wait_for(lambda: sessions(cloud) == expected, what="records of a deleted environment")
        # The old worker finds no flusher and cannot start one; that must not keep the new one from it.
        (pid,) = leader_pids(state_dir)
        os.kill(pid, signal.SIGKILL)
        give_up = time.monotonic() + 3.0
        while time.monotonic() < give_up:
            old.record("alone", 1)
            time.sleep(0.05)
        assert flusher_pids(state_dir) == []
        new.record("rescued", 1)
        expected |= names("alone", 1) | names("rescued", 1)
        wait_for(lambda: sessions(cloud) == expected, timeout_s=15, what="the new worker's flusher")
    finally:
        old.end()
        if new is not None:
            new.end()


def test_an_external_flusher_that_waits_frees_the_lock_of_a_dead_leader_s_child(
    cloud: LocalCloud, tmp_path: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FALLOM_FLUSHER", "external")
    fallom.init()
    trace.span({}, config_key="app", session_id="waiting")
    (namespace,) = state_dir.glob("v1/*")
    orphan_file = tmp_path / "orphan"

    def lead() -> None:
        election = Election(str(namespace))
        assert election.win(10.0)
        pid = ctypes.PyDLL(None).fork()  # in C, so that no hook closes the lock in the child
        if pid == 0:
            while True:
                signal.pause()
        orphan_file.write_text(str(pid))
        while True:
            signal.pause()

    leader = Child(lead)
    orphan = int(wait_for(lambda: orphan_file.exists() and orphan_file.read_text()))
    leader.kill()
    try:
        assert not Election(str(namespace)).win(0.0), "or this test tests nothing"
        command = [sys.executable, "-m", "fallom", "flusher"]
        with subprocess.Popen(command, cwd=ROOT) as flusher:
            wait_for(
                lambda: sessions(cloud) == {"waiting"}, what="it to lead in spite of the orphan"
            )
            flusher.terminate()
    finally:
        os.kill(orphan, signal.SIGKILL)
