"""``FaultInjection``: the middleware that carries out what the fault board says.

The paths below ``/_dev`` and the page are never touched, so that a test can always steer. Resets need
the connection itself: the server puts it into the scope (``TRANSPORT``).
"""

from __future__ import annotations

import asyncio
import email.utils
import itertools
import os
import socket
import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fallom.dev.answers import JsonAnswer
from fallom.dev.fault_board import FaultBoard
from fallom.dev.faults import Fault
from fallom.dev.otlp import PROTOBUF, encode_status
from fallom.dev.request_log import is_of_people

__all__ = ["REJECT_STATE", "TRANSPORT", "FaultInjection"]

REJECT_STATE: Final = "fallom_reject_spans"  # request state: how many spans a fault has us refuse
TRANSPORT: Final = "fallom.transport"  # scope extension: the connection's asyncio transport
_CHUNK: Final = bytes(64 << 10)
_WITHOUT_BODY: Final = (204, 304)  # RFC 9110 sections 15.3.5 and 15.4.5
_LIE_BYTES: Final = 64  # how much more a cut answer promises than it has


class FaultInjection:
    """ASGI middleware that misbehaves as the board says."""

    def __init__(self, app: ASGIApp, board: FaultBoard) -> None:
        self._app = app
        self._board = board

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Apply a fault, or pass on."""
        path = scope.get("path", "")
        steering = scope["type"] != "http" or is_of_people(path)
        positions = [] if steering else self._board.candidates(scope["method"], path)
        if not positions:
            await self._app(scope, receive, send)
            return
        body, complete = await _drain(receive)
        if not complete:
            return
        encoding = dict(scope["headers"]).get(b"content-encoding", b"").decode("latin-1")
        fault = self._board.first(positions, body, encoding)
        released = self._board.released
        exchange = _Exchange(self._app, scope, body, receive, send, released=released)
        if fault is None:
            await exchange.pass_on(send)
        else:
            await getattr(exchange, fault.kind)(fault)


class _Exchange:
    """One request with a fault; a method a kind."""

    def __init__(
        self,
        app: ASGIApp,
        scope: Scope,
        body: bytes,
        receive: Receive,
        send: Send,
        *,
        released: asyncio.Event,
    ) -> None:
        self._app = app
        self._scope = scope
        self._body: bytes | None = body
        self._receive = receive
        self._send = send
        self._released = released

    async def pass_on(self, send: Send) -> None:
        """Let the application answer, from the body that was read already."""

        async def replay() -> Message:
            if self._body is None:
                return await self._receive()
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(self._scope, replay, send)

    async def status(self, fault: Fault) -> None:
        text = f"an injected fault: {fault.status}"
        if fault.status in _WITHOUT_BODY:
            response = Response(status_code=fault.status)
        elif self._scope["path"] == "/v1/traces":
            response = Response(encode_status(text), fault.status, media_type=PROTOBUF)
        else:
            response = JsonAnswer({"error": text}, fault.status)
        if fault.retry_after:
            response.headers["retry-after"] = _retry_after(fault.retry_after, time.time())
        await response(self._scope, self._receive, self._send)

    async def partial(self, fault: Fault) -> None:
        self._scope.setdefault("state", {})[REJECT_STATE] = fault.rejected
        await self.pass_on(self._send)

    async def redirect(self, fault: Fault) -> None:
        response = Response(status_code=fault.status, headers={"location": fault.to})
        await response(self._scope, self._receive, self._send)

    async def reset(self, _: Fault) -> None:
        await self._reset()

    async def close(self, _: Fault) -> None:
        self._transport.close()
        await self._gone()

    async def lost_answer(self, _: Fault) -> None:
        async def swallow(_: Message) -> None:
            pass

        await self.pass_on(swallow)
        await self._reset()

    async def reset_body(self, _: Fault) -> None:
        is_cut = False

        async def cut(message: Message) -> None:
            nonlocal is_cut
            if message["type"] == "http.response.start":
                await self._send(_promising(message, _LIE_BYTES))
            elif not is_cut:
                is_cut = True
                whole = message.get("body", b"")
                part = whole[: (len(whole) + 1) // 2] or bytes(16)
                await self._send({"type": message["type"], "body": part, "more_body": True})
                _abort(self._transport)

        await self.pass_on(cut)
        await self._reset()

    async def hang(self, _: Fault) -> None:
        gone = asyncio.ensure_future(self._gone())
        released = asyncio.ensure_future(self._released.wait())
        await asyncio.wait([gone, released], return_when=asyncio.FIRST_COMPLETED)
        released.cancel()
        if not gone.done():
            _abort(self._transport)
            await gone

    async def delay(self, fault: Fault) -> None:
        await asyncio.sleep(fault.seconds)
        await self.pass_on(self._send)

    async def drip(self, fault: Fault) -> None:
        held: list[Message] = []

        async def hold(message: Message) -> None:
            held.append(message)

        await self.pass_on(hold)
        body = b"".join(message.get("body", b"") for message in held)
        padding = max(0, fault.bytes - len(body))
        await self._send(_promising(held[0], padding))
        for byte in body + b" " * padding:
            await self._send(
                {"type": "http.response.body", "body": bytes([byte]), "more_body": True}
            )
            if await self._paused(fault.seconds):
                return
        await self._send({"type": "http.response.body", "body": b""})

    async def drip_head(self, fault: Fault) -> None:
        for byte in _endless_head():
            self._transport.write(byte)
            if await self._paused(fault.seconds):
                return

    async def garbage(self, fault: Fault) -> None:
        await self._answer(Response(os.urandom(fault.bytes), media_type=self._media_type))

    async def not_http(self, _: Fault) -> None:
        self._transport.write(b"\x00\x01\x02 this is not HTTP\r\n\r\n")
        self._transport.close()
        await self._gone()

    async def huge(self, fault: Fault) -> None:
        chunks, rest = divmod(fault.bytes, len(_CHUNK))
        await self._stream(itertools.chain(itertools.repeat(_CHUNK, chunks), [_CHUNK[:rest]]), {})

    async def bomb(self, fault: Fault) -> None:
        await self._stream(_bomb(fault.bytes), {"content-encoding": "gzip"})

    @property
    def _transport(self) -> asyncio.Transport:
        transport: asyncio.Transport = self._scope["extensions"][TRANSPORT]
        return transport

    @property
    def _media_type(self) -> str:
        return PROTOBUF if self._scope["path"] == "/v1/traces" else "application/json"

    async def _answer(self, response: Response) -> None:
        await response(self._scope, self._receive, self._send)

    async def _stream(self, chunks: Iterable[bytes], headers: dict[str, str]) -> None:
        """Send chunks until they or the client end."""
        names = {"content-type": self._media_type, **headers}
        raw = [(name.encode(), value.encode()) for name, value in names.items()]
        await self._send({"type": "http.response.start", "status": 200, "headers": raw})
        for chunk in chunks:
            if self._transport.is_closing():
                return
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
            await asyncio.sleep(0)  # the other requests go on meanwhile
        await self._send({"type": "http.response.body", "body": b""})

    async def _reset(self) -> None:
        _abort(self._transport)
        await self._gone()

    async def _gone(self) -> None:
        """Wait for the end of the connection; an answer after it would be logged as an error."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _paused(self, seconds: float) -> bool:
        """Wait; True when the client went away or the faults were replaced meanwhile."""
        try:
            message = await asyncio.wait_for(self._receive(), seconds)
        except asyncio.TimeoutError:
            if self._released.is_set():
                await self._reset()
                return True
            return False
        return bool(message["type"] == "http.disconnect")


async def _drain(receive: Receive) -> tuple[bytes, bool]:
    """Read the whole body; False when the client went away before its end."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return bytes(body), False
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body), True


def _promising(start: Message, more: int) -> Message:
    """Give the start of an answer whose length, if it has one, says ``more`` than is true."""
    headers = [
        (name, str(int(value) + more).encode() if name == b"content-length" else value)
        for name, value in start["headers"]
    ]
    return {**start, "headers": headers}


def _retry_after(value: str, now_unix_s: float) -> str:
    """Give the header's value in either form of RFC 9110 section 10.2.3."""
    if value.startswith("date:"):
        return email.utils.formatdate(now_unix_s + float(value[5:]), usegmt=True)
    return value


def _abort(transport: asyncio.Transport) -> None:
    """End the connection with a reset instead of an orderly close."""
    connection = transport.get_extra_info("socket")
    if connection is not None and not transport.is_closing():
        linger = struct.pack("ii", 1, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()


def _endless_head() -> Iterator[bytes]:
    for byte in b"HTTP/1.1 200 OK\r\nX-Drip: ":
        yield bytes([byte])
    while True:
        yield b"."


def _bomb(bytes_max: int) -> Iterator[bytes]:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    sent = 0
    while sent < bytes_max:
        part = _CHUNK[: bytes_max - sent]
        sent += len(part)
        yield packer.compress(part)
    yield packer.flush()
