"""``inert``: text from outside so that it can only be read.

Escaping for HTML is the template engine's. Two things are left: control characters, which a terminal or
an editor would obey once the text is copied, and the characters that reverse or hide the direction of
writing, by which a text reads otherwise than it is. Both become visible. Text of right-to-left languages
stays as it is; the page's markup keeps its direction from its neighbours.
"""

from __future__ import annotations

import re
from typing import Any, Final

__all__ = ["inert"]

_CONTROLS: Final = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and newline, delete, C1
    "\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\u00ad"  # direction, and invisible
    "\ufff9-\ufffb\U000e0000-\U000e007f"  # annotations and tags
    "\ud800-\udfff"  # lone surrogates have no UTF-8 form
)
_FOUND: Final = re.compile(f"\r\n|[{_CONTROLS}]")


def inert(value: Any) -> Any:
    """Give a value as it may be put on the page; what is markup already, or no text, is left alone.

    The marks are plain text, so that they do no harm within an attribute.
    """
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return _FOUND.sub(_marked, value)


def _marked(match: re.Match[str]) -> str:
    found = match.group()
    return "\n" if found == "\r\n" else f"⟦U+{ord(found):04X}⟧"
