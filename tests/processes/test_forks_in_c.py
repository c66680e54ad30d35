"""A host that forks in C (uWSGI) runs none of Python's hooks, and its child has threads at once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from fallom.dev.server import LocalCloud
from tests.processes.conftest import distinct
from tests.support.flushers import wait_for
from tests.support.scripts import run_script

CHILDREN = 15
THREADS = 4

# Each child's threads are all its first users, and change places as often as they can.
HOST = """
import ctypes, os, sys, threading
import fallom
from fallom import models, trace

def work(name):
    together.wait()
    models.get("app", name, fallback="x")
    trace.span({"pid": os.getpid()}, config_key="app", session_id=name)

fallom.init()
trace.span({"pid": os.getpid()}, config_key="app", session_id="host")
for child in range(int(sys.argv[1])):
    pid = ctypes.PyDLL(None).fork()
    if pid == 0:
        sys.setswitchinterval(1e-6)
        together = threading.Barrier(int(sys.argv[2]))
        threads = [
            threading.Thread(target=work, args=(f"{child}-{number}",))
            for number in range(int(sys.argv[2]))
        ]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        os._exit(len(fallom.status()["dropped"]))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
trace.span({"pid": os.getpid()}, config_key="app", session_id="host at the end")
assert fallom.flush(30) == 0
"""


def test_all_that_the_first_threads_of_a_child_record_arrives_as_the_child_s(
    cloud: LocalCloud, tmp_path: Path
) -> None:
    run_script(HOST, tmp_path, None, str(CHILDREN), str(THREADS))
    wait_for(lambda: distinct(cloud) == CHILDREN * THREADS + 2)
    rows = cloud.spans()
    assert all(
        row["resource"]["process.pid"] == row["attributes"]["fallom.metric.pid"] for row in rows
    )
    counts = Counter(row["resource"]["process.pid"] for row in rows)
    assert sorted(counts.values()) == [2] + [THREADS] * CHILDREN
