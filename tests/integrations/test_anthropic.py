"""Anthropic's calls through the real client: its objects, its bytes, one span."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pydantic
import pytest
from fake_provider import Asked, Provider, Recording, Reply

from fallom._core.span import SpanStatus
from fallom.integrations.anthropic import wrap_anthropic

MESSAGES: Any = [{"role": "user", "content": "Say hello"}]
REQUEST: Any = {"model": "claude", "max_tokens": 64, "messages": MESSAGES}
MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-2026",
    "content": [{"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 20,
        "cache_creation_input_tokens": 5,
        "cache_read_input_tokens": 7,
        "output_tokens": 9,
    },
}


def events(*, finish: bool = True) -> list[Any]:
    begun = {**MESSAGE, "content": [], "stop_reason": None}
    begun["usage"] = {**MESSAGE["usage"], "output_tokens": 1}
    found: list[Any] = [
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
    ]
    if finish:
        found += [
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                "usage": {"output_tokens": 9},
            },
            {"type": "message_stop"},
        ]
    return found


def answer(asked: Asked) -> Reply:
    if asked.path.startswith("/v1/messages/count_tokens"):
        return Reply({"input_tokens": 33})
    if asked.json.get("stream"):
        return Reply(events=events(), named=True)
    return Reply(MESSAGE)


@pytest.fixture
def bare(provider: Provider) -> Any:
    provider.always = answer
    with anthropic.Anthropic(base_url=provider.url, api_key="k", max_retries=0) as client:
        yield client


@pytest.fixture
async def abare(provider: Provider) -> Any:
    provider.always = answer
    async with anthropic.AsyncAnthropic(
        base_url=provider.url, api_key="k", max_retries=0
    ) as client:
        yield client


@pytest.fixture
def client(bare: Any, tracing: Recording) -> Any:
    return wrap_anthropic(bare, tracing)


@pytest.fixture
def aclient(abare: Any, tracing: Recording) -> Any:
    return wrap_anthropic(abare, tracing)


def typed_stream(client: Any) -> Any:
    with client.messages.stream(**REQUEST) as stream:
        texts = list(stream.text_stream)
    return [texts, stream.get_final_message()]


def streamed_lines(client: Any) -> Any:
    with client.messages.with_streaming_response.create(**REQUEST, stream=True) as response:
        return list(response.iter_lines())


SHAPES: dict[str, Any] = {
    "create": lambda c: c.messages.create(**REQUEST),
    "stream": lambda c: list(c.messages.create(**REQUEST, stream=True)),
    "typed stream": typed_stream,
    "raw": lambda c: c.messages.with_raw_response.create(**REQUEST).parse(),
    "raw stream": lambda c: list(
        c.messages.with_raw_response.create(**REQUEST, stream=True).parse()
    ),
    "streaming raw stream": streamed_lines,
    "beta": lambda c: c.beta.messages.create(**REQUEST),
    "beta stream": lambda c: list(c.beta.messages.create(**REQUEST, stream=True)),
}


def plain(value: Any) -> Any:
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, pydantic.BaseModel):
        return [type(value), value.model_dump(exclude_unset=True)]
    return value


@pytest.mark.parametrize("shape", SHAPES)
def test_shape_gives_what_the_bare_client_gives_and_one_span(
    shape: str, bare: Any, client: Any, provider: Provider, tracing: Recording
) -> None:
    expected = plain(SHAPES[shape](bare))
    assert plain(SHAPES[shape](client)) == expected
    first, second = provider.asked
    assert (first.path, first.body) == (second.path, second.body)
    for headers in (first.headers, second.headers):
        headers.pop("idempotency-key", None)
    assert first.headers == second.headers
    span = tracing.span
    assert span.name == "chat claude"
    assert span.status == SpanStatus.UNSET
    attributes = dict(span.attributes)
    for name in ("server.port", "gen_ai.request.stream", "gen_ai.response.time_to_first_chunk"):
        attributes.pop(name, None)
    assert json.loads(str(attributes.pop("gen_ai.input.messages"))) == [
        {"role": "user", "parts": [{"type": "text", "content": "Say hello"}]}
    ]
    assert json.loads(str(attributes.pop("gen_ai.output.messages"))) == [
        {
            "role": "assistant",
            "parts": [{"type": "text", "content": "Hello"}],
            "finish_reason": "stop",
        }
    ]
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "claude",
        "gen_ai.request.max_tokens": 64,
        "gen_ai.response.id": "msg_1",
        "gen_ai.response.model": "claude-2026",
        "gen_ai.response.finish_reasons": ["end_turn"],
        "gen_ai.usage.input_tokens": 32,
        "gen_ai.usage.output_tokens": 9,
        "gen_ai.usage.cache_read.input_tokens": 7,
        "gen_ai.usage.cache_creation.input_tokens": 5,
        "gen_ai.usage.cache_write.input_tokens": 5,
        "server.address": "127.0.0.1",
        "fallom.request_id": "req_1",
        "fallom.session_id": "s-1",
    }


@pytest.mark.parametrize("shape", SHAPES)
def test_private_shape_holds_no_content(shape: str, bare: Any, private: Recording) -> None:
    SHAPES[shape](wrap_anthropic(bare, private))
    shown = repr(private.span._replace(trace_id=b"", span_id=b""))  # random, may say anything
    assert "hello" not in shown.lower()
    assert "messages" not in shown
    assert private.span.attributes["gen_ai.usage.input_tokens"] == 32


def test_stream_is_the_clients_own(client: Any, tracing: Recording) -> None:
    stream = client.messages.create(**REQUEST, stream=True)
    assert type(stream) is anthropic.Stream
    with stream:
        next(stream)
        next(stream)
        assert next(stream).delta.text == "Hel"
    assert tracing.span.attributes["gen_ai.response.finish_reasons"] == ["error"]
    assert tracing.span.attributes["gen_ai.usage.input_tokens"] == 32
    (message,) = json.loads(str(tracing.span.attributes["gen_ai.output.messages"]))
    assert message["parts"] == [{"type": "text", "content": "Hel"}]


def test_typed_stream_that_is_left_gives_its_part(client: Any, tracing: Recording) -> None:
    with client.messages.stream(**REQUEST) as stream:
        assert next(iter(stream.text_stream)) == "Hel"
    (message,) = json.loads(str(tracing.span.attributes["gen_ai.output.messages"]))
    assert message["parts"] == [{"type": "text", "content": "Hel"}]
    assert message["finish_reason"] == "error"


def test_dropped_stream_gives_its_part(client: Any, tracing: Recording) -> None:
    next(client.messages.create(**REQUEST, stream=True))
    tracing.wait()
    assert tracing.span.attributes["gen_ai.response.id"] == "msg_1"


def test_error_event_raises_and_gives_its_part(
    client: Any, provider: Provider, tracing: Recording
) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    provider.queue = [Reply(events=[*events(finish=False), error], named=True)]
    with pytest.raises(anthropic.APIStatusError):
        list(client.messages.create(**REQUEST, stream=True))
    assert tracing.span.attributes["error.type"] == "overloaded_error"
    assert tracing.span.status == SpanStatus.ERROR
    assert tracing.span.attributes["gen_ai.response.finish_reasons"] == ["error"]


def test_refused_call_raises_as_it_would(
    client: Any, provider: Provider, tracing: Recording
) -> None:
    error = {"type": "error", "error": {"type": "rate_limit_error", "message": "slow"}}
    provider.always = Reply(error, status=429, headers={"retry-after-ms": "1"})
    with pytest.raises(anthropic.RateLimitError):
        client.with_options(max_retries=1).messages.create(**REQUEST)
    assert tracing.span.attributes["error.type"] == "rate_limit_error"
    assert tracing.span.attributes["fallom.retries"] == 1


def test_tokens_are_counted(client: Any, tracing: Recording) -> None:
    if not hasattr(client.messages, "count_tokens"):
        pytest.skip("this anthropic counts no tokens")
    assert client.messages.count_tokens(model="claude", messages=MESSAGES).input_tokens == 33
    assert tracing.span.name == "count_tokens claude"
    assert tracing.span.attributes["gen_ai.usage.input_tokens"] == 33


def test_parse_gives_the_callers_type(client: Any, provider: Provider, tracing: Recording) -> None:
    if not hasattr(client.messages, "parse"):
        pytest.skip("this anthropic has no messages.parse")

    class Greeting(pydantic.BaseModel):
        text: str

    content = [{"type": "text", "text": '{"text": "Hi"}'}]
    provider.queue = [Reply({**MESSAGE, "content": content})]
    parsed = client.messages.parse(**REQUEST, output_format=Greeting)
    assert parsed.parsed_output == Greeting(text="Hi")
    assert tracing.span.attributes["gen_ai.output.type"] == "json"


def test_tool_loop_has_its_parts(client: Any, provider: Provider, tracing: Recording) -> None:
    use = {"type": "tool_use", "id": "tu_1", "name": "look", "input": {"at": "sky"}}
    thinking = {"type": "thinking", "thinking": "hm", "signature": "x"}
    message = {**MESSAGE, "content": [thinking, use], "stop_reason": "tool_use"}
    provider.queue = [Reply(message)]
    first = client.messages.create(**REQUEST)
    tracing.spans.clear()
    image = {"type": "base64", "media_type": "image/png", "data": "QUJD" * 500}
    result = [{"type": "text", "text": "blue"}, {"type": "image", "source": image}]
    client.messages.create(
        model="claude",
        max_tokens=64,
        system=[{"type": "text", "text": "Be kind"}],
        tools=[{"name": "look", "input_schema": {"type": "object"}}],
        messages=[
            *MESSAGES,
            {"role": "assistant", "content": first.content},  # pydantic blocks, as callers do
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "tu_1", "content": result}],
            },
        ],
    )
    attributes = tracing.span.attributes
    blob = {"type": "blob", "modality": "image", "mime_type": "image/png"}
    text = {"type": "text", "content": "blue"}
    response = [text, {**blob, "content": "[cut: 2000 characters]"}]
    assert json.loads(str(attributes["gen_ai.input.messages"]))[1:] == [
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "hm"},
                {"type": "tool_call", "id": "tu_1", "name": "look", "arguments": {"at": "sky"}},
            ],
        },
        {
            "role": "tool",
            "parts": [{"type": "tool_call_response", "id": "tu_1", "response": response}],
        },
    ]
    assert "Be kind" in str(attributes["gen_ai.system_instructions"])
    assert "input_schema" in str(attributes["gen_ai.tool.definitions"])


async def test_async_shapes_give_one_span_each(aclient: Any, tracing: Recording) -> None:
    message = await aclient.messages.create(**REQUEST)
    assert message.content[0].text == "Hello"
    stream = await aclient.messages.create(**REQUEST, stream=True)
    assert type(stream) is anthropic.AsyncStream
    assert len([event async for event in stream]) == 7
    async with aclient.messages.stream(**REQUEST) as typed:
        assert [text async for text in typed.text_stream] == ["Hel", "lo"]
    async with aclient.messages.stream(**REQUEST) as typed:
        async for _ in typed:
            break
    assert tracing.given_up == []
    assert [span.attributes["gen_ai.response.finish_reasons"] for span in tracing.spans] == [
        ["end_turn"],
        ["end_turn"],
        ["end_turn"],
        ["error"],
    ]
    assert [span.attributes["gen_ai.usage.input_tokens"] for span in tracing.spans] == [32] * 4


def test_middleware_of_the_client_sees_traced_calls(client: Any, tracing: Recording) -> None:
    if not hasattr(client, "with_middleware"):
        pytest.skip("this anthropic has no middleware")
    seen = []

    def middleware(request: Any, call_next: Any) -> Any:
        seen.append(request)
        return call_next(request)

    client.with_middleware(middleware).messages.create(**REQUEST)
    assert len(seen) == 1
    assert len(tracing.spans) == 1
