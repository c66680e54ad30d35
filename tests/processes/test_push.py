"""``fallom spool push``: what a machine without a network recorded, delivered from a copy of its files."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from fallom._core.settings import resolve_settings
from fallom.dev.server import LocalCloud
from tests.support.commands import fallom, start_fallom
from tests.support.flushers import wait_for
from tests.support.scripts import run_script

RECORD = """
import sys, fallom
from fallom import trace
fallom.init(flusher="external")
for number in range(int(sys.argv[2])):
    trace.span({"n": number}, config_key="app", session_id=f"{sys.argv[1]}-{number}")
"""


def sessions(cloud: LocalCloud) -> set[str]:
    return {row["attributes"]["fallom.session_id"] for row in cloud.spans()}


def received(cloud: LocalCloud) -> int:
    return int(cloud.stats()["spans"]["received"])


@pytest.fixture
def copy(cloud: LocalCloud, tmp_path: Path, state_dir: Path) -> Path:
    """The state directory of a machine that recorded 500 spans and delivered none, copied."""
    run_script(RECORD, tmp_path, None, "batch", "500")
    copied = tmp_path / "copy"
    shutil.copytree(state_dir, copied)
    shutil.rmtree(state_dir)
    return copied


def namespace_of(copied: Path) -> Path:
    (found,) = copied.glob("v1/*")
    return found


@pytest.mark.parametrize("form", ["state", "layout", "namespace", "spool", "spool alone"])
def test_a_copied_directory_is_delivered_once_however_it_is_named(
    cloud: LocalCloud, copy: Path, tmp_path: Path, form: str
) -> None:
    namespace = namespace_of(copy)
    alone = tmp_path / "alone"
    shutil.copytree(namespace / "spool", alone)
    named = {
        "state": copy,
        "layout": copy / "v1",
        "namespace": namespace,
        "spool": namespace / "spool",
        "spool alone": alone,
    }[form]
    first = fallom("spool", "push", str(named))
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.startswith("500 record(s) delivered from ")
    again = fallom("spool", "push", str(named), "--json")
    told = json.loads(again.stdout)
    assert (told["delivered"], told["left"], told["error"]) == (0, 0, None)
    assert received(cloud) == len(sessions(cloud)) == 500


def test_what_another_server_had_accepted_is_not_sent_again(
    cloud: LocalCloud, tmp_path: Path, state_dir: Path
) -> None:
    # The same server by another name: another target, and another namespace.
    named = {"FALLOM_TRACES_URL": f"http://localhost:{cloud.port}"}
    hold = (
        RECORD.replace("fallom.init(", "fallom.init(") + "print(flush=True); sys.stdin.readline()\n"
    )
    run_script(RECORD, tmp_path, named, "sent", "100")
    # A writer that lives keeps the segment from being deleted when it is delivered.
    from tests.support.scripts import start_script

    with start_script(hold, tmp_path, named, "held", "50", stdin=-1) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        assert fallom("flusher", "--once", **named).returncode == 0
        assert received(cloud) == 150
        run_script(RECORD, tmp_path, named, "unsent", "30")
        copied = tmp_path / "copy"
        shutil.copytree(state_dir, copied)
        writer.kill()
    assert fallom("spool", "push", str(copied)).returncode == 0
    assert received(cloud) == len(sessions(cloud)) == 180


def test_an_interrupted_push_goes_on_where_it_ended(cloud: LocalCloud, copy: Path) -> None:
    cloud.fault("503,path=/v1/traces")
    with start_fallom("spool", "push", str(copy)) as push:
        wait_for(lambda: cloud.stats()["requests"] > 0 if "requests" in cloud.stats() else True)
        wait_for(lambda: "HTTP 503" in (push.stderr.readline() if push.stderr else ""))
        second = fallom("spool", "push", str(copy))
        assert second.returncode == 3
        assert "another push is at work" in second.stderr
        push.send_signal(signal.SIGINT)
        assert push.wait(20) == 130
    assert received(cloud) == 0
    cloud.fault()
    assert fallom("spool", "push", str(copy)).returncode == 0
    assert received(cloud) == len(sessions(cloud)) == 500


def test_a_directory_whose_flusher_lives_is_refused(
    cloud: LocalCloud, copy: Path, tmp_path: Path
) -> None:
    cloud.fault("503,path=/v1/traces")
    with start_fallom("flusher", FALLOM_STATE_DIR=str(copy)) as flusher:
        wait_for(lambda: "HTTP 503" in (flusher.stderr.readline() if flusher.stderr else ""))
        ended = fallom("spool", "push", str(namespace_of(copy) / "spool"))
        assert ended.returncode == 3
        flusher.kill()
    cloud.fault()


def test_a_copy_larger_or_older_than_this_machine_s_limits_loses_nothing(
    cloud: LocalCloud, tmp_path: Path, state_dir: Path
) -> None:
    text = RECORD.replace('{"n": number}', '{"text": "x" * 4000}')
    run_script(text, tmp_path, {"FALLOM_SEGMENT_BYTES_MAX": "65536"}, "big", "2500")
    for segment in state_dir.glob("v1/*/spool/*"):
        os.utime(segment, (1e9, 1e9))
    # Slow enough for many looks at the limit.
    cloud.fault("delay,seconds=1,path=/v1/traces")
    ended = fallom("spool", "push", str(state_dir), FALLOM_SPOOL_BYTES_MAX=str(1 << 20))
    assert ended.returncode == 0
    assert len(sessions(cloud)) == 2500


def test_what_the_server_refuses_is_in_that_directory_s_dead_letters(
    cloud: LocalCloud, copy: Path
) -> None:
    cloud.fault("400,attribute=fallom.session_id=batch-7,path=/v1/traces")
    ended = fallom("spool", "push", str(copy))
    assert ended.returncode == 1
    assert "! 1 given up: refused; they are in" in ended.stdout
    assert len(list(namespace_of(copy).glob("dead/*.dead"))) == 1
    assert len(sessions(cloud)) == 499


def test_records_of_two_applications_are_never_mixed(
    cloud: LocalCloud, copy: Path, tmp_path: Path, state_dir: Path
) -> None:
    run_script(RECORD, tmp_path, {"FALLOM_API_KEY": "other"}, "other", "5")
    shutil.copytree(state_dir, copy, dirs_exist_ok=True)
    ended = fallom("spool", "push", str(copy))
    assert ended.returncode == 2
    names = sorted(path.name for path in copy.glob("v1/*"))
    assert all(name in ended.stderr for name in names)
    other = resolve_settings({"api_key": "other"}, os.environ).namespace
    ended = fallom("spool", "push", str(copy), "--namespace", other[:6])
    assert ended.returncode == 0
    assert sessions(cloud) == {f"other-{number}" for number in range(5)}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_copy_of_another_user_is_refused_with_what_to_do(cloud: LocalCloud, copy: Path) -> None:
    segment = next(path for path in copy.glob("v1/*/spool/*") if "wishes" not in path.name)
    os.chown(segment, 65534, 65534)
    ended = fallom("spool", "push", str(copy))
    assert ended.returncode == 2
    assert "chown -R $(id -u)" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert received(cloud) == 0


def test_without_a_key_the_hosted_service_is_not_asked(copy: Path) -> None:
    ended = fallom("spool", "push", str(copy), FALLOM_TRACES_URL="")
    assert ended.returncode == 2
    assert "FALLOM_API_KEY" in ended.stderr


@pytest.mark.parametrize("what", ["nothing", "a file", "an empty directory"])
def test_what_is_no_spool_is_told(tmp_path: Path, what: str) -> None:
    path = tmp_path / "given"
    if what == "a file":
        path.touch()
    elif what == "an empty directory":
        path.mkdir()
    ended = fallom("spool", "push", str(path), FALLOM_TRACES_URL="http://127.0.0.1:9")
    assert ended.returncode == 2
    assert str(path) in ended.stderr
    assert "Traceback" not in ended.stderr


def test_ls_and_verify_show_what_waits_and_what_is_damaged(copy: Path) -> None:
    listed = fallom("spool", "ls", str(copy))
    assert listed.returncode == 0
    assert "500 record(s) unsent in" in listed.stdout
    (row,) = json.loads(fallom("spool", "ls", str(copy), "--json").stdout)
    assert (row["destination"], row["state"], row["unaccepted_records"]) == ("metrics", "left", 500)
    sound = fallom("spool", "verify", str(copy))
    assert sound.returncode == 0
    assert "500 whole record(s)" in sound.stdout
    (segment,) = copy.glob("v1/*/spool/metrics-*")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 0x10
    segment.write_bytes(data)
    damaged = fallom("spool", "verify", str(copy))
    assert damaged.returncode == 1
    assert "damaged bytes at" in damaged.stdout
    assert "499 whole record(s)" in damaged.stdout
