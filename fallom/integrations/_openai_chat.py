"""Reading OpenAI's chat completions: requests, whole answers, streamed chunks."""

from __future__ import annotations

import operator
from collections.abc import Callable
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
    getter,
    items,
    plain_message,
)
from fallom.integrations._reading import (
    SAMPLING,
    Answer,
    Gathered,
    Parameters,
    blob,
    choice_count,
    count,
    counts,
    file_part,
    model_of,
    parameters,
    text_part,
    words,
)

__all__ = ["ChatReader", "chat_usage"]

_TOOL_CALLS_MAX = 256  # in one message; a guard against a server's nonsense, not a known limit
_OF_CHUNK = operator.itemgetter("choices", "usage", "id", "model")
_OF_CHOICE = operator.itemgetter("delta", "finish_reason", "index")


class ChatReader:
    """Reads one call of ``/chat/completions``."""

    __slots__ = (
        "_alone",
        "_answer",
        "_body",
        "_choices",
        "_content_captured",
        "_others",
        "_plain",
        "_text",
        "failure",
        "model",
    )
    operation = "chat"
    takes_prompt = True

    def __init__(self, body: Any, content_captured: bool) -> None:
        self._body = body
        self._content_captured = content_captured
        self._answer = Answer()
        self._choices: dict[int, _Choice] = {}
        self._plain: Any = None  # class of deltas, when the first choice has been seen
        self._others: Callable[[Any], Any] = len  # gives their other fields
        self._alone: tuple[Any, ...] = ()  # those of one that brings text and nothing else
        self._text: Gathered | None = None  # of that choice, if content is captured
        self.model = model_of(body)
        self.failure = ""

    def request(self) -> dict[str, AttributeValue]:
        """Give the request's attributes."""
        body, self._body = self._body, None
        found = parameters(body, _PARAMETERS)
        if self._content_captured:
            found[names.INPUT_MESSAGES] = encode_messages(field(body, "messages"), _input_message)
            tools = items(field(body, "tools"))
            if tools:
                found[names.TOOL_DEFINITIONS] = encode_parts([Room().plain(t) for t in tools])
        return found

    def piece(self, piece: Any) -> None:
        """Take a chunk.

        Nearly all bring text to the first choice and nothing else. Looked at as others are, such a one
        takes ten times as long.
        """
        try:
            (choice,), usage, identity, model = _OF_CHUNK(piece.__dict__)
            delta, reason, index = _OF_CHOICE(choice.__dict__)
            known = delta.__dict__
            text = known["content"]
            answer = self._answer
            if (
                type(delta) is self._plain
                and self._others(known) in self._alone
                and not delta.__pydantic_extra__  # reasoning, of other providers
                and type(text) is str
                and reason is None
                and index == 0
                and usage is None
                and identity == answer.id
                and model == answer.model
            ):
                gathered = self._text
                if gathered is not None:
                    left = gathered.left - len(text)
                    if left > 0:  # ``Gathered.add``, spelled out
                        gathered.kept.append(text)
                        gathered.left = left
                    else:
                        gathered.add(text)
                return
        except (AttributeError, KeyError, TypeError, ValueError):  # another library's, or JSON
            pass
        self._take(piece, "delta")

    def whole(self, answer: Any) -> None:
        """Take a completion."""
        self._take(answer, "message")

    def _take(self, source: Any, name: str) -> None:
        """Take a completion or a chunk, whose choices have a message or a delta."""
        answer, get = self._answer, getter(source)
        answer.named(source)
        usage = get("usage")
        if usage is not None:
            answer.usage = chat_usage(usage)
        for choice in items(get("choices")):
            get = getter(choice)
            index = answer.choice(get("index"), get("finish_reason"))
            said = get(name)
            # Of a call's pieces only the first has a name.
            calls = items(field(said, "tool_calls"))
            if calls:
                answer.tool_calls += sum(name == "message" or _is_named(call) for call in calls)
            if self._content_captured:
                gathered = self._choices.get(index)
                if gathered is None or name == "message":
                    gathered = self._choices[index] = _Choice()
                gathered.add(said)
            if index == 0 and name == "delta" and type(said).__module__.startswith("openai."):
                self._know(said)

    def _know(self, delta: Any) -> None:
        """Know how deltas of the first choice look that bring text and nothing else."""
        others = dict.fromkeys(name for name in delta.__dict__ if name != "content")
        if others:
            self._plain, self._others = type(delta), operator.itemgetter(*others)
            first = self._choices.get(0)  # none if content is not captured
            role = "assistant" if first is None else first.role  # some providers repeat it
            self._alone = tuple(others.values()), tuple({**others, "role": role}.values())
            self._text = None if first is None else first.content

    def answer(self, is_stream: bool) -> dict[str, AttributeValue]:
        """Give the answer's attributes."""
        if is_stream and not self._answer.reasons:
            self._answer.choice(0, None)  # closed before anything came
        found = self._answer.attributes()
        if self._content_captured and self._choices:
            found[names.OUTPUT_MESSAGES] = encode_messages(sorted(self._choices), self._message)
        return found

    def _message(self, index: int) -> Part | str:
        choice = self._choices[index]
        if choice.is_text:
            return self._answer.text_message(index, choice.role, str(choice.content))
        return self._answer.message(index, choice.role, choice.parts())


class _Choice:
    """The message of one choice, gathered from deltas or from the whole message as one delta."""

    __slots__ = ("_calls", "_others", "_texts", "content", "role")

    def __init__(self) -> None:
        self.role = "assistant"
        self.content = Gathered()
        self._texts: dict[str, Gathered] = {}  # other than that: reasoning, refusal
        self._calls: dict[int, _ToolCall] = {}
        self._others: list[Part] = []

    @property
    def is_text(self) -> bool:
        """Whether there is text and nothing else."""
        return bool(self.content) and not (self._texts or self._calls or self._others)

    def add(self, delta: Any) -> None:
        get = getter(delta)
        role = get("role")
        if isinstance(role, str) and role:
            self.role = role
        self.content.add(get("content"))
        self._text("refusal", get("refusal"))
        # Names of other providers behind the same API: DeepSeek and vLLM, OpenRouter.
        self._text("reasoning", get("reasoning_content") or get("reasoning"))
        for position, call in enumerate(items(get("tool_calls"))):
            index = field(call, "index")
            self._call(index if isinstance(index, int) else position, call)
        function = get("function_call")
        if function is not None:
            self._call(0, {"function": function})
        audio = get("audio")
        if audio is not None:
            self.content.add(field(audio, "transcript"))
            if field(audio, "data") and len(self._others) < _TOOL_CALLS_MAX:
                self._others.append(blob("audio", None, field(audio, "data")))

    def _text(self, name: str, piece: Any) -> None:
        if piece and isinstance(piece, str):
            self._texts.setdefault(name, Gathered()).add(piece)

    def _call(self, index: int, call: Any) -> None:
        if index not in self._calls and len(self._calls) >= _TOOL_CALLS_MAX:
            return
        self._calls.setdefault(index, _ToolCall()).add(call)

    def parts(self) -> list[Part]:
        room = Room()
        found: list[Part] = []
        reasoning, refusal = self._texts.get("reasoning"), self._texts.get("refusal")
        if reasoning:
            found.append({"type": "reasoning", "content": room.text(str(reasoning))})
        found += [text_part(room, str(text)) for text in (self.content, refusal) if text]
        found += [self._calls[index].part(room) for index in sorted(self._calls)]
        return found + self._others


class _ToolCall:
    def __init__(self) -> None:
        self._id: Any = None
        self._name: Any = None
        self._arguments = Gathered()

    def add(self, call: Any) -> None:
        self._id = field(call, "id") or self._id
        function = field(call, "function") or field(call, "custom")
        self._name = field(function, "name") or self._name
        self._arguments.add(field(function, "arguments") or field(function, "input"))

    def part(self, room: Room) -> Part:
        call = {"id": self._id, "function": {"name": self._name, "arguments": str(self._arguments)}}
        return _tool_call(room, call)


def _is_named(call: Any) -> bool:
    return bool(field(field(call, "function") or field(call, "custom"), "name"))


def chat_usage(usage: Any) -> dict[str, AttributeValue]:
    """Give the token totals of a chat or text completion."""
    found: dict[str, AttributeValue] = {}
    counts(found, usage, _TOTALS)
    counts(found, field(usage, "prompt_tokens_details"), _CACHED)
    counts(found, field(usage, "completion_tokens_details"), _REASONED)
    return found


_TOTALS = {"prompt_tokens": names.INPUT_TOKENS, "completion_tokens": names.OUTPUT_TOKENS}
_CACHED = {"cached_tokens": names.CACHE_READ_TOKENS}
_REASONED = {"reasoning_tokens": names.REASONING_TOKENS}


def _effort(value: Any) -> str | None:
    return clean(value)[:64] if isinstance(value, str) and value else None


def _format(value: Any) -> str | None:
    kind = field(value, "type")
    if kind in ("json_object", "json_schema"):
        return "json"
    return "text" if kind == "text" else None


_PARAMETERS: Parameters = {
    **SAMPLING,
    "max_tokens": (names.MAX_TOKENS, count),
    "max_completion_tokens": (names.MAX_TOKENS, count),
    "n": (names.CHOICE_COUNT, choice_count),
    "stop": (names.STOP_SEQUENCES, words),
    "reasoning": (names.REASONING_LEVEL, lambda value: _effort(field(value, "effort"))),
    "reasoning_effort": (names.REASONING_LEVEL, _effort),
    "response_format": (names.OUTPUT_TYPE, _format),
    "modalities": (names.OUTPUT_TYPE, lambda value: "speech" if "audio" in items(value) else None),
}


def _input_message(message: Any) -> Part | str:
    encoded = plain_message(message)
    if encoded:
        return encoded
    room = Room()
    role = field(message, "role")
    role = clean(role) if isinstance(role, str) else "user"
    content = field(message, "content")
    if role == "tool":
        response = content if isinstance(content, str) else room.plain(content)
        part = {"type": "tool_call_response", "response": room.plain(response)}
        identity = field(message, "tool_call_id")
        if isinstance(identity, str):
            part["id"] = room.text(identity)
        return {"role": role, "parts": [part]}
    parts = [_input_part(room, item) for item in items(content)]
    if isinstance(content, str):
        parts.append(text_part(room, content))
    elif content is not None and not parts and not isinstance(content, (list, tuple)):
        parts.append({"type": "other", "content": room.plain(content)})
    calls = list(items(field(message, "tool_calls")))
    if field(message, "function_call") is not None:
        calls.append({"function": field(message, "function_call")})
    parts += [_tool_call(room, call) for call in calls]
    built: Part = {"role": role, "parts": parts}
    name = field(message, "name")
    if isinstance(name, str):
        built["name"] = room.text(name)
    return built


def _input_part(room: Room, item: Any) -> Part:
    kind = field(item, "type")
    if kind in ("text", "refusal"):
        return text_part(room, field(item, kind))
    if kind == "image_url":
        image = field(item, "image_url")
        return file_part(room, "image", image if isinstance(image, str) else field(image, "url"))
    if kind == "input_audio":
        audio = field(item, "input_audio")
        form = field(audio, "format")
        return blob(
            "audio", f"audio/{form}" if isinstance(form, str) else None, field(audio, "data")
        )
    if kind == "file":
        file = field(item, "file")
        if field(file, "file_id"):
            return {
                "type": "file",
                "modality": "file",
                "file_id": room.text(field(file, "file_id")),
            }
        return file_part(room, "file", field(file, "file_data"))
    return {"type": "other", "content": room.plain(item)}


def _tool_call(room: Room, call: Any) -> Part:
    function = field(call, "function") or field(call, "custom")
    part: Part = {"type": "tool_call", "name": room.text(field(function, "name") or "")}
    arguments = field(function, "arguments")
    part["arguments"] = room.arguments(field(function, "input") if arguments is None else arguments)
    if isinstance(field(call, "id"), str):
        part["id"] = room.text(field(call, "id"))
    return part
