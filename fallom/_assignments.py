"""What this process assigned: told to the server once a session, remembered for the session's calls.

Both memories are bounded. What is forgotten is told once more, which changes nothing, or is missing from
a span.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from fallom._core.assignment import CompiledConfig
from fallom._core.recent import Recent, RecentValues
from fallom._core.span import AttributeValue
from fallom._session_attributes import assigned_attributes

__all__ = ["Assignments", "Made"]

REMEMBERED_MAX = 8_000
_WAYS_MAX = 1_000  # config, version, variant, reason, generation: as many as are in use
_ID_CHARS_MAX = 256  # of ids that are remembered: bounds the memory to a few MiB


class Made(NamedTuple):
    """An assignment; one object for all sessions that got theirs in the same way."""

    model: str
    generation: int  # of the snapshot for which it holds; -1: it hangs on more than the session
    attributes: Mapping[str, AttributeValue]  # of the session's spans


class Assignments:
    """The assignments of one process; a forked child goes on with its parent's."""

    __slots__ = ("_made", "_told", "_ways")

    def __init__(self) -> None:
        """Start with nothing known."""
        self._told = Recent(REMEMBERED_MAX)
        self._made: RecentValues[tuple[str, str], Made] = RecentValues(REMEMBERED_MAX)
        self._ways: dict[tuple[str, int, int, str, int], Made] = {}

    def is_new(self, config: CompiledConfig, session_id: str, model: str) -> bool:
        """Tell whether this assignment was not told before; it counts as told from now on."""
        return self._told.is_new(hash((config.key, config.version, session_id, model)))

    def remember(
        self, config: CompiledConfig, session_id: str, index: int, reason: str, generation: int
    ) -> None:
        """Remember what was assigned to a session, and why.

        Args:
            config: What decided.
            session_id: The session.
            index: The variant's.
            reason: As ``_core.assignment.explain`` has it.
            generation: Of the snapshot for which it holds, see ``Made``.
        """
        if len(session_id) > _ID_CHARS_MAX:
            return
        way = config.key, config.version, index, reason, generation
        made = self._ways.get(way)
        if made is None:
            if len(self._ways) >= _WAYS_MAX:
                self._ways.clear()
            attributes = assigned_attributes(config.version, index, reason)
            made = self._ways[way] = Made(config.models[index], generation, attributes)
        self._made.remember((config.key, session_id), made)

    def find(self, config_key: str, session_id: str) -> Made | None:
        """Give what was last assigned to a session."""
        return self._made.find((config_key, session_id))
