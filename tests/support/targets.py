"""What a server makes of requests: which spans came, and whether it wants them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from fallom._flusher.http import NetworkError, Request, Response

Reply = Any  # a Response, the status of one, or a NetworkError to raise


class FakeHttp:
    """The network seam as a function: what ``reply`` gives for a request is the answer."""

    def __init__(self, reply: Callable[[Request], Reply]) -> None:
        self.reply = reply
        self.requests: list[Request] = []

    def send(self, request: Request) -> Response:
        self.requests.append(request)
        found = self.reply(request)
        if isinstance(found, NetworkError):
            raise found
        return Response(found, {}, b"") if isinstance(found, int) else found


def span_numbers(request: Request) -> list[int]:
    """Give the numbers of the spans in a request."""
    assert request.body is not None
    return span_numbers_of(request.body)


def span_numbers_of(body: bytes) -> list[int]:
    """Give the numbers of the spans in a compressed body."""
    export = ExportTraceServiceRequest.FromString(gzip.decompress(body))
    return [
        int.from_bytes(span.span_id, "big")
        for group in export.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def posted_json(request: Request) -> Any:
    assert request.body is not None
    return json.loads(request.body)


def partial(rejected: int, message: str) -> Response:
    """Give the answer of a server that took a batch but for some."""
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = rejected
    answer.partial_success.error_message = message
    return Response(200, {}, answer.SerializeToString())
