"""``FallomMiddleware`` for ASGI 3: what a request sets ends with it.

    from fallom.integrations.asgi import FallomMiddleware

    app.add_middleware(FallomMiddleware)  # FastAPI, Starlette
    app = FallomMiddleware(app)           # any other

Servers run each request in a task of its own, with a copy of the context of its connection. Behind the
middleware that holds whatever the server does, and for an application that is called by another one: a
session that a request or a websocket set, a prompt that it used and a step that it left open are gone
when it has ended, be it that its client went away.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fallom.integrations._request import HEADERS, Request

__all__ = ["FallomMiddleware"]


class FallomMiddleware:
    """An ASGI application around another one, which it calls with a context of its own."""

    def __init__(self, app: Callable[..., Awaitable[None]], *, extract: bool = False) -> None:
        """Wrap an application.

        Args:
            app: Any ASGI 3 application.
            extract: Take the caller's trace and session from the headers that ``trace.inject`` wrote
                there (``traceparent`` of any tracing library, too). Anybody can write them: only
                behind services of your own.
        """
        self._app = app
        self._extract = extract

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[..., Awaitable[Any]],
        send: Callable[..., Awaitable[None]],
    ) -> None:
        """Serve one request or connection; what the application raises passes through."""
        if scope["type"] == "lifespan":  # what starts there lives as long as the server
            await self._app(scope, receive, send)
            return
        with Request(_headers(scope) if self._extract else None):
            await self._app(scope, receive, send)


def _headers(scope: MutableMapping[str, Any]) -> dict[str, bytes]:
    """Give the headers that matter; one that came more than once has the values of all, as in WSGI."""
    found: dict[str, bytes] = {}
    for name, value in scope.get("headers", ()):
        text = name.decode("latin-1").lower()
        if text in HEADERS:
            found[text] = found[text] + b"," + value if text in found else value
    return found
