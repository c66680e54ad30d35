"""Reading OpenAI's Responses API: requests, whole responses, streamed events."""

from __future__ import annotations

from collections.abc import Sequence
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
    word,
)

__all__ = ["ResponsesReader"]

_OUTPUTS_MAX = 256  # items of one response; a guard against a server's nonsense
_TEXT_DELTA = "response.output_text.delta"
_TOOL_CALLS = ("function_call", "custom_tool_call")
_ENDS = ("response.completed", "response.incomplete", "response.failed")
_REASONS = {"completed": "stop", "failed": "error", "cancelled": "cancelled"}


class ResponsesReader:
    """Reads one call of ``/responses`` or ``/responses/compact``."""

    operation = "chat"
    takes_prompt = True

    def __init__(self, body: Any, content_captured: bool) -> None:
        self._body = body
        self._content_captured = content_captured
        self._answer = Answer()
        self._output: Sequence[Any] | None = None  # of the whole response, as it came
        self._gathered: dict[int, _Item] = {}  # of a stream that has not ended
        self.model = model_of(body)
        self.failure = ""

    def request(self) -> dict[str, AttributeValue]:
        """Give the request's attributes."""
        body, self._body = self._body, None
        found = parameters(body, _PARAMETERS)
        if self._content_captured:
            self._content(found, body)
        return found

    def _content(self, found: dict[str, AttributeValue], body: Any) -> None:
        said = field(body, "input")
        messages = [{"role": "user", "content": said}] if isinstance(said, str) else said
        found[names.INPUT_MESSAGES] = encode_messages(messages, _input_message)
        instructions = field(body, "instructions")
        if isinstance(instructions, str):
            found[names.SYSTEM_INSTRUCTIONS] = encode_parts([text_part(Room(), instructions)])
        tools = items(field(body, "tools"))
        if tools:
            found[names.TOOL_DEFINITIONS] = encode_parts([Room().plain(tool) for tool in tools])

    def plain(self, piece: Any) -> bool:
        """Take a piece of text of an item that has begun, as nearly all events are; say no to any other."""
        try:
            known = piece.__dict__
            index = known.get("output_index")
            if known["type"] != _TEXT_DELTA or type(index) is not int:
                return False
            item = self._gathered.get(index)  # none where content is not captured
            text = known["delta"]
        except (AttributeError, KeyError):  # JSON, or nothing that is known
            return False
        if item is None:
            return False
        item.add(_TEXT_DELTA, text)
        return True

    def piece(self, piece: Any) -> None:
        """Take an event."""
        kind = field(piece, "type")
        if kind == _TEXT_DELTA:
            if self._content_captured:
                self._gather(kind, piece)
            return
        if not isinstance(kind, str):
            return
        response = field(piece, "response")
        if kind in _ENDS:
            self.whole(response)
        elif kind == "error":
            code = field(piece, "code")
            self.failure = clean(code)[:128] if isinstance(code, str) else "error"
        elif response is not None:
            self._answer.named(response)
        elif self._content_captured:
            self._gather(kind, piece)

    def _gather(self, kind: str, piece: Any) -> None:
        """Keep what a response that never completes has said so far."""
        index = field(piece, "output_index")
        is_known = isinstance(index, int) and 0 <= index < _OUTPUTS_MAX
        if not is_known or not kind.endswith((".delta", "output_item.added")):
            return
        item = self._gathered.get(index)
        if item is None:
            item = self._gathered[index] = _Item()
        if kind == "response.output_item.added":
            item.begin(field(piece, "item"))
        else:
            item.add(kind, field(piece, "delta"))

    def whole(self, answer: Any) -> None:
        """Take a response."""
        self._answer.named(answer)
        usage = field(answer, "usage")
        if usage is not None:
            self._answer.usage = _usage(usage)
        status = field(answer, "status")
        if status == "incomplete":
            self._answer.choice(0, field(field(answer, "incomplete_details"), "reason") or status)
        elif isinstance(status, str) and status in _REASONS:
            self._answer.choice(0, _REASONS[status])
        error = field(answer, "error")
        if status == "failed" or error is not None:
            code = field(error, "code")
            self.failure = clean(code)[:128] if isinstance(code, str) and code else "failed"
        output = items(field(answer, "output"))[:_OUTPUTS_MAX]
        self._answer.tool_calls = sum(1 for item in output if field(item, "type") in _TOOL_CALLS)
        if self._content_captured:
            self._output = output

    def answer(self, is_stream: bool) -> dict[str, AttributeValue]:
        """Give the answer's attributes."""
        if is_stream and not self._answer.reasons:
            self._answer.choice(0, None)  # no terminal event came
        found = self._answer.attributes()
        parts: list[Part] | None = None
        room = Room()  # made here, where a mask is in force
        if self._output is not None:
            parts = [part for item in self._output for part in _item_parts(room, item)]
        elif self._gathered:
            parts = [self._gathered[index].part(room) for index in sorted(self._gathered)]
        if self._content_captured and parts is not None:
            message = self._answer.message(0, "assistant", parts)
            found[names.OUTPUT_MESSAGES] = encode_messages([message], lambda built: built)
        return found


class _Item:
    """An output item of a stream, as far as it came."""

    def __init__(self) -> None:
        self._item: Any = None
        self._text = Gathered()
        self._is_reasoning = False

    def begin(self, item: Any) -> None:
        self._item = item

    def add(self, kind: str, delta: Any) -> None:
        self._is_reasoning = "reasoning" in kind
        if "audio.delta" not in kind:
            self._text.add(delta)

    def part(self, room: Room) -> Part:
        text = str(self._text)
        if field(self._item, "type") in ("function_call", "custom_tool_call"):
            return _tool_call(room, self._item, text)
        if self._is_reasoning:
            return {"type": "reasoning", "content": room.text(text)}
        return text_part(room, text)


def _usage(usage: Any) -> dict[str, AttributeValue]:
    found: dict[str, AttributeValue] = {}
    counts(found, usage, _TOTALS)
    counts(found, field(usage, "input_tokens_details"), _CACHED)
    counts(found, field(usage, "output_tokens_details"), _REASONED)
    if names.CACHE_CREATION_TOKENS in found:
        found[names.CACHE_WRITE_TOKENS] = found[names.CACHE_CREATION_TOKENS]
    return found


_TOTALS = {"input_tokens": names.INPUT_TOKENS, "output_tokens": names.OUTPUT_TOKENS}
_CACHED = {
    "cached_tokens": names.CACHE_READ_TOKENS,
    "cache_write_tokens": names.CACHE_CREATION_TOKENS,
}
_REASONED = {"reasoning_tokens": names.REASONING_TOKENS}


def _format(value: Any) -> str | None:
    kind = field(field(value, "format"), "type")
    if not isinstance(kind, str):
        return None
    return "text" if kind == "text" else "json"


_PARAMETERS: Parameters = {
    **SAMPLING,
    "max_output_tokens": (names.MAX_TOKENS, count),
    "reasoning": (names.REASONING_LEVEL, lambda value: word(field(value, "effort"))),
    "previous_response_id": (names.PREVIOUS_RESPONSE_ID, word),
    "text": (names.OUTPUT_TYPE, _format),
}


def _input_message(item: Any) -> Part | str:
    encoded = plain_message(item)
    if encoded:
        return encoded
    room = Room()
    kind = field(item, "type")
    role = field(item, "role")
    if isinstance(kind, str) and kind.endswith("_output"):  # of a function, a shell, a computer
        part = {"type": "tool_call_response", "response": room.plain(field(item, "output"))}
        if isinstance(field(item, "call_id"), str):
            part["id"] = room.text(field(item, "call_id"))
        return {"role": "tool", "parts": [part]}
    if kind not in (None, "message"):
        return {"role": "assistant", "parts": _item_parts(room, item)}
    return {
        "role": clean(role) if isinstance(role, str) else "user",
        "parts": _content_parts(room, field(item, "content")),
    }


def _content_parts(room: Room, content: Any) -> list[Part]:
    if isinstance(content, str):
        return [text_part(room, content)]
    return [_content_part(room, item) for item in items(content)]


def _content_part(room: Room, item: Any) -> Part:
    kind = field(item, "type")
    if kind in ("input_text", "output_text", "text", "summary_text", "reasoning_text"):
        return text_part(room, field(item, "text"))
    if kind == "refusal":
        return text_part(room, field(item, "refusal"))
    if kind == "input_audio":
        return blob("audio", None, field(field(item, "input_audio"), "data"))
    if kind in ("input_image", "input_file"):
        modality = "image" if kind == "input_image" else "file"
        if field(item, "file_id"):
            return {
                "type": "file",
                "modality": modality,
                "file_id": room.text(field(item, "file_id")),
            }
        url = field(item, "image_url") or field(item, "file_url")
        data = field(item, "file_data")
        return blob(modality, None, data) if data else file_part(room, modality, url)
    return {"type": "other", "content": room.plain(item)}


def _item_parts(room: Room, item: Any) -> list[Part]:
    """Give the parts of an item that a model made."""
    kind = field(item, "type")
    if kind == "message":
        return _content_parts(room, field(item, "content"))
    if kind in ("function_call", "custom_tool_call"):
        arguments = field(item, "arguments")
        return [_tool_call(room, item, field(item, "input") if arguments is None else arguments)]
    if kind == "reasoning":
        said = [*items(field(item, "summary")), *items(field(item, "content"))]
        return [
            {"type": "reasoning", "content": room.text(field(one, "text") or "")} for one in said
        ]
    if isinstance(kind, str) and kind.endswith("_call"):  # searched, ran or drew at the provider's
        name = room.text(kind)
        part: Part = {"type": "server_tool_call", "name": name, "server_tool_call": {"type": name}}
        if isinstance(field(item, "id"), str):
            part["id"] = room.text(field(item, "id"))
        return [part]
    return [{"type": "other", "content": room.plain(item)}]


def _tool_call(room: Room, item: Any, arguments: Any) -> Part:
    part: Part = {"type": "tool_call", "name": room.text(field(item, "name") or "")}
    part["arguments"] = room.arguments(arguments)
    if isinstance(field(item, "call_id"), str):
        part["id"] = room.text(field(item, "call_id"))
    return part
