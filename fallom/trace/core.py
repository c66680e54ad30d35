"""Functions of the releases before 0.3, kept so that programs written against them run unchanged.

New code calls ``fallom.init``, and records spans with ``trace.step`` or wrapped clients.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

from fallom._arguments import metadata_of, tags_of
from fallom._changed_settings import change_settings
from fallom._core.content import is_content, mask_span
from fallom._core.digest import sha256
from fallom._core.limits import clean_value
from fallom._core.span import AttributeValue, SessionContext, Span, SpanKind, SpanStatus
from fallom._runtime import HOLDER, current
from fallom._session_attributes import session_attributes
from fallom.trace.types import TraceData

__all__ = [
    "get_api_key",
    "get_base_url",
    "init",
    "is_debug_mode",
    "is_initialized",
    "send_trace",
    "send_trace_sync",
    "should_capture_content",
    "shutdown",
]
_UNIX_NS_MAX = (1 << 63) - 1  # the year 2262: a record holds no larger number


def init(
    api_key: str | None = None,
    base_url: str | None = None,
    capture_content: bool = True,
    debug: bool = False,
) -> None:
    """Set where traces go, and leave the other settings as they are; ``fallom.init`` sets all at once.

    Args:
        api_key: The account's key.
        base_url: ``traces_url`` of ``fallom.init``.
        capture_content: False for privacy mode; True lifts none that is in force.
        debug: Log at level DEBUG.

    Raises:
        ConfigurationError: As ``fallom.init``.
    """
    change_settings(
        api_key=api_key,
        traces_url=base_url,
        capture_content=None if capture_content else False,
        debug=debug or None,
    )


def shutdown() -> None:
    """Close this process's spool files, as ``fallom.shutdown``."""
    current().seal()


def is_initialized() -> bool:
    """Tell whether ``init`` was called, or something was used that made it unnecessary."""
    return HOLDER.runtime is not None


def should_capture_content() -> bool:
    """Tell whether texts of prompts and completions are recorded."""
    return current().settings.capture_content


def get_api_key() -> str | None:
    """Give the account's key."""
    return current().settings.api_key


def get_base_url() -> str:
    """Give where traces go."""
    return current().settings.traces_url


def is_debug_mode() -> bool:
    """Tell whether ``debug`` was asked for."""
    return current().settings.debug


def send_trace(trace: TraceData) -> None:
    """Record a span; it is in a file when this returns, and is delivered from there. Never raises.

    In privacy mode, attributes with content (by OpenTelemetry's names, and ``fallom.raw.*``) and the
    error's message are left out; a mask sees them.
    """
    runtime = current()
    try:
        span = _span(trace, runtime.settings.capture_content)
        runtime.record_span(span if runtime.mask is None else mask_span(runtime.mask, span))
    except Exception as error:  # noqa: BLE001 - the edge guard of this call
        runtime.gave_up("send_trace", error)


def send_trace_sync(trace: TraceData) -> None:
    """Record a span, as ``send_trace``; to wait for the server, call ``fallom.flush`` afterwards."""
    send_trace(trace)


def _span(trace: TraceData, content_captured: bool) -> Span:
    session = SessionContext(
        trace.config_key,
        trace.session_id,
        trace.customer_id,
        metadata_of(trace.metadata),
        tags_of(trace.tags),
    )
    attributes = session_attributes(session)
    for name, value in (trace.attributes or {}).items():
        if value is not None and (content_captured or not is_content(name)):
            attributes[name] = clean_value(value)
    named: dict[str, AttributeValue | None] = {
        "fallom.kind": trace.kind,
        "gen_ai.request.model": trace.model,
        "gen_ai.request.stream": trace.is_streaming,
        "fallom.prompt_key": trace.prompt_key,
        "fallom.prompt_version": trace.prompt_version,
        "fallom.prompt_ab_test": trace.prompt_ab_test_key,
        "fallom.prompt_variant": trace.prompt_variant_index,
    }
    attributes.update({name: value for name, value in named.items() if value is not None})
    if trace.time_to_first_token_ms is not None:
        attributes["gen_ai.response.time_to_first_chunk"] = trace.time_to_first_token_ms / 1000
    is_error = trace.status.upper() == "ERROR"
    start_unix_ns = _unix_ns(trace.start_time)
    return Span(
        trace_id=_id(trace.trace_id, 16),
        span_id=_id(trace.span_id, 8),
        parent_span_id=_id(trace.parent_span_id, 8) if trace.parent_span_id else b"",
        name=str(trace.name),
        kind=SpanKind.CLIENT if trace.kind == "llm" else SpanKind.INTERNAL,
        start_unix_ns=start_unix_ns,
        end_unix_ns=max(_unix_ns(trace.end_time), start_unix_ns),
        status=SpanStatus.ERROR if is_error else SpanStatus.OK,
        status_message=str(trace.error_message or "") if is_error and content_captured else "",
        attributes=attributes,
    )


def _id(text: str, length: int) -> bytes:
    """Read an id. One of another form gives a hash, so that equal ones still belong together."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    return found if len(found) == length else sha256(text.encode()).digest()[:length]


def _unix_ns(text: str) -> int:
    moment = datetime.fromisoformat(
        text.replace("Z", "+00:00")
    )  # before 3.11 "Z" is not understood
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    seconds, microseconds = int(moment.replace(microsecond=0).timestamp()), moment.microsecond
    return min(seconds * 1_000_000_000 + microseconds * 1000, _UNIX_NS_MAX)


if not TYPE_CHECKING:  # or a type checker would take every name for one of this module

    def __getattr__(name: str) -> object:
        """Say that a name of 0.2.7 is gone: by an ImportError, whose text ``import`` shows."""
        if name in ("get_fallback_trace_context", "get_trace_context_storage"):
            raise ImportError(
                f"fallom.trace.core.{name} was left out in fallom 0.3: a call's parent is the span that "
                "encloses it. Use trace.step, or trace.inject and trace.extract between processes.",
                name=__name__,
            )
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
