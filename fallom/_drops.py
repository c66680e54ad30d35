"""What a worker gave up, and how it says so: counted by reason, passed on to the control page, logged.

A warning is logged at most once a minute for the same thing. Drops that anybody on this host counted,
the flusher included, are told here, because the application's log is where people look.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter

from fallom._host.control import LOCK_DEADLINE_S, ControlPage
from fallom._host.counts import Drop
from fallom._host.files import File

__all__ = ["Drops"]

WARN_AGAIN_S = 60.0
_SENTENCES_MAX = 100  # a bound for the memory of what was said

_logger = logging.getLogger("fallom")


class Drops:
    """The drops of one process; for any thread, and for a signal handler that interrupts it."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._lock = threading.RLock()
        self._counted: Counter[Drop] = Counter()
        self._told: dict[str, int] = {}
        self._warned_s: dict[str, float] = {}

    def count(self, drop: Drop, count: int = 1) -> None:
        """Count something that was given up; the page gets it at the next ``pass_on``."""
        with self._lock:
            self._counted[drop] += count

    def pending(self) -> dict[Drop, int]:
        """Give what is not in the page yet."""
        return dict(self._counted)

    def forget(self) -> None:
        """Leave what was counted before a fork to the parent."""
        self._lock = threading.RLock()  # another thread of the parent may have held it
        self._counted = Counter()

    def pass_on(self, page: ControlPage, root: File) -> None:
        """Add what was counted here to the page, and log what was dropped anywhere."""
        self.hand_over(page, root, LOCK_DEADLINE_S)
        dropped = page.drops()
        for asked_for in (Drop.SAMPLED, Drop.ERASED):  # no news
            dropped.pop(asked_for.name.lower(), None)
        if not self._told:
            self._told = dropped  # what was before this process is not its news
        for reason, count in dropped.items():
            more = count - self._told[reason]
            hint = f"{more} records; see fallom.status() for the counts"
            if more > 0 and self.warn(f"dropped: {reason}", hint):
                self._told[reason] = count

    def hand_over(self, page: ControlPage, root: File, deadline_s: float = 0.0) -> None:
        """Add what was counted here to the page, unless that is locked for longer than a deadline.

        At each drop (20 us), because a process may end before its next look.
        """
        if not self._counted:
            return
        if not self._told:
            self._told = page.drops()
        with self._lock:
            counted, self._counted = self._counted, Counter()
        if not page.add_drops(root, counted, deadline_s):
            with self._lock:
                self._counted.update(counted)

    def warn(self, what: str, hint: str) -> bool:
        """Log a warning, at most once a minute for the same thing; tell whether it was logged."""
        now_s = time.monotonic()
        if now_s - self._warned_s.get(what, -WARN_AGAIN_S) < WARN_AGAIN_S:
            return False
        if len(self._warned_s) >= _SENTENCES_MAX:
            self._warned_s.clear()
        self._warned_s[what] = now_s
        _logger.warning("fallom: %s (%s)", what, hint)
        return True
