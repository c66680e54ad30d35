"""The receiver: a local HTTP server that takes what fallom and its peers send, and counts it.

It keeps the bodies and decodes them only when it is asked for the counts, so that decoding takes no time
from what is measured. "Kept" is the number of distinct ids in what was decoded, nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import subprocess
import sys
import urllib.request
import zlib
from pathlib import Path
from typing import Any

__all__ = ["Receiver"]

_INGEST = {
    "use_multipart_endpoint": True,
    "size_limit": 100,
    "size_limit_bytes": 20 << 20,
    "scale_up_qsize_trigger": 1000,
    "scale_up_nthreads_limit": 16,
    "scale_down_nempty_trigger": 4,
}
_ELSEWHERE = "--elsewhere"
_LISTINGS = {
    "/configs": b'{"configs": []}',
    "/prompts": b'{"prompts": []}',
    "/prompt-ab-tests": b'{"prompt_ab_tests": []}',
}
_OPTIONS = {"endpoints": ["/v0.4/traces"], "batch_ingest_config": _INGEST}
_PIECES = 500  # of a stream
_TEXT = b"word " * 400  # of a question or an answer


class Receiver:
    """The server as a process of its own; ends with this one."""

    def __init__(self, is_elsewhere: bool = False) -> None:
        """Where it stands for another host, it waits where the contestants want the processor."""
        self._options = [_ELSEWHERE] if is_elsewhere else []

    def __enter__(self) -> Receiver:
        self._process = subprocess.Popen(
            [sys.executable, __file__, *self._options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:  # closes its pipes, and waits
            self._process.kill()

    def counts(self) -> dict[str, Any]:
        """Give how many distinct ids came, how many in all, and in how many requests, by format."""
        with _open(f"{self.url}/_count") as answer:
            counts: dict[str, Any] = json.load(answer)
        return counts

    def distinct(self) -> int:
        """Give how many distinct ids came, of whatever format."""
        return sum(each["distinct"] for each in self.counts().values())

    def texts(self) -> int:
        """Give how many long texts of questions and answers came."""
        return sum(each["texts"] for each in self.counts().values())

    def clear(self) -> None:
        """Forget all that came."""
        _open(f"{self.url}/_clear").close()


def _open(url: str) -> Any:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(url, timeout=300)


class _Server:
    def __init__(self) -> None:
        self.bodies: list[tuple[str, str, bytes]] = []  # format, encoding, body

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, target, _ = head[0].split(" ", 2)
                headers = {
                    name.strip().lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in head[1:] if line)
                }
                if headers.get("expect", "").lower() == "100-continue":
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = await _body(reader, headers)
                status, kind, answer = self.answer(method, target.partition("?")[0], headers, body)
                writer.write(
                    f"HTTP/1.1 {status} Answer\r\nContent-Type: {kind}\r\n"
                    f"Content-Length: {len(answer)}\r\n\r\n".encode()
                    + answer
                )
                await writer.drain()
                if headers.get("connection", "").lower() == "close":
                    break
        writer.close()

    def answer(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, str, bytes]:
        encoding = headers.get("content-encoding", "")
        if path.endswith("/v1/traces"):
            self.bodies.append(("otlp", encoding, body))
            return 200, "application/x-protobuf", b""
        if path == "/_count":
            return 200, "application/json", json.dumps(_counts(self.bodies)).encode()
        if path == "/_clear":
            self.bodies.clear()
        elif path == "/v0.4/traces":
            self.bodies.append(("datadog", encoding, body))
            return 200, "application/json", b'{"rate_by_service":{"service:,env:":1.0}}'
        elif path.endswith("/envelope/"):
            self.bodies.append(("sentry", encoding, body))
        elif path in ("/spans", "/sessions"):
            self.bodies.append((path[1:], encoding, body))
        elif path.startswith("/runs"):
            kind = headers.get("content-type", "")
            self.bodies.append((f"langsmith {kind}", encoding, body))
            return 202, "application/json", b"{}"
        elif path in _LISTINGS:
            return 200, "application/json", _LISTINGS[path]
        elif path == "/info":
            return 200, "application/json", json.dumps(_OPTIONS).encode()
        elif path.startswith("/api/public/v2/prompts/"):
            return 200, "application/json", json.dumps(_PROMPT).encode()
        elif path.endswith("/chat/completions"):
            if json.loads(body).get("stream"):
                return 200, "text/event-stream", _STREAM
            return 200, "application/json", _COMPLETION
        elif path == "/plain":
            return 200, "text/plain", b"ok"
        return 200, "application/json", b"{}"


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(int(headers.get("content-length", 0)))
    parts = []
    while True:
        length = int((await reader.readline()).split(b";")[0], 16)
        parts.append(await reader.readexactly(length))
        await reader.readline()
        if not length:
            return b"".join(parts)


def _counts(bodies: list[tuple[str, str, bytes]]) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {}
    for kind, encoding, raw in bodies:
        body = raw
        if encoding == "gzip":
            body = gzip.decompress(raw)
        elif encoding == "deflate":
            body = zlib.decompress(raw)
        elif encoding == "zstd":
            import zstandard

            body = zstandard.ZstdDecompressor().decompressobj().decompress(raw)
        name = kind.split()[0]
        each = found.setdefault(
            name, {"ids": set(), "all": 0, "requests": 0, "bytes": 0, "texts": 0}
        )
        ids = _IDS[name](body, kind)
        each["ids"].update(ids)
        each["all"] += len(ids)
        each["requests"] += 1
        each["bytes"] += len(raw)
        each["texts"] += body.count(_TEXT)
    return {
        name: {"distinct": len(each.pop("ids")), **each}  # evaluated in this order
        for name, each in found.items()
    }


def _otlp_ids(body: bytes, _: str) -> list[Any]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest.FromString(body)
    return [
        span.span_id
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _datadog_ids(body: bytes, _: str) -> list[Any]:
    import msgpack

    traces = msgpack.unpackb(body, strict_map_key=False)
    return [(span["trace_id"], span["span_id"]) for trace in traces for span in trace]


def _sentry_ids(body: bytes, _: str) -> list[Any]:
    ids, rest = [], body.partition(b"\n")[2]
    while rest:
        line, _, rest = rest.partition(b"\n")
        if not line:
            continue
        item = json.loads(line)
        length = item.get("length")
        payload, rest = (
            (rest[:length], rest[length + 1 :]) if length is not None else _line_of(rest)
        )
        if item.get("type") == "transaction":
            ids.append(json.loads(payload)["event_id"])
        elif item.get("type") == "span":
            ids += [span["span_id"] for span in json.loads(payload)["items"]]
    return ids


def _line_of(data: bytes) -> tuple[bytes, bytes]:
    line, _, rest = data.partition(b"\n")
    return line, rest


def _langsmith_ids(body: bytes, kind: str) -> list[Any]:
    if "multipart" in kind:
        from email.parser import BytesParser

        message = BytesParser().parsebytes(
            b"Content-Type: " + kind.partition(" ")[2].encode() + b"\r\n\r\n" + body
        )
        names = [
            str(part.get_param("name", header="content-disposition"))
            for part in message.walk()
            if not part.is_multipart()
        ]
        return [name.split(".")[1] for name in names if name.count(".") == 1]
    batch = json.loads(body)
    runs = [batch] if "id" in batch else batch.get("post", []) + batch.get("patch", [])
    return [run["id"] for run in runs]


_IDS = {
    "otlp": _otlp_ids,
    "datadog": _datadog_ids,
    "sentry": _sentry_ids,
    "langsmith": _langsmith_ids,
    "spans": lambda body, _: [json.loads(body)["data"].get("n")],
    "sessions": lambda body, _: [json.loads(body)["session_id"]],
}

_PROMPT = {
    "id": "1",
    "name": "p",
    "version": 1,
    "type": "chat",
    "prompt": [
        {"role": "system", "content": "You are {{a}}, who helps {{b}} with {{c}}. Be brief."},
        {"role": "user", "content": "Tell {{d}} about {{e}}, please."},
    ],
    "config": {},
    "labels": ["production"],
    "tags": [],
    "projectId": "1",
    "createdAt": "2026-01-01T00:00:00Z",
    "updatedAt": "2026-01-01T00:00:00Z",
}
_USAGE = {"prompt_tokens": 500, "completion_tokens": _PIECES, "total_tokens": 500 + _PIECES}
_HEAD = {"id": "chatcmpl-1", "created": 1, "model": "gpt-4o"}
_COMPLETION = json.dumps(
    {
        **_HEAD,
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "word " * _PIECES},
            }
        ],
        "usage": _USAGE,
    }
).encode()


def _chunk(choices: list[Any], **more: Any) -> bytes:
    chunk = {**_HEAD, "object": "chat.completion.chunk", "choices": choices, **more}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


_STREAM = b"".join(
    [
        *[
            _chunk([{"index": 0, "delta": {"content": "word "}, "finish_reason": None}])
            for _ in range(_PIECES)
        ],
        _chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}]),
        _chunk([], usage=_USAGE),
        b"data: [DONE]\n\n",
    ]
)


async def _main() -> None:
    if _ELSEWHERE in sys.argv:
        from fallom._flusher.boot import yield_the_processor  # of a path that is set below

        yield_the_processor()
    server = await asyncio.start_server(_Server().serve, "127.0.0.1", 0, limit=1 << 20)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)  # ends when whoever started it is gone
    os._exit(0)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    asyncio.run(_main())
