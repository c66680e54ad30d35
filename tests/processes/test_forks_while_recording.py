"""A process is forked while its other threads record: no child hangs, and all that they record arrives."""

from __future__ import annotations

from pathlib import Path

from fallom.dev.server import LocalCloud
from tests.processes.conftest import distinct
from tests.support.flushers import wait_for
from tests.support.scripts import run_script

FORKS = 300
AT_A_TIME = 10

# A child that waits for a lock of a thread that it has not got is ended by its alarm.
PROGRAM = """
import os, signal, sys, threading, time
import fallom
from fallom import models, prompts, trace

def work(name):
    models.get("app", name, fallback="x")
    prompts.get("hello", {"name": name})
    trace.span({"n": 1}, config_key="app", session_id=name)

def record_on(number):
    count = 0
    while not is_over.is_set():
        work(f"thread-{number}-{count}")
        count += 1
        time.sleep(0.0005)  # or the forking thread hardly gets its turn
    counts[number] = count

fallom.init()
assert fallom.wait_until_ready(20)
sys.setswitchinterval(1e-4)
is_over, counts = threading.Event(), {}
threads = [threading.Thread(target=record_on, args=(number,), daemon=True) for number in range(3)]
for thread in threads: thread.start()
forks, at_a_time = map(int, sys.argv[1:])
for first in range(0, forks, at_a_time):
    pids = []
    for number in range(first, first + at_a_time):
        pid = os.fork()
        if pid == 0:
            signal.alarm(30)
            work(f"child-{number}")
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0, "a child hung"
is_over.set()
for thread in threads: thread.join()
assert fallom.flush(60) == 0
assert fallom.status()["dropped"] == {}
print(sum(counts.values()))
"""


def test_three_hundred_forks_while_threads_record_hang_nobody(
    cloud: LocalCloud, tmp_path: Path
) -> None:
    by_threads = int(run_script(PROGRAM, tmp_path, None, str(FORKS), str(AT_A_TIME)))
    assert by_threads > 0
    wait_for(lambda: distinct(cloud) == by_threads + FORKS, 30, f"{by_threads} and {FORKS}")
