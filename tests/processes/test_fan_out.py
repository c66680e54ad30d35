"""Several targets, real receivers: each gets every span, at its own pace and by its own credentials."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import pytest

import fallom
from fallom import trace
from fallom._flusher.window import BATCHES_MAX
from fallom.dev.server import LocalCloud
from tests.support.flushers import end_flushers, flusher_pids, wait_for
from tests.support.hosts import free_port
from tests.support.raw_server import RawServer, answer
from tests.support.scripts import ROOT
from tests.support.spools import allocated_bytes
from tests.support.targets import span_numbers_of

T = TypeVar("T")

PHOENIX = os.environ.get("FALLOM_TEST_PHOENIX") or shutil.which("phoenix")


@pytest.fixture
def lab(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCloud]:
    """A second receiver."""
    with LocalCloud(folder, db=tmp_path / "lab.db") as running:
        monkeypatch.setenv("FALLOM_TRACES_EXTRA_LAB_URL", running.url)
        yield running


@pytest.fixture(autouse=True)
def _no_flusher_outlives(state_dir: Path) -> Iterator[None]:
    yield
    end_flushers(state_dir)


def record(start: int, count: int, **data: Any) -> None:
    for number in range(start, start + count):
        trace.span({"number": number, **data}, config_key="app", session_id=f"s{number}")


def numbers(cloud: LocalCloud) -> list[int]:
    return sorted(int(row["attributes"]["fallom.session_id"][1:]) for row in cloud.spans())


def extra() -> dict[str, Any]:
    """Give the state of the one extra target; before a flusher has come, an empty one."""
    nothing: dict[str, Any] = {"accepted": 0, "dropped": {}, "last_error": ""}
    return dict(*fallom.status()["targets"] or [nothing])


def cli(*arguments: str) -> str:
    command = [sys.executable, "-m", "fallom", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=True)
    return done.stdout


def test_each_target_gets_every_span_once_and_the_spool_is_empty_then(
    cloud: LocalCloud, lab: LocalCloud, state_dir: Path
) -> None:
    fallom.init()
    record(0, 300)
    assert fallom.flush(30) == 0
    wait_for(lambda: numbers(lab) == list(range(300)), what="all at the second target")
    assert numbers(cloud) == list(range(300))
    assert cloud.stats()["spans"]["received"] == lab.stats()["spans"]["received"] == 300
    wait_for(lambda: extra()["accepted"] == 300)
    assert extra()["waiting_records"] == 0
    fallom.shutdown()
    wait_for(lambda: not list(state_dir.glob("v1/*/spool/traces-*")), what="an empty spool")


def test_a_dead_target_holds_back_nobody_and_gets_all_when_it_is_back(
    cloud: LocalCloud, lab: LocalCloud
) -> None:
    lab.kill()
    fallom.init()
    record(0, 200)
    assert fallom.flush(30) == 0, "the main target alone is waited for"
    assert numbers(cloud) == list(range(200))
    wait_for(lambda: "lab" in extra()["last_error"], what="a word about the second target")
    assert extra()["waiting_records"] == 200
    assert fallom.status()["spool"]["waiting_records"] == 0
    assert "to lab" in cli("status")
    lab.start()
    wait_for(lambda: numbers(lab) == list(range(200)), 60, what="the backlog at the second target")
    wait_for(lambda: extra()["waiting_records"] == 0)


def test_whatever_each_target_answers_it_holds_back_no_other_and_has_all_in_the_end(
    cloud: LocalCloud, lab: LocalCloud, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    troubles = {
        "limited": answer(429, b"", "Retry-After: 1"),
        "large": answer(413),
        "locked": answer(401),
        "hanging": b"",
    }
    is_over = threading.Event()
    taken: dict[str, list[int]] = {name: [] for name in troubles}
    with contextlib.ExitStack() as servers:
        for name, trouble in troubles.items():

            def reply(
                connection: socket.socket,
                request: bytes,
                name: str = name,
                trouble: bytes = trouble,
            ) -> None:
                if is_over.is_set():
                    taken[name] += span_numbers_of(request.partition(b"\r\n\r\n")[2])
                    connection.sendall(answer(200))
                elif trouble:
                    connection.sendall(trouble)
                else:
                    is_over.wait()

            server = servers.enter_context(closing(RawServer(reply)))
            monkeypatch.setenv(f"FALLOM_TRACES_EXTRA_{name.upper()}_URL", server.url)
        servers.callback(is_over.set)
        fallom.init()
        record(0, 200)
        assert fallom.flush(30) == 0
        wait_for(lambda: numbers(lab) == list(range(200)), what="all at a target without trouble")
        states = {each["name"]: each for each in fallom.status()["targets"]}
        for name in troubles:
            assert (states[name]["waiting_records"], states[name]["dropped"]) == (200, {}), name
        for pid in flusher_pids(state_dir):  # which would wait for minutes
            os.kill(pid, signal.SIGKILL)
        is_over.set()
        for name in troubles:
            all_came = _looking(lambda name=name: len(set(taken[name])) == 200)
            wait_for(all_came, 60, what=f"all at {name}")
    assert cloud.stats()["spans"]["received"] == 200


def test_the_main_target_s_outage_holds_back_no_other(cloud: LocalCloud, lab: LocalCloud) -> None:
    cloud.fault("503,path=/v1/traces")
    fallom.init()
    record(0, 100)
    wait_for(lambda: numbers(lab) == list(range(100)), what="all at the second target")
    assert numbers(cloud) == []
    cloud.fault()
    wait_for(lambda: numbers(cloud) == list(range(100)), 60, what="all at the main target")
    assert lab.stats()["spans"]["received"] == 100


def test_each_target_is_told_its_own_credentials_and_nothing_of_others(
    cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take(connection: socket.socket, _: bytes) -> None:
        connection.sendall(answer(200))

    with closing(RawServer(take)) as other:
        monkeypatch.setenv("FALLOM_TRACES_EXTRA_LAB_URL", other.url)
        monkeypatch.setenv("FALLOM_TRACES_EXTRA_LAB_HEADERS", "X-Lab-Key=lab%20secret")
        monkeypatch.setenv("FALLOM_TRACES_HEADERS", "X-Main-Key=main-secret")
        fallom.init(api_key="the-api-key")
        record(0, 1)
        wait_for(lambda: extra()["accepted"] == 1, what="the span at the second target")
        (request,) = other.requests
    head = request.partition(b"\r\n\r\n")[0].lower()
    assert b"x-lab-key: lab secret" in head
    assert b"authorization" not in head
    assert b"main-secret" not in head


def test_what_one_target_refuses_is_its_dead_letter_and_is_replayed_to_it_alone(
    cloud: LocalCloud, lab: LocalCloud
) -> None:
    lab.fault("400,path=/v1/traces,attribute=fallom.metric.poison")
    fallom.init()
    record(0, 20)
    record(20, 2, poison="yes")
    assert fallom.flush(30) == 0
    assert numbers(cloud) == list(range(22))
    wait_for(lambda: extra()["dropped"] == {"refused": 2}, what="two refused")
    assert fallom.status()["dropped"] == {}
    letters = json.loads(cli("dead", "ls", "--json"))
    assert [letter["target"] for letter in letters] == ["lab", "lab"]
    lab.fault()
    assert "2 record(s)" in cli("dead", "replay", "--all")
    wait_for(lambda: numbers(lab) == list(range(22)), what="the replayed ones")
    assert json.loads(cli("dead", "ls", "--json")) == []
    record(22, 1)
    assert fallom.flush(30) == 0
    assert cloud.stats()["spans"]["received"] == 23, "nothing was replayed to the main target"


def test_a_letter_of_the_main_target_is_replayed_to_no_other(
    cloud: LocalCloud, lab: LocalCloud
) -> None:
    cloud.fault("400,path=/v1/traces,attribute=fallom.metric.poison")
    fallom.init()
    record(0, 5)
    record(5, 1, poison="yes")
    assert fallom.flush(30) == 0
    wait_for(lambda: numbers(lab) == list(range(6)), what="all at the second target")
    cloud.fault()
    assert "1 record(s)" in cli("dead", "replay", "--all")
    wait_for(lambda: numbers(cloud) == list(range(6)), what="the replayed one")
    record(6, 1)
    wait_for(lambda: numbers(lab) == list(range(7)), what="one after it")
    assert lab.stats()["spans"]["received"] == 7


def test_a_dead_target_costs_its_own_budget_and_then_its_own_records(
    cloud: LocalCloud, lab: LocalCloud, monkeypatch: pytest.MonkeyPatch, state_dir: Path
) -> None:
    count = 6000
    lab.kill()
    monkeypatch.setenv("FALLOM_TRACES_EXTRA_LAB_BYTES_MAX", str(1 << 18))
    fallom.init(spool_bytes_max=4 << 20, segment_bytes_max=1 << 16)
    for start in range(0, count, 500):  # 24 times the budget, and more than the spool may take
        record(start, 500, text="x" * 1000)
        assert fallom.flush(60) == 0
        assert fallom.status()["dropped"] == {}
    assert cloud.stats()["spans"]["distinct"] == count
    wait_for(lambda: extra()["dropped"].get("budget"), what="something given up")
    wait_for(
        lambda: allocated_bytes(state_dir) <= (1 << 18) + (1 << 17), what="the budget to be kept"
    )
    status = fallom.status()
    assert status["dropped"] == {}
    assert set(extra()["dropped"]) == {"budget"}
    lab.start()
    wait_for(lambda: extra()["waiting_records"] == 0, 60, what="the rest at the second target")
    kept = len(numbers(lab))
    wait_for(  # the flusher tells its counts once a second
        lambda: extra()["dropped"]["budget"] >= count - kept, what="the count of the last given up"
    )
    assert extra()["dropped"]["budget"] == count - kept, (
        "each span arrived or was counted, none both"
    )
    assert kept < count / 2


def test_a_dead_target_takes_no_room_from_the_main_one_in_a_burst(
    cloud: LocalCloud, lab: LocalCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is recorded within one tick is more than all that the spool may hold."""
    lab.kill()
    monkeypatch.setenv("FALLOM_TRACES_EXTRA_LAB_BYTES_MAX", str(1 << 18))
    fallom.init(spool_bytes_max=3 << 20, segment_bytes_max=1 << 16)
    count, each, lacking_max = 12_000, 200, 1 << 20
    record(0, each)
    assert fallom.flush(60) == 0
    for start in range(each, count, each):
        record(start, each, text="x" * 1000)
        # What the main target lacks is never more than half of its room. By the flusher's word: what the
        # target has received is more, and stays until its answer has come.
        wait_for(
            lambda: fallom.status()["spool"]["unaccepted_bytes"] <= lacking_max, 60, what="delivery"
        )
    assert fallom.flush(60) == 0
    assert fallom.status()["dropped"] == {}
    assert cloud.stats()["spans"]["distinct"] == count


def test_a_killed_flusher_costs_each_target_a_few_batches_sent_twice_and_no_span(
    cloud: LocalCloud, lab: LocalCloud, state_dir: Path
) -> None:
    cloud.fault("delay,seconds=0.05,path=/v1/traces")
    lab.fault("delay,seconds=0.15,path=/v1/traces")
    fallom.init()
    kills = 4
    for sent in range(0, kills * 500, 500):
        record(sent, 500)
        some_arrived = _looking(lambda sent=sent: _received(cloud) > sent)
        wait_for(some_arrived, 60, what="some delivery")
        for pid in flusher_pids(state_dir):
            os.kill(pid, signal.SIGKILL)
    count = kills * 500 + 1
    record(count - 1, 1)
    for target in (cloud, lab):
        arrived = _looking(lambda target=target: set(numbers(target)) == set(range(count)))
        wait_for(arrived, 60, what="all spans at each target")
    for target in (cloud, lab):
        twice = _received(target) - count
        assert twice <= kills * BATCHES_MAX * 2000, "a batch is 2,000 records"


def _received(cloud: LocalCloud) -> int:
    return int(cloud.stats()["spans"]["received"])


def _looking(look: Callable[[], T]) -> Callable[[], T]:
    """Look, and have this worker look after its flusher as any call does."""

    def both() -> T:
        fallom.status()
        return look()

    return both


@pytest.mark.skipif(PHOENIX is None, reason="no `phoenix` on PATH: pip install arize-phoenix")
def test_phoenix_takes_what_the_main_target_takes(
    cloud: LocalCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert PHOENIX is not None
    port, grpc = free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PHOENIX_WORKING_DIR": str(tmp_path / "phoenix"),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(grpc),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    monkeypatch.setenv("FALLOM_TRACES_EXTRA_PHOENIX_URL", url)
    fallom.init()
    record(0, 50)
    assert fallom.flush(30) == 0, "before the other target is even there"
    with (tmp_path / "phoenix.log").open("wb") as log:
        phoenix = subprocess.Popen([PHOENIX, "serve"], env=environ, stdout=log, stderr=log)
    try:
        wait_for(lambda: _phoenix_spans(url) == 50, 120, what="50 spans in Phoenix")
        record(50, 10)
        assert fallom.flush(30) == 0
        wait_for(lambda: _phoenix_spans(url) == 60, 60, what="60 spans in Phoenix")
    finally:
        phoenix.kill()
        phoenix.wait()
    assert numbers(cloud) == list(range(60))


def _phoenix_spans(url: str) -> int:
    try:
        with urllib.request.urlopen(f"{url}/v1/projects/default/spans?limit=100") as answer:
            return len(json.load(answer)["data"])
    except OSError:
        return -1
