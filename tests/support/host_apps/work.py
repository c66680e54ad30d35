"""What an application of the hosts' tests does for a request; where ``BARE`` is set, without fallom."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

IS_BARE = "BARE" in os.environ

if not IS_BARE:
    import fallom
    from fallom import models, trace

    fallom.init()


def record(session_id: str = "") -> None:
    """Record a span of a session, and say so, after the call has returned, in a file."""
    if IS_BARE:
        return
    if session_id:
        trace.span({"n": 1}, config_key="app", session_id=session_id)
    else:
        trace.span({"n": 1})
        session_id = whose() or ""
    with open(os.environ["ACKNOWLEDGED"], "a", encoding="ascii") as acknowledged:
        acknowledged.write(f"{session_id}\n")


def ask(session_id: str) -> None:
    """Read a config, which is one of the things that need a snapshot."""
    if not IS_BARE:
        models.get("app", session_id, fallback="none")


def enter(session_id: str) -> None:
    """Set the session of the context, and leave it so."""
    if not IS_BARE:
        trace.set_session("app", session_id)


def whose() -> str | None:
    """Tell whose session this is."""
    session = None if IS_BARE else trace.get_session()
    return None if session is None else str(session["session_id"])


def plain(action: str, session_id: str) -> dict[str, Any]:
    """Do what a request asks for; give the answer to it."""
    if action == "record":
        ask(session_id)
        record(session_id)
    elif action == "hold":  # busy, so that another worker gets the next one
        record(session_id)
        signal.sigtimedwait([], 0.02)  # a sleep that gevent does not know
    elif action == "hang":
        record(session_id)
        time.sleep(600)
    elif action == "enter":
        enter(session_id)
        record()
    return {
        "pid": os.getpid(),
        "thread": threading.get_ident(),
        "whose": whose(),
        "threads": sorted({thread.name.rstrip("0123456789") for thread in threading.enumerate()}),
        "handlers": {number: _name(number) for number in range(1, signal.NSIG)},
    }


def parts(session_id: str) -> Iterator[str]:
    """Make an answer in parts, each of which is of its session as far as it can tell."""
    enter(session_id)
    for _ in range(3):
        record()
        yield f"{whose()}\n"


def _name(number: int) -> str:
    try:
        handler: Any = signal.getsignal(number)
    except ValueError:  # no number of a signal
        return ""
    named = getattr(handler, "__qualname__", "") or getattr(handler, "name", "")
    return named or type(handler).__qualname__
