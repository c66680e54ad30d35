"""What fallom records: spans, exposures, metrics, wishes; and what integrations record by.

The records are plain tuples, because msgpack packs a tuple as an array and that is the fastest form
there is. Fields are only ever added at the end: a reader ignores those that it does not know, and
gives those that are missing their defaults.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

__all__ = [
    "AttributeValue",
    "Dropped",
    "Event",
    "Exposure",
    "Link",
    "Metrics",
    "Scope",
    "SessionContext",
    "Span",
    "SpanKind",
    "SpanStatus",
    "Tracing",
    "Wish",
    "exposure_of",
    "metrics_of",
    "new_span_id",
    "new_trace_id",
    "span_of",
    "wish_of",
]

AttributeValue: TypeAlias = "str | bool | int | float | bytes | Sequence[str | bool | int | float]"


class SpanKind(enum.IntEnum):
    """OTLP ``Span.SpanKind``."""

    INTERNAL = 1
    SERVER = 2
    CLIENT = 3
    PRODUCER = 4
    CONSUMER = 5


class SpanStatus(enum.IntEnum):
    """OTLP ``Status.StatusCode``."""

    UNSET = 0
    OK = 1
    ERROR = 2


class Event(NamedTuple):
    """A point in time within a span."""

    unix_ns: int
    name: str
    attributes: Mapping[str, AttributeValue]


class Link(NamedTuple):
    """Another span that this one has to do with."""

    trace_id: bytes
    span_id: bytes
    trace_state: str
    attributes: Mapping[str, AttributeValue]


class Scope(NamedTuple):
    """Which instrumentation made a span; without a name it is fallom."""

    name: str = ""
    version: str = ""
    schema_url: str = ""
    attributes: Mapping[str, AttributeValue] = {}


class Dropped(NamedTuple):
    """How much of a span was left out before it was recorded."""

    attributes: int = 0
    events: int = 0
    links: int = 0


class Span(NamedTuple):
    """A finished span, as OTLP has it.

    Ids are fixed when it is recorded, so that a re-sent span is recognisable.
    """

    trace_id: bytes  # 16 bytes
    span_id: bytes  # 8 bytes
    parent_span_id: bytes  # 8 bytes, or empty for a root
    name: str
    kind: int
    start_unix_ns: int
    end_unix_ns: int
    status: int
    status_message: str
    attributes: Mapping[str, AttributeValue]
    events: Sequence[Event] = ()
    links: Sequence[Link] = ()
    trace_state: str = ""
    flags: int = 0  # OTLP ``Span.flags``
    scope: Scope = Scope()
    resource: Mapping[str, AttributeValue] = {}  # what differs from that of the recording process
    dropped: Dropped = Dropped()


class Exposure(NamedTuple):
    """Session X was assigned model Y of version n of config Z."""

    config_key: str
    config_version: int
    session_id: str
    model: str
    unix_ns: int


class Metrics(NamedTuple):
    """The numbers of one ``trace.span`` call; the later start wins per field."""

    trace_id: bytes
    span_id: bytes
    unix_ns: int
    config_key: str
    session_id: str
    attributes: Mapping[str, AttributeValue]  # those of the session
    data: Mapping[str, Any]


class Wish(NamedTuple):
    """A pinned config version that a worker needs and the snapshot does not have."""

    config_key: str
    config_version: int


class SessionContext(NamedTuple):
    """Whose spans these are."""

    config_key: str
    session_id: str
    customer_id: str | None = None
    metadata: Mapping[str, Any] | None = None
    tags: tuple[str, ...] = ()


def span_of(record: Any) -> Span:
    """Read a span record from disk.

    Raises:
        ValueError: It is none.
    """
    fields = _fields(record, 10, _SPAN_FIELDS)
    if list(map(type, fields)) != _SPAN_TYPES:  # not what msgpack gives: look at each
        _check_span(Span(*fields))
    trace_id, span_id, parent_span_id = fields[:3]
    if len(trace_id) != 16 or len(span_id) != 8 or len(parent_span_id) not in (0, 8):
        raise ValueError("the ids of a span have 16, 8, and 0 or 8 bytes")
    fields += [[], []][len(fields) - 10 :]  # of a version that had no events or links
    if fields[10] or fields[11]:
        fields[10] = [_event(event) for event in fields[10]]
        fields[11] = [_link(link) for link in fields[11]]
    if len(fields) > 14:
        fields[14] = _NO_SCOPE if fields[14] == _PACKED_NO_SCOPE else _scope(fields[14])
    if len(fields) > 16:
        fields[16] = _NONE_DROPPED if fields[16] == _PACKED_NONE_DROPPED else _dropped(fields[16])
    return Span(*fields)


def metrics_of(record: Any) -> Metrics:
    """Read a metrics record from disk.

    Raises:
        ValueError: It is none.
    """
    metrics = Metrics(*_fields(record, 7, 7))
    _check(metrics, {"trace_id": bytes, "span_id": bytes, "unix_ns": int, "config_key": str})
    _check(metrics, {"session_id": str, "attributes": dict, "data": dict})
    if (len(metrics.trace_id), len(metrics.span_id)) != (16, 8):
        raise ValueError("the ids of a span have 16 and 8 bytes")
    return metrics


def exposure_of(record: Any) -> Exposure:
    """Read an exposure record from disk.

    Raises:
        ValueError: It is none.
    """
    exposure = Exposure(*_fields(record, 5, 5))
    _check(exposure, {"config_key": str, "config_version": int, "session_id": str, "model": str})
    return exposure


def wish_of(record: Any) -> Wish:
    """Read a wish record from disk.

    Raises:
        ValueError: It is none.
    """
    wish = Wish(*_fields(record, 2, 2))
    _check(wish, {"config_key": str, "config_version": int})
    return wish


_SPAN_FIELDS = len(Span._fields)
_SPAN_TYPES = [bytes, bytes, bytes, str, int, int, int, int, str, dict]
_SPAN_TYPES += [list, list, str, int, list, dict, list]
_NO_SCOPE, _PACKED_NO_SCOPE = Scope(), list(Scope())
_NONE_DROPPED, _PACKED_NONE_DROPPED = Dropped(), list(Dropped())


def _check_span(span: Span) -> None:
    _check(span, {"trace_id": bytes, "span_id": bytes, "parent_span_id": bytes})
    _check(span, {"name": str, "kind": int, "status": int, "status_message": str})
    _check(span, {"start_unix_ns": int, "end_unix_ns": int, "attributes": dict})
    _check(span, {"events": (list, tuple), "links": (list, tuple)})
    _check(span, {"trace_state": str, "flags": int, "resource": dict})


def _event(record: Any) -> Event:
    event = Event(*_fields(record, 3, 3))
    _check(event, {"unix_ns": int, "name": str, "attributes": dict})
    return event


def _link(record: Any) -> Link:
    link = Link(*_fields(record, 4, 4))
    _check(link, {"trace_id": bytes, "span_id": bytes, "trace_state": str, "attributes": dict})
    if (len(link.trace_id), len(link.span_id)) != (16, 8):
        raise ValueError("the ids of a link have 16 and 8 bytes")
    return link


def _scope(record: Any) -> Scope:
    scope = Scope(*_fields(record, 0, 4))
    _check(scope, {"name": str, "version": str, "schema_url": str, "attributes": dict})
    return scope


def _dropped(record: Any) -> Dropped:
    dropped = Dropped(*_fields(record, 0, 3))
    _check(dropped, {"attributes": int, "events": int, "links": int})
    return dropped


def _fields(record: Any, least: int, known: int) -> list[Any]:
    """Give the fields that this version knows; later versions may have added more at the end."""
    if not isinstance(record, (list, tuple)) or len(record) < least:
        raise ValueError(f"a record of at least {least} fields was expected")
    return list(record[:known])


def _check(record: Any, types: Mapping[str, type | tuple[type, ...]]) -> None:
    for name, expected in types.items():
        value = getattr(record, name)
        if not isinstance(value, expected):
            found = type(value).__name__
            raise ValueError(f"{name} of a {type(record).__name__} is a {found}")


class Tracing(Protocol):
    """All that an integration knows of fallom: it never sees the runtime.

    No method raises, blocks on the network, or takes longer than one write to a file.
    """

    @property
    def content_captured(self) -> bool:
        """Whether message content may be recorded. If False, do not even build it."""

    @property
    def mask(self) -> Callable[[str], str] | None:
        """What each text of content goes through before it is recorded; it does not raise."""

    def call_attributes(self, takes_prompt: bool = True) -> dict[str, AttributeValue]:
        """Give the attributes of session, assignment and prompt tag, at the start of a call.

        Args:
            takes_prompt: Whether this call uses a prompt's text: the tag is taken by it, and the next
                call of the context does not have it. An embedding, an image or a tool takes none.
        """

    def parent(self) -> tuple[bytes, bytes] | None:
        """Give (trace id, span id) of the span that is active here, or None."""

    def parent_of_call(self) -> tuple[bytes, bytes] | None:
        """Give the parent of a call that begins here; the span id is empty for a root.

        The span that an instrumentation of the client library made for the same call is not the
        parent: ours takes its place.
        """

    def activate(self, trace_id: bytes, span_id: bytes, is_call: bool = False) -> Any:
        """Make a span the active one of this context, and give what ``deactivate`` needs."""

    def deactivate(self, active: Any) -> None:
        """Make the span that was before the active one again."""

    def started(self, span: Span) -> None:
        """Leave word that a call began: its span without end and content, for a process that dies.

        ``record`` of a span with the same id takes it back.
        """

    def record(self, span: Span) -> None:
        """Put a finished span into the spool; it is in the kernel when this returns."""

    def gave_up(self, reason: str, error: BaseException) -> None:
        """Count, and log once a minute, that tracing gave something up for ``reason``."""


def new_trace_id() -> bytes:
    """Give 16 random bytes.

    From the operating system each time: a generator seeded before a fork would give the same ids
    in both processes, and C-level forks (uWSGI) run no hook that could seed it anew.
    """
    return os.urandom(16)


def new_span_id() -> bytes:
    """Give 8 random bytes; see ``new_trace_id``."""
    return os.urandom(8)
