"""What was recorded, as objects that are pleasant to assert on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fallom._core.span import SpanKind, SpanStatus, exposure_of, metrics_of, span_of

__all__ = [
    "CapturedEvent",
    "CapturedExposure",
    "CapturedMetrics",
    "CapturedSpan",
    "captured_exposure",
    "captured_metrics",
    "captured_span",
]


@dataclass(frozen=True)
class CapturedEvent:
    """A point in time within a span.

    Attributes:
        name: Its name.
        unix_ns: When it was, in nanoseconds since the epoch.
        attributes: Its attributes.
    """

    name: str
    unix_ns: int
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class CapturedSpan:
    """A span. Ids are in hex, as backends show them.

    Attributes:
        name: "chat gpt-4o", say.
        kind: "internal", "client", "server", "producer" or "consumer".
        trace_id: 32 hex digits.
        span_id: 16 hex digits.
        parent_span_id: 16 hex digits; None for a root.
        start_unix_ns: When it began, in nanoseconds since the epoch.
        end_unix_ns: When it ended.
        status: "unset", "ok" or "error".
        status_message: What went wrong; "" in privacy mode.
        attributes: By their names on the wire, such as "gen_ai.request.model".
        events: Retries, first and last piece of a stream, exceptions.
    """

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_span_id: str | None
    start_unix_ns: int
    end_unix_ns: int
    status: str
    status_message: str
    attributes: Mapping[str, Any]
    events: tuple[CapturedEvent, ...]

    @property
    def config_key(self) -> str | None:
        """The key of its session's config; None without a session."""
        return self.attributes.get("fallom.config_key")

    @property
    def session_id(self) -> str | None:
        """Its session; None without one."""
        return self.attributes.get("fallom.session_id")

    @property
    def customer_id(self) -> str | None:
        """The customer of its session."""
        return self.attributes.get("fallom.customer_id")

    @property
    def tags(self) -> list[str]:
        """The tags of its session."""
        return list(self.attributes.get("fallom.tags", ()))

    @property
    def model(self) -> str | None:
        """The model that was asked for; None for a span that is no call to one."""
        return self.attributes.get("gen_ai.request.model")

    @property
    def input_tokens(self) -> int | None:
        """All tokens of the request, cached ones included."""
        return self.attributes.get("gen_ai.usage.input_tokens")

    @property
    def output_tokens(self) -> int | None:
        """All tokens of the answer, reasoning included."""
        return self.attributes.get("gen_ai.usage.output_tokens")

    @property
    def input_messages(self) -> Any:
        """The messages of the request, parsed from JSON; None in privacy mode."""
        return self._parsed("gen_ai.input.messages")

    @property
    def output_messages(self) -> Any:
        """The messages of the answer, parsed from JSON; None in privacy mode."""
        return self._parsed("gen_ai.output.messages")

    @property
    def error_type(self) -> str | None:
        """The class or code of the error that ended it; None if none did."""
        return self.attributes.get("error.type")

    def _parsed(self, name: str) -> Any:
        text = self.attributes.get(name)
        if not isinstance(text, str):
            return None
        try:
            return json.loads(text)
        except ValueError:  # cut, because it was too long
            return text


@dataclass(frozen=True)
class CapturedMetrics:
    """One call of ``trace.span``.

    Attributes:
        config_key: The key of its session's config.
        session_id: Its session.
        data: What was given.
        attributes: Those of the session: customer, tags, assignment.
    """

    config_key: str
    session_id: str
    data: Mapping[str, Any]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class CapturedExposure:
    """A session was assigned a model.

    Attributes:
        config_key: The config.
        config_version: The version that decided.
        session_id: The session.
        model: The model it got.
    """

    config_key: str
    config_version: int
    session_id: str
    model: str


def captured_span(record: Any) -> CapturedSpan:
    """Give a span's object from its record."""
    span = span_of(record)
    return CapturedSpan(
        name=span.name,
        kind=SpanKind(span.kind).name.lower(),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_span_id=span.parent_span_id.hex() or None,
        start_unix_ns=span.start_unix_ns,
        end_unix_ns=span.end_unix_ns,
        status=SpanStatus(span.status).name.lower(),
        status_message=span.status_message,
        attributes=dict(span.attributes),
        events=tuple(
            CapturedEvent(event.name, event.unix_ns, dict(event.attributes))
            for event in span.events
        ),
    )


def captured_metrics(record: Any) -> CapturedMetrics:
    """Give metrics' object from their record."""
    metrics = metrics_of(record)
    return CapturedMetrics(
        metrics.config_key, metrics.session_id, dict(metrics.data), dict(metrics.attributes)
    )


def captured_exposure(record: Any) -> CapturedExposure:
    """Give an exposure's object from its record."""
    exposure = exposure_of(record)
    return CapturedExposure(
        exposure.config_key, exposure.config_version, exposure.session_id, exposure.model
    )
