"""How a read waits for a publish on a host: once a process, for a bounded time, or not at all."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TypeVar

from fallom._runtime import Runtime

__all__ = ["POLL_S", "is_in_event_loop", "is_waiting_over", "wait_for_publish"]

POLL_S = 0.005
T = TypeVar("T")


def is_in_event_loop() -> bool:
    """Tell whether an asyncio event loop runs in this thread; blocking would stop all its tasks."""
    asyncio = sys.modules.get("asyncio.events")
    return asyncio is not None and asyncio._get_running_loop() is not None


def is_waiting_over(runtime: Runtime, takes_old: bool) -> bool:
    """Tell whether a read that found nothing need not wait (any more) for a publish.

    Args:
        runtime: This process's.
        takes_old: Whether it goes by what an earlier run left, too. What was not fetched for longer than it
            is between two fetches says nothing of a key that it lacks, and a flusher that starts fetches
            at once.
    """
    place = runtime.whereabouts.place or runtime.whereabouts.find()
    if place is None:
        return True
    if not runtime.snapshot.is_empty():
        age_s = time.time() - place.page.synced_s()
        if takes_old or age_s <= runtime.settings.sync_interval_s + 1:  # the page has whole seconds
            return True
    return runtime.patience.is_over(time.monotonic())


def wait_for_publish(runtime: Runtime, find: Callable[[], T | None], takes_old: bool) -> T | None:
    """Give what ``find`` finds; block until it does, or the cold-start deadline of the process has passed.

    Args:
        runtime: This process's.
        find: Looks into the snapshot.
        takes_old: See ``is_waiting_over``.
    """
    found = find()
    while found is None and not is_waiting_over(runtime, takes_old):
        runtime.look_if_due()
        time.sleep(POLL_S)
        found = find()
    return find() if found is None else found  # it may have come since
