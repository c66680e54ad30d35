"""The flusher's life: who runs it, which version, what it does when a server refuses or a disk fills."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import fallom
from fallom import _runtime, trace
from fallom._host.versions import unpack_version
from fallom._version import __version__
from fallom.dev.server import LocalCloud
from tests.support.flushers import flusher_pids, leader_pids, wait_for
from tests.support.scripts import ROOT, run_script, start_script

RECORD = """
import sys, fallom
from fallom import trace
fallom.init()
for number in range(int(sys.argv[2])):
    trace.span({"n": number}, config_key="app", session_id=f"{sys.argv[1]}-{number}")
"""


def sessions(cloud: LocalCloud) -> set[str]:
    return {row["attributes"]["fallom.session_id"] for row in cloud.spans()}


def record(name: str, count: int) -> None:
    for number in range(count):
        trace.span({"n": number}, config_key="app", session_id=f"{name}-{number}")


def test_a_higher_version_takes_over_and_a_lower_one_does_not(
    cloud: LocalCloud, tmp_path: Path, state_dir: Path
) -> None:
    older = tmp_path / "older"
    shutil.copytree(ROOT / "fallom", older / "fallom")
    (older / "fallom/_version.py").write_text('__version__ = "0.0.9"\n')
    wait = RECORD + "sys.stdin.readline()\n"
    path = tmp_path / "older.py"
    path.write_text(wait)
    with subprocess.Popen(
        [sys.executable, str(path), "old", "10"],
        env={**os.environ, "PYTHONPATH": str(older)},
        stdin=subprocess.PIPE,
    ) as worker:
        wait_for(lambda: len(sessions(cloud)) == 10, what="the older version's spans")
        (old_pid,) = leader_pids(state_dir)
        fallom.init()
        assert fallom.status()["flusher"]["version"] == "0.0.9"
        record("new", 10)
        wait_for(lambda: fallom.status()["flusher"]["version"] == __version__, what="the hand-over")
        wait_for(lambda: not psutil.pid_exists(old_pid), what="the older one to leave")
        wait_for(lambda: len(sessions(cloud)) == 20)
        # A worker of the older version is content with what is there.
        (new_pid,) = leader_pids(state_dir)
        run_script(
            f"import sys\nsys.path.insert(0, {str(older)!r})\n" + RECORD,
            tmp_path,
            None,
            "late",
            "10",
        )
        wait_for(lambda: len(sessions(cloud)) == 30)
        assert leader_pids(state_dir) == [new_pid]
        worker.kill()
    assert cloud.stats()["spans"]["received"] == 30


def test_an_external_flusher_does_all_and_ends_at_sigterm(
    cloud: LocalCloud, tmp_path: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FALLOM_FLUSHER", "external")
    run_script(RECORD, tmp_path, None, "before", "10")
    assert flusher_pids(state_dir) == []
    command = [sys.executable, "-m", "fallom", "flusher"]
    with subprocess.Popen(command, cwd=ROOT) as flusher:
        wait_for(lambda: len(sessions(cloud)) == 10, what="what was there before it")
        run_script(RECORD, tmp_path, None, "during", "10")
        wait_for(lambda: len(sessions(cloud)) == 20)
        fallom.init()
        assert fallom.wait_until_ready(10)
        flusher.send_signal(signal.SIGTERM)
        assert flusher.wait(15) == 0
    assert not fallom.status()["flusher"]["is_alive"]


def test_once_drains_the_spool_and_tells_whether_something_is_left(
    cloud: LocalCloud, tmp_path: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FALLOM_FLUSHER", "external")
    run_script(RECORD, tmp_path, None, "batch", "3000")
    command = [sys.executable, "-m", "fallom", "flusher", "--once"]
    subprocess.run(command, cwd=ROOT, timeout=60, check=True)
    assert len(sessions(cloud)) == 3000
    assert not [path for path in state_dir.glob("v1/*/spool/*") if "wishes" not in path.name]


def test_the_state_directory_may_be_removed_under_a_running_worker(
    cloud: LocalCloud, state_dir: Path
) -> None:
    fallom.init()
    record("before", 10)
    assert fallom.flush(20) == 0
    before = _runtime.current().whereabouts.place
    while state_dir.exists():  # the flusher may be writing into it at this moment
        shutil.rmtree(state_dir, ignore_errors=True)
    # Noticed within a second: what is recorded until then goes with the removed directory.
    # Of this process: a flusher that was starting may have made the directory before.
    wait_for(
        lambda: (fallom.status(), _runtime.current().whereabouts.place not in (before, None))[1],
        what="the directory to be made anew",
    )
    record("after", 10)
    assert fallom.flush(20) == 0
    assert {f"after-{number}" for number in range(10)} <= sessions(cloud)


def test_a_refused_span_is_kept_with_the_reason_and_the_others_arrive(
    cloud: LocalCloud, state_dir: Path
) -> None:
    cloud.fault("400,attribute=fallom.metric.poison,path=/v1/traces")
    fallom.init()
    record("good", 50)
    trace.span({"poison": 1}, config_key="app", session_id="bad")
    record("more", 50)
    assert fallom.flush(30) == 0, "a dead letter is not waited for"
    assert len(sessions(cloud)) == 100
    wait_for(lambda: fallom.status()["dropped"] == {"refused": 1})
    (letter,) = state_dir.glob("v1/*/dead/*.dead")
    assert b"bad" in letter.read_bytes()
    assert b"HTTP 400" in letter.read_bytes()


def test_a_wrong_account_loses_nothing_and_is_said(cloud: LocalCloud, state_dir: Path) -> None:
    cloud.fault("401,path=/v1/traces")
    fallom.init()
    record("kept", 20)
    wait_for(lambda: "401" in fallom.status()["last_error"], what="the error to be told")
    assert fallom.flush(0.2) == 20
    assert fallom.status()["flusher"]["paused_s"] > 0
    assert not list(state_dir.glob("v1/*/dead/*.dead"))
    cloud.clear()


@pytest.mark.parametrize("path", ["/v1/traces", "/configs"])
def test_a_key_that_is_refused_is_a_warning_of_the_application(
    cloud: LocalCloud, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    cloud.fault(f"401,path={path}")
    fallom.init(sync_interval=1)

    def warned() -> bool:
        record("kept", 1)
        return any("401" in said and "FALLOM_API_KEY" in said for said in caplog.messages)

    wait_for(warned, what="the worker to say it")
    cloud.fault()


def test_what_people_had_to_mend_is_over_when_it_is_mended(cloud: LocalCloud) -> None:
    cloud.fault("403,path=/configs")
    fallom.init(sync_interval=1)
    page = _runtime.current().whereabouts.open().page
    wait_for(page.wrong_since_s, what="the refusal to be told")
    cloud.fault()
    wait_for(lambda: not page.wrong_since_s(), what="its end")


def test_the_quota_holds_while_the_server_is_down_and_what_goes_is_counted(
    cloud: LocalCloud, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.kill()
    fallom.init(spool_bytes_max=1 << 20, segment_bytes_max=64 << 10)
    text = "x" * 1000
    recorded = 0
    while fallom.status()["dropped"].get("oldest", 0) == 0:
        for _ in range(100):
            trace.span({"text": text}, config_key="app", session_id=str(recorded))
            recorded += 1
    cloud.restart()
    assert fallom.flush(60) == 0
    arrived = cloud.stats()["spans"]["distinct"]
    assert 0 < arrived < recorded
    wait_for(
        lambda: arrived + sum(fallom.status()["dropped"].values()) == recorded,
        what=f"{recorded} to be {arrived} that arrived and the rest counted",
    )
    assert set(fallom.status()["dropped"]) <= {"oldest", "quota"}


def test_metrics_can_go_as_json_to_backends_that_read_only_that(cloud: LocalCloud) -> None:
    fallom.init(metrics_protocol="json")
    trace.span({"score": 0.5, "ok": True}, config_key="app", session_id="s")
    assert fallom.flush(20) == 0
    (row,) = cloud.metrics()
    assert (row["config_key"], row["session_id"]) == ("app", "s")
    assert row["data"] == {"score": 0.5, "ok": True}
    assert cloud.spans() == []


def test_the_flusher_survives_its_starter_s_terminal_and_group(
    cloud: LocalCloud, tmp_path: Path, state_dir: Path
) -> None:
    code = RECORD + "print('recorded', flush=True)\nsys.stdin.readline()\n"
    with start_script(code, tmp_path, None, "s", "5") as script:
        assert script.stdout is not None
        script.stdout.readline()
        (pid,) = wait_for(lambda: leader_pids(state_dir))
        assert os.getpgid(pid) != os.getpgid(script.pid)
        assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
        wait_for(lambda: psutil.Process(pid).nice() > 0, what="a lower priority")
        group = Path(f"/proc/{pid}/autogroup")
        wait_for(lambda: not group.exists() or group.read_text().endswith(" 10\n"))
        script.kill()


def test_the_page_tells_the_version_in_words() -> None:
    assert unpack_version((3 << 40) | (2 << 20) | 1) == "3.2.1"
