"""The Celery application of the tests; with ``BARE`` in the environment, without fallom.

A task that recorded a span says so, after the call has returned, in the file of what is acknowledged.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from celery import Celery, chord

from tests.support.celery_place import settings_of

IS_BARE = "BARE" in os.environ
FOLDER = Path(os.environ.get("CELERY_FOLDER", "."))

if not IS_BARE:
    import fallom
    from fallom import models, trace

app = Celery("app")
app.conf.update(settings_of(os.environ.get("CELERY_BROKER", ""), FOLDER))

if not IS_BARE:
    fallom.init()


def acknowledge(name: str) -> None:
    with open(FOLDER / "acknowledged", "a", encoding="ascii") as acknowledged:
        acknowledged.write(f"{name}\n")


def record(name: str) -> dict[str, Any]:
    """Record a span of that name, and give what this run of a task is."""
    if IS_BARE:
        return here()
    models.get("app", name, fallback="none")
    with trace.step(name):
        pass
    acknowledge(name)
    return here()


def here() -> dict[str, Any]:
    session = None if IS_BARE else trace.get_session()
    handlers = {}
    for number in sorted(signal.valid_signals()):
        handler: Any = signal.getsignal(number)
        handlers[str(int(number))] = getattr(handler, "__qualname__", str(handler))
    return {
        "pid": os.getpid(),
        "thread": threading.get_ident(),
        "session": session and session["session_id"],
        "customer": session and session.get("customer_id"),
        "tags": session and session.get("tags"),
        "handlers": handlers,
    }


@app.task
def work(name: str) -> dict[str, Any]:
    found = record(name)
    time.sleep(0.02)  # so that another process or thread has the next one
    return found


@app.task(bind=True, max_retries=3)
def retried(self: Any, name: str, times: int) -> dict[str, Any]:
    """Record, and begin anew until that was ``times`` times."""
    found = record(f"{name}-{self.request.retries}")
    if not IS_BARE:
        trace.set_session("app", "of one run")  # which is nothing to the next run
    if self.request.retries < times:
        raise self.retry(countdown=0)
    return found


@app.task
def outer(name: str) -> list[Any]:
    """Publish a task from a task, within a step and within a session of its own."""
    record(name)
    if IS_BARE:
        return []
    with trace.step(f"{name}-step"):
        children = [work.delay(f"{name}-child").id]
        acknowledge(f"{name}-step")
    with fallom.session("app", "of the task"):
        children.append(work.delay(f"{name}-apart").id)
    return children


@app.task
def gather(found: Sequence[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Be the body of a chord, or the last of a chain."""
    earlier = list(found) if isinstance(found, list) else [found]
    return [*earlier, record(name)]


@app.task
def failing(name: str) -> None:
    record(name)
    raise KeyError(name)


@app.task
def leaking(name: str) -> dict[str, Any]:
    """Set the session of the context, and leave it so."""
    if not IS_BARE:
        trace.set_session("app", "leaked")
        fallom.session("app", "left open").__enter__()
        trace.step("left open").__enter__()
    return record(name)


@app.task
def hanging(name: str) -> None:
    """Record until something ends it, and say which process does."""
    FOLDER.joinpath("hangs").write_text(str(os.getpid()))
    number = 0
    while True:
        record(f"{name}-{number}")
        number += 1
        time.sleep(0.005)


@app.task
def slow(name: str, seconds: float) -> dict[str, Any]:
    record(f"{name}-begun")
    time.sleep(seconds)
    return record(f"{name}-ended")


def flow(name: str) -> Any:
    """Publish a chain whose middle is a chord."""
    head = chord([work.si(f"{name}-a"), work.si(f"{name}-b")], gather.s(f"{name}-body"))
    return (work.si(f"{name}-first") | head | gather.s(f"{name}-last")).delay()
