"""Chat completions through the real client: what the caller gets, and the span of it."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from fake_provider import Provider, Recording, chat_reply
from hypothesis import example, given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessage

from fallom._core.span import SpanKind, SpanStatus
from fallom.integrations._openai_chat import ChatReader
from fallom.integrations.openai import wrap_openai

MESSAGES: Any = [{"role": "user", "content": "Say hello"}]


@pytest.fixture
def bare(provider: Provider) -> Any:
    provider.always = chat_reply
    with openai.OpenAI(base_url=f"{provider.url}/v1", api_key="k", max_retries=0) as client:
        yield client


@pytest.fixture
async def abare(provider: Provider) -> Any:
    provider.always = chat_reply
    async with openai.AsyncOpenAI(
        base_url=f"{provider.url}/v1", api_key="k", max_retries=0
    ) as client:
        yield client


def create(client: Any, **over: Any) -> Any:
    return client.chat.completions.create(**{"model": "gpt-4o", "messages": MESSAGES, **over})


def test_create_gives_a_completion_and_one_span(
    bare: Any, provider: Provider, tracing: Recording
) -> None:
    completion = create(wrap_openai(bare, tracing), temperature=0.5, stop="x", seed=3)
    assert isinstance(completion, ChatCompletion)
    assert completion._request_id == "req_1"
    span = tracing.span
    assert span.name == "chat gpt-4o"
    assert span.kind == SpanKind.CLIENT
    assert span.status == SpanStatus.UNSET
    assert len(span.trace_id) == 16
    assert len(span.span_id) == 8
    assert span.parent_span_id == b""
    assert span.end_unix_ns > span.start_unix_ns
    attributes = dict(span.attributes)
    assert json.loads(str(attributes.pop("gen_ai.input.messages"))) == [
        {"role": "user", "parts": [{"type": "text", "content": "Say hello"}]}
    ]
    assert json.loads(str(attributes.pop("gen_ai.output.messages"))) == [
        {
            "role": "assistant",
            "parts": [{"type": "text", "content": "Hello there"}],
            "finish_reason": "stop",
        }
    ]
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.seed": 3,
        "gen_ai.request.stop_sequences": ["x"],
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.model": "gpt-4o-2024",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 20,
        "gen_ai.usage.output_tokens": 9,
        "gen_ai.usage.cache_read.input_tokens": 7,
        "gen_ai.usage.reasoning.output_tokens": 4,
        "server.address": "127.0.0.1",
        "server.port": int(provider.url.rpartition(":")[2]),
        "fallom.request_id": "req_1",
        "fallom.session_id": "s-1",
    }


def test_base_url_that_is_set_anew_is_told(
    bare: Any, provider: Provider, tracing: Recording
) -> None:
    client = wrap_openai(bare, tracing)
    create(client)
    client.base_url = provider.url.replace("127.0.0.1", "localhost") + "/v1"
    create(client)
    told = [span.attributes["server.address"] for span in tracing.spans]
    assert told == ["127.0.0.1", "localhost"]


def test_base_url_of_a_subclass_is_its_own(provider: Provider, tracing: Recording) -> None:
    class Rotating(openai.OpenAI):
        hosts = ("127.0.0.1", "localhost")

        @property
        def base_url(self) -> Any:
            return self._base_url.copy_with(host=self.hosts[len(provider.asked) % 2])

        @base_url.setter
        def base_url(self, url: Any) -> None:
            raise AssertionError

    provider.always = chat_reply
    with Rotating(base_url=f"{provider.url}/v1", api_key="k", max_retries=0) as bare:
        client = wrap_openai(bare, tracing)
        create(client)
        create(client)
    told = [span.attributes["server.address"] for span in tracing.spans]
    assert told == ["127.0.0.1", "localhost"]


def test_base_url_of_the_module_used_as_a_client_is_the_modules(
    provider: Provider, tracing: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.always = chat_reply
    monkeypatch.setattr(openai, "_client", None)
    monkeypatch.setattr(openai, "api_key", "k")
    monkeypatch.setattr(openai, "base_url", f"{provider.url}/v1")
    with openai._load_client() as bare:
        client = wrap_openai(bare, tracing)
        create(client)
        there = provider.url.replace("127.0.0.1", "localhost")
        monkeypatch.setattr(openai, "base_url", f"{there}/v1")
        create(client)
    told = [span.attributes["server.address"] for span in tracing.spans]
    assert told == ["127.0.0.1", "localhost"]


async def test_async_create_gives_a_completion_and_one_span(abare: Any, tracing: Recording) -> None:
    completion = await create(wrap_openai(abare, tracing))
    assert isinstance(completion, ChatCompletion)
    assert tracing.span.attributes["gen_ai.usage.input_tokens"] == 20


def test_stream_is_the_clients_own_and_gives_one_span(bare: Any, tracing: Recording) -> None:
    stream = create(wrap_openai(bare, tracing), stream=True)
    assert type(stream) is openai.Stream
    chunks = list(stream)
    assert all(isinstance(chunk, ChatCompletionChunk) for chunk in chunks)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello"
    attributes = tracing.span.attributes
    assert attributes["gen_ai.request.stream"] is True
    assert attributes["gen_ai.usage.input_tokens"] == 20
    assert attributes["gen_ai.usage.output_tokens"] == 9
    assert attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert 0 < float(str(attributes["gen_ai.response.time_to_first_chunk"])) < 60
    output = json.loads(str(attributes["gen_ai.output.messages"]))
    assert output[0]["parts"] == [{"type": "text", "content": "Hello"}]
    assert tracing.span.status == SpanStatus.UNSET


async def test_async_stream_is_the_clients_own_and_gives_one_span(
    abare: Any, tracing: Recording
) -> None:
    stream = await create(wrap_openai(abare, tracing), stream=True)
    assert type(stream) is openai.AsyncStream
    chunks = [chunk async for chunk in stream]
    assert len(chunks) == 4
    assert tracing.span.attributes["gen_ai.usage.output_tokens"] == 9
    assert tracing.span.attributes["gen_ai.response.finish_reasons"] == ["stop"]


PLAIN: Any = {"id": "c", "model": "m", "object": "chat.completion.chunk", "created": 1}
OTHER_DELTAS: list[Any] = [
    {"role": "assistant"},
    {"refusal": "no"},
    {"reasoning": "because"},
    {"reasoning_content": "because"},
    {"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f"}}]},
    {"function_call": {"name": "f", "arguments": "{}"}},
    {"audio": {"transcript": "said"}},
    {"content": None},
    {"content": "\ud800"},
]
OTHER_CHOICES: list[Any] = [{"index": 1}, {"index": -1}, {"finish_reason": "stop"}]
OTHER_CHUNKS: list[Any] = [
    {"id": "other"},
    {"model": ""},
    {"choices": []},
    {"usage": {"prompt_tokens": 1, "completion_tokens": 2}},
]


def chunk_of(delta: Any, choice: Any, chunk: Any) -> Any:
    only = {"index": 0, "delta": {"content": "word", **delta}, "finish_reason": None, **choice}
    return {**PLAIN, "choices": [only], **chunk}


def differing(others: list[Any]) -> Any:
    return st.just({}) | st.sampled_from(others)


CHUNKS = st.builds(
    chunk_of, differing(OTHER_DELTAS), differing(OTHER_CHOICES), differing(OTHER_CHUNKS)
)


@given(st.lists(CHUNKS, max_size=8), st.booleans())
@example([chunk_of({}, {}, {}), chunk_of({}, {"index": 1}, {})], True)
@example([chunk_of({}, {}, {}), chunk_of({}, {"finish_reason": "stop"}, {})], True)
@example([chunk_of({}, {}, {}), chunk_of({"reasoning": "because"}, {}, {})], True)
def test_the_short_way_to_read_a_chunk_reads_what_the_long_way_does(
    chunks: list[Any], content_captured: bool
) -> None:
    short, long = ChatReader({}, content_captured), ChatReader({}, content_captured)
    for chunk in chunks:
        made = ChatCompletionChunk.model_construct(**chunk)
        if not short.plain(made):
            short.piece(made)
        long.piece(chunk)
    assert short.answer(True) == long.answer(True)


@pytest.mark.parametrize("more", [{}, {"role": "assistant"}, {"refusal": None, "role": None}])
def test_chunks_that_bring_only_text_are_read_the_short_way(more: Any) -> None:
    reader = ChatReader({}, True)
    choice = {"index": 0, "delta": {"content": "word", **more}, "finish_reason": None}
    chunk = ChatCompletionChunk.model_validate(
        {"id": "c", "model": "m", "object": "chat.completion.chunk", "created": 1}
        | {"choices": [choice]}
    )
    assert not reader.plain(chunk)  # the first
    reader.piece(chunk)
    assert reader.plain(chunk)
    assert "wordword" in str(reader.answer(True)["gen_ai.output.messages"])


OTHER_MESSAGES: list[Any] = [
    *({"role": role} for role in ("", None, "developer", "\ud800")),
    *({"content": text} for text in (None, "", "a\nb", "\ud800", "x" * 70_000, ["part"], 1)),
    *({"content": one * 65_536} for one in ("x", "\x01", "\U0001f642")),  # up to 6 bytes each
    {"content": "see data:image/png;base64,aGVsbG8="},
    {"annotations": []},
    {"refusal": "no"},
    {"reasoning": "because"},
    {"reasoning_content": None},
    {"reasoning_content": "because"},
    {"tool_calls": [{"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
    {"tool_calls": []},
    {"function_call": {"name": "f", "arguments": "{}"}},
    {"audio": {"id": "a", "data": "YQ==", "expires_at": 1, "transcript": "said"}},
]
OTHER_ENDS: list[Any] = [
    *({"index": index} for index in (1, -1, None, False)),
    *({"finish_reason": reason} for reason in (None, "", "length", "tool_calls", 5, "\ud800")),
]
OTHER_COMPLETIONS: list[Any] = [
    {"choices": []},
    {"choices": None},
    *({"id": identity} for identity in (None, "", "c" * 300, 7, "\ud800")),
    *({"model": model} for model in (None, "", "m" * 300, "\ud800")),
    {"provider": "another"},
    {"usage": {"prompt_tokens": 1, "completion_tokens": True, "total_tokens": -1}},
    {"usage": {"prompt_tokens": 1 << 63, "completion_tokens": 2.0}},
    {"usage": {"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 1}}},
    {"usage": {"completion_tokens_details": {"reasoning_tokens": 3}, "cost": 0.1}},
]


def completion_of(message: Any, choice: Any, completion: Any, more: int) -> Any:
    said = {"role": "assistant", "content": "word", **message}
    only = {"index": 0, "message": said, "finish_reason": "stop", **choice}
    return {"id": "c", "model": "m", "choices": [only] * more, **completion}


@given(
    st.builds(
        completion_of,
        differing(OTHER_MESSAGES),
        differing(OTHER_ENDS),
        differing(OTHER_COMPLETIONS),
        st.sampled_from([1, 1, 1, 2]),
    ),
    st.booleans(),
)
@example(completion_of({}, {}, {}, 1), True)
@example(completion_of({"role": "\ud800"}, {}, {}, 1), True)
def test_the_short_way_to_read_a_completion_reads_what_the_long_way_does(
    completion: Any, content_captured: bool
) -> None:
    short, long = ChatReader({}, content_captured), ChatReader({}, content_captured)
    made = ChatCompletion.model_construct(**completion)
    short.whole(made)
    long._take(made, "message")
    read = short.answer(False)
    assert read == long.answer(False)
    assert content_captured or "gen_ai.output.messages" not in read


ALONE = [
    *(completion_of(message, {}, {}, 1) for message in OTHER_MESSAGES),
    *(completion_of({}, choice, {}, 1) for choice in OTHER_ENDS),
    *(completion_of({}, {}, completion, 1) for completion in OTHER_COMPLETIONS),
]


@pytest.mark.parametrize("completion", ALONE)
def test_what_one_field_more_says_is_read(completion: Any) -> None:
    short, long = ChatReader({}, True), ChatReader({}, True)
    made = ChatCompletion.model_construct(**completion)
    short.whole(made)
    long._take(made, "message")
    assert short.answer(False) == long.answer(False)


@pytest.mark.parametrize(
    "message", [{}, {"annotations": []}, {"refusal": None, "tool_calls": None}]
)
def test_completions_of_text_alone_are_read_the_short_way(
    message: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not set(message) <= set(ChatCompletionMessage.model_fields):
        pytest.skip("a message of this openai has no such field, and says it as an extra")
    monkeypatch.setattr(ChatReader, "_take", None)
    reader = ChatReader({}, True)
    reader.whole(ChatCompletion.model_construct(**completion_of(message, {}, {}, 1)))
    assert "word" in str(reader.answer(False)["gen_ai.output.messages"])
