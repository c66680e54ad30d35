"""A session as span attributes, and the OpenTelemetry span that is active here."""

from __future__ import annotations

import sys
from typing import Any

from fallom._core.limits import clean_value
from fallom._core.span import AttributeValue, SessionContext

__all__ = ["active_span", "session_attributes"]


def session_attributes(session: SessionContext) -> dict[str, AttributeValue]:
    """Give the attributes that say whose span it is.

    ``gen_ai.conversation.id`` is OpenTelemetry's name for the session; ``session.id`` and ``user.id``
    are what Langfuse and Phoenix read.
    """
    attributes: dict[str, AttributeValue] = {
        "fallom.config_key": session.config_key,
        "fallom.session_id": session.session_id,
        "gen_ai.conversation.id": session.session_id,
        "session.id": session.session_id,
    }
    if session.customer_id:
        attributes["fallom.customer_id"] = session.customer_id
        attributes["user.id"] = session.customer_id
    if session.tags:
        attributes["fallom.tags"] = [str(tag) for tag in session.tags]
    for name, value in (session.metadata or {}).items():
        if value is not None:
            attributes[f"fallom.metadata.{name}"] = clean_value(value)
    return attributes


def active_span() -> tuple[bytes, bytes] | None:
    """Give (trace id, span id) of the OpenTelemetry span that is active, if that is used here at all."""
    api: Any = sys.modules.get("opentelemetry.trace")
    if api is None:  # an application that never loaded it has no span
        return None
    context = api.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return context.trace_id.to_bytes(16, "big"), context.span_id.to_bytes(8, "big")
