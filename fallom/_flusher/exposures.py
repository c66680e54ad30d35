"""Exposures that the server has already: known to a bounded memory, and not sent again.

Every worker records a session's first assignment, so that many workers tell the same of one session.
Memory is bounded: what was forgotten is sent once more, which costs a request and changes nothing.
"""

from __future__ import annotations

from fallom._core.span import exposure_of
from fallom._spool.reader import Item

__all__ = ["ExposureFilter"]

REMEMBERED_MAX = 100_000  # about 10 MB: hashes only, in two generations


class ExposureFilter:
    """Remembers the hashes of (config, version, session); used by one thread."""

    def __init__(self, remembered_max: int = REMEMBERED_MAX) -> None:
        """Start with nothing known."""
        self._half = max(1, remembered_max // 2)
        self._recent: set[int] = set()
        self._older: set[int] = set()

    def select(self, items: list[Item]) -> list[Item]:
        """Give those that are new; what cannot be read is passed on, for others to judge."""
        new: list[Item] = []
        within: set[int] = set()
        for item in items:
            known = _hash(item)
            if known is None:
                new.append(item)
            elif not (known in within or known in self._recent or known in self._older):
                within.add(known)
                new.append(item)
        return new

    def remember(self, items: list[Item]) -> None:
        """Take these for known; the older half is forgotten when the memory is full."""
        for item in items:
            known = _hash(item)
            if known is not None:
                self._recent.add(known)
                if len(self._recent) >= self._half:
                    self._recent, self._older = set(), self._recent


def _hash(item: Item) -> int | None:
    try:
        exposure = exposure_of(item.record)
    except (ValueError, TypeError):
        return None
    return hash((exposure.config_key, exposure.config_version, exposure.session_id))
