"""Celery: session, customer, tags and trace travel in a task's headers, and its spans belong to them.

    from fallom.integrations import celery

    celery.install()

``fallom.init()`` does this by itself where Celery is imported, before or after, unless ``auto_instrument``
is off. Both sides need it: what publishes tasks and what runs them.

A task runs with the session and the active span that its publisher had, in any pool, and so do its retries,
its callbacks, the next task of its chain and the body of its chord. What a task sets of the context is gone
when it ends. A task is no span of its own: ``trace.step`` on its function makes it one.
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from fallom._core.propagation import (
    SESSION_HEADER,
    TRACEPARENT,
    TRACESTATE,
    Carried,
    read_headers,
)
from fallom._propagation import enter, headers_here, leave, outermost

__all__ = ["install"]

_logger = logging.getLogger("fallom")
_OURS = "fallom"  # by which Celery knows a receiver again


class _Run(NamedTuple):
    """One run of a task: a retry has the id of the task, and may run at once in another thread."""

    task_id: str
    retries: int


def install() -> None:
    """Connect to Celery's signals, once however often it is called; imports ``celery``.

    Raises:
        ImportError: Celery is not installed.
    """
    from celery import signals  # only where it is used

    for signal, receiver in (
        (signals.before_task_publish, _published),
        (signals.task_prerun, _begun),
        (signals.task_postrun, _ended),
    ):
        signal.connect(receiver, weak=False, dispatch_uid=_OURS)


def _published(headers: Any = None, **_: Any) -> None:
    try:
        # What is there stays: a retry has the headers of its first run, and the application, or
        # OpenTelemetry's instrumentation, may have written its own.
        written = headers_here()
        if TRACEPARENT in headers:
            written.pop(TRACEPARENT, None)
            written.pop(TRACESTATE, None)
        for name, value in written.items():
            headers.setdefault(name, value)
    except Exception as error:  # noqa: BLE001  # named edge guard: the task is published without
        _give_up("publish", error)


def _begun(task_id: str = "", task: Any = None, **_: Any) -> None:
    try:
        request = task.request
        if not request.is_eager:
            unended = outermost(_Run)  # of a task that was torn out of this thread
            if unended is not None:
                leave(unended)
        enter(_carried_by(request), _Run(task_id, request.retries))
    except Exception as error:  # noqa: BLE001  # named edge guard: the task runs without
        _give_up("begin", error)


def _ended(task_id: str = "", task: Any = None, **_: Any) -> None:
    try:
        leave(_Run(task_id, task.request.retries))
    except Exception as error:  # noqa: BLE001  # named edge guard
        _give_up("end", error)


def _carried_by(request: Any) -> Carried:
    """Read what a task's message carries: its headers are attributes of the request, or in ``headers``."""
    given = getattr(request, "headers", None)
    headers = dict(given) if isinstance(given, dict) else {}
    for name in (SESSION_HEADER, TRACEPARENT, TRACESTATE):
        value = getattr(request, name, None)
        if value is not None:
            headers[name] = value
    return read_headers(headers)


def _give_up(what: str, error: BaseException) -> None:
    """Log at DEBUG: Celery itself would log each at ERROR."""
    _logger.debug("the context of a task was not carried (%s)", what, exc_info=error)
