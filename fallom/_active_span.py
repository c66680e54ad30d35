"""The span that is active here: a step of ours, or OpenTelemetry's, as far as that is loaded.

OpenTelemetry is never imported here. Where an application has loaded it, a span of ours is made active
in its context too, so that what it instruments below (an HTTP request, a query) becomes our child.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from typing import Any, NamedTuple

from fallom._core.propagation import Parent

__all__ = [
    "DOUBLED",
    "IN_CALL",
    "OPENTELEMETRY",
    "Active",
    "Replaced",
    "activate",
    "active_span",
    "deactivate",
    "doubled_attributes",
    "give_back",
    "is_llm_client_scope",
    "joined",
    "keep_parent",
    "parent_here",
    "parent_of_call",
    "step_here",
    "take_parent",
]

_logger = logging.getLogger("fallom")

DOUBLED = "fallom.doubled"  # attribute of an OpenTelemetry span whose call a span of ours records
IN_CALL = "fallom-in-call"  # value in OpenTelemetry's context while a call of ours is made
# Of traceloop's instrumentations: while it is set they make no span.
_SUPPRESS = "suppress_language_model_instrumentation"

OPENTELEMETRY, _LANGCHAIN = "opentelemetry.trace", "langchain_core.runnables.config"
# Scopes of instrumented clients of models' providers, of what comes first or second in their names.
_INSTRUMENTATION = "opentelemetry.instrumentation."
_CLIENTS = "openai openai_v2 anthropic google_genai google_generativeai vertexai".split()
_OTHERS = ("opentelemetry.util.genai", "anthropic")  # a shared base of them; a client's own


class Active(NamedTuple):
    """A span that was made active, and what was before."""

    ours: Token[Parent | None]
    theirs: Any


class Replaced(NamedTuple):
    """What was active in a context before a span of elsewhere was."""

    ours: Parent | None
    theirs: Any  # OpenTelemetry's context, None where it was not loaded
    put: Any  # the one that was put there instead, None if it was left as it was


# What ``Parent(...)`` and ``Active(...)`` do is written in Python, and takes three times as long.
_parent_of: Callable[[tuple[Any, ...]], Parent] = functools.partial(tuple.__new__, Parent)
_active_of: Callable[[tuple[Any, ...]], Active] = functools.partial(tuple.__new__, Active)
_NO_PARENT = Parent(b"", b"")
_ours: ContextVar[Parent | None] = ContextVar("fallom_active_span", default=None)
# The context of OpenTelemetry's that ``take_parent`` put here and ``give_back`` took away again.
_taken_away: ContextVar[Any] = ContextVar("fallom_taken_away", default=None)


def active_span() -> tuple[bytes, bytes] | None:
    """Give (trace id, span id) of the span that is active here, None if there is none."""
    modules = sys.modules  # 60 ns; with the calls below 150
    if OPENTELEMETRY not in modules and _LANGCHAIN not in modules:
        ours = _ours.get()
        return None if ours is None else (ours.trace_id, ours.span_id)
    span = _current()
    if span is None:
        ours = _ours.get()
        found = None if ours is None else (ours.trace_id, ours.span_id)
    else:
        context = span.get_span_context()
        found = _trace_id(context), _span_id(context)
    return _langchain_run(found) or found


def step_here() -> Parent | None:
    """Give what of ours is active here, whatever OpenTelemetry or LangChain have."""
    return _ours.get()


def parent_here() -> Parent | None:
    """Give the span that is active here as what headers say of it, None if there is none."""
    span = _current()
    if span is None:
        ours = _ours.get()
        run = _langchain_run(None if ours is None else (ours.trace_id, ours.span_id))
        return ours if run is None else Parent(*run)
    context = span.get_span_context()
    run = _langchain_run((_trace_id(context), _span_id(context)))
    if run is not None:
        return Parent(*run, int(context.trace_flags))
    state = context.trace_state.to_header() if context.trace_state else ""
    return Parent(_trace_id(context), _span_id(context), int(context.trace_flags), state)


def parent_of_call() -> tuple[bytes, bytes] | None:
    """Give the parent of a call to a model that begins here: trace id, and span id or nothing.

    An instrumentation of the client library, if there is one, has begun a span of its own around the
    method that led here. Ours takes its place, and it is marked so that the spool takes only one.
    """
    modules = sys.modules
    if OPENTELEMETRY not in modules and _LANGCHAIN not in modules:  # as ``active_span``
        ours = _ours.get()
        return None if ours is None else (ours.trace_id, ours.span_id)
    span = _doubled()
    if span is None:
        return active_span()
    span.set_attribute(DOUBLED, True)
    return _trace_id(span.get_span_context()), _span_id(span.parent) if span.parent else b""


def doubled_attributes() -> Mapping[str, Any]:
    """Give the attributes of the span that records the call which begins here too; none without one."""
    span = _doubled() if OPENTELEMETRY in sys.modules else None
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
    outer = _ours.get()
    if outer is None or outer.trace_id != trace_id:
        outer = _NO_PARENT
    ours = _parent_of((trace_id, span_id, outer.flags, outer.trace_state))
    if OPENTELEMETRY not in sys.modules:
        return _active_of((_ours.set(ours), None))
    api, otel = _loaded()
    if api is None:
        return Active(_ours.set(ours), None)
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
    theirs = otel.attach(entered)
    return Active(_ours.set(ours), theirs)  # last: what is above may raise, and then nothing is set


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


def take_parent(parent: Parent | None, is_remote: bool) -> Replaced:
    """Make a span of elsewhere the active one until ``give_back``.

    Where OpenTelemetry has a nearer one of its trace, that stays.

    Args:
        parent: That span; None for none at all.
        is_remote: Whether it is of another process.
    """
    before = keep_parent()
    _ours.set(parent)
    try:
        return before._replace(put=_put(parent, is_remote))
    except Exception as error:  # named edge guard: a span of any class may be active
        _logger.debug("OpenTelemetry's active span cannot be replaced", exc_info=error)
        return before


def keep_parent() -> Replaced:
    """Leave active what is, for ``give_back`` to make it so again."""
    _, otel = _loaded()
    return Replaced(_ours.get(), None if otel is None else _without_remains(otel), None)


def joined(outer: Replaced, inner: Replaced) -> Replaced:
    """Give what to give back at the end of an inner replacement whose outer one is dropped before it."""
    theirs = inner.theirs if outer.theirs is None else outer.theirs
    return Replaced(outer.ours, theirs, outer.put if inner.put is None else inner.put)


def give_back(replaced: Replaced) -> None:
    """Make active what was, whatever of ours was left active since.

    Values are set, where a token would raise in another thread than its own. Of OpenTelemetry's context
    only what is ours is taken away: what others attached is theirs to detach.
    """
    ours = _ours.get()
    _ours.set(replaced.ours)
    if replaced.theirs is None:
        return
    _, otel = _loaded()
    if _is_active(_current(), ours) or (
        replaced.put is not None and otel.get_current() is replaced.put
    ):
        otel.attach(replaced.theirs)
    if replaced.put is not None:
        _taken_away.set(replaced.put)


def _put(parent: Parent | None, is_remote: bool) -> Any:
    """Make a span of elsewhere active in OpenTelemetry; give its context, None where none was needed."""
    api, otel = _loaded()
    if api is None:
        return None
    span = _current()
    if parent is None:
        if span is None:
            return None
        put = api.set_span_in_context(api.INVALID_SPAN)
    elif span is not None and _is_nearer(span.get_span_context(), parent, is_remote):
        return None
    else:
        put = api.set_span_in_context(api.NonRecordingSpan(_span_context(api, parent, is_remote)))
    otel.attach(put)
    return put


def _is_active(span: Any, ours: Parent | None) -> bool:
    """Tell whether OpenTelemetry's active span is the one of ours."""
    if span is None or ours is None:
        return False
    try:
        return _span_id(span.get_span_context()) == ours.span_id
    except Exception:  # noqa: BLE001 - a span of any class may be active; ours it is not
        return False


def _without_remains(otel: Any) -> Any:
    """Give OpenTelemetry's context, without what was here before and is over.

    Who attached a context after ours and detaches it after ours was taken away brings it back: that is
    the order in which signals of Celery come to its instrumentation.
    """
    context = otel.get_current()
    if context is _taken_away.get() and context is not None:
        context = otel.Context()
        otel.attach(context)
    return context


def _is_nearer(context: Any, parent: Parent, is_remote: bool) -> bool:
    """Tell whether an active span stands between a span of elsewhere and what begins here."""
    if _trace_id(context) != parent.trace_id:
        return False
    return is_remote or _span_id(context) == parent.span_id


def _span_context(api: Any, parent: Parent, is_remote: bool) -> Any:
    return api.SpanContext(
        int.from_bytes(parent.trace_id, "big"),
        int.from_bytes(parent.span_id, "big"),
        is_remote=is_remote,
        trace_flags=api.TraceFlags(parent.flags),
        trace_state=api.TraceState.from_header([parent.trace_state]),
    )


def _langchain_run(active: tuple[bytes, bytes] | None) -> tuple[bytes, bytes] | None:
    """Give the span of LangChain's run that this code is part of, where it is nearer than ``active``.

    LangChain itself keeps which run that is, in a context variable of its own, and so better than a
    handler could, which is told of starts and ends wherever they are noticed.
    """
    runnables: Any = sys.modules.get(_LANGCHAIN)
    var = getattr(runnables, "var_child_runnable_config", None)
    config = None if var is None else var.get()
    callbacks: Any = config.get("callbacks") if config else None
    for handler in getattr(callbacks, "handlers", ()):
        if type(handler).__module__ == "fallom.integrations.langchain":
            place: tuple[bytes, bytes] | None = handler.place_of(callbacks.parent_run_id, active)
            if place is not None:
                return place
    return None


def _doubled() -> Any:
    """Give the active span if it is that of an instrumented client."""
    span = _current()
    scope = getattr(span, "instrumentation_scope", None)
    if scope is None or not span.is_recording() or not is_llm_client_scope(scope.name):
        return None
    return span


def _loaded() -> tuple[Any, Any]:
    """Give OpenTelemetry's modules of spans and contexts; None while they are not (all) loaded."""
    api = sys.modules.get(OPENTELEMETRY)
    if api is None or not hasattr(api, "use_span"):  # its last name: or it is just being imported
        return None, None
    return api, sys.modules["opentelemetry.context"]


def _current() -> Any:
    api, _ = _loaded()
    if api is None:
        return None
    try:
        span = api.get_current_span()
        return span if span.get_span_context().is_valid else None
    except Exception as error:  # named edge guard: a span of any class may be active
        _logger.debug("OpenTelemetry's active span cannot be read", exc_info=error)
        return None


def _trace_id(context: Any) -> bytes:
    return int(context.trace_id).to_bytes(16, "big")


def _span_id(context: Any) -> bytes:
    return int(context.span_id).to_bytes(8, "big")
