"""Reading OpenAI's chat completions: requests, whole answers, streamed chunks."""

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
)
from fallom.integrations._reading import (
    Answer,
    Gathered,
    blob,
    file_part,
    model_of,
    numbers,
    sampling,
    text_part,
    token_count,
    words,
)

__all__ = ["ChatReader", "chat_usage"]

_TOOL_CALLS_MAX = 256  # in one message; a guard against a server's nonsense, not a known limit


class ChatReader:
    """Reads one call of ``/chat/completions``."""

    operation = "chat"
    takes_prompt = True

    def __init__(self, body: Any, content_captured: bool) -> None:
        self._body = body
        self._content_captured = content_captured
        self._answer = Answer()
        self._choices: dict[int, _Choice] = {}
        self.model = model_of(body)
        self.failure = ""

    def request(self) -> dict[str, AttributeValue]:
        """Give the request's attributes."""
        body, self._body = self._body, None
        found = sampling(body)
        limit = token_count(body, "max_completion_tokens")
        count = token_count(body, "n")
        numbers(
            found,
            {
                names.MAX_TOKENS: token_count(body, "max_tokens") if limit is None else limit,
                names.CHOICE_COUNT: None if count == 1 else count,
            },
        )
        stop = words(field(body, "stop"))
        if stop:
            found[names.STOP_SEQUENCES] = stop
        effort = field(body, "reasoning_effort") or field(field(body, "reasoning"), "effort")
        if isinstance(effort, str):
            found[names.REASONING_LEVEL] = clean(effort)[:64]
        output = _output_type(body)
        if output:
            found[names.OUTPUT_TYPE] = output
        if self._content_captured:
            found[names.INPUT_MESSAGES] = encode_messages(field(body, "messages"), _input_message)
            tools = items(field(body, "tools"))
            if tools:
                found[names.TOOL_DEFINITIONS] = encode_parts([Room().plain(t) for t in tools])
        return found

    def piece(self, piece: Any) -> None:
        """Take a chunk."""
        if not self._is_plain_text(piece):
            self._any_piece(piece)

    def _is_plain_text(self, piece: Any) -> bool:
        """Take a chunk that brings text to the first choice and nothing else; say whether it was one.

        Nearly all are. Looked at as ``_any_piece`` does, one takes 8 us, so 1 us is spent to know.
        """
        try:
            chunk = piece.__dict__
            (choice,) = chunk["choices"]
            known = choice.__dict__
            delta = known["delta"]
            text = delta.__dict__
            answer = self._answer
            if (
                chunk["usage"] is not None
                or known["index"] != 0
                or known["finish_reason"] is not None
                or delta.__pydantic_extra__  # reasoning, of other providers
                or type(text["content"]) is not str
                or chunk["id"] != answer.id
                or chunk["model"] != answer.model
                or 0 not in answer.reasons
            ):
                return False
            for name, value in text.items():  # whatever fields this version of the library has
                if value is not None and name != "content":
                    return False
            if self._content_captured:
                self._choices[0].content.add(text["content"])
        except (AttributeError, KeyError, TypeError, ValueError):  # another library's, or JSON
            return False
        return True

    def _any_piece(self, piece: Any) -> None:
        answer = self._answer
        answer.named(piece)
        usage = field(piece, "usage")
        if usage is not None:
            answer.usage = chat_usage(usage)
        for choice in items(field(piece, "choices")):
            index = answer.choice(field(choice, "index"), field(choice, "finish_reason"))
            calls = items(field(field(choice, "delta"), "tool_calls"))
            # Of a call's pieces only the first has a name.
            answer.tool_calls += sum(1 for call in calls if _is_named(call))
            if self._content_captured:
                gathered = self._choices.get(index)
                if gathered is None:
                    gathered = self._choices[index] = _Choice()
                gathered.add(field(choice, "delta"))

    def whole(self, answer: Any) -> None:
        """Take a completion."""
        self.piece({name: field(answer, name) for name in ("id", "model", "usage")})
        for choice in items(field(answer, "choices")):
            index = self._answer.choice(field(choice, "index"), field(choice, "finish_reason"))
            calls = items(field(field(choice, "message"), "tool_calls"))
            self._answer.tool_calls += len(calls)
            if self._content_captured:
                gathered = self._choices[index] = _Choice()
                gathered.add(field(choice, "message"))

    def answer(self, is_stream: bool) -> dict[str, AttributeValue]:
        """Give the answer's attributes."""
        if is_stream and not self._answer.reasons:
            self._answer.choice(0, None)  # closed before anything came
        found = self._answer.attributes()
        if self._content_captured and self._choices:
            found[names.OUTPUT_MESSAGES] = encode_messages(
                sorted(self._choices), lambda i: self._answer.message(i, *self._choices[i].parts())
            )
        return found


class _Choice:
    """The message of one choice, gathered from deltas or from the whole message as one delta."""

    def __init__(self) -> None:
        self._role: Any = None
        self.content = Gathered()
        self._texts = {"reasoning": Gathered(), "content": self.content, "refusal": Gathered()}
        self._calls: dict[int, _ToolCall] = {}
        self._others: list[Part] = []

    def add(self, delta: Any) -> None:
        role = field(delta, "role")
        self._role = role if isinstance(role, str) else self._role
        for name in ("content", "refusal"):
            self._texts[name].add(field(delta, name))
        # Names of other providers behind the same API: DeepSeek and vLLM, OpenRouter.
        self._texts["reasoning"].add(field(delta, "reasoning_content") or field(delta, "reasoning"))
        for position, call in enumerate(items(field(delta, "tool_calls"))):
            index = field(call, "index")
            self._call(index if isinstance(index, int) else position, call)
        if field(delta, "function_call") is not None:
            self._call(0, {"function": field(delta, "function_call")})
        audio = field(delta, "audio")
        if audio is not None:
            self._texts["content"].add(field(audio, "transcript"))
            if field(audio, "data") and len(self._others) < _TOOL_CALLS_MAX:
                self._others.append(blob("audio", None, field(audio, "data")))

    def _call(self, index: int, call: Any) -> None:
        if index not in self._calls and len(self._calls) >= _TOOL_CALLS_MAX:
            return
        self._calls.setdefault(index, _ToolCall()).add(call)

    def parts(self) -> tuple[str, list[Part]]:
        room = Room()
        found: list[Part] = []
        if self._texts["reasoning"]:
            found.append({"type": "reasoning", "content": room.text(str(self._texts["reasoning"]))})
        found += [
            text_part(room, str(self._texts[n])) for n in ("content", "refusal") if self._texts[n]
        ]
        found += [self._calls[index].part(room) for index in sorted(self._calls)]
        return self._role or "assistant", found + self._others


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
    numbers(
        found,
        {
            names.INPUT_TOKENS: token_count(usage, "prompt_tokens"),
            names.OUTPUT_TOKENS: token_count(usage, "completion_tokens"),
            names.CACHE_READ_TOKENS: token_count(usage, "prompt_tokens_details", "cached_tokens"),
            names.REASONING_TOKENS: token_count(
                usage, "completion_tokens_details", "reasoning_tokens"
            ),
        },
    )
    return found


def _output_type(body: Any) -> str:
    if "audio" in items(field(body, "modalities")):
        return "speech"
    kind = field(field(body, "response_format"), "type")
    if kind in ("json_object", "json_schema"):
        return "json"
    return "text" if kind == "text" else ""


def _input_message(message: Any) -> Part:
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
