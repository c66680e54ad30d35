"""The ASGI middleware under a real server: a websocket's session is its own, and ends with it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn

from fallom import trace
from fallom.integrations.asgi import FallomMiddleware
from tests.support.flushers import wait_for

wsproto = pytest.importorskip("wsproto", reason="comes with hypercorn, of the group test")
events = pytest.importorskip("wsproto.events")


def whose() -> str | None:
    session = trace.get_session()
    return None if session is None else str(session["session_id"])


@contextmanager
def served(app: Any) -> Iterator[int]:
    """Serve an application by uvicorn; give the port."""
    config = uvicorn.Config(app, ws="wsproto", lifespan="off", log_level="warning")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(30)
    assert not thread.is_alive()


class Client:
    """A websocket as a browser has it."""

    def __init__(self, port: int, path: str) -> None:
        self._connection = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket.sendall(self._connection.send(events.Request(host="here", target=path)))
        assert isinstance(self._next(), events.AcceptConnection)

    def ask(self, text: str) -> str:
        self._socket.sendall(self._connection.send(events.TextMessage(data=text)))
        return str(self._next().data)

    def close(self) -> None:
        self._socket.sendall(self._connection.send(events.CloseConnection(code=1000)))
        self._socket.close()

    def vanish(self) -> None:
        self._socket.close()

    def _next(self) -> Any:
        while True:
            for event in self._connection.events():
                return event
            self._connection.receive_data(self._socket.recv(4096) or None)


@pytest.mark.parametrize("end", ["close", "vanish"])
def test_a_websocket_s_session_lasts_as_long_as_it_and_no_longer(end: str) -> None:
    began: list[str | None] = []
    ended: list[str | None] = []

    async def talk(scope: Any, receive: Any, send: Any) -> None:
        began.append(whose())
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        trace.set_session("app", scope["path"])
        while (await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": str(whose())})

    apart = FallomMiddleware(talk)

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        await apart(scope, receive, send)
        ended.append(whose())  # where an application that calls another one goes on

    with served(outer) as port:
        one, other = Client(port, "/one"), Client(port, "/other")
        for _ in range(3):  # in turns, in one thread of the server
            assert one.ask("whose?") == "/one"
            assert other.ask("whose?") == "/other"
        getattr(one, end)()
        assert other.ask("whose?") == "/other"
        getattr(other, end)()
        wait_for(lambda: len(ended) == 2, what="both to end")
    assert began == ended == [None, None]
