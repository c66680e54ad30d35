"""``Live``: tells open pages that there is something new, by server-sent events.

An event says only that something changed, and what sort of thing; the page then asks for its own view
again. So a page that missed events is never wrong for longer than until the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

__all__ = ["Live"]

_PAGES_MAX: Final = 64  # open at a time; a browser opens six to one server
_CLOCK_S: Final = 2.0  # what has no event of its own, the host's state, is looked at this often
_GATHER_S: Final = 0.25  # between two events: a page that is drawn more often cannot be read


class Live:
    """Who listens. ``changed`` and ``close`` may be called from any thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listeners: set[asyncio.Event] = set()
        self._is_closing = False

    def changed(self) -> None:
        """Say that there is something new."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended already
                loop.call_soon_threadsafe(self._set)

    def close(self) -> None:
        """End all streams, so that the server can end."""
        self._is_closing = True
        self.changed()

    async def stream(self, _: Request) -> Response:
        """Answer ``GET /ui/events``."""
        self._loop = asyncio.get_running_loop()
        if len(self._listeners) >= _PAGES_MAX:
            return Response("Too many pages are open.", status_code=503)
        headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
        return StreamingResponse(self._events(), media_type="text/event-stream", headers=headers)

    async def _events(self) -> AsyncIterator[bytes]:
        changed = asyncio.Event()
        self._listeners.add(changed)
        try:
            yield b"retry: 1000\nevent: data\ndata: {}\n\n"  # whoever comes back may have missed some
            while not self._is_closing:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(changed.wait(), _CLOCK_S)
                is_data = changed.is_set()
                changed.clear()
                yield b"event: data\ndata: {}\n\n" if is_data else b"event: clock\ndata: {}\n\n"
                if is_data and not self._is_closing:
                    await asyncio.sleep(_GATHER_S)
        finally:
            self._listeners.discard(changed)

    def _set(self) -> None:
        for listener in self._listeners:
            listener.set()
