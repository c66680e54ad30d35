"""Records to OTLP by protobuf's own classes: what the bytes written by hand are compared with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

from fallom._core.span import Scope, Span
from fallom._version import __version__

_INT64 = range(-(1 << 63), 1 << 63)
_UINT64_MAX = (1 << 64) - 1


def encode_traces(spans: Iterable[tuple[Span, Mapping[str, Any]]]) -> bytes:
    """Give an ``ExportTraceServiceRequest`` of spans with their resources."""
    request = ExportTraceServiceRequest()
    groups: dict[str, Any] = {}
    scopes: dict[tuple[str, str], Any] = {}
    for number, (span, recorded) in enumerate(spans):
        resource = {**recorded, **span.resource} if span.resource else recorded
        key = _group_key(resource, number)
        within = (key, _group_key(span.scope, number) if span.scope.name else "")
        scope_spans = scopes.get(within)
        if scope_spans is None:
            group = groups.get(key)
            if group is None:
                group = groups[key] = request.resource_spans.add()
                group.resource.attributes.extend(_key_values(resource))
            scope_spans = scopes[within] = group.scope_spans.add()
            _fill_scope(scope_spans, span.scope)
        _fill(scope_spans.spans.add(), span)
    return request.SerializeToString(deterministic=True)


def partial_success(body: bytes) -> tuple[int, str]:
    """Give how many spans an answer says were rejected, and what the server said."""
    if not body:
        return 0, ""
    answer = ExportTraceServiceResponse()
    try:
        answer.ParseFromString(body)
    except DecodeError:
        return 0, ""
    partial = answer.partial_success
    return max(0, partial.rejected_spans), str(partial.error_message)


def _group_key(values: Any, number: int) -> str:
    """Give a text that is the same for equal values; odd ones are a group of their own, by number."""
    try:
        return json.dumps(values, sort_keys=True, default=str)
    except (TypeError, ValueError, RecursionError):
        return f"span {number}"


def _fill_scope(target: Any, scope: Scope) -> None:
    target.scope.name = _text(scope.name) or "fallom"
    target.scope.version = _text(scope.version) if scope.name else __version__
    target.scope.attributes.extend(_key_values(scope.attributes))
    target.schema_url = _text(scope.schema_url)


def _fill(target: Any, span: Span) -> None:
    target.trace_id = span.trace_id
    target.span_id = span.span_id
    target.parent_span_id = span.parent_span_id
    target.name = _text(span.name)
    target.kind = span.kind if span.kind in OtlpSpan.SpanKind.values() else 0
    target.start_time_unix_nano = _uint64(span.start_unix_ns)
    target.end_time_unix_nano = _uint64(span.end_unix_ns)
    if span.status:
        target.status.code = span.status if span.status in (1, 2) else 0
        target.status.message = _text(span.status_message)
    target.attributes.extend(_key_values(span.attributes))
    for event in span.events:
        added = target.events.add()
        added.time_unix_nano = _uint64(event.unix_ns)
        added.name = _text(event.name)
        added.attributes.extend(_key_values(event.attributes))
    for link in span.links:
        linked = target.links.add()
        linked.trace_id = link.trace_id
        linked.span_id = link.span_id
        linked.trace_state = _text(link.trace_state)
        linked.attributes.extend(_key_values(link.attributes))
    target.trace_state = _text(span.trace_state)
    target.flags = _uint32(span.flags)
    target.dropped_attributes_count = _uint32(span.dropped.attributes)
    target.dropped_events_count = _uint32(span.dropped.events)
    target.dropped_links_count = _uint32(span.dropped.links)


def _key_values(attributes: Mapping[str, Any]) -> list[KeyValue]:
    return [
        KeyValue(key=_text(name), value=_any_value(value))
        for name, value in attributes.items()
        if value is not None
    ]


def _any_value(value: Any) -> AnyValue:
    """Give a value as OTLP has it; nested ones as JSON text.

    Nested AnyValues serialise at any depth, but a parser refuses them, and their whole batch, at 100.
    """
    if isinstance(value, bytes):
        return AnyValue(bytes_value=value)
    if _is_scalar(value):
        return _scalar_value(value)
    if isinstance(value, (list, tuple)) and all(map(_is_scalar, value)):
        array = AnyValue()
        array.array_value.SetInParent()  # an empty list is a list
        array.array_value.values.extend(map(_scalar_value, value))
        return array
    return AnyValue(string_value=_text(_json(value)))


def _scalar_value(value: Any) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int) and value in _INT64:
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    return AnyValue(string_value=_text(value))


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (str, bool, int, float))


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError, TypeError):
        return str(type(value).__name__)


def _text(value: Any) -> str:
    """Give text that protobuf takes: half of a surrogate pair becomes a question mark."""
    text = value if isinstance(value, str) else str(value)
    return text.encode("utf-8", "replace").decode("utf-8")


def _uint32(value: int) -> int:
    return min(max(0, value), (1 << 32) - 1)


def _uint64(value: int) -> int:
    return min(max(0, value), _UINT64_MAX)
