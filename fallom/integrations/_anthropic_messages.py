"""Reading Anthropic's Messages API: requests, whole messages, streamed events, token counts."""

from __future__ import annotations

from typing import Any

from fallom._core.span import AttributeValue
from fallom.integrations import _attributes as names
from fallom.integrations._content import (
    Part,
    Room,
    clean,
    encode_messages,
    encode_parts,
    field,
    items,
    plain_message,
)
from fallom.integrations._reading import (
    SAMPLING,
    Answer,
    Gathered,
    Parameters,
    blob,
    count,
    counts,
    file_part,
    model_of,
    parameters,
    text_part,
    words,
)

__all__ = ["MessagesReader", "TokenCountReader"]

_BLOCKS_MAX = 1_024  # of one message; a guard against a server's nonsense
_USAGE = {
    "input_tokens": names.INPUT_TOKENS,
    "output_tokens": names.OUTPUT_TOKENS,
    "cache_creation_input_tokens": names.CACHE_CREATION_TOKENS,
    "cache_read_input_tokens": names.CACHE_READ_TOKENS,
}
_PARAMETERS: Parameters = {
    **SAMPLING,
    "max_tokens": (names.MAX_TOKENS, count),
    "stop_sequences": (names.STOP_SEQUENCES, words),
    "output_format": (names.OUTPUT_TYPE, lambda value: None if value is None else "json"),
}
_THINKING = {"thinking_tokens": names.REASONING_TOKENS}


class MessagesReader:
    """Reads one call of ``/v1/messages``."""

    operation = "chat"
    takes_prompt = True

    def __init__(self, body: Any, content_captured: bool) -> None:
        self._body = body
        self._content_captured = content_captured
        self._answer = Answer()
        self._blocks: dict[int, _Block] = {}
        self._usage: dict[str, int] = {}  # in Anthropic's sense of input
        self.model = model_of(body)
        self.failure = ""

    def request(self) -> dict[str, AttributeValue]:
        """Give the request's attributes."""
        body, self._body = self._body, None
        found = parameters(body, _PARAMETERS)
        output = field(body, "output_config")
        effort = field(output, "effort")
        if isinstance(effort, str):
            found[names.REASONING_LEVEL] = clean(effort)[:64]
        if field(output, "format") is not None:
            found[names.OUTPUT_TYPE] = "json"
        if self._content_captured:
            found[names.INPUT_MESSAGES] = encode_messages(field(body, "messages"), _input_message)
            room = Room()
            system = _parts(room, field(body, "system"))
            if system:
                found[names.SYSTEM_INSTRUCTIONS] = encode_parts(system)
            tools = items(field(body, "tools"))
            if tools:
                found[names.TOOL_DEFINITIONS] = encode_parts([Room().plain(tool) for tool in tools])
        return found

    def plain(self, piece: Any) -> bool:
        """Take a piece of text of a block that has begun; say no to any other event.

        Nearly all are, and ``piece`` asks them for five fields more than they have.
        """
        try:
            known = piece.__dict__
            index = known.get("index")
            if known["type"] != "content_block_delta" or type(index) is not int:
                return False
            block = self._blocks.get(index)  # none where content is not captured
            delta = known["delta"]
            said = delta.__dict__
            is_plain = len(said) == 2 and "type" in said and "text" in said
            if block is None or not is_plain or delta.__pydantic_extra__:
                return False
        except (AttributeError, KeyError):  # JSON, or nothing that is known
            return False
        block.added.add(said["text"])
        return True

    def piece(self, piece: Any) -> None:
        """Take an event."""
        kind = field(piece, "type")
        if kind == "message_start":
            message = field(piece, "message")
            self._answer.named(message)
            self._count(field(message, "usage"))
        elif kind == "message_delta":
            self._count(field(piece, "usage"))
            self._answer.choice(0, field(field(piece, "delta"), "stop_reason"))
        elif kind == "error":  # only when the bytes are read: the library raises it
            told = field(field(piece, "error"), "type")
            self.failure = clean(told)[:128] if isinstance(told, str) else "error"
        elif kind == "content_block_start":
            self._answer.tool_calls += field(field(piece, "content_block"), "type") == "tool_use"
        if self._content_captured and kind in ("content_block_start", "content_block_delta"):
            index = field(piece, "index")
            if isinstance(index, int) and 0 <= index < _BLOCKS_MAX:
                block = self._blocks.get(index)
                if block is None:
                    block = self._blocks[index] = _Block()
                if kind == "content_block_start":
                    block.begin(field(piece, "content_block"))
                else:
                    block.add(field(piece, "delta"))

    def _count(self, usage: Any) -> None:
        """Take usage; a stream's last event repeats only some of what its first one said."""
        counts(self._usage, usage, _USAGE)
        counts(self._usage, field(usage, "output_tokens_details"), _THINKING)

    def whole(self, answer: Any) -> None:
        """Take a message."""
        self._answer.named(answer)
        self._count(field(answer, "usage"))
        self._answer.choice(0, field(answer, "stop_reason"))
        blocks = items(field(answer, "content"))[:_BLOCKS_MAX]
        self._answer.tool_calls = sum(1 for block in blocks if field(block, "type") == "tool_use")
        if self._content_captured:
            for index, block in enumerate(blocks):
                self._blocks[index] = _Block()
                self._blocks[index].begin(block)

    def answer(self, is_stream: bool) -> dict[str, AttributeValue]:
        """Give the answer's attributes."""
        if is_stream and not self._answer.reasons:
            self._answer.choice(0, None)  # no message_delta came
        found = self._answer.attributes()
        usage = self._usage
        found.update(usage)
        read, created = usage.get(names.CACHE_READ_TOKENS), usage.get(names.CACHE_CREATION_TOKENS)
        if names.INPUT_TOKENS in usage:
            # What Anthropic calls input is only what no cache had to do with.
            found[names.INPUT_TOKENS] = usage[names.INPUT_TOKENS] + (read or 0) + (created or 0)
        if created is not None:
            found[names.CACHE_WRITE_TOKENS] = created
        if self._content_captured and self._blocks:
            room = Room()
            parts = [self._blocks[index].part(room) for index in sorted(self._blocks)]
            message = self._answer.message(0, "assistant", parts)
            found[names.OUTPUT_MESSAGES] = encode_messages([message], lambda built: built)
        return found


class TokenCountReader(MessagesReader):
    """Reads one call of ``/v1/messages/count_tokens``. The convention has no name for it."""

    operation = "count_tokens"
    takes_prompt = False

    def whole(self, answer: Any) -> None:
        """Take the count."""
        self._count(answer)

    def answer(self, is_stream: bool) -> dict[str, AttributeValue]:
        """Give the count."""
        return super().answer(is_stream=False)


class _Block:
    """A content block, whole or gathered from deltas."""

    def __init__(self) -> None:
        self._block: Any = None
        self.added = Gathered()

    def begin(self, block: Any) -> None:
        self._block = block

    def add(self, delta: Any) -> None:
        for name in ("text", "thinking", "partial_json"):
            self.added.add(field(delta, name))

    def part(self, room: Room) -> Part:
        if not self.added:
            return _part(room, self._block)
        kind = field(self._block, "type")
        added = str(self.added)
        if kind == "thinking":
            return {"type": "reasoning", "content": room.text(added)}
        if kind in ("tool_use", "server_tool_use", "mcp_tool_use"):
            identity, name = field(self._block, "id"), field(self._block, "name")
            return _part(room, {"type": kind, "id": identity, "name": name, "input": added})
        return text_part(room, added)


def _input_message(message: Any) -> Part | str:
    encoded = plain_message(message)
    if encoded:
        return encoded
    role = field(message, "role")
    parts = _parts(Room(), field(message, "content"))
    role = clean(role) if isinstance(role, str) else "user"
    if parts and all(part["type"] == "tool_call_response" for part in parts):
        role = "tool"  # Anthropic has the user say what a tool said
    return {"role": role, "parts": parts}


def _parts(room: Room, content: Any) -> list[Part]:
    if isinstance(content, str):
        return [text_part(room, content)]
    return [_part(room, block) for block in items(content)]


def _part(room: Room, block: Any) -> Part:  # noqa: PLR0911  # a kind of block a line
    kind = field(block, "type")
    if kind == "text":
        return text_part(room, field(block, "text"))
    if kind == "thinking":
        return {"type": "reasoning", "content": room.text(field(block, "thinking"))}
    if kind == "redacted_thinking":
        return {"type": "reasoning", "content": "[redacted]"}
    if kind == "tool_use":
        part: Part = {"type": "tool_call", "name": room.text(field(block, "name"))}
        part["arguments"] = room.arguments(field(block, "input"))
        return _with_id(room, part, field(block, "id"))
    if kind in ("server_tool_use", "mcp_tool_use"):
        used = {"type": kind, "arguments": room.arguments(field(block, "input"))}
        part = {"type": "server_tool_call", "name": room.text(field(block, "name"))}
        return _with_id(room, {**part, "server_tool_call": used}, field(block, "id"))
    if kind == "tool_result":
        content = field(block, "content")
        response = content if isinstance(content, str) else _parts(room, content)
        part = {"type": "tool_call_response", "response": room.plain(response)}
        return _with_id(room, part, field(block, "tool_use_id"))
    if kind in ("image", "document"):
        return _file(room, "image" if kind == "image" else "file", field(block, "source"))
    if isinstance(block, str):
        return text_part(room, block)
    return {"type": "other", "content": room.plain(block)}


def _with_id(room: Room, part: Part, identity: Any) -> Part:
    if isinstance(identity, str):
        part["id"] = room.text(identity)
    return part


def _file(room: Room, modality: str, source: Any) -> Part:
    kind = field(source, "type")
    if kind == "url":
        return file_part(room, modality, field(source, "url"))
    if kind == "file":
        identity = room.text(field(source, "file_id") or "")
        return {"type": "file", "modality": modality, "file_id": identity}
    if kind == "text":
        return text_part(room, field(source, "data"))
    return blob(modality, field(source, "media_type"), field(source, "data"))
