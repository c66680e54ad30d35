"""``fallom doctor``: each finding by making it so, and what it says to do."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

import fallom
from fallom import trace
from fallom._flusher.election import LEADER_LOCK
from fallom._host import directory as directory_module
from fallom._host.control import ControlPage
from fallom._host.files import open_directory, open_file
from fallom.cli.commands import run_commands
from fallom.dev.server import LocalCloud
from tests.support.commands import fallom as run
from tests.support.commands import fallom_here
from tests.support.raw_server import RawServer


def examined(*arguments: str, **environ: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """Run it; give the exit code, and the findings by subject."""
    ended = fallom_here("doctor", "--json", *arguments, **environ)
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in json.loads(ended.stdout):
        found.setdefault(finding["subject"], []).append(finding)
        assert finding["level"] == "good" or finding["mend"], "it says how to mend it"
    return ended.returncode, found


def only(found: dict[str, list[dict[str, Any]]], subject: str) -> tuple[str, str, str]:
    (finding,) = found[subject]
    return finding["level"], finding["what"], finding["mend"] or ""


@pytest.fixture
def namespace(state_dir: Path) -> Path:
    """A namespace that was recorded into, with nothing that listens."""
    fallom.init(
        traces_url="http://127.0.0.1:9",
        configs_url="http://127.0.0.1:9",
        prompts_url="http://127.0.0.1:9",
        flusher="external",
    )
    trace.span({"n": 1}, config_key="app", session_id="s")
    (found,) = state_dir.glob("v1/*")
    return found


OFFLINE = {
    "FALLOM_TRACES_URL": "http://127.0.0.1:9",
    "FALLOM_CONFIGS_URL": "http://127.0.0.1:9",
    "FALLOM_PROMPTS_URL": "http://127.0.0.1:9",
}


def test_a_sound_host_has_nothing_bad(cloud: LocalCloud) -> None:
    fallom.init()
    assert fallom.wait_until_ready(20)
    ended = run("doctor")
    assert ended.returncode == 0, ended.stdout
    assert "0 bad" in ended.stdout
    for subject in ("directory", "permissions", "space", "flusher", "traces", "configs", "clock"):
        assert f"ok      {subject}" in ended.stdout


def test_a_host_on_which_nothing_ran_yet_is_examined_as_well(
    cloud: LocalCloud, state_dir: Path
) -> None:
    code, found = examined()
    assert code == 0
    assert "none lives and nothing waits" in only(found, "flusher")[1]
    assert not list(state_dir.glob(f"v1/*/{LEADER_LOCK}")), "to look at a lock makes none"


def test_memory_is_no_disk() -> None:
    if directory_module.filesystem_of("/dev/shm") != "tmpfs":
        pytest.skip("/dev/shm is no tmpfs here")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as base:
        _, found = examined("--offline", FALLOM_STATE_DIR=base, **OFFLINE)
    level, what, mend = only(found, "directory")
    assert level == "warning"
    assert "memory" in what
    assert "at most 16.0 MiB" in what
    assert "FALLOM_STATE_DIR" in mend


@pytest.mark.parametrize(
    ("filesystem", "code", "level", "words"),
    [("nfs4", 1, "bad", "network file system"), ("overlay", 0, "warning", "this container")],
)
def test_the_file_system_is_looked_up(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    filesystem: str,
    code: int,
    level: str,
    words: str,
) -> None:
    # Such a mount cannot be made here, so the kernel's table of mounts is another.
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"36 35 0:50 / / rw,noatime - {filesystem} server:/ rw\n")
    monkeypatch.setattr(directory_module, "_MOUNTS", str(mounts))
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    assert run_commands(["doctor", "--offline", "--json"]) == code
    found = [f for f in json.loads(capsys.readouterr().out) if f["subject"] == "directory"]
    assert found[0]["level"] == level
    assert words in found[0]["what"]


def test_a_directory_that_cannot_be_used_is_bad(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    code, found = examined("--offline", FALLOM_STATE_DIR=str(open_to_all), **OFFLINE)
    assert code == 1
    assert "chmod 700" in only(found, "directory")[1]


def test_what_others_can_read_is_told_with_the_command(namespace: Path) -> None:
    segment = next(namespace.glob("spool/metrics-*"))
    segment.chmod(0o644)
    _, found = examined("--offline", **OFFLINE)
    level, _, mend = only(found, "permissions")
    assert (level, mend) == ("warning", f"chmod 600 {segment}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_belongs_to_another_user_is_bad(namespace: Path) -> None:
    segment = next(namespace.glob("spool/metrics-*"))
    os.chown(segment, 65534, 65534)
    code, found = examined("--offline", **OFFLINE)
    assert code == 1
    level, _, mend = only(found, "permissions")
    assert level == "bad"
    assert "chown -R" in mend


def test_a_quota_larger_than_the_disk_is_told(namespace: Path) -> None:
    _, found = examined("--offline", FALLOM_SPOOL_BYTES_MAX=str(1 << 40), **OFFLINE)
    level, what, mend = only(found, "space")
    assert level == "warning"
    assert "does not fit" in what
    assert "FALLOM_SPOOL_BYTES_MAX" in mend


def test_waiting_records_without_a_flusher_are_told(namespace: Path) -> None:
    _, found = examined("--offline", **OFFLINE)
    level, what, mend = only(found, "flusher")
    assert level == "warning"
    assert "1 record(s) wait" in what
    assert "fallom flusher --once" in mend


def test_an_external_flusher_that_is_missing_is_bad(namespace: Path) -> None:
    code, found = examined("--offline", FALLOM_FLUSHER="external", **OFFLINE)
    assert code == 1
    assert "supervisor" in only(found, "flusher")[2]


def test_a_lock_that_is_held_without_a_beat_is_told(namespace: Path) -> None:
    root = open_directory(str(namespace))
    held = open_file(root, LEADER_LOCK, os.O_RDWR | os.O_CREAT)
    assert held.lock()
    _, found = examined("--offline", **OFFLINE)
    level, what, mend = only(found, "flusher")
    assert level == "warning"
    assert "does not beat" in what
    assert "flusher.log" in mend
    assert (namespace / LEADER_LOCK).exists(), "to look changes nothing"
    held.close()


def test_an_older_flusher_is_told(namespace: Path) -> None:
    root = open_directory(str(namespace))
    page = ControlPage.open(root)
    page.take_over(time.monotonic_ns(), 1, 1)
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(0.1):
            page.beat(time.monotonic_ns())

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        _, found = examined("--offline", **OFFLINE)
    finally:
        ended.set()
        thread.join()
    level, what, mend = only(found, "flusher")
    assert level == "warning"
    assert "older than this one" in what
    assert "takes over" in mend


@pytest.mark.parametrize(
    ("fault", "level", "words"),
    [
        ("401", "bad", "FALLOM_API_KEY"),
        ("404", "bad", "there is no such thing at this URL"),
        ("503", "warning", "kept and sent later"),
        ("redirect,to=http://127.0.0.1:1/", "bad", "redirects are not followed"),
        ("hang", "bad", "firewall"),
        ("reset", "bad", "FALLOM_CONFIGS_URL"),
    ],
)
def test_a_server_that_does_not_answer_well_is_told(
    cloud: LocalCloud, fault: str, level: str, words: str
) -> None:
    cloud.fault(f"{fault},path=/configs")
    code, found = examined("--timeout", "1")
    assert code == (1 if level == "bad" else 0)
    told, what, mend = only(found, "configs")
    assert told == level
    assert f"{cloud.url}/configs" in what
    assert words in mend
    assert only(found, "traces")[0] == only(found, "prompts")[0] == "good"


def test_a_server_that_is_not_there_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    code, found = examined(FALLOM_BASE_URL=f"http://127.0.0.1:{port}")
    assert code == 1
    assert only(found, "traces")[0] == "bad"
    assert "connect" in only(found, "traces")[1]


def test_without_a_key_the_hosted_service_is_not_asked() -> None:
    code, found = examined()
    assert code == 1
    for subject in ("traces", "configs", "prompts"):
        assert "there is no API key" in only(found, subject)[1]


@pytest.fixture
def answers() -> Iterator[RawServer]:
    """A server whose clock is an hour behind."""

    def answer(connection: socket.socket, _: bytes) -> None:
        date = formatdate(time.time() - 3600, usegmt=True)
        head = f"HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: 2\r\n\r\n"
        connection.sendall(head.encode() + b"{}")

    server = RawServer(answer)
    yield server
    server.close()


def test_a_clock_that_is_wrong_is_told(answers: RawServer) -> None:
    _, found = examined(FALLOM_BASE_URL=answers.url)
    level, what, mend = only(found, "clock")
    assert level == "warning"
    assert "60 min ahead of" in what
    assert "NTP" in mend


def test_a_dependency_below_its_floor_is_bad(
    cloud: LocalCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib import metadata

    try:
        metadata.requires("fallom")
    except metadata.PackageNotFoundError:
        pytest.skip("fallom is not installed as a package")
    older = tmp_path / "requests-2.0.dist-info"
    older.mkdir()
    (older / "METADATA").write_text("Metadata-Version: 2.1\nName: requests\nVersion: 2.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    code, found = examined("--offline")
    assert code == 1
    level, what, mend = only(found, "versions")
    assert level == "bad"
    assert "requests 2.0 is installed" in what
    assert mend.startswith('pip install "requests')


def test_a_folder_is_looked_at_in_a_server_s_place(cloud: LocalCloud, tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/a.json").write_text("[")
    code, found = examined(FALLOM_CONFIGS_URL=f"file://{tmp_path}")
    assert code == 1
    assert "configs/a.json" in only(found, "configs")[1]
    (tmp_path / "configs/a.json").write_text('{"variants": [{"model": "m", "weight": 100}]}')
    code, found = examined(FALLOM_CONFIGS_URL=f"file://{tmp_path}")
    assert code == 0
    assert "1 key(s)" in only(found, "configs")[1]
