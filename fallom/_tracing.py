"""What integrations see of fallom (``Tracing``): whose call it is, and where its span goes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from fallom._active_span import (
    OPENTELEMETRY,
    activate,
    active_span,
    deactivate,
    doubled_attributes,
    parent_of_call,
)
from fallom._context import CURRENT_PROMPT, CURRENT_SESSION, PromptTag, take_prompt_tag
from fallom._core.sampling import is_sampled
from fallom._core.span import AttributeValue, SessionContext, Span
from fallom._runtime import HOLDER, current
from fallom._session_attributes import session_attributes

__all__ = ["ContextTracing", "SessionTracing", "context_attributes", "known_assignment"]

_NONE: Mapping[str, AttributeValue] = {}
_PROMPT_NAMES = ("fallom.prompt_", "gen_ai.prompt.")


class ContextTracing:
    """Traces for the session of the context, if there is one. Holds no state."""

    __slots__ = ()

    @property
    def content_captured(self) -> bool:
        """Whether content is recorded; not of a session whose spans are left out by sampling."""
        runtime = HOLDER.runtime or current()
        settings = runtime.settings
        if not settings.capture_content or settings.sample_rate >= 1.0:
            return settings.capture_content
        session_id = self._session_id()
        return session_id is None or is_sampled(session_id, settings.sample_rate)

    @property
    def mask(self) -> Callable[[str], str] | None:
        """What content goes through before it is recorded."""
        return (HOLDER.runtime or current()).mask

    def call_attributes(self, takes_prompt: bool = True) -> dict[str, AttributeValue]:
        """Give the attributes of session and assignment, and the prompt tag, which is then taken."""
        attributes = self._attributes()
        if takes_prompt:
            tag = take_prompt_tag() if CURRENT_PROMPT.get() else None
            if tag is not None:
                attributes.update(_prompt_attributes(tag))
            elif OPENTELEMETRY in sys.modules:  # else there is no other span
                attributes.update(self._prompt_taken())
        return attributes

    parent = staticmethod(active_span)
    parent_of_call = staticmethod(parent_of_call)
    activate = staticmethod(activate)
    deactivate = staticmethod(deactivate)

    def started(self, span: Span) -> None:
        """Leave word that a call began."""
        (HOLDER.runtime or current()).record_start(span)

    def record(self, span: Span) -> None:
        """Put a finished span into the spool."""
        (HOLDER.runtime or current()).record_span(span)

    def gave_up(self, reason: str, error: BaseException) -> None:
        """Count and log that tracing gave something up."""
        current().gave_up(reason, error)

    def _session_id(self) -> str | None:
        session = CURRENT_SESSION.get()
        return None if session is None else session.session_id

    def _attributes(self) -> dict[str, AttributeValue]:
        return context_attributes()

    def _prompt_taken(self) -> Mapping[str, AttributeValue]:
        """Give the tag's attributes where another span of the same call took it."""
        return _NONE


class SessionTracing(ContextTracing):
    """Traces for one session, whatever the context's is."""

    __slots__ = ("_attributes", "_session")
    _attributes: Callable[[], dict[str, AttributeValue]]  # given, where the context's are a method

    def __init__(
        self, session: SessionContext, attributes: Callable[[], dict[str, AttributeValue]]
    ) -> None:
        """Take the session, and what gives its attributes at the start of a call."""
        self._session = session
        self._attributes = attributes

    def _session_id(self) -> str | None:
        return self._session.session_id

    def _prompt_taken(self) -> Mapping[str, AttributeValue]:
        taken = doubled_attributes()
        if not taken:
            return _NONE
        return {name: taken[name] for name in taken if name.startswith(_PROMPT_NAMES)}


def context_attributes() -> dict[str, AttributeValue]:
    """Give the attributes of the context's session and of its model's assignment; none without one."""
    session = CURRENT_SESSION.get()
    if session is None:
        return {}
    attributes = session_attributes(session)
    attributes.update(known_assignment(session.config_key, session.session_id))
    return attributes


def known_assignment(config_key: str, session_id: str) -> Mapping[str, AttributeValue]:
    """Give the attributes of the assignment that this process last made; none if it made none."""
    made = (HOLDER.runtime or current()).assignments.find((config_key, session_id))
    return _NONE if made is None else made.attributes


def _prompt_attributes(tag: PromptTag) -> Mapping[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {}
    if tag.key:
        attributes["fallom.prompt_key"] = attributes["gen_ai.prompt.name"] = tag.key
    if tag.version is None:
        attributes["fallom.prompt_fallback"] = True
    else:
        attributes["fallom.prompt_version"] = tag.version
        attributes["gen_ai.prompt.version"] = str(tag.version)
    if tag.ab_test_key is not None:
        attributes["fallom.prompt_ab_test"] = tag.ab_test_key
    if tag.variant_index is not None:
        attributes["fallom.prompt_variant"] = tag.variant_index
    return attributes
