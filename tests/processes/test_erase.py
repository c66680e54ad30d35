"""``fallom spool erase``: one person's unsent records go, beside workers and the flusher."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

import fallom as library
from fallom import models, trace
from fallom.dev.server import LocalCloud
from tests.support.commands import fallom
from tests.support.flushers import wait_for
from tests.support.scripts import start_script

# Records for two people until it is told to stop, from several threads.
WORKER = """
import sys, threading, fallom
from fallom import trace
fallom.init(segment_bytes_max=65536)
stop = threading.Event()
counts = [0] * 3
def record(thread):
    session = fallom.session("app", "bob", customer_id="customer-bob")
    while not stop.wait(0.001):
        who = f"bob-{thread}-{counts[thread]}"
        trace.span({"text": "the words of bob"}, config_key="app", session_id=who)
        counts[thread] += 1
threads = [threading.Thread(target=record, args=(n,)) for n in range(3)]
for number in range(300):
    trace.span({"text": f"the words of ada {number}"}, config_key="app", session_id="ada")
[thread.start() for thread in threads]
print("ready", flush=True)
sys.stdin.readline()
stop.set()
[thread.join() for thread in threads]
print(*counts, flush=True)
sys.stdin.readline()
"""


def erased(*arguments: str) -> dict[str, Any]:
    done = fallom("spool", "erase", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def on_disk(state_dir: Path, text: str) -> list[Path]:
    files = [path for path in state_dir.rglob("*") if path.is_file()]
    return [path for path in files if text.encode() in path.read_bytes()]


def sessions(cloud: LocalCloud) -> list[str]:
    return [row["attributes"]["fallom.session_id"] for row in cloud.spans()]


def wait_until_none_is_under_way(cloud: LocalCloud) -> None:
    """Wait until no request is on its way that was made before: what it holds may arrive.

    One lane sends, and has one request under way while it is refused: the second from now on is new.
    """
    now_ns = time.time_ns()

    def are_new() -> bool:
        posts = [row for row in cloud.fetches() if row["path"] == "/v1/traces"]
        return sum(row["received_unix_ns"] > now_ns for row in posts) >= 2

    wait_for(are_new, 60, what="two more requests")


def test_it_works_while_workers_record_and_the_flusher_tries_and_costs_nobody_else_a_span(
    cloud: LocalCloud, tmp_path: Path, state_dir: Path
) -> None:
    cloud.fault("503,path=/v1/traces")
    with start_script(WORKER, tmp_path, stdin=subprocess.PIPE) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        wait_for(lambda: "503" in library.status()["last_error"], what="a batch that is sent again")
        assert erased("--session", "ada", "--dry-run")["unsent"] == {"metrics": 300}
        assert on_disk(state_dir, "the words of ada")
        assert erased("--session", "ada")["unsent"] == {"metrics": 300}
        assert on_disk(state_dir, "the words of ada") == []
        assert on_disk(state_dir, '"ada"') == []
        worker.stdin.write("stop\n")
        worker.stdin.flush()
        counts = [int(count) for count in worker.stdout.readline().split()]
        wait_until_none_is_under_way(cloud)
        cloud.fault()
        assert library.flush(30) == 0
        worker.kill()
    expected = {f"bob-{thread}-{n}" for thread, count in enumerate(counts) for n in range(count)}
    assert set(sessions(cloud)) == expected
    assert library.status()["dropped"] == {"erased": 300}
    assert erased("--session", "ada")["unsent"] == {}


def test_dead_letters_and_exposures_of_a_person_go_as_well(
    cloud: LocalCloud, state_dir: Path
) -> None:
    library.init()
    assert library.wait_until_ready(20)
    cloud.fault("400,attribute=fallom.metric.poison,path=/v1/traces", "503,path=/sessions")
    for number in range(20):
        trace.span({"sound": number}, config_key="app", session_id="other")
    for who in ("ada", "bob"):
        models.get("app", who)
        trace.span({"poison": f"the words of {who}"}, config_key="app", session_id=who)
    wait_for(
        lambda: library.status()["dropped"].get("refused") == 2,
        timeout_s=60,
        what="two dead letters",
    )
    done = fallom("spool", "erase", "--session", "ada")
    assert done.returncode == 0
    assert "exposures: 1" in done.stdout
    assert "dead letters: 1" in done.stdout
    assert on_disk(state_dir, "the words of ada") == []
    assert len(on_disk(state_dir, "the words of bob")) == 2, "the letter, and its segment"
    assert len(json.loads(fallom("dead", "ls", "--json").stdout)) == 1
    cloud.fault()
    assert library.flush(30) == 0


def test_what_a_replay_that_was_killed_left_beside_the_letters_goes_as_well(
    cloud: LocalCloud, state_dir: Path
) -> None:
    library.init(flusher="external")
    trace.span({"text": "x"}, config_key="app", session_id="bob")
    [dead] = state_dir.glob("v1/*/dead")
    for who in ("ada", "bob"):
        (dead / f"17-{'0' * 32}.dead.{who}.tmp").write_text(f"a letter of {who}")
    assert erased("--session", "ada", "--dry-run")["damaged"] == 1
    assert erased("--session", "ada")["damaged"] == 1
    assert on_disk(state_dir, "letter of ada") == []
    assert on_disk(state_dir, "letter of bob")


@pytest.mark.parametrize("arguments", [(), ("--session", "a", "--customer", "b")])
def test_it_asks_for_one_person(cloud: LocalCloud, arguments: tuple[str, ...]) -> None:
    done = fallom("spool", "erase", *arguments)
    assert done.returncode == 2
    assert "--session ID or --customer ID" in done.stderr


def test_what_cannot_be_looked_at_is_said_and_is_exit_code_1(
    cloud: LocalCloud, state_dir: Path
) -> None:
    library.init(flusher="external")
    trace.span({"text": "x"}, config_key="app", session_id="ada")
    library.shutdown()
    [path] = state_dir.glob("v1/*/spool/metrics-*")
    path.rename(path.with_name("kept"))
    path.symlink_to("kept")
    done = fallom("spool", "erase", "--session", "ada")
    assert done.returncode == 1
    assert path.name in done.stdout
