"""Reading Google's content generation, of both SDKs: google-generativeai and google-genai.

Their objects (proto messages in the one, pydantic models in the other) name almost all fields alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fallom._core.span import AttributeValue
from fallom.integrations import _attributes as names
from fallom.integrations._content import Part, Room, clean, encode_messages, encode_parts, field
from fallom.integrations._reading import (
    SAMPLING,
    Answer,
    Gathered,
    Parameters,
    blob,
    choice_count,
    count,
    counts,
    parameters,
    text_part,
    token_count,
    words,
)

__all__ = ["ContentReader", "EmbedReader", "Request"]

_PARTS_MAX = 256  # of one message; a guard against a server's nonsense


class Request:
    """What a call asks for, wherever the SDK keeps it."""

    def __init__(
        self, model: Any, contents: Any, configs: Sequence[Any], instruction: Any, tools: Any
    ) -> None:
        """Take what a call was given.

        Args:
            model: The model's name, with or without ``models/``.
            contents: The messages, in any of the forms that the SDKs take.
            configs: Generation configurations, the one that counts most first.
            instruction: The system instruction.
            tools: The tools.
        """
        self.model = clean(model)[:256].removeprefix("models/") if isinstance(model, str) else ""
        self.contents = contents
        self.config: dict[str, Any] = {}
        for config in reversed(configs):
            known = {name: field(config, name) for name in _PARAMETERS}
            self.config.update({name: said for name, said in known.items() if said is not None})
        self.instruction = instruction
        self.tools = tools


class ContentReader:
    """Reads one call of ``generate_content``, plain or streamed."""

    operation = "generate_content"
    takes_prompt = True

    def __init__(self, request: Request, content_captured: bool) -> None:
        self._request: Request | None = request
        self._content_captured = content_captured
        self._answer = Answer()
        self._candidates: dict[int, _Candidate] = {}
        self.model = request.model
        self.failure = ""

    def request(self) -> dict[str, AttributeValue]:
        """Give the request's attributes."""
        request, self._request = self._request, None
        if request is None:
            return {}
        config = request.config
        if isinstance(config.get("top_k"), float):  # a whole number in the convention
            config["top_k"] = int(config["top_k"])
        found = parameters(config, _PARAMETERS)
        if self._content_captured:
            found[names.INPUT_MESSAGES] = encode_messages(_turns(request.contents), _input_message)
            room = Room()
            system = [part for turn in _turns(request.instruction) for part in _parts(room, turn)]
            if system:
                found[names.SYSTEM_INSTRUCTIONS] = encode_parts(system)
            tools = _all(request.tools)
            if tools:
                found[names.TOOL_DEFINITIONS] = encode_parts([_tool(tool) for tool in tools])
        return found

    def piece(self, piece: Any) -> None:
        """Take a chunk, or a whole response: they are alike."""
        named = {"id": field(piece, "response_id"), "model": field(piece, "model_version")}
        self._answer.named(named)
        usage = field(piece, "usage_metadata")
        if usage is not None and token_count(usage, "prompt_token_count") is not None:
            self._answer.usage = _usage(usage)
        blocked = _word(field(field(piece, "prompt_feedback"), "block_reason"))
        if blocked:
            self._answer.choice(0, blocked)
        for position, candidate in enumerate(_all(field(piece, "candidates"))):
            index = field(candidate, "index")
            index = index if isinstance(index, int) and index else position
            index = self._answer.choice(index, _word(field(candidate, "finish_reason")))
            parts = _all(field(field(candidate, "content"), "parts"))
            self._answer.tool_calls += sum(1 for part in parts if field(part, "function_call"))
            if self._content_captured:
                gathered = self._candidates.setdefault(index, _Candidate())
                gathered.add(field(candidate, "content"))

    def whole(self, answer: Any) -> None:
        """Take a response."""
        self.piece(answer)

    def answer(self, is_stream: bool) -> dict[str, AttributeValue]:
        """Give the answer's attributes."""
        if is_stream and not self._answer.reasons:
            self._answer.choice(0, None)
        found = self._answer.attributes()
        if self._content_captured and self._candidates:
            found[names.OUTPUT_MESSAGES] = encode_messages(
                sorted(self._candidates),
                lambda index: self._answer.message(
                    index, "assistant", self._candidates[index].parts()
                ),
            )
        return found


class EmbedReader(ContentReader):
    """Reads one call of ``embed_content``. The texts are not recorded: they are whole libraries."""

    operation = "embeddings"
    takes_prompt = False

    def __init__(self, request: Request, content_captured: bool) -> None:
        super().__init__(request, content_captured=False)


class _Candidate:
    """The parts of one candidate; texts that follow each other are one."""

    def __init__(self) -> None:
        self._texts: list[tuple[str, Gathered]] = []
        self._others: list[Any] = []

    def add(self, content: Any) -> None:
        for part in _all(field(content, "parts")):
            text = field(part, "text")
            if not isinstance(text, str) or not text:
                if len(self._others) < _PARTS_MAX:
                    self._others.append(part)
                continue
            kind = "reasoning" if field(part, "thought") is True else "text"
            if not self._texts or (self._texts[-1][0] != kind and len(self._texts) < _PARTS_MAX):
                self._texts.append((kind, Gathered()))
            self._texts[-1][1].add(text)

    def parts(self) -> list[Part]:
        room = Room()
        found: list[Part] = [
            {"type": kind, "content": room.text(str(text))} for kind, text in self._texts
        ]
        return found + [_part(room, part) for part in self._others if _is_said(part)]


def _usage(usage: Any) -> dict[str, AttributeValue]:
    thoughts = token_count(usage, "thoughts_token_count")
    given = token_count(usage, "prompt_token_count") or 0
    found: dict[str, AttributeValue] = {
        names.INPUT_TOKENS: given + (token_count(usage, "tool_use_prompt_token_count") or 0),
        names.OUTPUT_TOKENS: (token_count(usage, "candidates_token_count") or 0) + (thoughts or 0),
    }
    counts(found, usage, _PARTS_OF_USAGE)
    return found


_PARTS_OF_USAGE = {
    "cached_content_token_count": names.CACHE_READ_TOKENS,
    "thoughts_token_count": names.REASONING_TOKENS,
}


def _mime_type(value: Any) -> str | None:
    if not isinstance(value, str) or not value:
        return None
    return "json" if "json" in value else "text"


_PARAMETERS: Parameters = {
    **SAMPLING,
    "max_output_tokens": (names.MAX_TOKENS, count),
    "candidate_count": (names.CHOICE_COUNT, choice_count),
    "stop_sequences": (names.STOP_SEQUENCES, lambda value: words(list(_all(value)))),
    "response_mime_type": (names.OUTPUT_TYPE, _mime_type),
}


def _all(value: Any) -> Sequence[Any]:
    """Give a sequence of the SDKs' own kinds; of the caller's iterators nothing is taken."""
    is_list = isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))
    return value if is_list else ()


def _word(value: Any) -> str | None:
    """Give an enum's name in small letters; nothing for the value that says nothing."""
    name = getattr(value, "name", None)
    if not isinstance(name, str) or name.endswith("_UNSPECIFIED"):
        return None
    return name.lower()


def _turns(contents: Any) -> list[Any]:
    """Give the messages; loose parts that follow each other are one message of the user."""
    turns: list[Any] = []
    for item in _all(contents) or ([] if contents is None else [contents]):
        if field(item, "parts") is not None and not isinstance(item, str):
            turns.append(item)
        elif turns and isinstance(turns[-1], list):
            turns[-1].append(item)
        else:
            turns.append([item])
    return [{"role": "user", "parts": turn} if isinstance(turn, list) else turn for turn in turns]


def _input_message(turn: Any) -> Part:
    role = field(turn, "role")
    role = clean(role) if isinstance(role, str) and role else "user"
    parts = _parts(Room(), turn)
    if parts and all(part["type"] == "tool_call_response" for part in parts):
        role = "tool"
    return {"role": "assistant" if role == "model" else role, "parts": parts}


def _parts(room: Room, turn: Any) -> list[Part]:
    parts = field(turn, "parts")
    return [_part(room, part) for part in (_all(parts) or [parts])]


def _is_said(part: Any) -> bool:
    kinds = ("function_call", "function_response", "inline_data", "file_data")
    return any(field(part, kind) for kind in kinds)


def _part(room: Room, part: Any) -> Part:  # noqa: PLR0911  # a kind of part a line
    if isinstance(part, str):
        return text_part(room, part)
    text = field(part, "text")
    if isinstance(text, str) and text:
        kind = "reasoning" if field(part, "thought") is True else "text"
        return {"type": kind, "content": room.text(text)}
    call = field(part, "function_call")
    if call:
        name, arguments = room.text(field(call, "name") or ""), _plain(room, field(call, "args"))
        return {"type": "tool_call", "name": name, "arguments": arguments}
    answer = field(part, "function_response")
    if answer:
        return {"type": "tool_call_response", "response": _plain(room, field(answer, "response"))}
    data = field(part, "inline_data")
    if data:
        mime_type = field(data, "mime_type")
        return blob(_modality(mime_type), mime_type, field(data, "data"))
    file = field(part, "file_data")
    if file:
        modality = _modality(field(file, "mime_type"))
        return {
            "type": "uri",
            "modality": modality,
            "uri": room.text(field(file, "file_uri") or ""),
        }
    return {"type": "other", "content": room.plain(part)}


def _plain(room: Room, value: Any) -> Any:
    """Give arguments, which are no dict of Python's own in the older SDK."""
    return room.plain(dict(value) if isinstance(value, Mapping) else value)


def _modality(mime_type: Any) -> str:
    kind = mime_type.partition("/")[0] if isinstance(mime_type, str) else ""
    return kind if kind in ("image", "audio", "video") else "file"


def _tool(tool: Any) -> Any:
    if callable(tool):
        return {"name": str(getattr(tool, "__name__", type(tool).__name__))}
    return Room().plain(tool)
