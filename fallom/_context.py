"""What belongs to a context (a thread, a task), not to the process: session and one-shot prompt tag.

Context variables: an asyncio task starts with a copy of its creator's, a new thread with an empty one.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple

from fallom._core.span import SessionContext

__all__ = ["CURRENT_PROMPT", "CURRENT_SESSION", "PromptTag", "take_prompt_tag"]


class PromptTag(NamedTuple):
    """The prompt whose text the next LLM call of this context uses."""

    key: str
    version: int
    ab_test_key: str | None = None
    variant_index: int | None = None


CURRENT_SESSION: ContextVar[SessionContext | None] = ContextVar("fallom_session", default=None)
CURRENT_PROMPT: ContextVar[PromptTag | None] = ContextVar("fallom_prompt", default=None)


def take_prompt_tag() -> PromptTag | None:
    """Give the prompt tag of this context, once: the call after the next has none."""
    tag = CURRENT_PROMPT.get()
    if tag is not None:
        CURRENT_PROMPT.set(None)
    return tag
