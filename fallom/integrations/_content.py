"""What content may become on a span: bounded, plain JSON, whatever the caller's objects are.

Prompts hold anything: pydantic models, generators that must not be consumed, files, base64 of
megabytes, cycles, half a surrogate pair. Here each becomes JSON that every backend can read, never
more than the limits below, and never raises. Nothing here is called when content is not captured.

A message has 64 Ki characters of text in all its parts together; a content attribute 256 KiB of
UTF-8. Four such attributes stay below the 1 MiB that one frame of the spool holds. What was cut
says so: ``[cut: 1234 characters]``.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from json.encoder import encode_basestring
from typing import Any, TypeAlias

__all__ = [
    "Part",
    "Room",
    "clean",
    "encode_messages",
    "encode_parts",
    "field",
    "getter",
    "is_given",
    "items",
    "masked",
    "plain_message",
    "quoted",
    "quoted_content",
]

Part: TypeAlias = "dict[str, Any]"

MESSAGE_CHARACTERS_MAX = 64 * 1024
ATTRIBUTE_BYTES_MAX = 256 * 1024
_NODES_MAX = 5_000  # values in one message: what a person reads, and a bound for cycles of lists
_DEPTH_MAX = 16  # JSON as people write it stays below; a cycle ends here
_SCANNED_MAX = (
    16 * MESSAGE_CHARACTERS_MAX
)  # of a longer text only so much is searched for data URLs
_BASE64_MIN = 1024  # a text that looks like base64 from this length on is taken to be a file

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w=.+-]+)*?;base64,[\w+/=%-]*")
_BASE64 = re.compile(r"[A-Za-z0-9+/=_\-\r\n]+")
_NOTICE = re.compile(r"\[cut: (\d{1,15}) characters\]\Z")
_NOTHING: Mapping[str, Any] = {}
# Of the call that is being read here. A context variable, because the readers' functions make rooms
# where they meet a message, and know nothing of the call.
_mask: ContextVar[Callable[[str], str] | None] = ContextVar("fallom_mask", default=None)
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))  # made once: 2 us
# A table that changes what JSON escapes, and nothing else.
_ESCAPED = bytes(63 if code < 32 or code in b'"\\' else code for code in range(256))
_ABSENT = ("NotGiven", "Omit")  # the client libraries' words for "not said", by name: no import
_SAID = frozenset((str, int, float, bool, list, dict, type(None)))  # nearly all that is
_PLAIN = {
    role: f'{{"role":"{role}","parts":[{{"type":"text","content":'
    for role in ("assistant", "developer", "system", "user")
}


def field(source: Any, name: str) -> Any:
    """Give ``source[name]`` of a mapping, or ``source.name``; None if it is not there or not said."""
    if source is None:
        return None
    if isinstance(source, dict):
        value = source.get(name)
    elif name in (known := getattr(source, "__dict__", _NOTHING)):
        value = known[name]
    else:
        # A pydantic model keeps its other fields here; asking it for one that is missing by getattr
        # costs it an exception, 2 us, and of each chunk of a stream five are missing.
        extra = getattr(source, "__pydantic_extra__", _NOTHING)
        if extra is not _NOTHING:
            value = extra.get(name) if extra else None
        else:
            value = getattr(source, name, None)
            if value is None and isinstance(source, Mapping):
                value = source.get(name)
    return value if type(value) in _SAID or is_given(value) else None


def getter(source: Any) -> Callable[[str], Any]:
    """Give what gives fields of ``source``; a quarter of the time of ``field`` where there are several.

    Only for answers: in what the caller made, it takes a client library's sentinel for a value.
    """
    if type(source) is dict:
        return source.get
    extra = getattr(source, "__pydantic_extra__", _NOTHING)
    if extra is _NOTHING:
        return functools.partial(field, source)
    known: dict[str, Any] = source.__dict__
    return {**extra, **known}.get if extra else known.get


def is_given(value: Any) -> bool:
    """Say whether a value is none of the client libraries' sentinels for a missing one."""
    return type(value).__name__ not in _ABSENT


def items(source: Any) -> Sequence[Any]:
    """Give ``source`` if it is a list or tuple, else nothing: an iterator is for its owner."""
    return source if isinstance(source, (list, tuple)) else ()


def clean(text: str) -> str:
    """Give ``text`` as an exact ``str`` that UTF-8 can carry (lone surrogates become ``?``)."""
    if type(text) is str and text.isascii():  # nearly all: a look at a flag
        return text
    text = str.__str__(text)  # an enum that is a str prints its name elsewhere
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


@contextlib.contextmanager
def masked(mask: Callable[[str], str] | None) -> Iterator[None]:
    """Have the texts of all rooms that are made within go through a mask, which does not raise."""
    if mask is None:
        yield
        return
    token = _mask.set(mask)
    try:
        yield
    finally:
        _mask.reset(token)


class Room:
    """What is left of one message's limits. A text is cut where they end."""

    __slots__ = ("_characters", "_mask", "_nodes")

    def __init__(self) -> None:
        self._mask = _mask.get()
        self._characters = MESSAGE_CHARACTERS_MAX
        self._nodes = _NODES_MAX

    def text(self, value: Any) -> str:
        """Give a text, without data URLs, cut to what is left of the room."""
        if not isinstance(value, str):
            return json.dumps(self.plain(value), ensure_ascii=False)
        if (
            len(value) <= self._characters
            and self._mask is None
            and type(value) is str
            and (";" not in value or "base64," not in value)
        ):  # nearly all; what follows gives the same
            self._characters -= len(value)
            return value if value.isascii() else clean(value)
        whole = str.__str__(value)
        shown = whole[:_SCANNED_MAX]
        if "base64," in shown:
            shown = _DATA_URL.sub(_data_url_marker, shown)
        if self._mask is not None:  # before the cut: of half an address a mask sees nothing
            shown = self._mask(shown)
        cut = len(whole) - min(len(whole), _SCANNED_MAX)
        if len(shown) > self._characters:
            # What was gathered from pieces may say already what it lacks: one notice, of all of it.
            said = _NOTICE.search(shown, max(0, len(shown) - 40))
            if said is not None:
                shown = shown[: said.start()]
                cut += int(said[1])
            cut += max(0, len(shown) - self._characters)
            shown = shown[: self._characters]
        self._characters -= len(shown)
        return clean(f"{shown}[cut: {cut} characters]" if cut else shown)

    def plain(self, value: Any, depth: int = 0) -> Any:  # noqa: PLR0911  # a case a line
        """Give ``value`` as JSON can hold it. What it cannot hold is named by its type."""
        self._nodes -= 1
        if self._nodes < 0 or depth > _DEPTH_MAX:
            return "[cut]"
        if value is None or isinstance(value, (bool, int)):
            return value
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else str(float(value))
        if isinstance(value, str):
            return _base64_marker(value) or self.text(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return f"[bytes: {len(value)}]"
        if isinstance(value, os.PathLike):
            return self.text(str(os.fspath(value)))
        if isinstance(value, Mapping):
            return self._mapping(value, depth)
        if isinstance(value, (list, tuple, set, frozenset)):
            return self._list(value, depth)
        if hasattr(type(value), "model_fields") or hasattr(type(value), "__dataclass_fields__"):
            return self._mapping(_fields(value), depth)
        return f"[{type(value).__name__}]"

    def arguments(self, value: Any) -> Any:
        """Give a tool call's arguments, decoded where they are JSON, as the convention has them."""
        if isinstance(value, str) and len(value) <= self._characters:
            try:
                return self.plain(json.loads(value))
            except (ValueError, RecursionError):
                return self.text(value)  # a stream that was closed early leaves half of them
        return self.plain(value)

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, entry in value.items():
            if self._nodes < 0:
                break
            if is_given(entry):
                found[self.text(name if isinstance(name, str) else str(name))] = self.plain(
                    entry, depth + 1
                )
        return found

    def _list(self, value: Iterable[Any], depth: int) -> list[Any]:
        found: list[Any] = []
        for entry in value:
            if self._nodes < 0:
                break
            found.append(self.plain(entry, depth + 1))
        return found


def plain_message(message: Any) -> str:
    """Encode a message of a role and one text, as most are in any API; give nothing for another.

    ``encode_messages`` takes a third of the time for it.
    """
    if type(message) is not dict or len(message) != 2:
        return ""
    role, text = message.get("role"), message.get("content")
    if type(role) is not str or type(text) is not str or role not in _PLAIN:
        return ""
    return f"{_PLAIN[role]}{quoted_content(text)}}}]}}"


def encode_messages(source: Any, build: Callable[[Any], Part | str | None]) -> str:
    """Encode messages as the convention's JSON; where they are too many, the newest are kept.

    Args:
        source: The caller's messages. Anything but a list or tuple gives an empty one.
        build: Makes one message, or its JSON.
    """
    messages = source if isinstance(source, (list, tuple)) else ()
    kept: list[str] = []
    left = ATTRIBUTE_BYTES_MAX
    for index in range(len(messages) - 1, -1, -1):
        built = build(messages[index])
        if built is None:
            continue
        encoded = built if isinstance(built, str) else _JSON.encode(built)
        left -= (len(encoded) if encoded.isascii() else _bytes_of(encoded)) + 1
        if left < 0:
            notice = {"type": "text", "content": f"[cut: {index + 1} messages]"}
            role = json.loads(encoded).get("role", "user")
            kept.append(_encode({"role": str(role), "parts": [notice]}))
            break
        kept.append(encoded)
    return f"[{','.join(reversed(kept))}]"  # one copy; two by ``+``


def encode_parts(parts: Sequence[Any]) -> str:
    """Encode a list of parts (system instructions, tool definitions); the first ones are kept."""
    kept: list[str] = []
    left = ATTRIBUTE_BYTES_MAX
    for index, part in enumerate(parts):
        encoded = _encode(part)
        left -= _bytes_of(encoded) + 1
        if left < 0:
            kept.append(_encode({"type": "text", "content": f"[cut: {len(parts) - index} parts]"}))
            break
        kept.append(encoded)
    return "[" + ",".join(kept) + "]"


def quoted_content(text: str) -> str:
    """Encode a text that has a room of its own as JSON.

    Nearly all are as ``Room.text`` gives them back, so that no room has to be made for them.
    """
    if (
        len(text) <= MESSAGE_CHARACTERS_MAX
        and text.isascii()
        and (";" not in text or "base64," not in text)
        and _mask.get() is None
        and type(text) is str
    ):
        return quoted(text)
    return quoted(Room().text(text))


def quoted(text: str) -> str:
    """Encode a text as JSON; one of a single long line in a third of the time of the encoder's own."""
    if len(text) > 200 and "\n" not in text and '"' not in text:
        raw = text.encode("utf-8", "surrogatepass")
        if raw.translate(_ESCAPED) is raw:  # the very same object where nothing is changed
            return f'"{text}"'
    return encode_basestring(text)  # what ``_JSON`` comes to, for a text


def _bytes_of(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _encode(value: Any) -> str:
    encoded: str = _JSON.encode(value)
    return encoded


def _fields(value: Any) -> dict[str, Any]:
    """Give the fields of a pydantic model or dataclass, without running their serialisers."""
    found = dict(getattr(value, "__dict__", {}))
    found.update(getattr(value, "__pydantic_extra__", None) or {})
    return {name: entry for name, entry in found.items() if not name.startswith("_")}


def _data_url_marker(match: re.Match[str]) -> str:
    return f"[data URL: {match.group(1) or 'text/plain'}, {len(match.group())} characters]"


def _base64_marker(text: str) -> str:
    """Give a marker for a long text that looks like base64, else nothing.

    Only the beginning is looked at. A long word of letters alone is taken for one too: it would
    have told a reader nothing.
    """
    if len(text) >= _BASE64_MIN and _BASE64.fullmatch(text, 0, _BASE64_MIN):
        return f"[base64: {len(text)} characters]"
    return ""
