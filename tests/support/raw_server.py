"""A server of raw sockets, for answers that no proper server gives."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

Answer = Callable[[socket.socket, bytes], None]  # the connection, the request as it came


class RawServer:
    """Answers each request by a function; requests that came are in ``requests``."""

    def __init__(self, answer: Answer, is_eager: bool = False) -> None:
        """Listen; an eager server answers whatever comes, before it is a whole request."""
        self._answer = answer
        self._is_eager = is_eager
        self._ended = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.requests: list[bytes] = []
        self.connections = 0
        self.port = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self._ended.set()
        for each in (self._listening, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(timeout=10)

    def drip(self, connection: socket.socket, data: bytes, pause_s: float = 0.02) -> None:
        """Send byte after byte for as long as the other side is there."""
        with contextlib.suppress(OSError):
            for byte in data:
                if self._ended.wait(pause_s):
                    return
                connection.sendall(bytes([byte]))

    def wait(self) -> None:
        """Say nothing until the end of the test."""
        self._ended.wait()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            read = (lambda c: c.recv(65536)) if self._is_eager else _read
            while request := read(connection):
                self.requests.append(request)
                self._answer(connection, request)
        connection.close()


def answer(status: int, body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    """Give an answer as bytes."""
    lines = [
        f"HTTP/1.1 {status} Reason",
        f"Content-Length: {len(body) if length is None else length}",
    ]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def _read(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return b""
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    while len(body) < length:
        part = connection.recv(65536)
        if not part:
            return b""
        body += part
    return head + b"\r\n\r\n" + body
