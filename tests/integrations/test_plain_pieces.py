"""Pieces of text are taken from streams by a short way, which comes to what the long way does."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic.types import RawContentBlockDeltaEvent, RawContentBlockStartEvent, TextDelta
from hypothesis import example, given
from hypothesis import strategies as st

from fallom.integrations._anthropic_messages import MessagesReader
from fallom.integrations._openai_responses import ResponsesReader

responses = pytest.importorskip("openai.types.responses", reason="this openai has none")
INDEXES: Any = st.sampled_from([0, 0, 0, 1, 5, -1, None, "0", 0.0, True, []])
TEXTS = st.sampled_from(["word", "", "\ud800", None, 1, "x" * 40_000])


def read(reader: Any, pieces: list[Any], is_short: bool) -> Any:
    for piece in pieces:
        if not (is_short and reader.plain(piece)):
            reader.piece(piece)
    return reader.answer(True)


def block_start(index: Any, text: Any) -> Any:
    return RawContentBlockStartEvent.model_construct(
        type="content_block_start", index=index, content_block={"type": "text", "text": text}
    )


def block_delta(index: Any, delta: Any) -> Any:
    return RawContentBlockDeltaEvent.model_construct(
        type="content_block_delta", index=index, delta=delta
    )


ANTHROPIC_DELTAS = st.builds(
    lambda text, more: {"type": "text_delta", "text": text, **more},
    TEXTS,
    st.sampled_from([{}, {}, {"thinking": "because"}, {"partial_json": "{"}, {"more": 1}]),
) | st.sampled_from(
    [
        {"type": "thinking_delta", "thinking": "because"},
        {"type": "input_json_delta", "partial_json": "{}"},
        {"type": "unknown"},
        None,
    ]
)


@given(
    st.lists(st.builds(block_delta, INDEXES, ANTHROPIC_DELTAS), max_size=8),
    st.booleans(),
)
@example([block_delta(0, {"type": "text_delta", "text": "word", "thinking": "because"})], True)
@example([block_delta(0.0, {"type": "text_delta", "text": "word"})], True)
def test_the_short_way_reads_a_messages_events_as_the_long_way(
    deltas: list[Any], content_captured: bool
) -> None:
    pieces = [block_start(0, ""), *deltas, block_start(1, "a"), *deltas]
    short, long = (MessagesReader({}, content_captured) for _ in range(2))
    assert read(short, pieces, True) == read(long, pieces, False)


def test_a_delta_that_has_more_than_text_is_not_taken_by_the_short_way() -> None:
    class Both(TextDelta):
        thinking: str

    piece = block_delta(0, None)
    piece.__dict__["delta"] = Both(type="text_delta", text="a", thinking="b")
    reader = MessagesReader({}, True)
    reader.piece(block_start(0, ""))
    assert not reader.plain(piece)


def item_added(index: Any) -> Any:
    return responses.ResponseOutputItemAddedEvent.model_construct(
        type="response.output_item.added", output_index=index, item={"type": "message"}
    )


def text_delta(index: Any, text: Any) -> Any:
    return responses.ResponseTextDeltaEvent.model_construct(
        type="response.output_text.delta", output_index=index, content_index=0, delta=text
    )


@given(st.lists(st.builds(text_delta, INDEXES, TEXTS), max_size=8), st.booleans())
@example([text_delta(0.0, "word")], True)
def test_the_short_way_reads_a_responses_events_as_the_long_way(
    deltas: list[Any], content_captured: bool
) -> None:
    pieces = [item_added(0), *deltas, item_added(1), *deltas]
    short, long = (ResponsesReader({}, content_captured) for _ in range(2))
    assert read(short, pieces, True) == read(long, pieces, False)


@pytest.mark.parametrize(
    ("reader", "begin", "text"),
    [
        (MessagesReader, block_start(0, ""), block_delta(0, {"type": "text_delta", "text": "a"})),
        (ResponsesReader, item_added(0), text_delta(0, "a")),
    ],
)
def test_text_is_taken_by_the_short_way_once_it_has_begun(
    reader: Any, begin: Any, text: Any
) -> None:
    one = reader({}, True)
    assert not one.plain(text)
    assert not one.plain(begin)
    one.piece(begin)
    assert one.plain(text)
    private = reader({}, False)
    private.piece(begin)
    assert not private.plain(text)
