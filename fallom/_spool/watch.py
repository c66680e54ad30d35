"""A watch over the spool: one look for all who would otherwise look each for themselves.

What a thread does costs little beside what it costs to wake it, so those that have nothing to do sleep
until one that is awake anyway sees that a segment came, grew, was sealed or went.
"""

from __future__ import annotations

import os
import time

from fallom._host.files import File, entries_of

__all__ = ["Watch"]

SEGMENTS_MAX = 500  # with more of them, a look is no longer cheap beside a waking
# The time of a directory that changed less than that ago may stay as it is at the next change: it ticks
# every 10 ms, or by the second.
STILL_NS = 1_100_000_000
_NEVER = -1


class Watch:
    """Tells whether something changed since the last look; for one thread.

    What is sealed grows no more, and a directory whose time is as it was has the names that it had: of an
    idle host a look is a stat for each living writer, half of what listing it costs.
    """

    def __init__(self, spool: File) -> None:
        """Know nothing yet, so that the first look sees a change."""
        self._spool = spool
        # The directory's time, where that says that it has not changed since.
        self._listed_ns = _NEVER
        self._names: frozenset[str] = frozenset()
        self._growing: list[str] = []
        self._sizes: list[int] | None = None
        self._passed_over = 0

    def has_changed(self) -> bool:
        """Look; where there is too much to look at, or it cannot be seen, something has changed."""
        if len(self._names) > SEGMENTS_MAX and self._passed_over < 20:
            self._passed_over += 1
            return True
        self._passed_over = 0
        try:
            has_others = self._list_again()
            stats = [
                os.stat(name, dir_fd=self._spool.fd, follow_symlinks=False)
                for name in self._growing
            ]
        except OSError:  # deleted since it was listed, for one
            self._listed_ns, self._sizes = _NEVER, None
            return True
        sizes = [stat.st_size for stat in stats]
        has_grown, self._sizes = sizes != self._sizes, sizes
        return has_others or has_grown

    def _list_again(self) -> bool:
        """List the directory if it may have changed; tell whether there are other names in it."""
        still_ns, changed_ns = time.time_ns() - STILL_NS, os.fstat(self._spool.fd).st_mtime_ns
        if changed_ns == self._listed_ns:
            return False
        with entries_of(self._spool) as entries:
            names = frozenset(entry.name for entry in entries)
        self._listed_ns = changed_ns if changed_ns < still_ns else _NEVER
        has_others, self._names = names != self._names, names
        self._growing = sorted(name for name in names if not name.endswith(".done"))
        return has_others
