"""How a read waits for the first publish on a host: once a process, for a bounded time, or not at all."""

from __future__ import annotations

import sys
import time

from fallom._runtime import Runtime

__all__ = ["POLL_S", "is_in_event_loop", "wait_for_first_publish"]

POLL_S = 0.005


def is_in_event_loop() -> bool:
    """Tell whether an asyncio event loop runs in this thread; blocking would stop all its tasks."""
    asyncio = sys.modules.get("asyncio.events")
    return asyncio is not None and asyncio._get_running_loop() is not None


def wait_for_first_publish(runtime: Runtime) -> None:
    """Block until a snapshot can be read or the cold-start deadline of the process has passed."""
    while not runtime.is_waiting_over(time.monotonic()):
        runtime.look_if_due()
        time.sleep(POLL_S)
