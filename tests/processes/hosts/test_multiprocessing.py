"""Processes of multiprocessing, however they are started and ended: the same as without fallom."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fallom.dev.server import LocalCloud
from tests.support.batch_host import BatchScript
from tests.support.delivered import acknowledged, check_delivered

# Each way gives what its processes are; they begin together, so that each has work.
CODE = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

def begin(barrier):
    global meeting
    meeting = barrier

def work(number):
    meeting.wait(60)
    record(f"w{number}")
    found = footprint()
    if "recycled" in sys.argv[1]:
        del found["pipes"]  # of those that a pool happens to have open when it forks the next one
    return found

def alone(number, barrier, queue):
    begin(barrier)
    queue.put(work(number))

def hang(number, barrier):
    begin(barrier)
    work(number)
    barrier.wait(60)
    time.sleep(600)

def main(kind, method):
    context = multiprocessing.get_context(method)
    barrier = context.Barrier(3 if kind == "terminated" else 2)
    if kind == "process":
        queue = context.Queue()
        processes = [context.Process(target=alone, args=(n, barrier, queue)) for n in range(2)]
        for process in processes:
            process.start()
        found = [queue.get(timeout=60) for _ in processes]
        for process in processes:
            process.join(60)
            assert process.exitcode == 0
        return found
    if kind == "pool":
        with context.Pool(2, begin, (barrier,)) as pool:  # which ends them by SIGTERM
            return pool.map(work, range(2), chunksize=1)
    if kind == "recycled pool":
        with context.Pool(2, begin, (barrier,), maxtasksperchild=1) as pool:
            found = pool.map(work, range(4), chunksize=1)
            pool.close()
            pool.join()
        return found
    if kind == "executor":
        with ProcessPoolExecutor(2, context, begin, (barrier,)) as pool:
            return list(pool.map(work, range(2)))
    processes = [context.Process(target=hang, args=(n, barrier)) for n in range(2)]
    for process in processes:
        process.start()
    barrier.wait(60)  # they begin,
    barrier.wait(60)  # and all is recorded
    processes[0].terminate()
    processes[1].kill()
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]

if __name__ == "__main__":
    kind, method = sys.argv[1:]
    record("parent", 3)
    found = sorted(main(kind, method), key=str)  # whichever process had which piece of work
    print(json.dumps([found, len(multiprocessing.active_children())]))
"""
KINDS = ["process", "pool", "recycled pool", "executor", "terminated"]
CELLS = [
    pytest.param(
        kind,
        method,
        id=f"{kind} {method}",
        marks=[] if kind == "process" or method == "fork" else pytest.mark.long,
    )
    for kind in KINDS
    for method in ("fork", "spawn", "forkserver")
]


@pytest.mark.parametrize(("kind", "method"), CELLS)
def test_processes_with_fallom_are_what_they_were_and_lose_nothing(
    kind: str, method: str, cloud: LocalCloud, tmp_path: Path, state_dir: Path
) -> None:
    ended = BatchScript(CODE, tmp_path).check_same(kind, method)
    assert ended.status == 0, ended.err
    found, left = json.loads(ended.out)
    assert left == 0
    workers = 4 if kind == "recycled pool" else 2
    assert len(found) == workers
    assert acknowledged(tmp_path).total() == 3 + 20 * workers
    check_delivered(cloud, tmp_path, state_dir)
