"""The room that a worker sees in the spool: what it may still write before it has to look again.

The flusher publishes usage and pressure a few times a second, and a fast worker writes more than the
whole limit within that. So a worker has an allowance, and looks when it is used up: at the flusher's
number if that is news and far from the limit, else at the files themselves. The nearer the limit, the
smaller the allowance: eight workers at full speed passed it by 11 %.
"""

from __future__ import annotations

from fallom._host.control import PRESSURE_WORD, ControlPage
from fallom._host.files import File
from fallom._spool.quota import NEAR, Pressure, usage_of

__all__ = ["Room"]

TRUST_SHARE = 0.75  # below it the flusher's number will do, even when it is a second old
SETTLED_NS = 3_000_000_000  # a flusher that just came has not counted yet
LOOK_AGAIN_NS = 20_000_000  # a full spool is counted 50 times a second at most: 0.3 ms each


class Room:
    """What one process may write. A count that two threads spoil costs a look, or a record too many."""

    __slots__ = (
        "_counted_ns",
        "_is_full",
        "_is_near",
        "_left",
        "_limit",
        "_published",
        "_segments_max",
    )

    def __init__(self, bytes_max: int, segments_max: int) -> None:
        """Look at nothing yet.

        Args:
            bytes_max: Bytes that the spool may have allocated.
            segments_max: How many files it may have.
        """
        self._limit = bytes_max
        self._segments_max = segments_max
        self.forget()

    def forget(self) -> None:
        """Know nothing, as after a fork or in another directory."""
        self._left = 0
        self._counted_ns = 0
        self._is_full = False
        self._is_near = False
        self._published = -1

    def take(self, page: ControlPage, spool: File, size: int, now_ns: int) -> bool:
        """Take room for a record.

        Args:
            page: The control page of the spool.
            spool: The directory.
            size: Bytes of the record.
            now_ns: Monotonic time.

        Returns:
            Whether there is room; a spool that cannot be counted has some, the write will tell.
        """
        pressure = page.words[PRESSURE_WORD]
        if pressure and pressure == Pressure.REFUSE and page.is_alive(now_ns):
            self._left = 0
            return False
        if size <= self._left:
            self._left -= size
            return True
        if self._is_full and 0 <= now_ns - self._counted_ns < LOOK_AGAIN_NS:
            return False
        try:
            used = self._used(page, spool, now_ns)
        except OSError:
            return True
        room = self._limit - used
        self._is_near = used >= self._limit * NEAR
        self._is_full = room <= 0
        if self._is_full:
            self._left = 0
            return False
        granted = max(size, min(self._limit // 32, max(room // 8, self._limit >> 10)))
        self._left = granted - size
        return True

    def is_near(self, page: ControlPage, now_ns: int) -> bool:
        """Tell whether the spool is near its limit, so that bodies of messages should be left out."""
        if page.words[PRESSURE_WORD] and page.is_alive(now_ns):  # other than ``Pressure.FINE``
            return True
        return self._is_near

    def _used(self, page: ControlPage, spool: File, now_ns: int) -> int:
        """Give the bytes in use: the flusher's number where it is good enough, else a count."""
        if page.is_alive(now_ns) and now_ns - page.started_ns() > SETTLED_NS:
            published = page.spool_bytes()
            if published != self._published and published < self._limit * TRUST_SHARE:
                self._published = published
                return published
        self._counted_ns = now_ns
        usage = usage_of(spool)
        return self._limit if usage.segments > self._segments_max else usage.bytes
