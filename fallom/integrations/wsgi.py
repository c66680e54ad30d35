"""``FallomMiddleware`` for WSGI (PEP 3333): what a request sets ends with it.

    from fallom.integrations.wsgi import FallomMiddleware

    application = FallomMiddleware(application)

A thread of a server serves one request after another with one context. Behind the middleware, a session
that a request set (``trace.set_session``), a prompt that it used and a step that it left open are gone when
its answer has been sent; the parts of a streamed answer are made with the context of the request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fallom.integrations._request import HEADERS, Request

__all__ = ["FallomMiddleware"]


class FallomMiddleware:
    """A WSGI application around another one, which it calls with a context of its own."""

    def __init__(self, app: Callable[..., Iterable[bytes]], *, extract: bool = False) -> None:
        """Wrap an application.

        Args:
            app: Flask's ``app.wsgi_app``, what Django's ``get_wsgi_application()`` gives, any other.
            extract: Take the caller's trace and session from the headers that ``trace.inject`` wrote
                there (``traceparent`` of any tracing library, too). Anybody can write them: only
                behind services of your own.
        """
        self._app = app
        self._extract = extract

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        """Answer one request; what the application raises passes through."""
        request = Request(_headers(environ) if self._extract else None)
        with request:
            body = self._app(environ, start_response)
        return body if _is_made(body, environ) else _Body(body, request)


class _Body:
    """A streamed answer: each part of it is made with the context of its request."""

    __slots__ = ("_body", "_parts", "_request")

    def __init__(self, body: Iterable[bytes], request: Request) -> None:
        self._body = body
        self._parts: Iterator[bytes] | None = None
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with self._request:
            if self._parts is None:
                self._parts = iter(self._body)
            return next(self._parts)

    def close(self) -> None:
        """End the answer, as a server does with each, also with one that a client gave up."""
        close = getattr(self._body, "close", None)
        if close is not None:
            with self._request:
                close()


def _headers(environ: dict[str, Any]) -> dict[str, str]:
    names = {name: f"HTTP_{name.upper()}" for name in HEADERS}
    return {name: environ[variable] for name, variable in names.items() if variable in environ}


def _is_made(body: Any, environ: dict[str, Any]) -> bool:
    """Tell whether reading an answer runs no code of the application.

    Such an answer is passed on as it is: servers look at the length of lists, and send files by the kernel
    if they get the very object that their ``wsgi.file_wrapper`` gave (uWSGI's gives the file itself).
    """
    wrapper = environ.get("wsgi.file_wrapper")
    is_wrapped_file = isinstance(wrapper, type) and isinstance(body, wrapper)
    return isinstance(body, (list, tuple)) or is_wrapped_file or hasattr(body, "fileno")
