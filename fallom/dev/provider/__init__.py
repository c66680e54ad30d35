"""An OpenAI-compatible provider that echoes: no account, no network, no cost.

It answers with the last user message, counts tokens plausibly (four bytes each), streams word by
word, and fails when the model's name asks for it: ``fail-429``, ``fail-500`` (any 4xx or 5xx) and
``slow``.
"""

from __future__ import annotations

from fallom.dev.provider.routes import provider_routes

__all__ = ["provider_routes"]
