"""One observed call: from its start to exactly one span, whatever happens between.

A ``Call`` is told what happens (a piece of a stream, a whole answer, an error, a close) and hands
what it is told to a ``Reader``, which knows the API. It records one span, at the first of: the
answer, the stream's end, an error, a close, and at the latest when nothing refers to it any more
(a stream that was dropped). No method raises an ``Exception``: what goes wrong here costs the span
and is counted; ``BaseException`` passes.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from fallom._core.span import (
    AttributeValue,
    Event,
    Span,
    SpanKind,
    SpanStatus,
    Tracing,
    new_span_id,
)
from fallom.integrations import _attributes as names
from fallom.integrations._content import Room, clean, masked

__all__ = ["Call", "Reader", "error_type_of", "give_up"]

_ATTEMPTS_MAX = 100  # kept of one call; no client library retries as often

_logger = logging.getLogger("fallom")
# What ``Span(...)`` does is written in Python, and takes three times as long as the tuple itself.
_span_of: Callable[[tuple[Any, ...]], Span] = functools.partial(tuple.__new__, Span)
_NOT_SAID = tuple(Span._field_defaults.values())[1:]  # what follows the events


class Reader(Protocol):
    """What one API's requests and answers mean. One object reads one call."""

    operation: str
    takes_prompt: bool  # whether the call may be the one that a managed prompt was fetched for
    model: str
    failure: str  # an error that the answer itself tells of, else empty

    def request(self) -> dict[str, AttributeValue]:
        """Give the request's attributes; with content only if it is captured."""

    def piece(self, piece: Any) -> None:
        """Take one event of a stream, an object of the client library or decoded JSON."""

    def whole(self, answer: Any) -> None:
        """Take a whole answer, an object of the client library or decoded JSON."""

    def answer(self, is_stream: bool) -> dict[str, AttributeValue]:
        """Give the answer's attributes; of a stream that ended early, those of its part."""


class Decoder(Protocol):
    """Makes JSON of a body's bytes."""

    def feed(self, chunk: bytes) -> Iterable[Any]:
        """Take bytes and give the events that they complete."""

    def rest(self) -> Any:
        """Give the body as one JSON value, None if there is none."""


def give_up(tracing: Tracing, reason: str, error: BaseException) -> None:
    """Have ``error`` counted; a ``Tracing`` that cannot even do that has its error logged."""
    try:
        tracing.gave_up(reason, error)
    except Exception:  # named edge guard: there is nobody left to tell
        _logger.debug("tracing could not count what it gave up (%s)", reason, exc_info=True)


def _new_ids() -> tuple[bytes, bytes, bytes]:
    """Give the ids of a root: trace id, no parent, span id; drawn at once, as ``new_trace_id`` draws."""
    drawn = os.urandom(24)
    return drawn[:16], b"", drawn[16:]


def error_type_of(error: BaseException) -> str:
    """Give the provider's code of an error, else its class; never its message: it may be content."""
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, Mapping) else None
    told = inner.get("type") if isinstance(inner, Mapping) else None
    for code in (getattr(error, "code", None), told, getattr(error, "status", None)):
        if isinstance(code, str) and code and len(code) <= 128:
            return clean(code)
    return type(error).__name__


class Call:
    """One call in flight. Thread-safe in what matters: it is recorded once."""

    __slots__ = (
        "_attempts_ns",
        "_attributes",
        "_first_ns",
        "_name",
        "_once",
        "_parent",
        "_reader",
        "_span_id",
        "_start_ns",
        "_start_unix_ns",
        "_trace_id",
        "_tracing",
        "is_advancing",
        "last_ns",
    )

    def __init__(
        self,
        tracing: Tracing,
        reader: Reader,
        attributes: Mapping[str, AttributeValue],
    ) -> None:
        """Begin a call. Unlike the methods this may raise: the caller guards it.

        Args:
            tracing: Where the span goes.
            reader: Reads this call.
            attributes: What the client says of itself (provider, server).
        """
        self._tracing = tracing
        self._reader = reader
        parent = tracing.parent_of_call()
        ids = _new_ids() if parent is None else (*parent, new_span_id())
        self._trace_id, self._parent, self._span_id = ids
        context = tracing.call_attributes(reader.takes_prompt)
        known = {names.OPERATION: reader.operation, **attributes}
        if reader.model:
            known[names.REQUEST_MODEL] = reader.model
        known.update(context)
        mask = tracing.mask
        if mask is None:
            request = reader.request()
        else:
            with masked(mask):
                request = reader.request()
        self._attributes: dict[str, AttributeValue] = {**known, **request, **context}
        self._name = f"{reader.operation} {reader.model}".rstrip()
        self._first_ns = 0
        self.last_ns = 0  # when the last event of a stream came
        self._attempts_ns: list[int] = []  # when the client library made which HTTP request
        self.is_advancing = False  # whether a stream is being read through its own iterator
        self._start_unix_ns = time.time_ns()
        self._start_ns = time.perf_counter_ns()
        word = self._span(known, self._start_unix_ns, SpanStatus.UNSET, "")  # without content
        try:
            tracing.started(word)
        except Exception as error:  # noqa: BLE001  # named edge guard: costs the word, not the span
            give_up(tracing, "integration", error)
        self._once = threading.Lock()  # last: an object that is half made records nothing

    @property
    def reads_bytes(self) -> bool:
        """Whether bytes that the caller reads past the client library's objects can be understood."""
        return not self.is_advancing and not self._once.locked()

    def enter(self) -> Any:
        """Make this call's span the active one, for what the client library does; see ``leave``."""
        try:
            return self._tracing.activate(self._trace_id, self._span_id, is_call=True)
        except Exception as error:  # noqa: BLE001  # named edge guard: costs the link, not the call
            give_up(self._tracing, "integration", error)
            return None

    def leave(self, entered: Any) -> None:
        """Take back what ``enter`` did."""
        if entered is not None:
            try:
                self._tracing.deactivate(entered)
            except Exception as error:  # noqa: BLE001  # named edge guard
                give_up(self._tracing, "integration", error)

    def attempt(self) -> None:
        """Take it that the client library makes an HTTP request: the first, or a retry."""
        if len(self._attempts_ns) < _ATTEMPTS_MAX:
            self._attempts_ns.append(time.perf_counter_ns())

    def piece(self, piece: Any) -> None:
        """Take one event of a stream, before the caller gets it."""
        if self._once.locked():
            return
        self.last_ns = time.perf_counter_ns()
        if not self._first_ns:
            self._first_ns = self.last_ns
        try:  # ``_guarded``, spelled out: a call less for each of thousands of pieces
            self._reader.piece(piece)
        except Exception as error:  # noqa: BLE001  # named edge guard: costs the span, not the call
            self.abandon(error)

    @property
    def plain(self) -> Callable[[Any], bool] | None:
        """What takes an event of the kind that nearly all are, for less than ``piece``; None without such.

        It says no to any other, which then is for ``piece``, as the first event of a stream always is. It
        does not raise, and who uses it sets ``last_ns``.
        """
        found: Callable[[Any], bool] | None = getattr(self._reader, "plain", None)
        return found

    def hides(self, is_hidden: Callable[[Any], bool], piece: Any) -> bool:
        """Say whether the caller must not get a piece; it gets it where that cannot be told."""
        try:
            return is_hidden(piece)
        except Exception as error:  # noqa: BLE001  # named edge guard
            give_up(self._tracing, "integration", error)
            return False

    def answered(self, answer: Any) -> None:
        """Take a whole answer, and record the span."""
        if self._once.acquire(blocking=False):
            try:  # ``_guarded``, spelled out
                self._reader.whole(answer)
                self._record(None, is_stream=False)
            except Exception as error:  # noqa: BLE001  # named edge guard: costs the span, not the call
                self.abandon(error)

    def bytes_seen(self, chunk: bytes, decoder: Decoder) -> None:
        """Take bytes that the caller reads past the client library's objects."""
        self._guarded(self._take_bytes, (chunk, decoder))

    def body_ended(self, decoder: Decoder) -> None:
        """Take the end of a response's body, and record the span."""
        if self._once.acquire(blocking=False):
            self._guarded(self._record_body, decoder)

    def failed(self, error: BaseException) -> None:
        """Take the error that the caller is about to see, and record the span."""
        if self._once.acquire(blocking=False):
            self._guarded(self._record, error)

    def ended(self) -> None:
        """Take the end of a stream, complete or not, and record the span."""
        if self._once.acquire(blocking=False):
            self._guarded(self._record, None)

    def abandon(self, error: BaseException) -> None:
        """Give the span up because of an error of our own, which is counted."""
        self._once.acquire(blocking=False)
        give_up(self._tracing, "integration", error)

    def note(self, name: str, value: Any) -> None:
        """Put text on the span that only the response's envelope knows, such as the request id."""
        if isinstance(value, str) and value:
            self._attributes[name] = (value if value.isascii() else clean(value))[:256]

    def __del__(self) -> None:
        # A stream that was dropped without being closed, or read to its end, ends here.
        once = getattr(self, "_once", None)  # missing if the constructor itself failed
        if once is not None and once.acquire(blocking=False):
            self._guarded(self._record, None)

    def _guarded(self, step: Callable[[Any], None], argument: Any) -> None:
        try:
            step(argument)
        except Exception as error:  # noqa: BLE001  # named edge guard: costs the span, not the call
            self.abandon(error)

    def _take_bytes(self, chunk_and_decoder: tuple[bytes, Decoder]) -> None:
        chunk, decoder = chunk_and_decoder
        for event in decoder.feed(chunk):
            self.piece(event)

    def _record_body(self, decoder: Decoder) -> None:
        whole = decoder.rest()
        if whole is not None:
            self._reader.whole(whole)
        self._record(None, is_stream=whole is None)

    def _record(self, error: BaseException | None, is_stream: bool = True) -> None:
        mask = self._tracing.mask
        if mask is None:  # entering a context for nothing takes 1 us
            self._record_masked(error, is_stream)
            return
        with masked(mask):
            self._record_masked(error, is_stream)

    def _record_masked(self, error: BaseException | None, is_stream: bool) -> None:
        attributes = self._attributes
        message = ""
        if error is None or self._first_ns:
            attributes.update(self._reader.answer(is_stream))
        if self._first_ns:
            seconds = (self._first_ns - self._start_ns) / 1e9
            attributes[names.TIME_TO_FIRST_CHUNK] = seconds
        if len(self._attempts_ns) > 1:
            attributes[names.RETRIES] = len(self._attempts_ns) - 1
        failure = self._reader.failure
        if error is not None:
            failure = error_type_of(error)
            self.note(names.REQUEST_ID, getattr(error, "request_id", None))
            if self._tracing.content_captured:
                message = Room().text(str(error))  # providers echo the prompt in it
        if failure:
            attributes[names.ERROR_TYPE] = failure
        end_unix_ns = self._start_unix_ns + time.perf_counter_ns() - self._start_ns
        status = SpanStatus.ERROR if failure else SpanStatus.UNSET
        has_events = self._first_ns or len(self._attempts_ns) > 1
        events = self._events() if has_events else ()
        self._tracing.record(self._span(attributes, end_unix_ns, status, message, events))

    def _span(
        self,
        attributes: Mapping[str, AttributeValue],
        end_unix_ns: int,
        status: SpanStatus,
        message: str,
        events: Sequence[Event] = (),
    ) -> Span:
        return _span_of(
            (
                self._trace_id,
                self._span_id,
                self._parent,
                self._name,
                SpanKind.CLIENT,
                self._start_unix_ns,
                end_unix_ns,
                status,
                message,
                attributes,
                events,
                *_NOT_SAID,
            )
        )

    def _events(self) -> list[Event]:
        """Give what a waterfall shows within the span: retries, first and last piece of a stream."""
        events = [
            Event(self._unix(at_ns), names.ATTEMPT, {names.ATTEMPT_NUMBER: number})
            for number, at_ns in enumerate(self._attempts_ns, start=1)
        ]
        if len(events) == 1:  # the only attempt is the call
            events = []
        if self._first_ns:
            events.append(Event(self._unix(self._first_ns), names.FIRST_CHUNK, {}))
            events.append(Event(self._unix(self.last_ns), names.LAST_CHUNK, {}))
        return events

    def _unix(self, at_ns: int) -> int:
        return self._start_unix_ns + at_ns - self._start_ns
