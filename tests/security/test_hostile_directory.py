"""Hostile things in the state directory: nothing outside is touched, nothing hangs, the error says what.

What is planted in the database is in ``tests/snapshot``: pickles under every mode of diskcache, triggers,
views, other schemas.
"""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import fallom
from fallom import _runtime, trace
from fallom.exceptions import StateDirectoryError
from tests.support.scripts import ROOT

NAMES = ("control", "leader.lock", "spawn.lock", "flusher.log", "snapshot/cache.db")
SEGMENT = f"spool/traces-{'ab' * 16}.live"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file that must stay as it is."""
    path = tmp_path / "outside"
    path.write_bytes(b"precious" * 1000)
    return path


@pytest.fixture
def place(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A namespace's directory as an earlier run left it, with no flusher."""
    monkeypatch.setenv("FALLOM_FLUSHER", "external")
    monkeypatch.setenv("FALLOM_BASE_URL", "http://127.0.0.1:9")
    fallom.init()
    trace.span({"before": 1}, config_key="app", session_id="s")
    _runtime.reset()
    (found,) = state_dir.glob("v1/*")
    return found


def symlink(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def hard_link(path: Path, outside: Path) -> None:
    os.link(outside, path)


def fifo(path: Path, _: Path) -> None:
    os.mkfifo(path)


def directory(path: Path, _: Path) -> None:
    path.mkdir()


def use_all() -> None:
    """Record, read, look, and run a flusher to its end, as a host would."""
    fallom.init(flusher="process")  # which starts one: its log and its locks are files here too
    for number in range(20):
        trace.span({"number": number}, config_key="app", session_id="s")
    fallom.flush(1.0)
    assert fallom.models.get("app", "s", fallback="f") == "f"
    fallom.status()
    command = [sys.executable, "-m", "fallom", "flusher", "--once"]
    environ = {**os.environ, "FALLOM_COLD_START_TIMEOUT": "0"}
    flusher = subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        flusher.communicate(timeout=3)
    except subprocess.TimeoutExpired:
        flusher.kill()
        flusher.communicate()


@pytest.mark.parametrize("plant", [symlink, hard_link, fifo, directory])
@pytest.mark.parametrize("name", [*NAMES, SEGMENT, f"dead/1-{'cd' * 16}.dead"])
def test_what_stands_in_a_file_s_place_is_not_followed_written_or_waited_for(
    place: Path, outside: Path, name: str, plant: Callable[[Path, Path], None]
) -> None:
    path = place / name
    path.unlink(missing_ok=True)
    plant(path, outside)
    before = outside.read_bytes()
    use_all()
    assert outside.read_bytes() == before
    assert stat.S_IMODE(outside.stat().st_mode) == 0o644


@pytest.mark.parametrize("below", ["", "v1", "v1/*", "v1/*/spool", "v1/*/dead"])
def test_a_directory_that_others_may_write_to_is_refused_and_the_error_says_how_to_mend_it(
    place: Path, state_dir: Path, below: str
) -> None:
    (path,) = state_dir.glob(below) if below else (state_dir,)
    path.chmod(0o777)
    with pytest.raises(StateDirectoryError, match=r"chmod 700|mend it"):
        fallom.init(state_dir=state_dir)
    trace.span({"a": 1}, config_key="app", session_id="s")  # and nothing escapes


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
@pytest.mark.parametrize("below", ["", "v1", "v1/*", "v1/*/spool", "v1/*/dead"])
def test_a_directory_of_another_user_is_refused_with_both_users_named(
    place: Path, state_dir: Path, below: str
) -> None:
    (path,) = state_dir.glob(below) if below else (state_dir,)
    os.chown(path, 12345, 12345)
    with pytest.raises(StateDirectoryError, match="belongs to user 12345"):
        fallom.init(state_dir=state_dir)


@pytest.mark.parametrize(
    "frame",
    [
        b"\xf1\x0c\x4d\x7e" + struct.pack("<BBHII", 1, 2, 0, 0xFFFF_FFFF, 0) + b"x" * 5000,
        b"\xf1\x0c\x4d\x7e" + struct.pack("<BBHII", 1, 2, 0, 1 << 19, 0) + b"\x91" * 100_000,
        b"\xf1\x0c\x4d\x7e" * 50_000,
        os.urandom(100_000),
    ],
    ids=["4 GiB", "nested 100,000 deep", "only magic", "noise"],
)
def test_a_segment_that_lies_costs_itself_alone(place: Path, frame: bytes) -> None:
    for path in (place / "spool").glob("*.live"):
        path.write_bytes(path.read_bytes() + frame)
    use_all()
    assert fallom.flush(0) > 0, "what is whole is still there"
