"""Records to OTLP: what is posted to ``/v1/traces``, and what the answer says.

The bytes are written by hand (``wire``, ``attributes``): filling protobuf's classes took two thirds of
the flusher's CPU. They are the same that those classes give, which a test compares; fields stand in
the order of their numbers, and one that has its default is left out. In brackets, the key bytes:

| message | fields |
| --- | --- |
| ExportTraceServiceRequest | 1 resource_spans [0a] |
| ResourceSpans | 1 resource [0a], 2 scope_spans [12] |
| Resource | 1 attributes [0a] |
| ScopeSpans | 1 scope [0a], 2 spans [12], 3 schema_url [1a] |
| InstrumentationScope | 1 name [0a], 2 version [12], 3 attributes [1a] |
| Span | 1 trace_id [0a], 2 span_id [12], 3 trace_state [1a], 4 parent_span_id [22], 5 name [2a], |
| | 6 kind [30], 7 and 8 start and end: fixed64 [39, 41], 9 attributes [4a], |
| | 11 events [5a], 13 links [6a], 10, 12, 14 how many of each were dropped [50, 60, 70], |
| | 15 status [7a], 16 flags: fixed32 [85 01] |
| Event | 1 time: fixed64 [09], 2 name [12], 3 attributes [1a] |
| Link | 1 trace_id [0a], 2 span_id [12], 3 trace_state [1a], 4 attributes [22] |
| Status | 2 message [12], 3 code [18] |
| ExportTraceServiceResponse | 1 partial_success [0a] |
| ExportTracePartialSuccess | 1 rejected_spans: int64, 2 error_message: string |

Source: opentelemetry/proto/trace/v1/trace.proto and collector/trace/v1/trace_service.proto,
https://github.com/open-telemetry/opentelemetry-proto

Everything that comes from a spool file is data from outside: a value that OTLP cannot carry becomes
text, never an exception, because one such span would keep its whole batch from being sent.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from typing import Any

from fallom._core.span import Event, Link, Metrics, Scope, Span, SpanKind
from fallom._flusher.attributes import AttributeEncoder, utf8
from fallom._flusher.wire import field, fields, varint
from fallom._version import __version__

__all__ = ["TraceEncoder", "metrics_span", "partial_success"]

SCOPE_NAME = "fallom"

_UINT64_MAX = (1 << 64) - 1
_UINT32_MAX = (1 << 32) - 1
_NAMES_MAX = 1000  # span names that are remembered, of at most:
_NAME_CHARS_MAX = 256
_KIND_MAX = 5
_TIME = struct.Struct("<BQ")
_START_AND_END = struct.Struct("<BQBQ")
_FLAGS = struct.Struct("<2sI")
_KINDS = [b"", *(bytes((0x30, kind)) for kind in range(1, _KIND_MAX + 1))]


class TraceEncoder:
    """Gives requests; remembers the encodings of what recurs. Threads may share one."""

    def __init__(self) -> None:
        """Start with nothing remembered."""
        self._attributes = AttributeEncoder()
        self._names: dict[str, bytes] = {}

    def encode(self, spans: Iterable[tuple[Span, Mapping[str, Any]]]) -> bytes:
        """Give an ``ExportTraceServiceRequest`` of spans with their resources.

        Spans of one resource stand together, and within it those of one scope, in the order given.
        """
        groups: dict[str, _Group] = {}
        # A segment's records share one resource object, so that its content is looked at once.
        by_identity: dict[int, tuple[Any, _Group]] = {}
        for number, (span, recorded) in enumerate(spans):
            known = None if span.resource else by_identity.get(id(recorded))
            if known is not None:
                group = known[1]
            else:
                resource = {**recorded, **span.resource} if span.resource else recorded
                key = _group_key(resource, number)
                found = groups.get(key)
                if found is None:
                    found = groups[key] = _Group(self._attributes.fields(b"\x0a", resource))
                group = found
                if not span.resource:
                    by_identity[id(recorded)] = (
                        recorded,
                        group,
                    )  # held, so that its id stays its own
            scope = span.scope
            scope_key = _scope_key(scope, number) if scope.name else ""
            within = group.scopes.get(scope_key)
            if within is None:
                within = group.scopes[scope_key] = _Within(self._scope(scope), scope.schema_url)
            within.spans.append(self._span(span))
        return b"".join([field(b"\x0a", group.encoded()) for group in groups.values()])

    def _scope(self, scope: Scope) -> bytes:
        name = utf8(scope.name) or SCOPE_NAME.encode()
        version = utf8(scope.version if scope.name else __version__)
        attributes = self._attributes.fields(b"\x1a", scope.attributes)
        return field(b"\x0a", name) + _unless_empty(b"\x12", version) + attributes

    def _span(self, span: Span) -> bytes:
        start, end = span.start_unix_ns, span.end_unix_ns
        if 0 < start <= _UINT64_MAX and 0 < end <= _UINT64_MAX:
            times = _START_AND_END.pack(0x39, start, 0x41, end)
        else:
            times = _time(0x39, start) + _time(0x41, end)
        parts = [
            b"\x0a\x10",
            span.trace_id,
            b"\x12\x08",
            span.span_id,
            _unless_empty(b"\x1a", utf8(span.trace_state)) if span.trace_state else b"",
            b"\x22\x08" + span.parent_span_id if span.parent_span_id else b"",
            self._names.get(span.name) or self._name(span.name),
            _KINDS[span.kind] if 0 <= span.kind <= _KIND_MAX else b"",
            times,
            self._attributes.fields(b"\x4a", span.attributes),
        ]
        if any(span.dropped) or span.events or span.links:
            dropped = span.dropped
            parts.append(_count(b"\x50", dropped.attributes))
            parts += [field(b"\x5a", self._event(event)) for event in span.events]
            parts.append(_count(b"\x60", dropped.events))
            parts += [field(b"\x6a", self._link(link)) for link in span.links]
            parts.append(_count(b"\x70", dropped.links))
        if span.status:
            message = _unless_empty(b"\x12", utf8(span.status_message))
            code = bytes((0x18, span.status)) if span.status in (1, 2) else b""
            parts.append(field(b"\x7a", message + code))
        if span.flags > 0:
            parts.append(_FLAGS.pack(b"\x85\x01", min(span.flags, _UINT32_MAX)))
        return b"".join(parts)

    def _name(self, name: str) -> bytes:
        encoded = _unless_empty(b"\x2a", utf8(name))
        if len(name) <= _NAME_CHARS_MAX:
            if len(self._names) >= _NAMES_MAX:
                self._names.clear()
            self._names[name] = encoded
        return encoded

    def _event(self, event: Event) -> bytes:
        name = _unless_empty(b"\x12", utf8(event.name))
        attributes = self._attributes.fields(b"\x1a", event.attributes)
        return _time(0x09, event.unix_ns) + name + attributes

    def _link(self, link: Link) -> bytes:
        ids = field(b"\x0a", link.trace_id) + field(b"\x12", link.span_id)
        state = _unless_empty(b"\x1a", utf8(link.trace_state))
        return ids + state + self._attributes.fields(b"\x22", link.attributes)


class _Group:
    """Spans of one resource."""

    __slots__ = ("resource", "scopes")

    def __init__(self, resource: bytes) -> None:
        self.resource = resource
        self.scopes: dict[Any, _Within] = {}

    def encoded(self) -> bytes:
        scopes = [field(b"\x12", within.encoded()) for within in self.scopes.values()]
        return b"".join((field(b"\x0a", self.resource), *scopes))


class _Within:
    """Spans of one scope of one resource."""

    __slots__ = ("schema_url", "scope", "spans")

    def __init__(self, scope: bytes, schema_url: str) -> None:
        self.scope = scope
        self.schema_url = utf8(schema_url)
        self.spans: list[bytes] = []

    def encoded(self) -> bytes:
        parts = [field(b"\x0a", self.scope)]
        for span in self.spans:
            parts += (b"\x12", varint(len(span)), span)
        return b"".join(parts) + _unless_empty(b"\x1a", self.schema_url)


def metrics_span(metrics: Metrics) -> Span:
    """Give the zero-length span that carries custom metrics; the later start wins per field."""
    attributes: dict[str, Any] = dict(metrics.attributes)
    attributes["fallom.config_key"] = metrics.config_key
    attributes["fallom.session_id"] = metrics.session_id
    attributes["gen_ai.conversation.id"] = metrics.session_id
    for name, value in metrics.data.items():
        attributes[f"fallom.metric.{name}"] = value
    return Span(
        metrics.trace_id,
        metrics.span_id,
        b"",
        "fallom.metrics",
        SpanKind.INTERNAL,
        metrics.unix_ns,
        metrics.unix_ns,
        0,
        "",
        attributes,
    )


def partial_success(body: bytes) -> tuple[int, str]:
    """Read the answer to an export that was accepted.

    Returns:
        How many spans were rejected, and what the server said; (0, "") where it said nothing, or
        something that is no OTLP answer (an HTML page with status 200, say).
    """
    rejected, message = 0, ""
    try:
        for number, partial in fields(body):
            if number != 1 or not isinstance(partial, bytes):
                continue
            for inner, value in fields(partial):
                if inner == 1 and isinstance(value, int):
                    rejected = value if value < 1 << 63 else 0  # a negative int64
                elif inner == 2 and isinstance(value, bytes):
                    message = value.decode("utf-8", "replace")
    except ValueError:
        return 0, ""
    return rejected, message


def _group_key(values: Any, number: int) -> str:
    """Give a text that is the same for equal values; odd ones are a group of their own, by number."""
    try:
        return json.dumps(values, sort_keys=True, default=str)
    except (TypeError, ValueError, RecursionError):
        return f"span {number}"


def _scope_key(scope: Scope, number: int) -> Any:
    attributes = _group_key(scope.attributes, number) if scope.attributes else ""
    return scope.name, scope.version, scope.schema_url, attributes


def _unless_empty(key: bytes, value: bytes) -> bytes:
    return field(key, value) if value else b""


def _time(key: int, unix_ns: int) -> bytes:
    return _TIME.pack(key, min(unix_ns, _UINT64_MAX)) if unix_ns > 0 else b""


def _count(key: bytes, count: int) -> bytes:
    return key + varint(min(count, _UINT32_MAX)) if count > 0 else b""
