"""A bounded memory of what was seen: the newest are known for certain, the oldest half is forgotten."""

from __future__ import annotations

__all__ = ["Recent"]


class Recent:
    """Remembers hashes in two generations; a set of each, so that forgetting costs nothing.

    Threads may share it: each step is one operation of a set, and the worst that a race does is to
    forget early.
    """

    __slots__ = ("_half", "_newer", "_older")

    def __init__(self, remembered_max: int) -> None:
        """Start with nothing known; at most ``remembered_max`` hashes are ever held."""
        self._half = max(1, remembered_max // 2)
        self._newer: set[int] = set()
        self._older: set[int] = set()

    def __contains__(self, known: int) -> bool:
        """Tell whether it was seen and is not forgotten."""
        return known in self._newer or known in self._older

    def add(self, known: int) -> None:
        """Remember it."""
        self._newer.add(known)
        if len(self._newer) >= self._half:
            self._newer, self._older = set(), self._newer
