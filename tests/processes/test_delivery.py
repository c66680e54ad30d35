"""Every acknowledged span arrives, however the processes that recorded it began and ended."""

from __future__ import annotations

import os
import signal
from itertools import pairwise
from pathlib import Path

import pytest

from fallom.dev.server import LocalCloud
from tests.support.flushers import flusher_pids, leader_pids, wait_for
from tests.support.scripts import run_script, start_script

RECORD = """
import sys, os, fallom
from fallom import trace
def record(who, count):
    for number in range(count):
        trace.span({"number": number}, config_key="app", session_id=f"{who}-{number}")
"""


def sessions(cloud: LocalCloud) -> set[str]:
    return {row["attributes"]["fallom.session_id"] for row in cloud.spans()}


def test_a_script_that_ends_by_os_exit_delivers_all_it_recorded(
    cloud: LocalCloud, tmp_path: Path
) -> None:
    run_script(RECORD + "fallom.init()\nrecord('s', 2000)\nos._exit(0)\n", tmp_path)
    wait_for(lambda: cloud.stats()["spans"]["distinct"] == 2000, what="2,000 spans")
    assert cloud.stats()["spans"]["received"] == 2000


def test_a_script_that_is_killed_delivers_all_it_acknowledged(
    cloud: LocalCloud, tmp_path: Path
) -> None:
    code = RECORD + (
        "fallom.init()\nnumber = 0\nwhile True:\n"
        "    trace.span({}, config_key='app', session_id=str(number))\n"
        "    os.write(1, b'%d\\n' % number)\n    number += 1\n"
    )
    with start_script(code, tmp_path) as script:
        assert script.stdout is not None
        acknowledged = {script.stdout.readline().strip() for _ in range(500)}
        script.kill()
        lines = script.stdout.read().splitlines(keepends=True)
    acknowledged |= {line.strip() for line in lines if line.endswith("\n")}
    wait_for(lambda: acknowledged <= sessions(cloud), what="all acknowledged spans")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_eight_processes_deliver_all_and_fetch_configs_as_one(
    cloud: LocalCloud, tmp_path: Path, folder: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FALLOM_SYNC_INTERVAL", "1")
    code = (
        RECORD
        + """
import multiprocessing, time
from fallom import models
def worker(number, go, go_on, done):
    if multiprocessing.get_start_method() == "spawn":
        fallom.init()
    go.wait()
    record(f"w{number}", 100)
    assert models.get("app", "s", fallback="none") == "one"
    done.release()
    go_on.wait()
    assert models.get("app", "s", fallback="none") == "two", "the change is not seen"
    os._exit(0)
if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    fallom.init()
    assert fallom.wait_until_ready(20)
    go, go_on = multiprocessing.Event(), multiprocessing.Event()
    done = multiprocessing.Semaphore(0)
    workers = [multiprocessing.Process(target=worker, args=(n, go, go_on, done)) for n in range(8)]
    for process in workers: process.start()
    go.set()
    for process in workers: done.acquire()
    with open(sys.argv[2], "w") as config:
        config.write("version: 2\\nvariants:\\n  - {model: two, weight: 100}\\n")
    while fallom.models.get("app", "s") != "two": time.sleep(0.01)
    go_on.set()
    for process in workers: process.join()
    sys.exit(max(process.exitcode for process in workers))
"""
    )
    run_script(code, tmp_path, None, method, str(folder / "configs/app.yaml"))
    expected = {f"w{worker}-{number}" for worker in range(8) for number in range(100)}
    wait_for(lambda: expected <= sessions(cloud), what="800 spans")
    stats = cloud.stats()
    assert stats["spans"]["received"] == 800
    fetched = [row["received_unix_ns"] for row in cloud.fetches() if row["path"] == "/configs"]
    apart = [later - earlier for earlier, later in pairwise(fetched)]
    assert all(gap > 0.5e9 for gap in apart), "one fetch an interval, whoever lives"


def test_a_forked_child_that_never_calls_fallom_holds_nothing_up(
    cloud: LocalCloud, tmp_path: Path
) -> None:
    code = (
        RECORD
        + """
import ctypes
fallom.init()
record("before", 10)
# A fork made in C runs no hook of Python's: the child keeps the parent's locks for as long as it lives.
child = ctypes.CDLL(None).fork()
if child == 0:
    ctypes.CDLL(None).pause()
print(child, flush=True)
os.kill(os.getpid(), 9)
"""
    )
    with start_script(code, tmp_path) as script:
        assert script.stdout is not None
        child = int(script.stdout.readline())
        script.wait()
        try:
            wait_for(lambda: len(sessions(cloud)) == 10, what="the spans of the dead parent")
            run_script(RECORD + "fallom.init()\nrecord('after', 10)\n", tmp_path)
            wait_for(lambda: len(sessions(cloud)) == 20, what="the spans of the next process")
        finally:
            os.kill(child, signal.SIGKILL)


def test_the_flusher_is_replaced_after_a_kill_and_loses_nothing(
    cloud: LocalCloud, tmp_path: Path, state_dir: Path
) -> None:
    import fallom
    from fallom import trace

    fallom.init()
    for number in range(200):
        trace.span({}, config_key="app", session_id=f"a{number}")
    (first,) = wait_for(lambda: leader_pids(state_dir), what="a flusher")
    os.kill(first, signal.SIGKILL)
    for number in range(200):
        trace.span({}, config_key="app", session_id=f"b{number}")
    wait_for(
        lambda: fallom.status()["flusher"]["pid"] not in (first, None), what="the next flusher"
    )
    assert fallom.flush(20) == 0
    assert len(sessions(cloud)) == 400


def test_the_flusher_leaves_when_nobody_needs_it(
    cloud: LocalCloud, tmp_path: Path, state_dir: Path
) -> None:
    run_script(RECORD + "fallom.init()\nrecord('s', 5)\n", tmp_path, {"FALLOM_LINGER": "0"})
    wait_for(lambda: len(sessions(cloud)) == 5)
    wait_for(lambda: not flusher_pids(state_dir), what="the flusher to leave")
    left = [path.name for path in state_dir.glob("v1/*/spool/*")]
    assert left == [], "what is delivered is deleted"
