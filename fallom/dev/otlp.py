"""OTLP trace requests: bytes to rows, and the answer.

The rule is the OTLP specification's (section "OTLP/HTTP"): the answer to a stored request is an
``ExportTraceServiceResponse``, and one that stores only a part says so in ``partial_success``.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from typing import Any, Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from fallom.dev.store import SpanRow

__all__ = [
    "PROTOBUF",
    "decode_request",
    "encode_response",
    "encode_status",
    "span_attributes",
    "span_rows",
]

PROTOBUF: Final = "application/x-protobuf"

_INT64_MAX: Final = (1 << 63) - 1  # SQLite's integers are signed, OTLP's times are not
_SESSION_ATTRIBUTES: Final = ("fallom.session_id", "gen_ai.conversation.id", "session.id")


def decode_request(body: bytes) -> ExportTraceServiceRequest:
    """Parse a request.

    Raises:
        ValueError: The bytes are not an ``ExportTraceServiceRequest``.
    """
    try:
        return ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise ValueError(f"not an ExportTraceServiceRequest: {error}") from None


def encode_response(rejected_spans: int = 0, message: str = "") -> bytes:
    """Give the answer's bytes; without a rejection that is the empty message."""
    response = ExportTraceServiceResponse()
    if rejected_spans or message:
        response.partial_success.rejected_spans = rejected_spans
        response.partial_success.error_message = message
    return response.SerializeToString()


def encode_status(message: str) -> bytes:
    """Give a refusal's bytes: a ``google.rpc.Status`` with a message (field 2) and nothing else.

    By hand, because the message class would be a dependency for these two bytes.
    """
    text = message.encode()
    length = len(text)
    size = bytearray()
    while length > 0x7F:
        size.append(length & 0x7F | 0x80)
        length >>= 7
    return b"\x12" + bytes(size) + bytes([length]) + text


def span_rows(
    request: ExportTraceServiceRequest, received_unix_ns: int, request_id: str
) -> Iterator[SpanRow]:
    """Give the spans of a request as rows, in the request's order."""
    for resource_spans in request.resource_spans:
        resource = _json(_attributes(resource_spans.resource.attributes))
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                attributes = _attributes(span.attributes)
                session_id = next(
                    (attributes[name] for name in _SESSION_ATTRIBUTES if name in attributes), None
                )
                config_key = attributes.get("fallom.config_key")
                yield SpanRow(
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.name,
                    span.kind,
                    min(span.start_time_unix_nano, _INT64_MAX),
                    min(span.end_time_unix_nano, _INT64_MAX),
                    span.status.code,
                    span.status.message,
                    None if session_id is None else str(session_id),
                    None if config_key is None else str(config_key),
                    resource,
                    _json(attributes),
                    _json([_event(event) for event in span.events]) if span.events else "[]",
                    received_unix_ns,
                    request_id,
                )


def span_attributes(request: ExportTraceServiceRequest) -> Iterator[dict[str, Any]]:
    """Give the attributes of each span of a request."""
    for resource_spans in request.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield _attributes(span.attributes)


def _event(event: Any) -> dict[str, Any]:
    return {
        "unix_ns": event.time_unix_nano,
        "name": event.name,
        "attributes": _attributes(event.attributes),
    }


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    """Give an ``AnyValue`` as JSON has it; bytes as base64, as protobuf's JSON mapping does."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    plain = getattr(value, kind)
    if kind == "bytes_value":
        return base64.b64encode(plain).decode("ascii")
    if kind == "double_value" and not math.isfinite(plain):
        return str(plain)  # JSON has no NaN; protobuf's mapping writes a string as well
    return plain


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
