"""Where a process keeps its state: found at first use, left when it is gone, looked for again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from fallom._core.errors import StateDirectoryError
from fallom._core.settings import Settings
from fallom._host.control import GENERATION_WORD
from fallom._host.place import Place

__all__ = ["Whereabouts"]

TRY_EVERY_NS = 1_000_000_000

_NOWHERE = (0,) * (GENERATION_WORD + 1)  # what the page says where there is none


class Whereabouts:
    """The place of one process, or that it has none now.

    Attributes:
        place: The place; None while there is nowhere.
        words: Those of its page; for calls that look at nothing else.
    """

    __slots__ = ("_found", "_settings", "_tried_ns", "_warn", "place", "words")

    def __init__(
        self,
        settings: Settings,
        warn: Callable[[str, str], object],
        found: Callable[[Place], object],
    ) -> None:
        """Look for nothing yet; ``found`` is told of each place that is found."""
        self._settings = settings
        self._warn = warn
        self._found = found
        self._tried_ns = 0
        self.place: Place | None = None
        self.words: Sequence[int] = _NOWHERE

    def open(self) -> Place:
        """Find the place now.

        Raises:
            StateDirectoryError: No state directory can be used.
            OSError: The page cannot be made: the disk is full, say.
        """
        if self.place is None:
            settings = self._settings
            place = Place.find(settings.state_dir, settings.namespace, os.environ)
            self._found(place)
            self.place = place
            self.words = place.page.words
        return self.place

    def try_open(self) -> None:
        """Find the place now; a disk that is full for the moment is no reason to raise.

        Raises:
            StateDirectoryError: No state directory can be used: somebody has to mend that.
        """
        try:
            self.open()
        except OSError as error:  # of the control page: looked for again in later calls
            if isinstance(error, StateDirectoryError):
                raise
            self._warn("records are dropped", str(error))

    def find(self, now_ns: int | None = None) -> Place | None:
        """Find the place, at most once a second; None if there is none now."""
        now_ns = time.monotonic_ns() if now_ns is None else now_ns
        if self._tried_ns and now_ns - self._tried_ns < TRY_EVERY_NS:
            return self.place
        self._tried_ns = now_ns
        try:
            return self.open()
        except OSError as error:
            self._warn("records are dropped", str(error))
            return None

    def leave(self) -> None:
        """Have no place from now on; the next ``find`` looks at once.

        Nothing is closed: other threads may be reading the page. The descriptors go with the object.
        """
        self.place = None
        self._tried_ns = 0
        self.words = _NOWHERE
