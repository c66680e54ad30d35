"""How long a read of this process may wait, and for what: one cold start, and each missing version once."""

from __future__ import annotations

__all__ = ["Patience"]

MISSING_FOR_S = 60.0  # a pinned version that did not come is not asked for again before
_VERSIONS_MAX = 1000  # a bound, should versions be made up by somebody


class Patience:
    """The deadlines of one process; a forked child has its own."""

    def __init__(self, timeout_s: float) -> None:
        """Start with nothing waited for; ``timeout_s`` is ``Settings.cold_start_timeout_s``."""
        self._timeout_s = timeout_s
        self._cold_start_until_s: float | None = None
        self._missing_until_s: dict[tuple[str, int], float] = {}

    def is_over(self, now_s: float) -> bool:
        """Tell whether the cold start was waited for long enough.

        The deadline is one for the process and starts at the first read that has to wait.
        """
        if self._cold_start_until_s is None:
            self._cold_start_until_s = now_s + self._timeout_s
        return now_s >= self._cold_start_until_s

    def for_version(self, config_key: str, version: int, now_s: float) -> float | None:
        """Give until when a pinned version is worth waiting for; None if it was waited for lately."""
        wanted = (config_key, version)
        if self._missing_until_s.get(wanted, 0.0) > now_s:
            return None
        if len(self._missing_until_s) >= _VERSIONS_MAX:
            self._missing_until_s.clear()
        self._missing_until_s[wanted] = now_s + MISSING_FOR_S
        return now_s + self._timeout_s
