"""Records as workers make them."""

from __future__ import annotations

from typing import Any

from fallom._core.span import Exposure, Metrics, Span, SpanKind
from fallom._spool.frame import Kind, decode_record, pack
from fallom._spool.reader import Item


def make_span(number: int = 1, **changes: Any) -> Span:
    span = Span(
        trace_id=number.to_bytes(16, "big"),
        span_id=number.to_bytes(8, "big"),
        parent_span_id=b"",
        name=f"span {number}",
        kind=SpanKind.CLIENT,
        start_unix_ns=1_700_000_000_000_000_000 + number,
        end_unix_ns=1_700_000_000_000_000_005 + number,
        status=0,
        status_message="",
        attributes={"number": number},
        events=[],  # lists, as they come from the disk
        links=[],
    )
    return span._replace(**changes)


def make_metrics(number: int = 1, **data: Any) -> Metrics:
    return Metrics(
        number.to_bytes(16, "big"),
        number.to_bytes(8, "big"),
        1_700_000_000_000_000_000 + number,
        "config",
        f"session {number}",
        {},
        data or {"score": number},
    )


def make_exposure(number: int = 1) -> Exposure:
    return Exposure("config", 1, f"session {number}", "model", 1_700_000_000_000_000_000)


def item_of(record: Any, kind: int = Kind.SPAN, resource: dict[str, Any] | None = None) -> Item:
    """Give a record as the reader gives it, after its way through the disk."""
    payload = pack(record)
    given = {"service.name": "tests"} if resource is None else resource
    return Item(kind, decode_record(payload), given, payload)
