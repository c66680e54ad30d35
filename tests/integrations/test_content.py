"""Whatever the caller's objects are, content becomes bounded JSON."""

from __future__ import annotations

import dataclasses
import enum
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import openai
import pydantic
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fallom.integrations._content import (
    ATTRIBUTE_BYTES_MAX,
    MESSAGE_CHARACTERS_MAX,
    Room,
    clean,
    encode_messages,
    encode_parts,
    field,
    masked,
    quoted,
    quoted_content,
)
from fallom.integrations._openai_chat import ChatReader
from fallom.integrations._openai_responses import ResponsesReader
from fallom.integrations._reading import Gathered, count, counts


def shown(messages: Any, reader: Any = ChatReader, name: str = "messages") -> Any:
    """The messages of a span, as a backend reads them."""
    found = reader({"model": "m", name: messages}, True).request()["gen_ai.input.messages"]
    found.encode()
    return json.loads(found)


class Turn(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    role: str
    content: Any


class Role(str, enum.Enum):
    USER = "user"


@dataclasses.dataclass
class Note:
    role: str
    content: str


def test_pydantic_and_dataclass_messages_are_read() -> None:
    messages = [Turn(role="user", content="one"), Note("user", "two")]
    assert [message["parts"][0]["content"] for message in shown(messages)] == ["one", "two"]


def test_an_enum_is_its_value() -> None:
    assert shown([{"role": Role.USER, "content": Role.USER}]) == [
        {"role": "user", "parts": [{"type": "text", "content": "user"}]}
    ]


def test_a_generator_is_not_consumed() -> None:
    def turns() -> Iterator[Any]:
        yield {"role": "user", "content": "one"}

    messages = turns()
    assert shown(messages) == []
    assert len(list(messages)) == 1
    texts = turns()
    assert shown([{"role": "user", "content": texts}])[0]["parts"] == [
        {"type": "other", "content": "[generator]"}
    ]
    assert len(list(texts)) == 1


def test_a_sentinel_is_not_said() -> None:
    omitted = getattr(openai, "omit", openai.NOT_GIVEN)
    body = {"model": "m", "messages": [], "temperature": openai.NOT_GIVEN, "stop": omitted}
    assert set(ChatReader(body, True).request()) == {"gen_ai.input.messages"}
    assert field({"a": omitted}, "a") is None


def test_values_of_the_wrong_kind_are_left_out() -> None:
    body = {
        "model": "m",
        "temperature": "hot",
        "top_p": float("nan"),
        "max_tokens": True,
        "seed": 1 << 70,
        "n": -1,
        "stop": object(),
    }
    assert ChatReader(body, False).request() == {}


@pytest.mark.parametrize("body", [None, [], "text", 7, b"bytes", {"messages": 5}, {"model": None}])
def test_a_body_of_any_kind_is_read(body: Any) -> None:
    for reader in (ChatReader, ResponsesReader):
        assert reader(body, True).request()["gen_ai.input.messages"] == "[]"


def test_bytes_paths_and_strangers_are_named() -> None:
    content = {
        "file": b"x" * 9,
        "path": pathlib.Path("/etc/x"),
        "thing": object(),
        "nan": float("nan"),
    }
    assert Room().plain(content) == {
        "file": "[bytes: 9]",
        "path": "/etc/x",
        "thing": "[object]",
        "nan": "nan",
    }


def test_a_cycle_ends() -> None:
    loop: Any = {"name": "loop"}
    loop["self"] = [loop, loop]
    assert "[cut]" in json.dumps(Room().plain(loop))
    wide: Any = []
    wide += [wide] * 1_000
    assert len(json.dumps(Room().plain(wide))) < 100_000


def test_a_lone_surrogate_becomes_what_utf8_can_carry() -> None:
    assert shown([{"role": "user", "content": "a\ud800b"}])[0]["parts"][0]["content"] == "a?b"
    assert clean("\udfff") == "?"


@pytest.mark.parametrize("before", ["", "y" * 1000])
def test_a_text_that_was_gathered_from_pieces_says_once_how_much_of_it_is_missing(
    before: str,
) -> None:
    gathered, room = Gathered(), Room()
    for _ in range(70):
        gathered.add("x" * 1000)
    room.text(before)
    kept = MESSAGE_CHARACTERS_MAX - len(before)
    assert room.text(str(gathered)) == "x" * kept + f"[cut: {70_000 - kept} characters]"


def test_a_long_text_is_cut_and_says_so() -> None:
    text = "x" * (MESSAGE_CHARACTERS_MAX + 10)
    content = shown([{"role": "user", "content": text}])[0]["parts"][0]["content"]
    assert content == "x" * MESSAGE_CHARACTERS_MAX + "[cut: 10 characters]"


def test_parts_of_a_message_share_its_limit() -> None:
    part = {"type": "text", "text": "x" * (MESSAGE_CHARACTERS_MAX - 1)}
    (message,) = shown([{"role": "user", "content": [part, part]}])
    assert message["parts"][1]["content"] == f"x[cut: {MESSAGE_CHARACTERS_MAX - 2} characters]"


def test_the_newest_messages_are_kept() -> None:
    messages = [{"role": "user", "content": f"{n} " + "ü" * 20_000} for n in range(20)]
    found = shown(messages)
    texts = [message["parts"][0]["content"] for message in found]
    assert texts[0] == "[cut: 14 messages]"
    assert [text.split()[0] for text in texts[1:]] == [str(n) for n in range(14, 20)]


def test_a_message_of_escapes_stays_below_the_limit() -> None:
    messages = [{"role": "user", "content": "\0" * MESSAGE_CHARACTERS_MAX}]
    assert shown(messages)[0]["parts"][0]["content"] == "[cut: 1 messages]"


def test_definitions_stay_below_the_limit() -> None:
    found = encode_parts([{"name": str(n), "text": "x" * 1_000} for n in range(1_000)])
    assert len(found.encode()) < ATTRIBUTE_BYTES_MAX + 200
    assert "parts]" in json.loads(found)[-1]["content"]


IMAGE = "data:image/png;base64," + "QUJD" * 100


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (
            {"type": "image_url", "image_url": {"url": IMAGE}},
            {
                "type": "blob",
                "modality": "image",
                "mime_type": "image/png",
                "content": f"[cut: {len(IMAGE)} characters]",
            },
        ),
        (
            {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
            {"type": "uri", "modality": "image", "uri": "https://x/y.png"},
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
            {
                "type": "blob",
                "modality": "audio",
                "mime_type": "audio/wav",
                "content": "[cut: 4 characters]",
            },
        ),
        (
            {"type": "file", "file": {"file_id": "file_1"}},
            {"type": "file", "modality": "file", "file_id": "file_1"},
        ),
        (
            {"type": "text", "text": f"see ![]({IMAGE}) there"},
            {
                "type": "text",
                "content": f"see ![]([data URL: image/png, {len(IMAGE)} characters]) there",
            },
        ),
        (
            {"type": "new_kind", "blob": "QUJD" * 500},
            {"type": "other", "content": {"type": "new_kind", "blob": "[base64: 2000 characters]"}},
        ),
    ],
)
def test_files_leave_only_their_kind_and_size(part: Any, expected: Any) -> None:
    assert shown([{"role": "user", "content": [part]}])[0]["parts"] == [expected]


def test_a_tool_loop_has_its_parts() -> None:
    function = {"name": "look", "arguments": '{"at": "sky"}'}
    call = {"id": "c_1", "type": "function", "function": function}
    found = shown(
        [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c_1", "content": "blue"},
        ]
    )
    assert found == [
        {
            "role": "assistant",
            "parts": [
                {"type": "tool_call", "id": "c_1", "name": "look", "arguments": {"at": "sky"}}
            ],
        },
        {
            "role": "tool",
            "parts": [{"type": "tool_call_response", "id": "c_1", "response": "blue"}],
        },
    ]


NAMES = ("role", "type", "content", "text", "tool_calls", "function", "image_url")
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
    | st.just(object())
    | st.just(openai.NOT_GIVEN),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(), inner)
        | st.fixed_dictionaries(
            {},
            optional={name: inner for name in NAMES},  # noqa: C420  # one strategy each
        )
    ),
    max_leaves=20,
)


@given(anything)
def test_anything_becomes_json_that_utf8_can_carry(value: Any) -> None:
    json.loads(json.dumps(Room().plain(value), allow_nan=False, ensure_ascii=False).encode())
    for reader in (ChatReader, ResponsesReader):
        for name in ("messages", "input"):
            for body in ({name: value}, {name: [value]}, value):
                for said in reader(body, True).request().values():
                    if isinstance(said, str):
                        said.encode()


@given(anything)
def test_any_answer_is_read(value: Any) -> None:
    for reader in (ChatReader, ResponsesReader):
        whole = reader({}, True)
        whole.whole(value)
        whole.answer(False)
        pieces = reader({}, True)
        pieces.piece(value)
        pieces.piece({"choices": [{"delta": value}], "usage": value})
        pieces.answer(True)


@given(st.integers() | st.booleans() | st.floats() | st.text() | st.none())
@example((1 << 63) - 1)
@example(1 << 63)
def test_counts_are_those_that_can_be_counted_to(value: Any) -> None:
    found: dict[str, Any] = {}
    counts(found, {"a": value}, {"a": "b"})
    assert found == ({} if count(value) is None else {"b": count(value)})
    assert [type(each) for each in found.values()] in ([], [int])


def test_messages_that_build_to_nothing_are_left_out() -> None:
    assert encode_messages([1, 2], lambda item: None) == "[]"


@given(st.text(st.characters(exclude_categories=())), st.booleans())
@example('"', True)
@example("\\", True)
@example("\x1f\x7f\u2028\ud800", True)
def test_a_text_is_quoted_as_the_encoder_quotes_it(text: str, is_long: bool) -> None:
    text = "a" * 300 * is_long + text
    assert quoted(text) == json.dumps(text, ensure_ascii=False)


@given(st.sampled_from(["user", "assistant", "system", "developer", "tool", "other"]), st.text())
def test_a_plain_message_has_the_json_of_any_other(role: str, text: str) -> None:
    message = {"role": role, "content": text}
    for reader, name in ((ChatReader, "messages"), (ResponsesReader, "input")):
        other = {**message, "name": None}  # looked at field by field
        assert shown([message], reader, name) == shown([other], reader, name)


@given(
    st.text(st.characters(exclude_categories=()))
    | st.sampled_from(["data:image/png;base64,aGVsbG8=", "a;b", "x" * 70_000]),
    st.booleans(),
)
def test_content_is_quoted_as_its_room_gives_it(text: str, is_masked: bool) -> None:
    with masked(str.upper if is_masked else None):
        assert quoted_content(text) == quoted(Room().text(text))
