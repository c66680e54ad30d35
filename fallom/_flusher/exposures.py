"""Exposures that the server has already: known to a bounded memory, and not sent again.

Every worker records a session's first assignment, so that many workers tell the same of one session.
Memory is bounded: what was forgotten is sent once more, which costs a request and changes nothing.
"""

from __future__ import annotations

from fallom._core.recent import Recent
from fallom._core.span import exposure_of
from fallom._spool.frame import Kind
from fallom._spool.reader import Item

__all__ = ["ExposureFilter"]

REMEMBERED_MAX = 100_000  # about 10 MB: hashes only


class ExposureFilter:
    """Remembers the hashes of (config, version, session); used by one thread."""

    def __init__(self, remembered_max: int = REMEMBERED_MAX) -> None:
        """Start with nothing known."""
        self._recent = Recent(remembered_max)

    def select(self, items: list[Item]) -> list[Item]:
        """Give those that are new; what cannot be read is passed on, for others to judge."""
        new: list[Item] = []
        within: set[int] = set()
        for item in items:
            known = _hash(item)
            if known is None:
                new.append(item)
            elif known not in within and known not in self._recent:
                within.add(known)
                new.append(item)
        return new

    def remember(self, items: list[Item]) -> None:
        """Take these for known."""
        for item in items:
            known = _hash(item)
            if known is not None:
                self._recent.add(known)


def _hash(item: Item) -> int | None:
    if item.kind != Kind.EXPOSURE:
        return None  # of a later version, perhaps of the same form
    try:
        exposure = exposure_of(item.record)
    except (ValueError, TypeError):
        return None
    return hash((exposure.config_key, exposure.config_version, exposure.session_id))
