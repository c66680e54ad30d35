"""Session and active span of a context, carried to another one: a process, a thread, a pool's worker.

What was before is kept in the context itself, under a key: whoever leaves in another context than he
entered changes nothing there, and whoever never left is left with those around him.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any, NamedTuple

from fallom._active_span import (
    Replaced,
    give_back,
    joined,
    keep_parent,
    parent_here,
    step_here,
    take_parent,
)
from fallom._context import CURRENT_SESSION, RequestContext
from fallom._core.propagation import Carried, read_headers, write_headers

__all__ = ["Extracted", "carried_here", "enter", "headers_here", "leave", "outermost"]

_logger = logging.getLogger("fallom")


class _Entry(NamedTuple):
    """What a context was before something was carried into it."""

    key: object
    before: RequestContext
    active: Replaced


_ENTRIES: ContextVar[tuple[_Entry, ...]] = ContextVar("fallom_entries", default=())


def carried_here() -> Carried:
    """Give what this context has to be carried."""
    try:
        parent = parent_here()
    except Exception as error:  # named edge guard: a span of any class may be active
        _logger.debug("OpenTelemetry's active span cannot be carried", exc_info=error)
        parent = step_here()
    return Carried(CURRENT_SESSION.get(), parent)


def headers_here(with_session: bool = True) -> dict[str, str]:
    """Give the headers that carry this context."""
    carried = carried_here()
    return write_headers(carried if with_session else carried._replace(session=None))


def enter(carried: Carried, key: object, *, is_whole: bool = False, is_remote: bool = True) -> None:
    """Make what was carried that of this context, until ``leave``.

    Args:
        carried: Session and parent; where there is none, what is here stays.
        key: What to leave it by.
        is_whole: Whether nothing stays: no session where none was carried, and no parent.
        is_remote: Whether it was carried from another process.
    """
    if carried.parent is not None or is_whole:
        active = take_parent(carried.parent, is_remote)
    else:
        active = keep_parent()
    entry = _Entry(key, RequestContext(), active)
    _ENTRIES.set((*_ENTRIES.get(), entry))
    if carried.session is not None or is_whole:
        CURRENT_SESSION.set(carried.session)


def leave(key: object, is_dropped: bool = False) -> None:
    """Make this context what it was before ``enter`` with this key; nothing if it was another context.

    What was entered since is left with it, unless it is dropped: see ``leave_session``.
    """
    entries = _ENTRIES.get()
    for number in reversed(range(len(entries))):
        entry = entries[number]
        if entry.key == key:
            if is_dropped and number + 1 < len(entries):
                inner, *others = entries[number + 1 :]
                inherits = _Entry(inner.key, entry.before, joined(entry.active, inner.active))
                _ENTRIES.set((*entries[:number], inherits, *others))
            else:
                _ENTRIES.set(entries[:number])
                entry.before.swap()
                give_back(entry.active)
            return


def outermost(kind: type) -> Any:
    """Give the first key of a type that this context was entered with and not left; None for none."""
    return next((entry.key for entry in _ENTRIES.get() if isinstance(entry.key, kind)), None)


class Extracted:
    """Made by ``trace.extract``; within its block, session and parent are those of the headers."""

    def __init__(self, headers: Mapping[Any, Any]) -> None:
        """Use ``trace.extract``."""
        self._carried = Carried()
        try:
            self._carried = read_headers(headers)
        except Exception as error:  # named edge guard: any mapping of the application's
            _logger.debug("the headers cannot be read", exc_info=error)

    def __enter__(self) -> None:
        enter(self._carried, self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        leave(self, is_dropped=kind is GeneratorExit)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)
