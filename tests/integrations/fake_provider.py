"""A provider of models on a real socket, and a ``Tracing`` that keeps what it is given.

Tests import this by its bare name: ``conftest.py`` puts this directory on the path.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from fallom._core.span import AttributeValue, Span


class Reply(NamedTuple):
    """One scripted answer. Of ``events`` each is sent as a chunk of its own."""

    body: Any = None
    events: list[Any] | None = None
    status: int = 200
    headers: Mapping[str, str] = {}
    breaks: bool = False  # cut the connection after the events instead of ending the body
    hangs: bool = False  # after the events, or at once
    named: bool = False  # SSE with event names, as Anthropic has it
    done: bool = True  # [DONE] at the end


class Asked(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Provider:
    """Answers as it was told: the queue first, then ``always``."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.url = f"http://127.0.0.1:{server.server_port}"
        self.asked: list[Asked] = []
        self.queue: list[Reply] = []
        self.always: Reply | Callable[[Asked], Reply] | None = None
        self.let_go = threading.Event()  # ends what hangs

    def reply(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        if self.queue:
            return self.queue.pop(0)
        assert self.always is not None, "the test scripted no answer"
        return self.always(asked) if callable(self.always) else self.always


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    provider: Provider

    def log_message(self, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        with contextlib.suppress(ConnectionError):
            self._answer()

    do_GET = do_POST

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.provider.reply(Asked(self.path, headers, body))
        if reply.events is None:
            self._whole(reply)
        else:
            self._stream(reply)

    def _whole(self, reply: Reply) -> None:
        if reply.hangs:
            self.provider.let_go.wait(30)
        is_bytes = isinstance(reply.body, bytes)
        body = reply.body if is_bytes else json.dumps(reply.body).encode()
        if reply.headers.get("content-encoding") == "gzip":
            body = gzip.compress(body)
        self.send_response(reply.status)
        if not any(name.lower() == "content-type" for name in reply.headers):
            kind = "application/octet-stream" if is_bytes else "application/json"
            self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self._headers(reply)
        self.wfile.write(body)

    def _headers(self, reply: Reply) -> None:
        for name, value in {
            "x-request-id": "req_1",
            "request-id": "req_1",
            **reply.headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()

    def _stream(self, reply: Reply) -> None:
        self.send_response(reply.status)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self._headers(reply)
        for event in reply.events or ():
            name = f"event: {event['type']}\n" if reply.named else ""
            self._chunk(f"{name}data: {json.dumps(event)}\n\n".encode())
        if reply.hangs:
            self.provider.let_go.wait(30)
        if reply.breaks:
            self.close_connection = True
            return
        if reply.done and not reply.named:
            self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256  # connections of all tests' threads at once

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is part of many tests."""


@contextlib.contextmanager
def serving() -> Iterator[Provider]:
    """A provider that listens while the context lasts."""
    handler = type("Handler", (_Handler,), {})
    server = Server(("127.0.0.1", 0), handler)
    handler.provider = provider = Provider(server)  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield provider
    provider.let_go.set()
    server.shutdown()
    thread.join()
    server.server_close()


class Recording:
    """A ``Tracing`` in memory. ``broken`` names the methods that raise."""

    def __init__(self, content: bool = True) -> None:
        self.content = content
        self.spans: list[Span] = []
        self.starts: list[Span] = []
        self.given_up: list[tuple[str, BaseException]] = []
        self.attributes: dict[str, AttributeValue] = {"fallom.session_id": "s-1"}
        self.active: tuple[bytes, bytes] | None = None
        self.activated: list[tuple[bytes, bytes]] = []
        self.prompts_taken = 0
        self.mask: Callable[[str], str] | None = None
        self.broken: dict[str, BaseException] = {}

    def _may_break(self, name: str) -> None:
        if name in self.broken:
            raise self.broken[name]

    @property
    def content_captured(self) -> bool:
        self._may_break("content_captured")
        return self.content

    def call_attributes(self, takes_prompt: bool = True) -> dict[str, AttributeValue]:
        self._may_break("call_attributes")
        if takes_prompt:
            self.prompts_taken += 1
        return dict(self.attributes)

    def parent(self) -> tuple[bytes, bytes] | None:
        self._may_break("parent")
        return self.active

    def parent_of_call(self) -> tuple[bytes, bytes] | None:
        return self.parent()

    def activate(self, trace_id: bytes, span_id: bytes, is_call: bool = False) -> Any:
        self._may_break("activate")
        self.activated.append((trace_id, span_id))
        return len(self.activated)

    def deactivate(self, active: Any) -> None:
        self._may_break("deactivate")
        self.activated.pop()

    def started(self, span: Span) -> None:
        self._may_break("started")
        self.starts.append(span)

    def record(self, span: Span) -> None:
        self._may_break("record")
        self.spans.append(span)

    def gave_up(self, reason: str, error: BaseException) -> None:
        self.given_up.append((reason, error))
        self._may_break("gave_up")

    @property
    def span(self) -> Span:
        """The one span, where nothing went wrong."""
        assert self.given_up == []
        assert len(self.spans) == 1
        return self.spans[0]

    def wait(self, count: int = 1) -> None:
        """Wait until ``count`` spans are here; collects garbage, for those that depend on it."""
        import gc

        deadline = time.monotonic() + 10
        while len(self.spans) < count and time.monotonic() < deadline:
            gc.collect()
            time.sleep(0.005)
        assert len(self.spans) == count


def chat_completion(**over: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "Hello there"}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-2024",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": 20,
            "completion_tokens": 9,
            "total_tokens": 29,
            "prompt_tokens_details": {"cached_tokens": 7},
            "completion_tokens_details": {"reasoning_tokens": 4},
        },
        **over,
    }


def chat_chunks(*texts: str, usage: bool = True, finish: str | None = "stop") -> list[Any]:
    """The chunks of a stream, as OpenAI sends them when usage was asked for."""

    def chunk(delta: Any, reason: str | None = None) -> dict[str, Any]:
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "gpt-4o-2024",
            "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
            **({"usage": None} if usage else {}),
        }

    chunks = [chunk({"role": "assistant", "content": ""})]
    chunks += [chunk({"content": text}) for text in texts]
    if finish:
        chunks.append(chunk({}, finish))
    if usage:
        last = chunk({})
        last["choices"] = []
        last["usage"] = chat_completion()["usage"]
        chunks.append(last)
    return chunks


def chat_reply(asked: Asked) -> Reply:
    """Answers chat completions as OpenAI does, streams with usage only if asked for it."""
    body = asked.json
    if not body.get("stream"):
        return Reply(chat_completion())
    usage = bool((body.get("stream_options") or {}).get("include_usage"))
    return Reply(events=chat_chunks("Hel", "lo", usage=usage))
