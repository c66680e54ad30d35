"""``RequestLog``: every request gets an id and a row, whatever becomes of it.

It stands outside the fault injection, so that a request that was refused, redirected or cut off is
counted too. The Authorization header is kept as a short hash: enough to tell whether it came and
whether it changed, useless to whoever reads the file.
"""

from __future__ import annotations

import hashlib
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fallom.dev.recorder import Recorder
from fallom.dev.store import FetchRow

__all__ = ["RequestLog", "is_of_people"]


class RequestLog:
    """ASGI middleware that notes requests; those of ``/_dev`` and of the page are not noted."""

    def __init__(self, app: ASGIApp, recorder: Recorder) -> None:
        self._app = app
        self._recorder = recorder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Give the request an id, pass it on, note how it ended."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        received_unix_ns, start_ns = time.time_ns(), time.monotonic_ns()
        status = request_bytes = 0

        async def counting_receive() -> Message:
            nonlocal request_bytes
            message = await receive()
            request_bytes += len(message.get("body", b""))
            return message

        async def marking_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("x-request-id", request_id)
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, counting_receive, marking_send)
        finally:
            if not is_of_people(scope["path"]):
                headers = Headers(scope=scope)
                self._recorder.note(
                    FetchRow(
                        scope["method"],
                        scope["path"],
                        status,
                        received_unix_ns,
                        time.monotonic_ns() - start_ns,
                        headers.get("user-agent", ""),
                        _hash(headers.get("authorization", "")),
                        request_bytes,
                        request_id,
                    )
                )


def is_of_people(path: str) -> bool:
    """Whether a path is looked at by people and tests, and is no part of what applications call."""
    return path == "/" or path.startswith(("/_dev", "/ui/"))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()[:16] if secret else ""
