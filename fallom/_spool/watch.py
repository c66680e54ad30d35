"""A watch over the spool: one look for all who would otherwise look each for themselves.

What a thread does costs little beside what it costs to wake it, so those that have nothing to do sleep
until one that is awake anyway sees that a segment came, grew, was sealed or went.
"""

from __future__ import annotations

from fallom._host.files import File, entries_of

__all__ = ["Watch"]

SEGMENTS_MAX = 500  # with more of them, a look is no longer cheap beside a waking


class Watch:
    """Tells whether something changed since the last look; for one thread."""

    def __init__(self, spool: File) -> None:
        """Know nothing yet, so that the first look sees a change."""
        self._spool = spool
        self._sizes: dict[str, int] | None = None
        self._passed_over = 0

    def has_changed(self) -> bool:
        """Look; where there is too much to look at, or it cannot be seen, something has changed."""
        if self._sizes is not None and len(self._sizes) > SEGMENTS_MAX and self._passed_over < 20:
            self._passed_over += 1
            return True
        self._passed_over = 0
        sizes = {}
        try:
            with entries_of(self._spool) as entries:
                for entry in entries:
                    sizes[entry.name] = entry.stat(follow_symlinks=False).st_size
        except OSError:  # deleted since it was listed, for one
            self._sizes = None
            return True
        has_changed, self._sizes = sizes != self._sizes, sizes
        return has_changed
