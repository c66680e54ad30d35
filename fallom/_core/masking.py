"""A mask of the application's, made safe: whatever it does, what is recorded is text that it let pass."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

__all__ = ["MASK_FAILED", "guarded_mask", "mask_json_or_text"]

MASK_FAILED = "[mask failed]"

Mask = Callable[[str], str]


def guarded_mask(mask: Mask, failed: Callable[[BaseException], None]) -> Mask:
    """Give a mask that never raises: of a text that ``mask`` could not do, nothing is left.

    Args:
        mask: Takes text and gives text.
        failed: Takes what it raised.
    """

    def masked(text: str) -> str:
        try:
            found = mask(text)
            if not isinstance(found, str):
                raise TypeError(f"the mask gave {type(found).__name__}, not text")
        except Exception as error:  # noqa: BLE001 - the mask is the application's code
            failed(error)
            return MASK_FAILED
        return found

    return masked


def mask_json_or_text(mask: Mask, text: str) -> str:
    """Mask the texts within JSON, so that it stays JSON; what is none is masked as one text."""
    if text[:1] in ("[", "{", '"'):
        try:
            return json.dumps(_masked(mask, json.loads(text)), ensure_ascii=False)
        except (ValueError, RecursionError):
            return mask(text)
    return mask(text)


def _masked(mask: Mask, value: Any) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, list):
        return [_masked(mask, item) for item in value]
    if isinstance(value, dict):
        return {mask(name): _masked(mask, item) for name, item in value.items()}
    return value
