"""OpenTelemetry's spans into the spool: a span processor and an exporter for its SDK.

They start no thread and hold no queue: a span is on disk when its ``end()`` returns, in whichever
process, before or after a fork. The processor also says whose span it is, at its start.

The resource of such a span is that of the recording process, with what OpenTelemetry's has besides;
the pid, and a service name that nobody gave, stay those of the process.

This module is imported only where the SDK is: by those who ask for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from opentelemetry.context import Context, get_value
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from fallom._core.content import is_content, mask_content
from fallom._core.span import Dropped, Event, Link, Scope, Span, Tracing
from fallom.integrations._call import give_up

__all__ = ["SpoolExporter", "SpoolProcessor", "Spooled", "is_llm_span"]

_SCOPE_PREFIXES = (
    "opentelemetry.util.genai",
    "openinference.instrumentation.",
    "anthropic",
    *(
        f"opentelemetry.instrumentation.{name}"
        for name in (
            "openai anthropic langchain llamaindex google_gen genai vertexai bedrock cohere mistralai "
            "groq ollama together crewai"
        ).split()
    ),
)
_GENERATIVE = ("chat", "completion", "text_completion", "generate_content", "responses")
_OTHER_WORK = (
    "embed",
    "image",
    "audio",
    "speech",
    "transcri",
    "moderation",
    "count_tokens",
    "tool",
)

_HAS_IS_REMOTE, _IS_REMOTE = 0x100, 0x200  # bits of OTLP's Span.flags
_UNIX_NS_MAX = (1 << 63) - 1  # the year 2262


class Spooled:
    """What processor and exporter share: a finished span into the spool."""

    def __init__(self, tracing: Tracing, accepts: Callable[[ReadableSpan], bool] | None) -> None:
        """Take where the spans go, and which; None for all."""
        self._tracing = tracing
        self._accepts = accepts
        self._resource: tuple[Resource | None, Mapping[str, Any]] = (None, {})

    def put(self, span: ReadableSpan, doubled_name: str) -> None:
        """Record a span, unless it was left out by its sampler or another span stands for it."""
        try:
            context = span.context
            if context is None or not context.trace_flags.sampled:
                return
            if doubled_name in (span.attributes or {}):
                return
            if self._accepts is None or self._accepts(span):
                self._tracing.record(self._record_of(span))
        except Exception as error:  # noqa: BLE001  # named edge guard: costs the span, not the call
            give_up(self._tracing, "opentelemetry", error)

    def _record_of(self, span: ReadableSpan) -> Span:
        context, parent, scope = span.context, span.parent, span.instrumentation_scope
        start_unix_ns = _unix_ns(span.start_time)
        flags = int(context.trace_flags) | _HAS_IS_REMOTE
        return Span(
            trace_id=_bytes(context.trace_id, 16),
            span_id=_bytes(context.span_id, 8),
            parent_span_id=_bytes(parent.span_id, 8) if parent is not None else b"",
            name=_name(span.name),
            kind=span.kind.value + 1,  # OTLP counts from 1, with 0 for "unspecified"
            start_unix_ns=start_unix_ns,
            end_unix_ns=_unix_ns(span.end_time) or start_unix_ns,
            status=span.status.status_code.value,
            status_message=self._text(span.status.description),
            attributes=self._attributes(span.attributes),
            events=[
                Event(
                    _unix_ns(event.timestamp), _name(event.name), self._attributes(event.attributes)
                )
                for event in span.events
            ],
            links=[
                Link(
                    _bytes(link.context.trace_id, 16),
                    _bytes(link.context.span_id, 8),
                    link.context.trace_state.to_header() if link.context.trace_state else "",
                    self._attributes(link.attributes),
                )
                for link in span.links
            ],
            trace_state=context.trace_state.to_header() if context.trace_state else "",
            flags=flags | _IS_REMOTE if parent is not None and parent.is_remote else flags,
            scope=_scope(scope),
            resource=self._resource_of(span.resource),
            dropped=Dropped(span.dropped_attributes, span.dropped_events, span.dropped_links),
        )

    def _attributes(self, attributes: Mapping[str, Any] | None) -> dict[str, Any]:
        found = dict(attributes or {})
        if not self._tracing.content_captured:
            return {name: value for name, value in found.items() if not is_content(name)}
        mask = self._tracing.mask
        return found if mask is None else mask_content(mask, found)

    def _text(self, text: str | None) -> str:
        """Give an error's text: of a provider's error it may be the prompt."""
        if not text or not self._tracing.content_captured:
            return ""
        mask = self._tracing.mask
        return mask(text) if mask is not None else text

    def _resource_of(self, resource: Resource) -> Mapping[str, Any]:
        """Give what a resource adds to that of this process; it is one object for all spans of a tracer."""
        known, found = self._resource
        if known is resource:
            return found
        found = dict(resource.attributes)
        found.pop("process.pid", None)  # of the process that made it, which may have forked since
        if str(found.get("service.name", "")).startswith("unknown_service"):
            del found["service.name"]
        self._resource = (resource, found)
        return found


class SpoolProcessor(SpanProcessor):
    """Puts each span into the spool as it ends, with the attributes of the context's session."""

    def __init__(
        self,
        tracing: Tracing,
        doubled_name: str,
        in_call_key: str,
        accepts: Callable[[ReadableSpan], bool] | None = None,
    ) -> None:
        """Take where spans go.

        Args:
            tracing: Takes the spans, and knows the session of the context.
            doubled_name: The attribute of spans whose call another span of ours records.
            in_call_key: The key in OpenTelemetry's context that says that such a call is being made.
            accepts: Says which spans to record; None for all.
        """
        self._spooled = Spooled(tracing, accepts)
        self._tracing = tracing
        self._doubled_name = doubled_name
        self._in_call_key = in_call_key

    def on_start(self, span: SdkSpan, parent_context: Context | None = None) -> None:
        """Put the attributes of the context's session, and the prompt tag, on a span that begins."""
        try:
            is_llm = is_llm_span(span)
            if is_llm and get_value(self._in_call_key, parent_context):
                span.set_attribute(self._doubled_name, True)
                return
            takes_prompt = is_llm and _is_generative(span)
            given = span.attributes or {}
            for name, value in self._tracing.call_attributes(takes_prompt).items():
                if name not in given:
                    span.set_attribute(name, value)
        except Exception as error:  # noqa: BLE001  # named edge guard
            give_up(self._tracing, "opentelemetry", error)

    def on_end(self, span: ReadableSpan) -> None:
        """Record a span that ended."""
        self._spooled.put(span, self._doubled_name)

    def shutdown(self) -> None:
        """Do nothing: what was recorded is on disk."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Do nothing: what was recorded is on disk. ``fallom.flush`` waits for its delivery."""
        return True


class SpoolExporter(SpanExporter):
    """Puts spans into the spool, for a span processor of OpenTelemetry's."""

    def __init__(self, tracing: Tracing, doubled_name: str) -> None:
        """Take where the spans go, and the attribute of those that another span stands for."""
        self._spooled = Spooled(tracing, None)
        self._doubled_name = doubled_name

    def export(self, spans: Iterable[ReadableSpan]) -> SpanExportResult:
        """Record spans. It always succeeds: what the disk refuses is counted where our drops are."""
        for span in spans:
            self._spooled.put(span, self._doubled_name)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Do nothing: what was recorded is on disk."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Do nothing: what was recorded is on disk. ``fallom.flush`` waits for its delivery."""
        return True


def is_llm_span(span: ReadableSpan) -> bool:
    """Tell whether a span has to do with a language model, by who made it or what it says."""
    scope = span.instrumentation_scope
    if scope is not None and scope.name.startswith(_SCOPE_PREFIXES):
        return True
    return any(name.startswith(("gen_ai.", "llm.")) for name in span.attributes or ())


def _is_generative(span: ReadableSpan) -> bool:
    """Tell whether a span is that of a call which may use a prompt's text. By its first words only."""
    given = span.attributes or {}
    told = given.get("gen_ai.operation.name") or given.get("llm.request.type")
    if told is not None:
        return told in _GENERATIVE
    if span.kind.name != "CLIENT":
        return False
    return not any(word in span.name.lower() for word in _OTHER_WORK)


def _scope(scope: Any) -> Scope:
    if scope is None or not scope.name:
        return Scope("opentelemetry")
    return Scope(
        scope.name,
        _name(scope.version or ""),
        _name(scope.schema_url or ""),
        dict(scope.attributes or {}),
    )


def _name(given: Any) -> str:
    """Give a name as a record holds it; the SDK looks at no type, neither of names nor of times."""
    return given if isinstance(given, str) else str(given)


def _unix_ns(given: Any) -> int:
    return min(max(int(given), 0), _UNIX_NS_MAX) if given else 0


def _bytes(number: int, length: int) -> bytes:
    return number.to_bytes(length, "big")
