"""A bounded memory of what was seen: the newest are known for certain, the oldest half is forgotten."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["Recent", "RecentValues"]

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


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

    def is_new(self, known: int) -> bool:
        """Remember it, and tell whether it was not seen before, as far as is remembered."""
        newer = self._newer
        if known in newer or known in self._older:
            return False
        newer.add(known)
        if len(newer) >= self._half:
            self._newer, self._older = set(), newer
        return True


class RecentValues(Generic[K, T]):
    """Remembers a value by key, in two generations as ``Recent`` does; the later value counts."""

    __slots__ = ("_half", "_newer", "_older")

    def __init__(self, remembered_max: int) -> None:
        """Start with nothing known; at most ``remembered_max`` values are ever held."""
        self._half = max(1, remembered_max // 2)
        self._newer: dict[K, T] = {}
        self._older: dict[K, T] = {}

    def find(self, known: K) -> T | None:
        """Give the value, None if there is none or it is forgotten."""
        found = self._newer.get(known)
        return self._older.get(known) if found is None else found

    def remember(self, known: K, value: T) -> None:
        """Remember it."""
        self._newer[known] = value
        if len(self._newer) >= self._half:
            self._newer, self._older = {}, self._newer
