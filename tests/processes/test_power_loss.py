"""What survives a loss of power, by the policy of ``fsync``: on a file system that is cut off for real."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fallom
from fallom import _runtime, trace
from fallom._flusher.on_disk import OnDisk
from fallom._host.directory import find_state_directory
from fallom._spool.segment import HEAD_BYTES, segment_names
from fallom._spool.survey import _open
from fallom._spool.tail import count_records
from tests.support.flushers import flusher_pids, wait_for
from tests.support.processes import in_child
from tests.support.scripts import ROOT

EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
NO_LOG_FLUSH = 2  # as the plug does it: nothing is written any more


class Disk:
    """An ext4 on a loop device, whose power can be cut."""

    def __init__(self, folder: Path) -> None:
        self.point = folder / "mounted"
        self._image = folder / "image"

    def make(self) -> None:
        self.point.mkdir()
        with self._image.open("wb") as image:
            image.truncate(32 << 20)
        run("mkfs.ext4", "-q", "-F", str(self._image))

    def mount(self) -> None:
        run("mount", "-o", "loop", str(self._image), str(self.point))

    def cut(self) -> None:
        fd = os.open(self.point, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(fd)
        run("umount", str(self.point))


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    found = Disk(tmp_path)
    try:
        found.make()
        found.mount()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no ext4 can be mounted on a loop device: {error}")
    monkeypatch.setenv("FALLOM_FLUSHER", "external")
    monkeypatch.setenv("FALLOM_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("FALLOM_STATE_DIR", str(found.point / "state"))
    yield found
    with contextlib.suppress(subprocess.CalledProcessError):
        run("umount", str(found.point))


def record(count: int) -> None:
    for number in range(count):
        trace.span({"number": number}, config_key="app", session_id=f"s{number}")


def kept(disk: Disk) -> int:
    """Count the records that are whole after the power came back."""
    namespace = next((disk.point / "state/v1").iterdir()).name
    directory = find_state_directory(str(disk.point / "state"), namespace, {})
    total = 0
    for name in segment_names(directory.spool):
        file = _open(directory.spool, name)
        if file is not None:
            total += count_records(file, name, HEAD_BYTES, file.size())
            file.close()
    directory.close()
    return total


def test_with_always_every_recorded_span_survives(disk: Disk) -> None:
    def worker() -> None:
        fallom.init(fsync="always")
        record(100)

    in_child(worker)
    disk.cut()
    disk.mount()
    assert in_child(lambda: kept(disk)) == 100


def test_with_interval_what_the_flusher_synced_survives(disk: Disk) -> None:
    def worker() -> None:
        fallom.init(fsync="interval")
        record(100)
        place = _runtime.current().whereabouts.place
        assert place is not None
        refused: list[str] = []
        on_disk = OnDisk(place.directory.spool, refused.append)
        assert on_disk.sync_once() > 0
        assert on_disk.sync_once() == 0, "what has not grown is not synced again"
        assert refused == []
        record(100)  # and then the plug is pulled

    in_child(worker)
    disk.cut()
    disk.mount()
    assert 100 <= in_child(lambda: kept(disk)) <= 200


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(("policy", "syncs"), [("none", False), ("interval", True)])
def test_a_flusher_syncs_what_workers_record_only_if_it_was_asked_to(
    tmp_path: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch, policy: str, syncs: bool
) -> None:
    monkeypatch.setenv("FALLOM_FLUSHER", "external")
    monkeypatch.setenv("FALLOM_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("FALLOM_FSYNC", policy)
    fallom.init()
    record(10)
    seen = tmp_path / "seen"
    strace = ["strace", "-f", "-y", "-qq", "-e", "trace=fdatasync", "-o", str(seen)]
    command = [*strace, sys.executable, "-m", "fallom", "flusher"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as flusher:
        try:
            wait_for(lambda: fallom.status()["flusher"]["is_alive"], what="the flusher")
            beats = {_beat()}
            # Two seconds of the flusher's life, by its own beats.
            wait_for(lambda: (beats.add(_beat()), len(beats) > 6)[1], what="its beats")
        finally:
            for pid in flusher_pids(state_dir):
                os.kill(pid, signal.SIGKILL)
            flusher.communicate()
    synced = [line for line in seen.read_text().splitlines() if "/spool/metrics-" in line]
    assert bool(synced) == syncs
    assert len(synced) <= 2, "once, and not again as long as nothing is added"


def _beat() -> int:
    place = _runtime.current().whereabouts.place
    assert place is not None
    return place.page.heartbeat_ns()
