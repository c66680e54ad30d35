"""A session, and what decided its model, as span attributes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fallom._core.limits import clean_value
from fallom._core.span import AttributeValue, SessionContext

__all__ = ["assigned_attributes", "session_attributes"]

_logger = logging.getLogger("fallom")


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
    if session.metadata is not None:
        _add_metadata(attributes, session.metadata)
    return attributes


def _add_metadata(attributes: dict[str, AttributeValue], metadata: Mapping[str, Any]) -> None:
    try:
        # A list, because the mapping is the application's: another thread may change it meanwhile.
        for name, value in list(metadata.items()):
            if value is not None:
                attributes[f"fallom.metadata.{name}"] = clean_value(value)
    except Exception as error:  # named edge guard: the methods of the mapping are the application's
        _logger.debug("the session's metadata cannot be read", exc_info=error)


def assigned_attributes(
    config_version: int | None, variant_index: int | None, reason: str
) -> dict[str, AttributeValue]:
    """Give the attributes that say what decided the session's model; a fallback has only a reason."""
    attributes: dict[str, AttributeValue] = {"fallom.assignment.reason": reason}
    if config_version is not None and variant_index is not None:
        attributes["fallom.config_version"] = config_version
        attributes["fallom.variant_index"] = variant_index
    return attributes
