"""``JsonAnswer``: JSON that can carry whatever came in."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import JSONResponse

__all__ = ["JsonAnswer"]


class JsonAnswer(JSONResponse):
    """JSON in ASCII: a text with a lone surrogate, which JSON may hold, has no UTF-8 form."""

    def render(self, content: Any) -> bytes:
        """Give the body."""
        return json.dumps(content, separators=(",", ":")).encode("ascii")
