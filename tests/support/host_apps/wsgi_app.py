"""A WSGI application: ``/plain/...`` without the middleware and ``/apart/...`` behind it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import work


def _serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    _, _, action, session_id = environ["PATH_INFO"].split("/")
    if action == "stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (part.encode() for part in work.parts(session_id))
    answer = json.dumps(work.plain(action, session_id)).encode()
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]


if work.IS_BARE:
    _apart = _serve
else:
    from fallom.integrations.wsgi import FallomMiddleware

    _apart = FallomMiddleware(_serve)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer a request."""
    serve = _apart if environ["PATH_INFO"].startswith("/apart/") else _serve
    return serve(environ, start_response)
