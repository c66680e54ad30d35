"""Every shape of OpenAI's calls through the real client: its objects, its bytes, one span."""

from __future__ import annotations

import json
from typing import Any

import openai
import pydantic
import pytest
from fake_provider import (
    Asked,
    Provider,
    Recording,
    Reply,
    chat_chunks,
    chat_completion,
    chat_reply,
)

from fallom._core.span import SpanStatus
from fallom.integrations.openai import wrap_openai

MESSAGES: Any = [{"role": "user", "content": "Say hello"}]


class Greeting(pydantic.BaseModel):
    text: str


RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "model": "gpt-5-2026",
    "status": "completed",
    "error": None,
    "incomplete_details": None,
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "output": [
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": '{"text": "Hi"}', "annotations": []}],
        },
        {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "call_1",
            "name": "look",
            "arguments": '{"at": "sky"}',
            "status": "completed",
        },
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": None},
    ],
    "usage": {
        "input_tokens": 30,
        "input_tokens_details": {"cached_tokens": 10, "cache_write_tokens": None},
        "output_tokens": 12,
        "output_tokens_details": {"reasoning_tokens": 5},
        "total_tokens": 42,
    },
}


def response_events(end: str = "completed", **over: Any) -> list[Any]:
    begun = {**RESPONSE, "status": "in_progress", "output": [], "usage": None}
    item = {**RESPONSE["output"][1], "content": [], "status": "in_progress"}
    part = {"type": "output_text", "text": "", "annotations": []}
    place: Any = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    text = '{"text": "Hi"}'
    done = {**part, "text": text}
    events = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.content_part.added", **place, "part": part},
        {"type": "response.output_text.delta", **place, "delta": text[:8], "logprobs": []},
        {"type": "response.output_text.delta", **place, "delta": text[8:], "logprobs": []},
        {"type": "response.output_text.done", **place, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **place, "part": done},
        {"type": "response.output_item.done", "output_index": 0, "item": RESPONSE["output"][1]},
    ]
    final = {**RESPONSE, "output": RESPONSE["output"][1:2], "status": end, **over}
    events.append({"type": f"response.{end}", "response": final})
    return [{**event, "sequence_number": n} for n, event in enumerate(events)]


def answer(asked: Asked) -> Reply:
    path = asked.path.partition("?")[0]
    if path.endswith("/chat/completions"):
        return chat_reply(asked)
    if path.endswith("/responses"):
        if asked.json.get("stream"):
            return Reply(events=response_events(), named=True)
        return Reply(RESPONSE)
    if path.endswith("/embeddings"):
        vector = {"object": "embedding", "index": 0, "embedding": [0.5, 0.25, 1.0]}
        usage = {"prompt_tokens": 5, "total_tokens": 5}
        return Reply({"object": "list", "model": "emb-1", "data": [vector], "usage": usage})
    if "/images/" in path:
        usage = {"input_tokens": 11, "output_tokens": 99, "total_tokens": 110}
        return Reply({"created": 1, "data": [{"b64_json": "QUJD" * 999}], "usage": usage})
    if path.endswith("/audio/speech"):
        return Reply(b"sound" * 1000, headers={"content-type": "audio/mpeg"})
    if path.endswith("/audio/transcriptions"):
        return Reply({"text": "spoken words"})
    if path.endswith("/completions"):
        return Reply(
            {
                "id": "cmpl-1",
                "object": "text_completion",
                "created": 1,
                "model": "instruct",
                "choices": [{"text": "then", "index": 0, "finish_reason": "length"}],
                "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
            }
        )
    return Reply({"error": {"message": f"no such path {path}"}}, status=404)


@pytest.fixture
def bare(provider: Provider) -> Any:
    provider.always = answer
    with openai.OpenAI(base_url=f"{provider.url}/v1", api_key="k", max_retries=0) as client:
        yield client


@pytest.fixture
async def abare(provider: Provider) -> Any:
    provider.always = answer
    async with openai.AsyncOpenAI(
        base_url=f"{provider.url}/v1", api_key="k", max_retries=0
    ) as client:
        yield client


@pytest.fixture
def client(bare: Any, tracing: Recording) -> Any:
    return wrap_openai(bare, tracing)


@pytest.fixture
def aclient(abare: Any, tracing: Recording) -> Any:
    return wrap_openai(abare, tracing)


def output_of(tracing: Recording) -> Any:
    return json.loads(str(tracing.span.attributes["gen_ai.output.messages"]))


def raw_stream(client: Any) -> Any:
    return client.chat.completions.with_raw_response.create(
        model="m", messages=MESSAGES, stream=True
    )


def typed_stream(client: Any) -> Any:
    with client.chat.completions.stream(model="m", messages=MESSAGES) as stream:
        kinds = [event.type for event in stream]
    return [kinds, stream.get_final_completion()]


def streamed_body(client: Any) -> Any:
    with client.chat.completions.with_streaming_response.create(
        model="m", messages=MESSAGES
    ) as response:
        return response.read()


def streamed_lines(client: Any) -> Any:
    with client.chat.completions.with_streaming_response.create(
        model="m", messages=MESSAGES, stream=True
    ) as response:
        return list(response.iter_lines())


def responses_stream(client: Any) -> Any:
    with client.responses.stream(model="m", input="Hi", text_format=Greeting) as stream:
        kinds = [event.type for event in stream]
    return [kinds, stream.get_final_response().output_parsed]


def speech_to_file(client: Any) -> Any:
    with client.audio.speech.with_streaming_response.create(
        model="tts", voice="alloy", input="Say it"
    ) as response:
        return b"".join(response.iter_bytes())


SHAPES: dict[str, tuple[Any, str]] = {
    "create": (lambda c: c.chat.completions.create(model="m", messages=MESSAGES), "chat m"),
    "raw": (
        lambda c: c.chat.completions.with_raw_response.create(model="m", messages=MESSAGES).parse(),
        "chat m",
    ),
    "raw stream": (lambda c: list(raw_stream(c).parse()), "chat m"),
    "streaming raw": (streamed_body, "chat m"),
    "streaming raw stream": (streamed_lines, "chat m"),
    "typed stream": (typed_stream, "chat m"),
    "responses": (lambda c: c.responses.create(model="m", input="Hi"), "chat m"),
    "responses streamed": (
        lambda c: list(c.responses.create(model="m", input="Hi", stream=True)),
        "chat m",
    ),
    "responses typed stream": (responses_stream, "chat m"),
    "responses parse": (
        lambda c: c.responses.parse(model="m", input="Hi", text_format=Greeting).output_parsed,
        "chat m",
    ),
    "embeddings": (lambda c: c.embeddings.create(model="e", input=["a"]), "embeddings e"),
    "embeddings as floats": (
        lambda c: c.embeddings.create(model="e", input="a", encoding_format="float"),
        "embeddings e",
    ),
    "image": (
        lambda c: c.images.generate(model="i", prompt="A cat"),
        "generate_content i",
    ),
    "image edit": (
        lambda c: c.images.edit(model="i", prompt="A cat", image=b"\x89PNG"),
        "generate_content i",
    ),
    "speech": (
        lambda c: c.audio.speech.create(model="tts", voice="alloy", input="Say it").content,
        "generate_content tts",
    ),
    "speech streamed": (speech_to_file, "generate_content tts"),
    "transcription": (
        lambda c: c.audio.transcriptions.create(model="whisper", file=b"RIFF").text,
        "generate_content whisper",
    ),
    "legacy completion": (
        lambda c: c.completions.create(model="old", prompt="Now and"),
        "text_completion old",
    ),
}


def plain(value: Any) -> Any:
    """What can be compared of a result. Two runs differ in nothing else."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, pydantic.BaseModel):
        return [type(value), value.model_dump(exclude_unset=True)]
    return value


def is_same_but_for_usage(first: Asked, second: Asked) -> bool:
    """Whether two bodies are the same bytes, or would be without the option for usage."""
    if b"stream_options" not in second.body:
        return first.body == second.body
    body = second.json
    assert body.pop("stream_options") == {"include_usage": True}
    # Which separators there are between is the client's business: both times the same.
    return json.dumps(first.json) == json.dumps(body)


def needs(client: Any, shape: str) -> None:
    """Skip a shape that this version of the client does not have."""
    if shape.startswith("responses") and not hasattr(client, "responses"):
        pytest.skip("this openai has no responses")
    if shape == "typed stream" and not hasattr(client.chat.completions, "stream"):
        pytest.skip("this openai has no chat.completions.stream")


@pytest.mark.parametrize("shape", SHAPES)
def test_shape_gives_what_the_bare_client_gives_and_one_span(
    shape: str, bare: Any, client: Any, provider: Provider, tracing: Recording
) -> None:
    needs(bare, shape)
    run, name = SHAPES[shape]
    expected = plain(run(bare))
    assert plain(run(client)) == expected
    assert tracing.span.name == name
    assert tracing.span.status == SpanStatus.UNSET
    first, second = provider.asked
    assert first.path == second.path
    if "multipart" in first.headers["content-type"]:  # has a random boundary
        assert len(first.body) == len(second.body)
    else:
        assert is_same_but_for_usage(first, second)
    varying = ("content-length", "content-type", "idempotency-key", "x-stainless-idempotency-key")
    for headers in (first.headers, second.headers):
        for header in varying:
            headers.pop(header, None)
    assert first.headers == second.headers


@pytest.mark.parametrize("shape", SHAPES)
def test_private_shape_holds_no_content(shape: str, bare: Any, private: Recording) -> None:
    needs(bare, shape)
    run, _ = SHAPES[shape]
    run(wrap_openai(bare, private))
    shown = repr(
        private.span._replace(trace_id=b"", span_id=b"")
    ).lower()  # random, may say anything
    for word in ("say", "hel", "hi", "cat", "spoken", "now and", "then", "messages"):
        assert f"'{word}" not in shown
        assert f"{word}'" not in shown
        assert f'"{word}' not in shown


def test_raw_response_is_the_clients_own(client: Any, tracing: Recording) -> None:
    raw = client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES)
    assert type(raw).__name__ in ("LegacyAPIResponse", "APIResponse")
    assert raw.headers["x-request-id"] == "req_1"
    assert raw.retries_taken == 0
    assert raw.parse().choices[0].message.content == "Hello there"
    assert tracing.span.attributes["gen_ai.usage.input_tokens"] == 20
    assert tracing.span.attributes["fallom.request_id"] == "req_1"


def test_raw_stream_is_read_from_its_bytes(client: Any, tracing: Recording) -> None:
    for chunk in raw_stream(client).parse():
        assert chunk.choices
    assert output_of(tracing)[0]["parts"][0]["content"] == "Hello"
    assert tracing.span.attributes["gen_ai.response.finish_reasons"] == ["stop"]


def test_streaming_raw_body_that_is_read_gives_usage(client: Any, tracing: Recording) -> None:
    streamed_body(client)
    assert tracing.span.attributes["gen_ai.usage.input_tokens"] == 20


def test_streaming_raw_body_that_is_compressed_gives_usage(
    client: Any, provider: Provider, tracing: Recording
) -> None:
    provider.queue = [Reply(chat_completion(), headers={"content-encoding": "gzip"})]
    assert json.loads(streamed_body(client))["id"] == "chatcmpl-1"
    assert tracing.span.attributes["gen_ai.usage.input_tokens"] == 20


def test_streaming_raw_body_that_is_never_read_gives_a_span_and_is_not_read(
    client: Any, tracing: Recording
) -> None:
    with client.chat.completions.with_streaming_response.create(
        model="m", messages=MESSAGES
    ) as response:
        assert not response.http_response.is_stream_consumed
    assert not response.http_response.is_stream_consumed
    assert tracing.span.name == "chat m"


def test_streaming_raw_stream_is_read_from_its_lines(client: Any, tracing: Recording) -> None:
    lines = streamed_lines(client)
    assert lines[-2] == "data: [DONE]"
    assert output_of(tracing)[0]["parts"][0]["content"] == "Hello"


def test_usage_is_asked_for_and_its_chunk_hidden(client: Any, provider: Provider) -> None:
    chunks = list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True))
    assert provider.asked[0].json["stream_options"] == {"include_usage": True}
    assert all(chunk.choices for chunk in chunks)
    assert all("usage" not in chunk.to_dict() for chunk in chunks)


@pytest.mark.parametrize("place", ["argument", "extra body"])
def test_usage_that_the_caller_asked_for_is_its_own(
    place: str, client: Any, provider: Provider, tracing: Recording
) -> None:
    said: Any = {"stream_options": {"include_usage": True}}
    stream = client.chat.completions.create(
        model="m",
        messages=MESSAGES,
        stream=True,
        **(said if place == "argument" else {"extra_body": said}),
    )
    chunks = list(stream)
    assert chunks[-1].choices == []
    assert chunks[-1].usage.prompt_tokens == 20
    assert tracing.span.attributes["gen_ai.usage.input_tokens"] == 20


def test_other_stream_options_are_kept(client: Any, provider: Provider) -> None:
    stream = client.chat.completions.create(
        model="m", messages=MESSAGES, stream=True, stream_options={"include_obfuscation": False}
    )
    assert len(list(stream)) == 4
    assert provider.asked[0].json["stream_options"] == {
        "include_obfuscation": False,
        "include_usage": True,
    }


@pytest.mark.parametrize(
    "said",
    [
        {"stream_options": {"include_usage": False}},
        {"stream_options": None},
        {"extra_body": {"stream_options": {"include_usage": False}}},
    ],
)
def test_refusal_of_usage_by_the_caller_is_kept(
    said: Any, client: Any, provider: Provider, tracing: Recording
) -> None:
    list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True, **said))
    assert not (provider.asked[0].json["stream_options"] or {}).get("include_usage")
    assert "gen_ai.usage.input_tokens" not in tracing.span.attributes


def test_server_that_refuses_the_usage_option_is_asked_without_it(
    client: Any, provider: Provider, tracing: Recording
) -> None:
    refusal = {"error": {"message": "Unknown parameter: stream_options", "code": "unknown"}}
    provider.queue = [Reply(refusal, status=422)]
    chunks = list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True))
    assert len(chunks) == 4
    assert "stream_options" not in provider.asked[1].json
    assert tracing.span.status == SpanStatus.UNSET


def test_other_refusal_is_the_callers(client: Any, provider: Provider, tracing: Recording) -> None:
    provider.queue = [Reply({"error": {"message": "bad model"}}, status=400)]
    with pytest.raises(openai.BadRequestError, match="bad model"):
        client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
    assert len(provider.asked) == 1
    assert tracing.span.status == SpanStatus.ERROR


def test_response_has_its_parts_and_totals(client: Any, tracing: Recording) -> None:
    needs(client, "responses")
    client.responses.create(
        model="m",
        instructions="Be kind",
        previous_response_id="resp_0",
        reasoning={"effort": "low"},
        max_output_tokens=7,
        input=[
            {"role": "user", "content": [{"type": "input_text", "text": "Look up"}]},
            {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "blue"},
        ],
    )
    attributes = tracing.span.attributes
    assert attributes["gen_ai.usage.input_tokens"] == 30
    assert attributes["gen_ai.usage.output_tokens"] == 12
    assert attributes["gen_ai.usage.cache_read.input_tokens"] == 10
    assert attributes["gen_ai.usage.reasoning.output_tokens"] == 5
    assert "gen_ai.usage.cache_write.input_tokens" not in attributes
    assert attributes["gen_ai.request.previous_response.id"] == "resp_0"
    assert attributes["gen_ai.request.reasoning.level"] == "low"
    assert attributes["gen_ai.request.max_tokens"] == 7
    assert json.loads(str(attributes["gen_ai.system_instructions"])) == [
        {"type": "text", "content": "Be kind"}
    ]
    call = {"type": "tool_call", "name": "look", "id": "c", "arguments": {}}
    assert json.loads(str(attributes["gen_ai.input.messages"])) == [
        {"role": "user", "parts": [{"type": "text", "content": "Look up"}]},
        {"role": "assistant", "parts": [call]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c", "response": "blue"}]},
    ]
    (message,) = output_of(tracing)
    assert message["finish_reason"] == "stop"
    assert [part["type"] for part in message["parts"]] == [
        "reasoning",
        "text",
        "tool_call",
        "server_tool_call",
    ]
    assert message["parts"][2] == {
        "type": "tool_call",
        "id": "call_1",
        "name": "look",
        "arguments": {"at": "sky"},
    }


@pytest.mark.parametrize(
    ("end", "over", "reason", "error_type"),
    [
        ("completed", {}, "stop", None),
        (
            "incomplete",
            {"incomplete_details": {"reason": "max_output_tokens"}},
            "max_output_tokens",
            None,
        ),
        ("failed", {"error": {"code": "server_error", "message": "oh"}}, "error", "server_error"),
    ],
)
def test_response_stream_takes_usage_from_its_last_event(
    end: str,
    over: Any,
    reason: str,
    error_type: str | None,
    client: Any,
    provider: Provider,
    tracing: Recording,
) -> None:
    needs(client, "responses")
    provider.queue = [Reply(events=response_events(end, **over), named=True)]
    list(client.responses.create(model="m", input="Hi", stream=True))
    attributes = tracing.span.attributes
    assert attributes["gen_ai.usage.input_tokens"] == 30
    assert attributes["gen_ai.response.finish_reasons"] == [reason]
    assert attributes.get("error.type") == error_type
    assert (tracing.span.status == SpanStatus.ERROR) == bool(error_type)
    assert output_of(tracing)[0]["parts"] == [{"type": "text", "content": '{"text": "Hi"}'}]


def test_response_stream_that_is_closed_gives_its_part(client: Any, tracing: Recording) -> None:
    needs(client, "responses")
    with client.responses.create(model="m", input="Hi", stream=True) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                break
    (message,) = output_of(tracing)
    assert message["parts"] == [{"type": "text", "content": '{"text":'}]
    assert message["finish_reason"] == "error"
    assert tracing.span.attributes["gen_ai.response.id"] == "resp_1"


def test_typed_stream_that_is_left_gives_its_part(client: Any, tracing: Recording) -> None:
    needs(client, "typed stream")
    with client.chat.completions.stream(model="m", messages=MESSAGES) as stream:
        for event in stream:
            if event.type == "content.delta" and event.delta:
                break
    assert output_of(tracing)[0]["parts"][0]["content"] == "Hel"


def test_embeddings_have_their_dimension(client: Any, tracing: Recording) -> None:
    client.embeddings.create(model="e", input=["a"], encoding_format="float")
    attributes = tracing.span.attributes
    assert attributes["gen_ai.embeddings.dimension.count"] == 3
    assert attributes["gen_ai.request.encoding_formats"] == ["float"]
    assert attributes["gen_ai.usage.input_tokens"] == 5
    assert attributes["gen_ai.response.model"] == "emb-1"


def test_images_have_usage_and_no_picture(client: Any, tracing: Recording) -> None:
    client.images.generate(model="i", prompt="A cat", n=2)
    attributes = tracing.span.attributes
    assert attributes["gen_ai.usage.output_tokens"] == 99
    assert attributes["gen_ai.request.choice.count"] == 2
    assert attributes["gen_ai.output.type"] == "image"
    assert "QUJD" not in repr(tracing.span)
    assert "A cat" in str(attributes["gen_ai.input.messages"])


def test_tool_calls_of_a_stream_are_put_together(
    client: Any, provider: Provider, tracing: Recording
) -> None:
    events = chat_chunks(finish="tool_calls")
    pieces = [
        {
            "index": 0,
            "id": "call_1",
            "type": "function",
            "function": {"name": "look", "arguments": ""},
        },
        {"index": 0, "function": {"arguments": '{"at": '}},
        {"index": 0, "function": {"arguments": '"sky"}'}},
        {
            "index": 1,
            "id": "call_2",
            "type": "function",
            "function": {"name": "hear", "arguments": "{"},
        },
    ]
    for piece in pieces:
        event = json.loads(json.dumps(events[0]))
        event["choices"][0]["delta"] = {"tool_calls": [piece]}
        events.insert(-2, event)
    provider.queue = [Reply(events=events)]
    list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True))
    (message,) = output_of(tracing)
    assert message["finish_reason"] == "tool_call"
    assert message["parts"] == [
        {"type": "tool_call", "id": "call_1", "name": "look", "arguments": {"at": "sky"}},
        {"type": "tool_call", "id": "call_2", "name": "hear", "arguments": "{"},
    ]


def test_parse_gives_the_callers_type(
    bare: Any, client: Any, provider: Provider, tracing: Recording
) -> None:
    completion = chat_completion()
    completion["choices"][0]["message"]["content"] = '{"text": "Hi"}'
    provider.queue = [Reply(completion)]
    if not hasattr(client.chat.completions, "parse"):
        pytest.skip("this openai has no chat.completions.parse")
    parsed = client.chat.completions.parse(model="m", messages=MESSAGES, response_format=Greeting)
    assert parsed.choices[0].message.parsed == Greeting(text="Hi")
    assert tracing.span.attributes["gen_ai.output.type"] == "json"


def test_many_choices_each_have_a_reason(
    client: Any, provider: Provider, tracing: Recording
) -> None:
    completion = chat_completion()
    completion["choices"].append(
        {**completion["choices"][0], "index": 1, "finish_reason": "length"}
    )
    provider.queue = [Reply(completion)]
    client.chat.completions.create(model="m", messages=MESSAGES, n=2)
    assert tracing.span.attributes["gen_ai.response.finish_reasons"] == ["stop", "length"]
    assert tracing.span.attributes["gen_ai.request.choice.count"] == 2
    assert len(output_of(tracing)) == 2


async def test_async_shapes_give_one_span_each(aclient: Any, tracing: Recording) -> None:
    needs(aclient, "typed stream")
    await aclient.chat.completions.create(model="m", messages=MESSAGES)
    raw = await aclient.chat.completions.with_raw_response.create(
        model="m", messages=MESSAGES, stream=True
    )
    assert len([chunk async for chunk in raw.parse()]) == 4
    async with aclient.chat.completions.with_streaming_response.create(
        model="m", messages=MESSAGES
    ) as response:
        assert json.loads(await response.read())["id"] == "chatcmpl-1"
    async with aclient.chat.completions.stream(model="m", messages=MESSAGES) as stream:
        assert (await stream.get_final_completion()).choices[0].message.content == "Hello"
    await aclient.responses.create(model="m", input="Hi")
    async with aclient.responses.stream(model="m", input="Hi") as stream:
        assert (await stream.get_final_response()).id == "resp_1"
    await aclient.embeddings.create(model="e", input="a")
    await (await aclient.audio.speech.create(model="t", voice="alloy", input="x")).aread()
    assert tracing.given_up == []
    assert [span.name for span in tracing.spans] == [
        *["chat m"] * 6,
        "embeddings e",
        "generate_content t",
    ]
    for span in tracing.spans[:6]:
        is_raw_stream = span is tracing.spans[1]
        assert ("gen_ai.usage.input_tokens" in span.attributes) != is_raw_stream
        assert span.attributes["gen_ai.response.finish_reasons"] == ["stop"]


def test_other_calls_are_not_recorded(client: Any, provider: Provider, tracing: Recording) -> None:
    provider.always = Reply({"id": "file_1", "results": [], "model": "m"})
    client.moderations.create(input="x")
    client.files.create(file=b"x", purpose="batch")
    assert len(provider.asked) == 2
    assert tracing.spans == []
    assert tracing.given_up == []
