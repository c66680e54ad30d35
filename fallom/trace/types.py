"""Records of the releases before 0.3, kept so that programs written against them run unchanged."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["SessionContext", "SessionOptions", "TraceContext", "TraceData", "WaterfallTimings"]


@dataclass
class SessionContext:
    """Whose calls these are; ``fallom.session`` takes the same."""

    config_key: str
    session_id: str
    customer_id: str | None = None
    metadata: dict[str, Any] | None = None
    tags: list[str] | None = None


class SessionOptions(SessionContext):
    """The arguments of ``fallom.session``, which are the same."""


@dataclass
class TraceContext:
    """A trace, and the span under which others belong; ids in hex."""

    trace_id: str
    parent_span_id: str | None = None


@dataclass
class WaterfallTimings:
    """Times within a call, in milliseconds since its start."""

    request_start: int = 0
    request_end: int = 0
    response_end: int = 0
    first_token_time: int | None = None
    steps: list[dict[str, Any]] | None = None


@dataclass
class TraceData:
    """A span for ``send_trace``; ids in hex, times as ISO 8601, the status "OK" or "ERROR"."""

    config_key: str
    session_id: str
    trace_id: str
    span_id: str
    name: str
    start_time: str
    end_time: str
    duration_ms: int
    status: str
    customer_id: str | None = None
    parent_span_id: str | None = None
    kind: str | None = None
    model: str | None = None
    error_message: str | None = None
    time_to_first_token_ms: int | None = None
    is_streaming: bool | None = None
    metadata: dict[str, Any] | None = None
    tags: list[str] | None = None
    attributes: dict[str, Any] | None = None
    prompt_key: str | None = None
    prompt_version: int | None = None
    prompt_ab_test_key: str | None = None
    prompt_variant_index: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give the fields that are set."""
        return {name: value for name, value in asdict(self).items() if value is not None}
