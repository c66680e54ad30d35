from __future__ import annotations

import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from fallom.dev.server import CloudStartError, LocalCloud

ROOT = Path(__file__).parents[2]


def eventually(look: Callable[[], Any], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "fallom", "dev", *arguments]


def test_killed_cloud_kept_everything_that_it_acknowledged(new_cloud: Any, batch: Any) -> None:
    with new_cloud() as cloud:
        port = cloud.port
        acknowledged: list[int] = []
        lock = threading.Lock()
        numbers = iter(range(100_000))
        stop = threading.Event()

        def send() -> None:
            while not stop.is_set():
                with lock:
                    number = next(numbers)
                try:
                    answer = cloud.post(batch(10, first=1 + 10 * number), user_agent="sender")
                except OSError:
                    continue  # unanswered: stored or not, nobody was told
                assert answer.status == 200
                with lock:
                    acknowledged.append(number)

        senders = [threading.Thread(target=send) for _ in range(4)]
        for sender in senders:
            sender.start()
        for kills in range(1, 6):
            eventually(lambda: len(acknowledged) >= 20 * kills)  # noqa: B023
            cloud.restart()
        stop.set()
        for sender in senders:
            sender.join()
        assert cloud.port == port
        kept = {span["name"] for span in cloud.spans()}
        for number in acknowledged:
            assert {f"span {1 + 10 * number + i}" for i in range(10)} <= kept
        assert len(kept) % 10 == 0  # a batch is stored whole or not at all


def test_answer_comes_after_the_commit(new_cloud: Any, batch: Any, tmp_path: Path) -> None:
    db = tmp_path / "cloud.db"
    with new_cloud(db=db) as cloud:
        locker = sqlite3.connect(db, isolation_level=None)
        locker.execute("BEGIN IMMEDIATE")  # nobody else can commit now
        with pytest.raises(TimeoutError):
            cloud.ask(
                "POST",
                "/v1/traces",
                batch(1).SerializeToString(),
                timeout_s=0.5,
                content_type="application/x-protobuf",
            )
        assert cloud.ask("GET", "/configs").status == 200  # the loop is not held up
        locker.execute("COMMIT")
        locker.close()
        cloud.wait_for(lambda c: c.stats()["spans"]["received"] == 1)


def test_stop_leaves_no_process_and_no_file(new_cloud: Any) -> None:
    cloud = new_cloud().start()
    pid, own = cloud.pid, Path(cloud._own_files.name)
    assert own.exists()
    cloud.stop()
    assert is_gone(pid)
    assert not own.exists()
    cloud.stop()


def test_database_that_was_asked_for_stays(new_cloud: Any, batch: Any, tmp_path: Path) -> None:
    db = tmp_path / "deep" / "cloud.db"
    with new_cloud(db=db) as cloud:
        cloud.post(batch(3))
    assert stat.S_IMODE(db.stat().st_mode) == 0o600
    with new_cloud(db=db) as cloud:
        assert cloud.stats()["spans"] == {"received": 3, "distinct": 3}


def test_orderly_end_has_exit_code_0_even_with_requests_hanging(new_cloud: Any) -> None:
    with (
        new_cloud(fault="hang") as cloud,
        socket.create_connection(("127.0.0.1", cloud.port), 10) as asking,
    ):
        asking.sendall(b"GET /configs HTTP/1.1\r\nHost: localhost\r\n\r\n")
        cloud.wait_for(lambda c: c.ask("GET", "/_dev/fault").json()["faults"][0]["applied"])
        assert cloud.terminate() == 0


def test_cloud_ends_when_whoever_started_it_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from fallom.dev.server import LocalCloud\n"
        "cloud = LocalCloud().start()\n"
        "print(cloud.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},  # nobody is left to clean up
    ) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        assert not is_gone(pid)
        parent.kill()
    eventually(lambda: is_gone(pid))


def test_start_that_fails_says_what_the_cloud_said(tmp_path: Path) -> None:
    with pytest.raises(CloudStartError, match="expected a directory"):
        LocalCloud(tmp_path / "nowhere").start()


def test_started_cloud_cannot_be_started_again(cloud: LocalCloud) -> None:
    with pytest.raises(CloudStartError, match="runs already"):
        cloud.start()


def test_restart_waits_for_a_port_that_somebody_has_for_a_moment(new_cloud: Any) -> None:
    with new_cloud() as cloud:
        cloud.kill()
        other = socket.create_server(("127.0.0.1", cloud.port))
        threading.Timer(1.0, other.close).start()
        cloud.restart()
        assert cloud.stats()["pid"] == cloud.pid


def test_environment_points_to_it(cloud: LocalCloud) -> None:
    assert (
        cloud.environment()["FALLOM_CONFIGS_URL"] == cloud.url == f"http://127.0.0.1:{cloud.port}"
    )
    assert cloud.environment()["OPENAI_BASE_URL"] == f"{cloud.url}/v1"


def test_proxy_of_the_environment_is_not_used(
    cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert cloud.stats()["spans"]


def test_waiting_gives_what_was_found_or_says_what_there_is(cloud: Any) -> None:
    assert cloud.wait_for(lambda c: c.stats()["version"])
    with pytest.raises(TimeoutError, match="received"):
        cloud.wait_for(lambda c: False, timeout_s=0.05)


def test_rows_beyond_one_page_are_all_given(cloud: Any, batch: Any) -> None:
    for first in range(1, 6002, 2000):
        cloud.post(batch(2000, first=first))
    assert len({span["span_id"] for span in cloud.spans()}) == 8000


def test_banner_has_the_lines_to_paste_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    with subprocess.Popen(
        command("--port", "0", "--port-file", str(port_file), "--db", str(tmp_path / "x.db")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    ) as process:
        eventually(port_file.exists)
        url = f"http://127.0.0.1:{port_file.read_text().strip()}"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert errors == ""
    for variable in ("FALLOM_TRACES_URL", "FALLOM_CONFIGS_URL", "FALLOM_PROMPTS_URL"):
        assert f"{variable}={url}" in output
    assert f"OPENAI_BASE_URL={url}/v1 OPENAI_API_KEY=anything" in output
    assert "\x1b" not in output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--fault", "rest"), "did you mean 'reset'"),
        (("--host", "no.such.host.invalid"), "--host no.such.host.invalid"),
        (("--port", "0", "--db", "/proc/nowhere/x.db"), "--db /proc/nowhere/x.db"),
        (("--port", "70000"), "70000"),
        (("nowhere",), "expected a directory"),
        (("--prot", "1"), "No such option"),
    ],
)
def test_what_cannot_be_used_is_told_without_a_traceback(
    arguments: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    safe = [] if "--db" in arguments else ["--db", str(tmp_path / "x.db")]
    ended = subprocess.run(
        command(*safe, *arguments),
        check=False,
        capture_output=True,
        cwd=ROOT,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


def test_port_in_use_is_told(cloud: LocalCloud, tmp_path: Path) -> None:
    arguments = command("--port", str(cloud.port), "--db", str(tmp_path / "x.db"))
    ended = subprocess.run(
        arguments, check=False, capture_output=True, cwd=ROOT, text=True, timeout=60
    )
    assert ended.returncode == 2
    assert "--port 0 takes any that is free" in ended.stderr


def test_default_database_is_in_the_users_state_directory(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    with subprocess.Popen(
        command("--port", "0", "--port-file", str(port_file), "--quiet"),
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=environ,
    ) as process:
        eventually(port_file.exists)
        process.terminate()
        assert process.communicate(timeout=20)[0] == b""
    assert (tmp_path / "state" / "fallom" / "dev.db").exists()
