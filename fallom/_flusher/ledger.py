"""The ledger: what the flusher's threads counted and have to say, until its main thread writes it.

The control page has one writer; threads add here, and the main thread's tick carries it over.
Whatever is said goes to the log as well, at most once a minute for the same sentence.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter

from fallom._host.counts import Drop, Tally

__all__ = ["Ledger"]

SAY_AGAIN_AFTER_S = 60.0
_SENTENCES_MAX = 200  # a bound for the memory of what was said
_SENTENCE_CHARS_MAX = 1000  # a server may say 4 MiB in an answer

_logger = logging.getLogger("fallom")


class Ledger:
    """Counts and sentences of all threads of one flusher."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._tallies: Counter[Tally] = Counter()
        self._drops: Counter[Drop] = Counter()
        self._said: dict[str, float] = {}
        self._last_error: str | None = None

    def tally(self, tally: Tally, count: int = 1) -> None:
        """Count something that happened."""
        with self._lock:
            self._tallies[tally] += count

    def drop(self, drop: Drop, count: int = 1) -> None:
        """Count records that were given up."""
        if count:
            with self._lock:
                self._drops[drop] += count

    def say(self, sentence: str, now_s: float) -> None:
        """Log a warning and show it as the last error; at most once a minute the same one."""
        sentence = sentence[:_SENTENCE_CHARS_MAX]
        with self._lock:
            self._last_error = sentence
            said_s = self._said.get(sentence)
            if said_s is not None and now_s - said_s < SAY_AGAIN_AFTER_S:
                return
            if len(self._said) >= _SENTENCES_MAX:
                self._said.clear()
            self._said[sentence] = now_s
        _logger.warning("%s", sentence)

    def show(self, sentence: str) -> None:
        """Show a sentence as the last error; for what was logged elsewhere."""
        with self._lock:
            self._last_error = sentence

    def clear_error(self, of: str = "") -> None:
        """Say that what was wrong is over; a sentence that does not begin with ``of`` stays."""
        with self._lock:
            if self._last_error is None or self._last_error.startswith(of):
                self._last_error = ""

    @property
    def has_news(self) -> bool:
        """Whether something was counted; until the page has it, it neither waits nor is delivered there."""
        return bool(self._tallies)

    def take(self) -> tuple[Counter[Tally], Counter[Drop], str | None]:
        """Give what came together since the last time; the error is None if it did not change."""
        with self._lock:
            taken = self._tallies, self._drops, self._last_error
            self._tallies, self._drops, self._last_error = Counter(), Counter(), None
            return taken

    def give_back(self, drops: Counter[Drop]) -> None:
        """Take drops back that could not be written to the page."""
        with self._lock:
            self._drops.update(drops)
