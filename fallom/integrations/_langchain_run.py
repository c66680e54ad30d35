"""A run of LangChain's in flight, and the span that it becomes."""

from __future__ import annotations

import time
from collections.abc import Mapping

from fallom._core.span import AttributeValue, Event, Span, SpanKind, SpanStatus, new_span_id
from fallom.integrations import _attributes as names
from fallom.integrations._call import error_type_of
from fallom.integrations._content import Room

__all__ = ["Run"]

_EVENTS_MAX = 100
# How LangGraph stops a run on purpose: a person is asked, or another node takes over.
_INTERRUPTS = ("GraphBubbleUp", "GraphInterrupt")


class Run:
    """What is known of a run between its start and its end."""

    __slots__ = (
        "_first_ns",
        "_last_ns",
        "_start_ns",
        "_start_unix_ns",
        "attributes",
        "events",
        "is_root",
        "kind",
        "name",
        "parent_span_id",
        "retries",
        "span_id",
        "span_kind",
        "trace_id",
    )

    def __init__(self, kind: str, name: str, place: tuple[bytes, bytes], is_root: bool) -> None:
        """Begin a run now.

        Args:
            kind: llm, chain, agent, tool or retrieval.
            name: The span's name.
            place: Trace id, and span id of its parent or empty.
            is_root: Whether it is the outermost run.
        """
        self.kind = kind
        self.name = name
        self.trace_id, self.parent_span_id = place
        self.is_root = is_root
        self.span_id = new_span_id()
        self.span_kind = SpanKind.INTERNAL
        self.attributes: dict[str, AttributeValue] = {}
        self.events: list[Event] = []
        self.retries = 0
        self._first_ns = 0
        self._last_ns = 0
        self._start_unix_ns = time.time_ns()
        self._start_ns = time.perf_counter_ns()

    def event(self, name: str, attributes: Mapping[str, AttributeValue]) -> None:
        """Take it that something happens now; no more than a hundred are kept."""
        if len(self.events) < _EVENTS_MAX:
            self.events.append(Event(self._unix(time.perf_counter_ns()), name, attributes))

    def piece(self) -> None:
        """Take it that a piece of a streamed answer came now."""
        self._last_ns = time.perf_counter_ns()
        self._first_ns = self._first_ns or self._last_ns

    def finished(self, error: BaseException | None, failure: str, content_captured: bool) -> Span:
        """Give the span of a run that ends now.

        Args:
            error: What ended it; an interruption on purpose is no error.
            failure: ``error.type`` where it was no exception that ended it.
            content_captured: Whether the error's text may be recorded: providers echo the prompt in it.
        """
        attributes, message = self.attributes, ""
        if error is not None and not _is_interrupt(error):
            failure = error_type_of(error)
            message = Room().text(str(error)) if content_captured else ""
        if failure:
            attributes[names.ERROR_TYPE] = failure
        if self.retries:
            attributes[names.RETRIES] = self.retries
        if self._first_ns:
            attributes[names.STREAM] = True
            attributes[names.TIME_TO_FIRST_CHUNK] = (self._first_ns - self._start_ns) / 1e9
            self.events.append(Event(self._unix(self._first_ns), names.FIRST_CHUNK, {}))
            self.events.append(Event(self._unix(self._last_ns), names.LAST_CHUNK, {}))
        return Span(
            trace_id=self.trace_id,
            span_id=self.span_id,
            parent_span_id=self.parent_span_id,
            name=self.name,
            kind=self.span_kind,
            start_unix_ns=self._start_unix_ns,
            end_unix_ns=self._unix(time.perf_counter_ns()),
            status=SpanStatus.ERROR if failure else SpanStatus.UNSET,
            status_message=message,
            attributes=attributes,
            events=self.events,
        )

    def _unix(self, at_ns: int) -> int:
        return self._start_unix_ns + at_ns - self._start_ns


def _is_interrupt(error: BaseException) -> bool:
    return any(cls.__name__ in _INTERRUPTS for cls in type(error).__mro__)
