"""Seeing to it that a flusher lives, and telling what it cannot mend itself.

The application's log is where people look: not only when no flusher starts, but also when one meets what
people have to mend, a wrong key, URL or certificate.
"""

from __future__ import annotations

from collections.abc import Callable

from fallom._core.settings import Settings
from fallom._flusher.spawn import FAILURES_BEFORE_WARNING, Started, ensure_flusher, last_log_line
from fallom._host.control import ControlPage
from fallom._host.place import Place
from fallom._host.versions import pack_version
from fallom._version import __version__

__all__ = ["FlusherWatch"]

AGAIN_NS = 20_000_000  # no flusher can have come and gone within that


class FlusherWatch:
    """The watch of one process; a forked child has its own."""

    def __init__(self, settings: Settings, warn: Callable[[str, str], object]) -> None:
        """Start with nothing probed; ``warn`` takes what is wrong and what to do about it."""
        self._settings = settings
        self.starts_flushers = settings.flusher == "process"
        self._warn = warn
        self._ensured_ns = 0
        self._handed_over = False
        self._told_of_s = 0

    def tell(self, page: ControlPage) -> None:
        """Warn of what people have to mend, once for each time that it began; for every look."""
        since_s = page.wrong_since_s()
        if since_s and since_s != self._told_of_s:
            what = page.last_error() or "`fallom status` says what"
            if self._warn("something has to be mended", what):
                self._told_of_s = since_s

    def ensure(self, place: Place, now_ns: int, is_due: bool) -> None:
        """Start a flusher if there is none, or a candidate if ours is of a higher version.

        A stale beat says that there is none; so does, sooner, the leader's lock, which is probed at
        every look that is due, the first one of a process included.
        """
        if not self.starts_flushers:
            return
        is_alive = place.page.is_alive(now_ns)
        if (is_alive and not is_due) or now_ns - self._ensured_ns < AGAIN_NS:
            return
        self._ensured_ns = now_ns
        is_older = is_alive and place.page.flusher_version() < pack_version(__version__)
        is_hand_over = is_older and not self._handed_over
        self._handed_over = self._handed_over or is_hand_over
        found, failures = ensure_flusher(
            self._settings, place.directory, place.page, now_ns, is_hand_over=is_hand_over
        )
        if found is Started.FAILED:
            self._warn("no flusher can be started", "set FALLOM_PYTHON to a Python interpreter")
        if failures >= FAILURES_BEFORE_WARNING:
            last = last_log_line(place.directory)
            self._warn(f"{failures} flushers in a row did not start", last or "its log is empty")
