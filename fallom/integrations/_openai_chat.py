"""Reading OpenAI's chat completions: requests, whole answers, streamed chunks."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

from fallom._core.span import AttributeValue
from fallom.integrations import _attributes as names
from fallom.integrations._content import (
    ATTRIBUTE_BYTES_MAX,
    MESSAGE_CHARACTERS_MAX,
    Part,
    Room,
    clean,
    encode_messages,
    encode_parts,
    field,
    getter,
    items,
)
from fallom.integrations._openai_chat_request import PARAMETERS, input_message, tool_call
from fallom.integrations._reading import (
    Answer,
    Gathered,
    blob,
    counts,
    model_of,
    parameters,
    text_part,
)

__all__ = ["ChatReader", "chat_usage"]

_TOOL_CALLS_MAX = 256  # in one message; a guard against a server's nonsense, not a known limit


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
        "_plain_text",
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
        self._plain_text: str | None = None  # of a whole answer that has nothing else
        self.model = model_of(body)
        self.failure = ""

    def request(self) -> dict[str, AttributeValue]:
        """Give the request's attributes."""
        body, self._body = self._body, None
        found = parameters(body, PARAMETERS)
        if self._content_captured:
            get = body.get if type(body) is dict else functools.partial(field, body)
            found[names.INPUT_MESSAGES] = encode_messages(get("messages"), input_message)
            tools = get("tools")
            if tools is not None and (tools := items(tools)):
                found[names.TOOL_DEFINITIONS] = encode_parts([Room().plain(t) for t in tools])
        return found

    def plain(self, piece: Any) -> bool:
        """Take a chunk that brings text to the first choice and nothing else, as nearly all do.

        Says no to any other, and has not taken it then. Looked at as others are, such a one takes ten
        times as long.
        """
        try:
            known = piece.__dict__
            (choice,) = known["choices"]
            chosen = choice.__dict__
            delta = chosen["delta"]
            said = delta.__dict__
            text = said["content"]
            answer = self._answer
            if (
                type(delta) is not self._plain
                or type(text) is not str
                or chosen["finish_reason"] is not None
                or known["usage"] is not None
                or chosen["index"] != 0
                or known["id"] != answer.id
                or known["model"] != answer.model
                or self._others(said) not in self._alone
                or delta.__pydantic_extra__  # reasoning, of other providers
            ):
                return False
        except (AttributeError, KeyError, TypeError, ValueError):  # another library's, or JSON
            return False
        gathered = self._text
        if gathered is not None:
            left = gathered.left - len(text)
            if left > 0:  # ``Gathered.add``, spelled out
                gathered.kept.append(text)
                gathered.left = left
            else:
                gathered.add(text)
        return True

    def piece(self, piece: Any) -> None:
        """Take a chunk."""
        self._take(piece, "delta")

    def whole(self, answer: Any) -> None:
        """Take a completion."""
        if not self._take_plain(answer):
            self._take(answer, "message")

    def _take_plain(self, completion: Any) -> bool:
        """Take a completion of one message of text alone, as most are; say no to any other.

        It comes to what ``_take`` does, which looks for all that there may be and takes twice as long.
        """
        try:
            known = completion.__dict__
            (choice,) = known["choices"]
            chosen = choice.__dict__
            message = chosen["message"]
            said = message.__dict__
            text, reason = said["content"], chosen["finish_reason"]
            identity, model, usage = known["id"], known["model"], known["usage"]
            is_plain = (
                type(text) is type(reason) is type(identity) is type(model) is str
                and 0 < len(text) <= MESSAGE_CHARACTERS_MAX
                and said["role"] == "assistant"
                and reason
                and f"{identity}{model}{reason}".isascii()  # nothing to be cleaned
                and not (message.__pydantic_extra__ or _is_more_said(said.get))
            )
        except (AttributeError, KeyError, TypeError, ValueError):  # another library's, or JSON
            return False
        if not is_plain:
            return False
        answer = self._answer
        answer.id, answer.model = identity[:256], model[:256]
        answer.reasons[0] = reason[:64]
        if usage is not None:
            answer.usage = chat_usage(usage)
        if self._content_captured:
            self._plain_text = text
        return True

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
        if self._plain_text is not None:
            said = self._answer.text_message(0, "assistant", self._plain_text)
            is_short = len(said) < ATTRIBUTE_BYTES_MAX // 4  # whatever UTF-8 makes of it
            found[names.OUTPUT_MESSAGES] = f"[{said}]" if is_short else encode_messages([said], str)
        elif self._content_captured and self._choices:
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
            self.role = clean(role)
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
        return tool_call(room, call)


def _is_more_said(get: Callable[[str], Any]) -> bool:
    """Say whether a message has anything beside its text of what ``_Choice`` takes."""
    return bool(
        get("tool_calls")
        or get("function_call")
        or get("refusal")
        or get("audio")
        or get("reasoning_content")
        or get("reasoning")
    )


def _is_named(call: Any) -> bool:
    return bool(field(field(call, "function") or field(call, "custom"), "name"))


def chat_usage(usage: Any) -> dict[str, AttributeValue]:
    """Give the token totals of a chat or text completion."""
    found: dict[str, AttributeValue] = {}
    counts(found, usage, _TOTALS)
    get = getter(usage)
    for name, attributes in _DETAILS:
        details = get(name)
        if details is not None:
            counts(found, details, attributes)
    return found


_TOTALS = {"prompt_tokens": names.INPUT_TOKENS, "completion_tokens": names.OUTPUT_TOKENS}
_DETAILS = (
    ("prompt_tokens_details", {"cached_tokens": names.CACHE_READ_TOKENS}),
    ("completion_tokens_details", {"reasoning_tokens": names.REASONING_TOKENS}),
)
