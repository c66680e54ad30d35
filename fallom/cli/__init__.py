"""The command line. It needs the extra ``cli``; only ``fallom flusher`` works with the core alone."""

from __future__ import annotations

__all__: list[str] = []
