"""The local cloud: all that fallom talks to, on loopback, for development and tests.

It serves configs and prompts from a folder, takes spans, exposures and metrics into SQLite, answers
as an OpenAI-compatible provider that echoes, and misbehaves on request. It needs the extra ``dev``;
``fallom.dev.server`` alone, which starts it as a process of its own, needs the standard library.
"""

from __future__ import annotations

__all__: list[str] = []
