"""What this process assigned: told to the server once a session, remembered for the session's spans.

Both memories are bounded. What is forgotten is told once more, which changes nothing, or is missing from
a span.
"""

from __future__ import annotations

from fallom._core.assignment import Assignment
from fallom._core.recent import Recent, RecentValues

__all__ = ["Assignments"]

REMEMBERED_MAX = 8_000


class Assignments:
    """The assignments of one process; a forked child goes on with its parent's."""

    def __init__(self) -> None:
        """Start with nothing known."""
        self._told = Recent(REMEMBERED_MAX)
        self._made: RecentValues[tuple[int, Assignment]] = RecentValues(REMEMBERED_MAX)

    def is_new(self, config_key: str, version: int, session_id: str, model: str) -> bool:
        """Tell whether this assignment was not told before; it counts as told from now on."""
        known = hash((config_key, version, session_id, model))
        if known in self._told:
            return False
        self._told.add(known)
        return True

    def remember(self, config_key: str, version: int, session_id: str, made: Assignment) -> None:
        """Remember what decided for a session."""
        self._made.remember(hash((config_key, session_id)), (version, made))

    def find(self, config_key: str, session_id: str) -> tuple[int, Assignment] | None:
        """Give the config's version and the assignment that was last made for a session."""
        return self._made.find(hash((config_key, session_id)))
