"""What belongs to a context (a thread, a task), not to the process: session and one-shot prompt tag.

Context variables: an asyncio task starts with a copy of its creator's, a new thread with an empty one.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, NamedTuple, TypeAlias

from fallom._core.span import SessionContext

__all__ = [
    "CURRENT_PROMPT",
    "CURRENT_SESSION",
    "PromptTag",
    "RequestContext",
    "TagFields",
    "enter_session",
    "leave_session",
    "take_prompt_tag",
]


class PromptTag(NamedTuple):
    """The prompt whose text the next LLM call of this context uses."""

    key: str  # empty where a test was not known, and with it the prompt
    version: int | None  # None of a fallback: it is no version of the prompt
    ab_test_key: str | None = None
    variant_index: int | None = None


# The same as a plain tuple, which takes a tenth of the time to make: nearly every tag is never read.
TagFields: TypeAlias = "tuple[str, int | None, str | None, int | None]"

CURRENT_SESSION: ContextVar[SessionContext | None] = ContextVar("fallom_session", default=None)
# The sessions that were entered here and not left, each with what was current before it.
_ENTERED: ContextVar[tuple[tuple[SessionContext, SessionContext | None], ...]] = ContextVar(
    "fallom_entered_sessions", default=()
)
# In a list, because tasks and threads that are started with a copy of the context share it: whichever
# of them makes the next call takes the tag for all.
CURRENT_PROMPT: ContextVar[list[PromptTag | TagFields] | None] = ContextVar(
    "fallom_prompt", default=None
)

_OF_A_REQUEST: tuple[ContextVar[Any], ...] = (CURRENT_SESSION, _ENTERED, CURRENT_PROMPT)


class RequestContext:
    """What a request sets, kept apart from what the thread or task that serves it has.

    It begins with what surrounds it. ``swap`` exchanges the two, so that every second call is the way
    back. The values themselves are kept, not tokens: a server may run the parts of one request (the
    call, each piece of its answer, the end) in different threads.
    """

    __slots__ = ("_apart",)

    def __init__(self) -> None:
        """Begin with what is current here."""
        self._apart = [variable.get() for variable in _OF_A_REQUEST]

    def swap(self) -> None:
        """Put what is kept apart in the place of what is current, and the other way round."""
        apart = self._apart
        for number, variable in enumerate(_OF_A_REQUEST):
            current = variable.get()
            if current is not apart[number]:
                variable.set(apart[number])
                apart[number] = current


def enter_session(session: SessionContext) -> None:
    """Make a session the current one until ``leave_session``.

    What was before is kept in the context itself: one session object may be entered by any number of
    tasks and threads at once, and a token of one context cannot be used in another.
    """
    _ENTERED.set((*_ENTERED.get(), (session, CURRENT_SESSION.get())))
    CURRENT_SESSION.set(session)


def leave_session(session: SessionContext, is_dropped: bool = False) -> None:
    """Make what was current before a session so again; nothing where it was not entered.

    Sessions that were entered within this one and never left are left with it, unless it is dropped: a
    generator that holds a session is closed wherever the collector runs, and what was entered there since
    is none of its own.
    """
    entered = _ENTERED.get()
    for number in reversed(range(len(entered))):
        if entered[number][0] is session:
            before = entered[number][1]
            if is_dropped and number + 1 < len(entered):
                inner, *others = entered[number + 1 :]
                _ENTERED.set((*entered[:number], (inner[0], before), *others))
            else:
                _ENTERED.set(entered[:number])
                if not is_dropped or CURRENT_SESSION.get() is session:
                    CURRENT_SESSION.set(before)
            return


def take_prompt_tag() -> PromptTag | None:
    """Give the prompt tag of this context, once: the call after the next has none."""
    held = CURRENT_PROMPT.get()
    try:
        return PromptTag(*held.pop()) if held else None
    except IndexError:  # another thread was faster
        return None
