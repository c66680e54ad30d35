"""What the readers of all APIs share: request parameters, usage, choices, the parts of a message.

Everything is read by name from objects of the client libraries or from decoded JSON alike, and what
is not of the type that the convention has is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fallom._core.span import AttributeValue
from fallom.integrations import _attributes as names
from fallom.integrations._content import MESSAGE_CHARACTERS_MAX, Part, Room, clean, field, items

__all__ = [
    "Answer",
    "Gathered",
    "blob",
    "file_part",
    "model_of",
    "numbers",
    "sampling",
    "text_part",
    "token_count",
    "words",
]

_CHOICES_MAX = 128  # the most that any API allows for ``n``

_NUMBERS = {
    "temperature": names.TEMPERATURE,
    "top_p": names.TOP_P,
    "frequency_penalty": names.FREQUENCY_PENALTY,
    "presence_penalty": names.PRESENCE_PENALTY,
}
_COUNTS = {"seed": names.SEED, "top_k": names.TOP_K}

# The convention's words for why an output message ended; others stay what they are.
_REASONS = {
    "tool_calls": "tool_call",
    "function_call": "tool_call",
    "tool_use": "tool_call",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}


def model_of(body: Any) -> str:
    """Give the model that a request names, empty if it names none."""
    model = field(body, "model")
    return clean(model)[:256] if isinstance(model, str) else ""


def token_count(source: Any, *path: str) -> int | None:
    """Give the whole number at the end of a path of fields, None if there is none."""
    for name in path:
        source = field(source, name)
    if isinstance(source, int) and not isinstance(source, bool) and 0 <= source < 1 << 63:
        return int(source)
    return None


def words(value: Any) -> list[str]:
    """Give a string or a list of strings as a list, cleaned; else nothing."""
    found = [value] if isinstance(value, str) else items(value)
    return [clean(word)[:1024] for word in found if isinstance(word, str)][:_CHOICES_MAX]


def numbers(found: dict[str, AttributeValue], entries: Mapping[str, int | None]) -> None:
    """Add those entries that are known."""
    found.update({name: value for name, value in entries.items() if value is not None})


def sampling(body: Any) -> dict[str, AttributeValue]:
    """Give the request parameters that all APIs name alike, those that the caller gave."""
    found: dict[str, AttributeValue] = {}
    for name, attribute in _NUMBERS.items():
        value = field(body, name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            found[attribute] = float(value)
    for name, attribute in _COUNTS.items():
        value = field(body, name)
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63:
            found[attribute] = int(value)
    if field(body, "stream") is True:
        found[names.STREAM] = True
    return found


def text_part(room: Room, text: Any) -> Part:
    """Give a part of text."""
    return {"type": "text", "content": room.text(text)}


def blob(modality: str, mime_type: Any, data: Any) -> Part:
    """Give the part of a file that was sent by value: its size, never its bytes."""
    size = len(data) if isinstance(data, (str, bytes)) else 0
    part: Part = {"type": "blob", "modality": modality, "content": f"[cut: {size} characters]"}
    if isinstance(mime_type, str):
        part["mime_type"] = clean(mime_type)[:128]
    return part


def file_part(room: Room, modality: str, url: Any) -> Part:
    """Give the part of a file by its URL; of a data URL only type and size."""
    if isinstance(url, str) and not url.startswith("data:"):
        return {"type": "uri", "modality": modality, "uri": room.text(url)}
    mime_type = url[5:64].partition(";")[0] if isinstance(url, str) else None
    return blob(modality, mime_type, url)


class Gathered:
    """Text that arrives in pieces; what is beyond a message's limit is counted, not kept."""

    __slots__ = ("_kept", "_left", "_size")

    def __init__(self) -> None:
        self._kept: list[str] = []
        self._left = MESSAGE_CHARACTERS_MAX
        self._size = 0

    def add(self, piece: Any) -> None:
        """Take a piece; what is not text is passed over."""
        if not isinstance(piece, str) or not piece:
            return
        self._size += len(piece)
        if self._left > 0:
            self._kept.append(piece[: self._left])
            self._left -= len(piece)

    def __bool__(self) -> bool:
        return self._size > 0

    def __str__(self) -> str:
        cut = self._size - MESSAGE_CHARACTERS_MAX
        return "".join(self._kept) + (f"[cut: {cut} characters]" if cut > 0 else "")


class Answer:
    """What is known so far of an answer, choice by choice."""

    def __init__(self) -> None:
        self.id = ""
        self.model = ""
        self.usage: dict[str, AttributeValue] = {}
        self.reasons: dict[int, str] = {}
        self.tool_calls = 0

    def named(self, source: Any) -> None:
        """Take id and model of an answer or of a piece of it."""
        for name in ("id", "model"):
            value = field(source, name)
            if isinstance(value, str) and value and value != getattr(self, name):
                setattr(self, name, clean(value)[:256])

    def choice(self, index: Any, reason: Any) -> int:
        """Take a choice's finish reason, if it is there, and give its index."""
        known: int = index if isinstance(index, int) and 0 <= index < _CHOICES_MAX else 0
        if isinstance(reason, str) and reason:
            self.reasons[known] = clean(reason)[:64]
        else:
            self.reasons.setdefault(known, "")
        return known

    def message(self, index: int, role: Any, parts: list[Part]) -> Part:
        """Give an output message of the convention."""
        reason = self.reasons.get(index) or "error"
        return {
            "role": role if isinstance(role, str) else "assistant",
            "parts": parts,
            "finish_reason": _REASONS.get(reason, reason),
        }

    def attributes(self) -> dict[str, AttributeValue]:
        """Give the answer's attributes. A reason that never came reads ``error``."""
        found = dict(self.usage)
        if self.id:
            found[names.RESPONSE_ID] = self.id
        if self.model:
            found[names.RESPONSE_MODEL] = self.model
        if self.tool_calls:
            found[names.TOOL_CALLS] = self.tool_calls
        if self.reasons:
            found[names.FINISH_REASONS] = [self.reasons[i] or "error" for i in sorted(self.reasons)]
        return found
