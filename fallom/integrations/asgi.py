"""``FallomMiddleware`` for ASGI 3: what a request sets ends with it.

    from fallom.integrations.asgi import FallomMiddleware

    app.add_middleware(FallomMiddleware)  # FastAPI, Starlette
    app = FallomMiddleware(app)           # any other

Servers run each request in a task of its own, with a copy of the context of its connection. Behind the
middleware that holds whatever the server does, and for an application that is called by another one: a
session that a request or a websocket set, and a prompt that it used, are gone when it has ended, be it
that its client went away.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fallom._context import RequestContext

__all__ = ["FallomMiddleware"]


class FallomMiddleware:
    """An ASGI application around another one, which it calls with a context of its own."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        """Wrap an application.

        Args:
            app: Any ASGI 3 application.
        """
        self._app = app

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
        request = RequestContext()
        request.swap()
        try:
            await self._app(scope, receive, send)
        finally:
            request.swap()
