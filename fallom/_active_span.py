"""The span that is active here: a step of ours, or OpenTelemetry's, as far as that is loaded.

OpenTelemetry is never imported here. Where an application has loaded it, a span of ours is made active
in its context too, so that what it instruments below (an HTTP request, a query) becomes our child.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextvars import ContextVar, Token
from typing import Any, NamedTuple

__all__ = [
    "DOUBLED",
    "IN_CALL",
    "Active",
    "activate",
    "active_span",
    "deactivate",
    "doubled_attributes",
    "is_llm_client_scope",
    "parent_of_call",
]

DOUBLED = "fallom.doubled"  # attribute of an OpenTelemetry span whose call a span of ours records
IN_CALL = "fallom-in-call"  # value in OpenTelemetry's context while a call of ours is made
# Of traceloop's instrumentations: while it is set they make no span.
_SUPPRESS = "suppress_language_model_instrumentation"

# Scopes of instrumented clients of models' providers, of what comes first or second in their names.
_INSTRUMENTATION = "opentelemetry.instrumentation."
_CLIENTS = "openai openai_v2 anthropic google_genai google_generativeai vertexai".split()
_OTHERS = ("opentelemetry.util.genai", "anthropic")  # a shared base of them; a client's own


class Active(NamedTuple):
    """A span that was made active, and what was before."""

    ours: Token[tuple[bytes, bytes] | None]
    theirs: Any


_ours: ContextVar[tuple[bytes, bytes] | None] = ContextVar("fallom_active_span", default=None)


def active_span() -> tuple[bytes, bytes] | None:
    """Give (trace id, span id) of the span that is active here, None if there is none."""
    span = _current()
    if span is None:
        return _ours.get()
    context = span.get_span_context()
    return _trace_id(context), _span_id(context)


def parent_of_call() -> tuple[bytes, bytes] | None:
    """Give the parent of a call to a model that begins here: trace id, and span id or nothing.

    An instrumentation of the client library, if there is one, has begun a span of its own around the
    method that led here. Ours takes its place, and it is marked so that the spool takes only one.
    """
    span = _doubled()
    if span is None:
        return active_span()
    span.set_attribute(DOUBLED, True)
    return _trace_id(span.get_span_context()), _span_id(span.parent) if span.parent else b""


def doubled_attributes() -> Mapping[str, Any]:
    """Give the attributes of the span that records the call which begins here too; none without one."""
    span = _doubled()
    return {} if span is None else span.attributes or {}


def is_llm_client_scope(scope: str) -> bool:
    """Tell whether an OpenTelemetry scope is that of an instrumented client of a model's provider."""
    if scope.startswith(_INSTRUMENTATION):
        name = scope.removeprefix(_INSTRUMENTATION).removeprefix("genai.")
        return name.partition(".")[0] in _CLIENTS
    return scope.startswith(_OTHERS)


def activate(trace_id: bytes, span_id: bytes, is_call: bool = False) -> Active:
    """Make a span of ours the active one of this context.

    Args:
        trace_id: Its trace.
        span_id: Its id.
        is_call: Whether it is a call to a model, within which instrumentations of clients record nothing.
    """
    token = _ours.set((trace_id, span_id))
    api: Any = sys.modules.get("opentelemetry.trace")
    if api is None:
        return Active(token, None)
    otel: Any = sys.modules["opentelemetry.context"]
    before = api.get_current_span().get_span_context()
    context = api.SpanContext(
        int.from_bytes(trace_id, "big"),
        int.from_bytes(span_id, "big"),
        is_remote=False,
        trace_flags=before.trace_flags if before.is_valid else api.TraceFlags(1),
        trace_state=before.trace_state,
    )
    entered = api.set_span_in_context(api.NonRecordingSpan(context))
    if is_call:
        entered = otel.set_value(IN_CALL, True, otel.set_value(_SUPPRESS, True, entered))
    return Active(token, otel.attach(entered))


def deactivate(active: Active) -> None:
    """Make the span that was before the active one again."""
    try:
        _ours.reset(active.ours)
        if active.theirs is not None:
            # Not ``detach``, which logs an error where this one is passed over in silence.
            active.theirs.var.reset(active.theirs)
    except ValueError:
        # Another context than the one it was made active in: a generator or coroutine that is closed
        # wherever the collector runs. That context never had it.
        return


def _doubled() -> Any:
    """Give the active span if it is that of an instrumented client."""
    span = _current()
    scope = getattr(span, "instrumentation_scope", None)
    if scope is None or not span.is_recording() or not is_llm_client_scope(scope.name):
        return None
    return span


def _current() -> Any:
    api: Any = sys.modules.get("opentelemetry.trace")
    if api is None or not hasattr(api, "get_current_span"):  # or is just being imported
        return None
    span = api.get_current_span()
    return span if span.get_span_context().is_valid else None


def _trace_id(context: Any) -> bytes:
    return int(context.trace_id).to_bytes(16, "big")


def _span_id(context: Any) -> bytes:
    return int(context.span_id).to_bytes(8, "big")
