"""Paths of the flusher's work: filling a spool for it, and the floors of encoding OTLP.

The floors read the very records that the spool holds (msgpack), and make the same request of them.
"""

from __future__ import annotations

import gzip
import http.client
import time
from typing import Any
from urllib.parse import urlsplit

import msgpack
from driver import TEN, Subject, llm_attributes, serve


def fill(options: dict[str, Any]) -> Subject:
    """Record spans that no flusher takes yet."""
    import fallom
    from fallom import trace

    fallom.init()

    def step(number: int) -> None:
        with trace.step("chat gpt-4o", attributes=llm_attributes(number)):
            pass

    return Subject(
        step
        if options["is_llm"]
        else lambda number: trace.span({**TEN, "n": number}, "app", f"session-{number}"),
        answers=lambda: {"dropped": fallom.status()["dropped"], "closed": fallom.shutdown()},
    )


def upb(options: dict[str, Any]) -> Subject:
    """Decode 512 records, encode them by protobuf's own classes, compress, and post."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    packed = [
        msgpack.packb(
            [
                b"t" * 16,
                number.to_bytes(8, "big"),
                time.time_ns(),
                llm_attributes(number) if options["is_llm"] else {**TEN, "n": number},
            ]
        )
        for number in range(512)
    ]
    post = _poster(options["url"])

    def call(_: int) -> None:
        request = ExportTraceServiceRequest()
        spans = request.resource_spans.add().scope_spans.add().spans
        for raw in packed:
            trace_id, span_id, unix_ns, attributes = msgpack.unpackb(raw)
            span = spans.add(
                trace_id=trace_id,
                span_id=span_id,
                name="fallom.metrics",
                kind=1,
                start_time_unix_nano=unix_ns,
                end_time_unix_nano=unix_ns,
            )
            for name, value in attributes.items():
                attribute = span.attributes.add(key=name)
                if isinstance(value, bool):
                    attribute.value.bool_value = value
                elif isinstance(value, str):
                    attribute.value.string_value = value
                elif isinstance(value, list):
                    for each in value:
                        attribute.value.array_value.values.add(string_value=each)
                elif isinstance(value, float):
                    attribute.value.double_value = value
                else:
                    attribute.value.int_value = value
        post(gzip.compress(request.SerializeToString(), 1))

    return Subject(call, extra={"spans": 512})


def _poster(url: str) -> Any:
    connection = http.client.HTTPConnection(urlsplit(url).netloc)

    def post(body: bytes) -> None:
        headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
        connection.request("POST", "/v1/traces", body, headers)
        assert connection.getresponse().read() is not None

    return post


PATHS = {"fill": fill, "upb": upb}

if __name__ == "__main__":
    serve(PATHS)
