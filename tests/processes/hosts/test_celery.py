"""Celery workers of every pool: they are what they were, lose nothing, and tasks are their requests'.

Each test starts real workers by Celery's command line; tasks wait in Redis where a server is found.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fallom.dev.server import LocalCloud
from tests.support import celery_host as pools
from tests.support.celery_host import CeleryTest, Pool
from tests.support.celery_place import DIRECTORY, redis_server, running_redis
from tests.support.flushers import leader_pids, wait_for

pytest.importorskip("celery")


@pytest.fixture
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    wanted = getattr(request, "param", "redis")
    server = redis_server() if wanted == "redis" else None
    if server is None:
        yield DIRECTORY
        return
    with running_redis(server, tmp_path) as address:
        yield address


@pytest.fixture
def celery_test(cloud: LocalCloud, tmp_path: Path, state_dir: Path, broker: str) -> CeleryTest:
    return CeleryTest(cloud, tmp_path / "tasks", state_dir, broker)


def long(pool: Pool) -> Any:
    return pytest.param(pool, id=pool.name, marks=pytest.mark.long)


def default(pool: Pool) -> Any:
    return pytest.param(pool, id=pool.name)


@pytest.mark.parametrize(
    "pool",
    [
        default(pools.PREFORK),
        long(pools.RECYCLING),
        default(pools.THREADS),
        long(pools.GEVENT),
        long(pools.SOLO),
    ],
)
def test_a_worker_with_fallom_is_the_worker_that_it_was_and_loses_nothing(
    pool: Pool, celery_test: CeleryTest, state_dir: Path
) -> None:
    with celery_test.client(BARE="yes") as client:

        def run(name: str) -> Any:
            return client.run(
                f"found = [get(each) for each in [work.delay(f'{name}-{{n}}') for n in range(4)]]"
            )

        with celery_test.worker(pool, BARE="yes") as worker:
            bare = [celery_test.look(worker, run) for _ in range(pool.looks)]
            bare_status = worker.stop()
        assert celery_test.acknowledged().total() == 0
        with celery_test.worker(pool) as worker:
            celery_test.check_same(worker, bare, run)
            (flusher,) = leader_pids(state_dir)
            assert worker.stop() == bare_status
            assert leader_pids(state_dir) == [flusher], "it had no output of the worker's to hold"
    assert celery_test.acknowledged().total() >= 4
    celery_test.check_delivered()


CARRYING = [pools.PREFORK, pools.THREADS]
CARRYING_LONG = [pools.RECYCLING, pools.GEVENT, pools.SOLO]
PUBLISH = """
published = []
for name in ("r0", "r1", "r2"):
    with fallom.session("app", f"s-{name}", "c-1", {"plan": "pro"}, ["web"]), trace.step(name):
        published.append([
            work.delay(f"{name}-plain"),
            retried.delay(f"{name}-retried", 2),
            outer.delay(f"{name}-outer"),
            failing.delay(f"{name}-failing"),
            leaking.delay(f"{name}-leaking"),
            flow(f"{name}-flow"),
        ])
alone = [work.delay(f"none-{number}") for number in range(6)]
found = []
for _plain, _retried, _outer, _failing, _leaking, _flow in published:
    found.append([get(_plain), get(_retried), *get(_flow)])
    for child in get(_outer):
        get(app.AsyncResult(child))
    get(_leaking)
    try:
        get(_failing)
    except KeyError:
        continue
    raise AssertionError("it failed")
found.append([get(each) for each in alone])
found.append([get(each) for each in [work.delay(f"after-{number}") for number in range(6)]])
"""


@pytest.mark.parametrize(
    ("pool", "broker"),
    [
        *(pytest.param(pool, "redis", id=pool.name) for pool in CARRYING),
        *(pytest.param(p, "redis", id=p.name, marks=pytest.mark.long) for p in CARRYING_LONG),
        pytest.param(pools.PREFORK, "files", id="prefork files", marks=pytest.mark.long),
    ],
    indirect=["broker"],
)
def test_tasks_belong_to_the_session_and_the_trace_of_what_published_them(
    pool: Pool, celery_test: CeleryTest
) -> None:
    with celery_test.client() as client, celery_test.worker(pool) as worker:
        *of_requests, alone, after = client.run(PUBLISH)
        assert worker.stop() == 0
    for number, runs in enumerate(of_requests):
        expected = {"session": f"s-r{number}", "customer": "c-1", "tags": ["web"]}
        assert len(runs) == 6
        for run in runs:
            assert {key: run[key] for key in expected} == expected
    assert {run["session"] for run in alone + after} == {None}, "of another task"
    rows = celery_test.check_delivered()
    spans = {row["name"]: row for row in rows}
    assert len(spans) == len(rows)
    for name in ("r0", "r1", "r2"):
        root = spans[name]
        of_the_request = [key for key in spans if key.startswith(f"{name}-")]
        assert len(of_the_request) == 15
        for key in of_the_request:
            span = spans[key]
            assert span["trace_id"] == root["trace_id"], key
            own = {f"{name}-outer-apart": "of the task", f"{name}-leaking": "left open"}
            assert span["attributes"]["fallom.session_id"] == own.get(key, f"s-{name}"), key
        for key in ("plain", "retried-0", "retried-2", "outer", "flow-first", "flow-a"):
            assert spans[f"{name}-{key}"]["parent_span_id"] == root["span_id"], key
        step = spans[f"{name}-outer-step"]
        assert spans[f"{name}-outer-child"]["parent_span_id"] == step["span_id"]
    apart = [spans[key] for key in spans if key.startswith(("none-", "after-"))]
    assert len({span["trace_id"] for span in apart}) == 12
    assert {span["parent_span_id"] for span in apart} == {""}


def test_what_a_killed_child_acknowledged_arrives_and_its_successor_goes_on(
    celery_test: CeleryTest,
) -> None:
    with celery_test.client() as client, celery_test.worker(pools.PREFORK) as worker:
        client.run("hanging.delay('hang')")
        wait_for(lambda: celery_test.acknowledged()["hang-20"], 60, "spans of the task")
        # Not an idle one as well: with a broker of files it may hold the lock of what they share.
        killed = int(worker.folder.joinpath("hangs").read_text())
        before = set(worker.children())
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: set(worker.children()) - before, 60, "its successor")
        found = client.run("found = [get(work.delay(f'after-{n}')) for n in range(6)]")
        assert killed not in {each["pid"] for each in found}
        worker.stop()
    celery_test.check_delivered()


def test_what_a_revoked_task_acknowledged_arrives_and_nothing_of_it_stays(
    celery_test: CeleryTest,
) -> None:
    with celery_test.client() as client, celery_test.worker(pools.PREFORK) as worker:
        client.run("with fallom.session('app', 'revoked'): result = hanging.delay('hang')")
        wait_for(lambda: celery_test.acknowledged()["hang-20"], 60, "spans of the task")
        first = set(worker.children())
        client.run("result.revoke(terminate=True)")
        wait_for(lambda: first - set(worker.children()), 60, "its process to end")
        wait_for(lambda: not worker.zombies(), 10, "it to be collected")
        found = client.run("found = [get(work.delay(f'after-{n}')) for n in range(6)]")
        assert {each["session"] for each in found} == {None}
        assert worker.stop() == 0
    celery_test.check_delivered()


@pytest.mark.parametrize("pool", [long(pools.PREFORK), long(pools.THREADS), long(pools.GEVENT)])
def test_a_warm_shutdown_lets_a_task_end_and_both_of_its_spans_arrive(
    pool: Pool, celery_test: CeleryTest
) -> None:
    with celery_test.client() as client, celery_test.worker(pool) as worker:
        client.run("slow.delay('slow', 1.0)")
        wait_for(lambda: celery_test.acknowledged()["slow-begun"], 60, "the task to begin")
        assert worker.stop() == 0
    assert celery_test.acknowledged()["slow-ended"] == 1
    celery_test.check_delivered()


@pytest.mark.parametrize("pool", [default(pools.PREFORK), long(pools.GEVENT), long(pools.SOLO)])
def test_what_was_acknowledged_before_a_cold_shutdown_arrives(
    pool: Pool, celery_test: CeleryTest
) -> None:
    with celery_test.client() as client, celery_test.worker(pool) as worker:
        client.run("hanging.delay('hang')")
        wait_for(lambda: celery_test.acknowledged()["hang-20"], 60, "spans of the task")
        worker.stop(signal.SIGQUIT)
    celery_test.check_delivered()


@pytest.mark.long
def test_a_killed_worker_s_spans_arrive_and_the_next_worker_goes_on(
    celery_test: CeleryTest,
) -> None:
    with celery_test.client() as client:
        with celery_test.worker(pools.PREFORK) as worker:
            client.run("hanging.delay('hang')")
            wait_for(lambda: celery_test.acknowledged()["hang-20"], 60, "spans of the task")
            children = worker.children()
            for pid in (worker.pid, *children):
                os.kill(pid, signal.SIGKILL)
        with celery_test.worker(pools.PREFORK) as worker:
            client.run("get(work.delay('after'))")
            worker.stop()
    celery_test.check_delivered()
