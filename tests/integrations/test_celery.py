"""Celery's signals carry the context, from when Celery is imported, once, and trouble nobody."""

from __future__ import annotations

import concurrent.futures
import threading
from pathlib import Path

import pytest

from tests.support.scripts import run_script

pytest.importorskip("celery")

AUTO = {"FALLOM_AUTO_INSTRUMENT": "true", "FALLOM_FLUSHER": "external"}
EAGER = """
import sys
app = Celery("app")
app.conf.task_always_eager = True

def connected():
    from celery import signals
    counts = [
        sum(key[0] == "fallom" for key, _ in signal.receivers)
        for signal in (signals.before_task_publish, signals.task_prerun, signals.task_postrun)
    ]
    assert len(set(counts)) == 1, counts
    return counts[0]
"""
MESSAGES = """
from celery import Celery
from celery.app.trace import build_tracer
import uuid

app = Celery("app", broker="memory://", backend="cache+memory://")

def publish(task, *args, **options):
    '''Publish a task, and give the headers of its message.'''
    from celery import signals
    got = []
    def catch(headers=None, **_):
        got.append(dict(headers))
    signals.before_task_publish.connect(catch, weak=False)
    try:
        task.apply_async(args, **options)
    finally:
        signals.before_task_publish.disconnect(catch)
    return got[0]

def run(task, headers, args=(), retries=0, task_id=None):
    '''Run a task as a pool does, and give what it returns.'''
    request = {**headers, "retries": retries, "is_eager": False, "delivery_info": {}, "chord": None}
    request["id"] = task_id = task_id or headers.get("id") or str(uuid.uuid4())
    tracer = build_tracer(task.name, task, app=app)
    return tracer(task_id, args, {}, request)
"""


def test_it_is_connected_whether_celery_or_init_is_first(tmp_path: Path) -> None:
    before = "import fallom; fallom.init()\nfrom celery import Celery\n"
    after = "from celery import Celery, signals\nimport fallom; fallom.init(); fallom.init()\n"
    for first in (before, after):
        run_script(first + EAGER + "assert connected() == 1\n", tmp_path, AUTO)


def test_it_is_not_connected_where_auto_instrument_is_off_but_by_hand_it_is(tmp_path: Path) -> None:
    code = """
assert connected() == 0
from fallom.integrations import celery
celery.install()
celery.install()
assert connected() == 1
"""
    first = "import fallom; fallom.init(auto_instrument=False)\nfrom celery import Celery\n"
    run_script(first + EAGER + code, tmp_path, {"FALLOM_FLUSHER": "external"})
    later = "import fallom; fallom.init(); fallom.init(auto_instrument=False)\n"
    rest = "from celery import Celery\n" + EAGER + "assert connected() == 0\n"
    run_script(later + rest, tmp_path, AUTO)


def test_a_process_without_celery_loads_none_of_it(tmp_path: Path) -> None:
    code = """
import sys, fallom
fallom.init()
loaded = [name for name in sys.modules if "celery" in name or "propag" in name.rpartition(".")[2]]
assert loaded == ["fallom._core.propagation"], loaded
"""
    run_script(code, tmp_path, AUTO)


def test_an_eager_task_is_of_the_session_around_and_leaves_nothing_in_it(tmp_path: Path) -> None:
    code = """
from fallom import trace

@app.task
def inner():
    seen = trace.get_session()
    trace.set_session("app", "of the task")
    return seen and seen["session_id"]

@app.task
def outer():
    return [inner.delay().result, inner.apply().result, trace.get_session()["session_id"]]

with fallom.session("app", "s-1"):
    assert inner.delay().get() == "s-1"
    assert outer.delay().get() == ["s-1", "s-1", "s-1"]
    assert trace.get_session()["session_id"] == "s-1"
assert trace.get_session() is None
assert inner.delay().get() is None
assert trace.get_session() is None
"""
    first = "import fallom; fallom.init()\nfrom celery import Celery\n"
    run_script(first + EAGER + code, tmp_path, AUTO)


def test_headers_that_are_there_stay(tmp_path: Path) -> None:
    code = """
import fallom
from fallom import trace
fallom.init()

@app.task
def work():
    return None

with fallom.session("app", "s-1"), trace.step("request"):
    sent = publish(work)
    assert '"s-1"' in sent["fallom"]
    trace.inject(expected := {})
    assert sent["traceparent"] == expected["traceparent"]
    own = {"traceparent": "mine", "fallom": "mine too", "other": "x"}
    sent = publish(work, headers=own)
    assert {name: sent[name] for name in own} == own
    assert "tracestate" not in sent
assert not {"fallom", "traceparent"} & set(publish(work))
"""
    run_script(MESSAGES + code, tmp_path, AUTO)


def test_a_task_that_was_torn_out_of_its_thread_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    code = """
import fallom
from fallom import trace
fallom.init()
from celery import signals

class Torn(BaseException):
    pass

@app.task
def torn():
    trace.set_session("app", "torn")

@app.task
def work():
    session = trace.get_session()
    seen.append((session and session["session_id"], active_span() is not None))

seen = []
from fallom._active_span import active_span
with fallom.session("app", "s-1"), trace.step("request"):
    headers = publish(torn)
# Its end is never signalled, as where a greenlet is killed between the two.
end = [r for r in signals.task_postrun.receivers if r[0][0] == "fallom"]
signals.task_postrun.receivers.remove(end[0])
signals.task_postrun.sender_receivers_cache.clear()
run(torn, headers)
assert trace.get_session()["session_id"] == "torn"
signals.task_postrun.receivers.append(end[0])
signals.task_postrun.sender_receivers_cache.clear()
run(work, {})
run(work, headers)
assert seen == [(None, False), ("s-1", True)], seen
assert trace.get_session() is None
"""
    run_script(MESSAGES + code, tmp_path, AUTO)


def test_headers_of_anybody_trouble_no_task(tmp_path: Path) -> None:
    code = """
import fallom
from fallom import trace
fallom.init()

@app.task
def work():
    seen.append(trace.get_session())

seen = []
deep = "[" * 4000
for value in ("{", 3, None, b"\\xff", ["x"], {"a": 1}, deep, "00-" + "0" * 32 + "-" + "0" * 16 + "-01"):
    run(work, {"fallom": value, "traceparent": value, "tracestate": value})
    run(work, {"headers": value})
    run(work, {"headers": {"fallom": value}})
assert seen == [None] * 24, seen
"""
    run_script(MESSAGES + code, tmp_path, AUTO)


def test_a_failure_of_ours_is_no_failure_of_the_task(tmp_path: Path) -> None:
    code = """
import logging
import fallom
fallom.init()
from fallom.integrations import celery

def broken(*_, **__):
    raise RuntimeError("ours")

@app.task
def work():
    seen.append(1)

seen = []
logged = []
class Handler(logging.Handler):
    def emit(self, record):
        logged.append(record)
logging.getLogger("celery").addHandler(Handler(logging.WARNING))
for name in ("headers_here", "enter", "leave"):
    setattr(celery, name, broken)
run(work, publish(work))
assert seen == [1]
assert logged == [], logged
"""
    run_script(MESSAGES + code, tmp_path, AUTO)


def test_a_retry_that_runs_before_its_first_run_has_ended_is_a_run_of_its_own() -> None:
    """In a pool of threads; the values are kept by (task id, retries) in each thread's context."""
    from types import SimpleNamespace

    import fallom
    from fallom import trace
    from fallom.integrations import celery

    fallom.init(flusher="external")
    first_is_inside, second_is_done = threading.Event(), threading.Event()
    header = '{"config_key":"app","session_id":"s-%d"}'

    def task(retries: int) -> SimpleNamespace:
        headers = {"fallom": header % retries}
        request = SimpleNamespace(is_eager=False, retries=retries, headers=headers)
        return SimpleNamespace(request=request)

    def seen() -> str | None:
        session = trace.get_session()
        return session and session["session_id"]

    def first() -> list[str | None]:
        celery._begun("id", task(0))
        first_is_inside.set()
        assert second_is_done.wait(20)
        found = [seen()]
        celery._ended("id", task(0))
        return [*found, seen()]

    def second() -> list[str | None]:
        assert first_is_inside.wait(20)
        celery._begun("id", task(1))
        found = [seen()]
        celery._ended("id", task(1))
        second_is_done.set()
        return [*found, seen()]

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(first), pool.submit(second)]
        assert [run.result(30) for run in runs] == [["s-0", None], ["s-1", None]]
