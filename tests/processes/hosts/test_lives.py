"""Workers of servers: recycled, killed, hung, reloaded, of another user, in the background."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fallom.dev.server import LocalCloud
from tests.support import hosts
from tests.support.flushers import end_flushers, flusher_pids, leader_pids, wait_for
from tests.support.host_checks import HostTest
from tests.support.hosts import Connection, Failed, Host, Kind, Unanswered

NOBODY = 65534
HANGS_MAX_S = 1
RECYCLED = ("--max-requests", "5")
GUNICORNS = (hosts.SYNC, hosts.GTHREAD, hosts.GEVENT, hosts.UVICORN_WORKER)


def marked(kinds: list[Kind], quick: int) -> list[object]:
    """Give parameters; all but the first ones are for the long run."""
    return [
        pytest.param(kind, id=kind.name, marks=[] if number < quick else [pytest.mark.long])
        for number, kind in enumerate(kinds)
    ]


def workers(host: Host) -> set[int]:
    return set(host.children())


def drive(test: HostTest, host: Host, name: str, count: int = 12) -> None:
    test.answered += [a["name"] for a in host.drive([f"{name}-{n}" for n in range(count)])]


@pytest.mark.parametrize(
    "kind",
    marked(
        [
            hosts.SYNC.with_options("recycled", *RECYCLED),
            hosts.UWSGI.with_options(
                "recycled", "--max-requests", "5", "--worker-reload-mercy", "2"
            ),
            hosts.UVICORN_WORKER.with_options("recycled", *RECYCLED),
            hosts.GTHREAD.with_options("recycled", *RECYCLED),
            hosts.GEVENT.with_options("recycled", *RECYCLED),
            hosts.SYNC.with_options("recycled preload", *RECYCLED, "--preload"),
            hosts.UWSGI.with_options(
                "recycled lazy", *RECYCLED, "--min-worker-lifetime", "1", "--lazy-apps"
            ),
        ],
        quick=2,
    ),
)
def test_workers_that_are_recycled_lose_nothing_and_leave_nothing(
    kind: Kind, cloud: LocalCloud, tmp_path: Path, state_dir: Path
) -> None:
    test = HostTest(kind, cloud, tmp_path / "host", state_dir)
    with test.host() as host:
        seen = workers(host)
        while len(seen) < 4:
            drive(test, host, f"recycled-{len(test.answered)}")
            seen |= workers(host)
        test.flusher()
        wait_for(lambda: not host.zombies(), 10, "what has ended to be collected")
        host.stop()
    assert len(test.answered) > 10
    test.check_delivered()


@pytest.mark.parametrize(
    "kind",
    marked(
        [
            *(kind.with_options("hung", "--timeout", str(HANGS_MAX_S)) for kind in GUNICORNS[:1]),
            hosts.UWSGI.with_options("harakiri", "--harakiri", str(HANGS_MAX_S)),
            hosts.SYNC.with_options("hung preload", "--timeout", str(HANGS_MAX_S), "--preload"),
            hosts.UVICORN_WORKER.with_options("hung", "--timeout", str(HANGS_MAX_S)),
            hosts.UWSGI.with_options(
                "harakiri threads", "--harakiri", str(HANGS_MAX_S), "--threads", "4"
            ),
        ],
        quick=2,
    ),
)
def test_what_a_worker_recorded_that_was_killed_for_hanging_arrives(
    kind: Kind, cloud: LocalCloud, tmp_path: Path, state_dir: Path
) -> None:
    test = HostTest(kind, cloud, tmp_path / "host", state_dir)
    with test.host() as host:
        before = workers(host)
        with pytest.raises((Unanswered, Failed)), Connection(host.port) as connection:
            connection.get("/plain/hang/hung")
        test.answered.append("hung")  # it was recorded, and said so in a file
        wait_for(lambda: workers(host) - before, 30, "a worker in the place of the one that hung")
        drive(test, host, "after")
        test.flusher()
        host.stop()
    test.check_delivered()


@pytest.mark.parametrize(
    "kind",
    marked(
        [
            hosts.SYNC,
            hosts.UWSGI,
            hosts.GEVENT,
            hosts.GTHREAD.with_options("preload", "--preload"),
            hosts.UVICORN_WORKER,
            hosts.UWSGI.with_options("lazy", "--lazy-apps"),
        ],
        quick=2,
    ),
)
def test_killed_and_reloaded_workers_lose_nothing_that_was_answered(
    kind: Kind, cloud: LocalCloud, tmp_path: Path, state_dir: Path
) -> None:
    test = HostTest(kind, cloud, tmp_path / "host", state_dir)
    with test.host() as host:
        driver = threading.Thread(target=drive, args=(test, host, "during", 60))
        driver.start()
        first = workers(host)
        os.kill(min(first), signal.SIGKILL)
        wait_for(lambda: workers(host) - first, 30, "a worker in the place of the killed one")
        driver.join()
        before = workers(host)
        host.send_signal(signal.SIGHUP)
        wait_for(lambda: not workers(host) & before, 30, "the reloaded workers")
        drive(test, host, "reloaded")
        wait_for(lambda: not host.zombies(), 10, "what has ended to be collected")
        host.stop()
    test.check_delivered()


@pytest.mark.parametrize(
    "kind",
    marked(
        [
            hosts.UWSGI.with_options("threads", "--threads", "4"),
            hosts.GTHREAD,
            hosts.GEVENT,
            hosts.UVICORN,
            hosts.HYPERCORN,
        ],
        quick=1,
    ),
)
def test_a_flusher_that_a_request_started_is_as_independent_as_any(
    kind: Kind, cloud: LocalCloud, tmp_path: Path, state_dir: Path
) -> None:
    """Such a thread of uWSGI has all signals blocked, and a child begins with the same."""
    test = HostTest(kind, cloud, tmp_path / "host", state_dir)
    with test.host() as host:
        drive(test, host, "first")
        (first,) = wait_for(lambda: leader_pids(state_dir))
        os.kill(first, signal.SIGKILL)
        while not set(leader_pids(state_dir)) - {first}:
            drive(test, host, f"next-{len(test.answered)}", count=1)
        host.stop()
        assert test.flusher() != first
    with test.host(port=host.port) as again:
        drive(test, again, "again")
        again.stop()
    test.check_stoppable()


@pytest.mark.parametrize(
    "kind", marked([hosts.UVICORN, hosts.HYPERCORN, hosts.UVICORN_WORKER], quick=1)
)
def test_a_streamed_answer_whose_client_went_away_is_recorded_to_its_end(
    kind: Kind, cloud: LocalCloud, tmp_path: Path, state_dir: Path
) -> None:
    test = HostTest(kind, cloud, tmp_path / "host", state_dir)
    with test.host() as host:
        for number in range(3):
            with Connection(host.port) as connection:
                connection.begin(f"/apart/endless/gone-{number}")
        acknowledged = tmp_path / "host/acknowledged"
        names = {f"gone-{number}-cancelled" for number in range(3)}
        wait_for(lambda: names <= set(acknowledged.read_text().split()), 20, "the cancelled ones")
        drive(test, host, "after")
        assert host.get("/apart/look/x")["whose"] is None
        host.stop()
    said = acknowledged.read_text()
    assert said.count("start-") == said.count("end-") == kind.workers, "the lifespan of each worker"
    test.check_delivered()


@pytest.mark.parametrize(
    "kind",
    marked(
        [
            hosts.SYNC.with_options("daemon preload", "--daemon", "--pid", "host.pid", "--preload"),
            hosts.SYNC.with_options("daemon", "--daemon", "--pid", "host.pid"),
            hosts.SYNC.with_options(
                "daemon after init", "--daemon", "--pid", "host.pid", "--config", "config.py"
            ),
        ],
        quick=1,
    ),
)
def test_a_server_that_goes_to_the_background_works_and_can_be_stopped(
    kind: Kind, cloud: LocalCloud, tmp_path: Path, state_dir: Path
) -> None:
    test = HostTest(kind, cloud, tmp_path / "host", state_dir)
    # Evaluated by the process that goes to the background later, and closes its descriptors.
    (tmp_path / "host/config.py").write_text("import work\nwork.record('before')\n")
    with test.host() as host:
        drive(test, host, "daemon")
        if "config.py" in kind.command:
            test.answered.append("before")
        test.flusher()
        host.stop()
    with test.host(port=host.port) as again:
        drive(test, again, "again")
        again.stop()
    test.check_delivered()


def can_nobody_run_python() -> bool:
    command = [sys.executable, "-c", "import msgpack, requests"]
    try:
        ran = subprocess.run(command, user=NOBODY, group=NOBODY, capture_output=True, check=False)
    except (OSError, subprocess.SubprocessError):
        return False
    return ran.returncode == 0


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that other users can enter and write to; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory(prefix="fallom-test-") as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)
        for name in ("state", "home"):
            end_flushers(Path(folder) / name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_workers_of_another_user_than_the_one_that_loaded_the_application_deliver(
    cloud: LocalCloud, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_nobody_run_python():
        pytest.skip("the user nobody cannot run this interpreter")
    (shared / "acknowledged").touch()
    os.chmod(shared / "acknowledged", 0o666)
    home = shared / "home"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    monkeypatch.delenv("FALLOM_STATE_DIR")
    kind = hosts.SYNC.with_options("user", "--preload", "--user", "nobody")
    test = HostTest(kind, cloud, shared, home)
    # Root's own directory is refused to nobody, so each of the two has one.
    with test.host(XDG_STATE_HOME=str(home), HOME=str(home)) as host:
        assert {psutil.Process(pid).uids().real for pid in workers(host)} == {NOBODY}
        drive(test, host, "nobody")
        found = lambda: [row["attributes"]["fallom.session_id"] for row in cloud.spans()]  # noqa: E731
        wait_for(lambda: set(test.answered) <= set(found()), 30, "what nobody recorded")
        host.stop()
    for pid in flusher_pids(shared):
        os.kill(pid, signal.SIGKILL)
