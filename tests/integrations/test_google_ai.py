"""Google's calls through the real SDKs: their objects, one span a call."""

from __future__ import annotations

import gc
import inspect
import json
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from fake_provider import Asked, Provider, Recording, Reply
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import TracerProvider

import fallom
from fallom._active_span import active_span
from fallom._core.span import SpanStatus
from fallom.integrations.google_ai import wrap_google_ai
from fallom.opentelemetry import FallomSpanProcessor
from fallom.testing import capture

genai = pytest.importorskip("google.genai")

USAGE = {
    "promptTokenCount": 20,
    "toolUsePromptTokenCount": 3,
    "candidatesTokenCount": 9,
    "thoughtsTokenCount": 4,
    "cachedContentTokenCount": 7,
    "totalTokenCount": 36,
}


def response(text: str, reason: str | None = "STOP") -> dict[str, Any]:
    candidate: dict[str, Any] = {
        "index": 0,
        "content": {"role": "model", "parts": [{"text": text}]},
    }
    if reason:
        candidate["finishReason"] = reason
    return {
        "candidates": [candidate],
        "usageMetadata": USAGE,
        "modelVersion": "gemini-2026",
        "responseId": "r-1",
    }


def answer(asked: Asked) -> Reply:
    if "embed" in asked.path.lower():
        return Reply({"embeddings": [{"values": [0.5, 0.25]}], "embedding": {"values": [0.5]}})
    if "streamGenerateContent" in asked.path:
        return Reply(events=[response("Hel", None), response("lo")], done=False)
    return Reply(response("Hello"))


@pytest.fixture
def bare(provider: Provider) -> Any:
    provider.always = answer
    options = genai.types.HttpOptions(base_url=provider.url)
    return genai.Client(api_key="k", http_options=options)


def output_of(tracing: Recording) -> Any:
    return json.loads(str(tracing.span.attributes["gen_ai.output.messages"]))


def is_whole(tracing: Recording) -> bool:
    attributes = tracing.span.attributes
    assert tracing.span.name == "generate_content gemini-x"
    assert tracing.span.status == SpanStatus.UNSET
    assert attributes["gen_ai.provider.name"] == "gcp.gemini"
    assert attributes["gen_ai.usage.input_tokens"] == 23
    assert attributes["gen_ai.usage.output_tokens"] == 13
    assert attributes["gen_ai.usage.cache_read.input_tokens"] == 7
    assert attributes["gen_ai.usage.reasoning.output_tokens"] == 4
    assert attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert json.loads(str(attributes["gen_ai.input.messages"])) == [
        {"role": "user", "parts": [{"type": "text", "content": "Say hello"}]}
    ]
    return bool(output_of(tracing)[0]["parts"] == [{"type": "text", "content": "Hello"}])


def test_client_gives_its_own_response(bare: Any, tracing: Recording) -> None:
    client = wrap_google_ai(bare, tracing)
    assert isinstance(client, genai.Client)
    found = client.models.generate_content(
        model="gemini-x", contents="Say hello", config={"temperature": 0.5, "top_k": 3}
    )
    assert type(found) is genai.types.GenerateContentResponse
    assert is_whole(tracing)
    assert tracing.span.attributes["gen_ai.request.temperature"] == 0.5
    assert tracing.span.attributes["gen_ai.request.top_k"] == 3
    bare.models.generate_content(model="gemini-x", contents="Say hello")
    assert len(tracing.spans) == 1


def test_models_and_chats_are_traced(bare: Any, tracing: Recording) -> None:
    wrap_google_ai(bare.models, tracing).generate_content(model="gemini-x", contents="Say hello")
    assert is_whole(tracing)
    chat = wrap_google_ai(bare, tracing).chats.create(model="gemini-x")
    assert chat.send_message("Say hello").text == "Hello"
    chat = wrap_google_ai(bare.chats.create(model="gemini-x"), tracing)
    assert "".join(chunk.text for chunk in chat.send_message_stream("Say hello")) == "Hello"
    assert chat.get_history()[0].parts[0].text == "Say hello"
    assert len(tracing.spans) == 3
    assert tracing.given_up == []


def test_stream_is_a_generator_and_gives_one_span(bare: Any, tracing: Recording) -> None:
    models = wrap_google_ai(bare, tracing).models
    stream = models.generate_content_stream(model="gemini-x", contents="Say hello")
    assert inspect.isgenerator(stream)
    assert [chunk.text for chunk in stream] == ["Hel", "lo"]
    assert tracing.span.attributes["gen_ai.request.stream"] is True
    assert is_whole(tracing)


@pytest.mark.parametrize("how", ["closed", "dropped"])
def test_stream_that_is_left_gives_its_part(how: str, bare: Any, tracing: Recording) -> None:
    models = wrap_google_ai(bare, tracing).models
    stream = models.generate_content_stream(model="gemini-x", contents="Say hello")
    assert next(stream).text == "Hel"
    if how == "closed":
        stream.close()
    del stream
    tracing.wait()
    (message,) = output_of(tracing)
    assert message["parts"] == [{"type": "text", "content": "Hel"}]
    assert message["finish_reason"] == "error"


def test_stream_that_is_never_read_asks_nothing(
    bare: Any, provider: Provider, tracing: Recording
) -> None:
    wrap_google_ai(bare, tracing).models.generate_content_stream(model="m", contents="x")
    assert provider.asked == []
    assert tracing.spans == []


async def test_async_calls_and_streams_are_traced(bare: Any, tracing: Recording) -> None:
    aio = wrap_google_ai(bare, tracing).aio
    assert (await aio.models.generate_content(model="gemini-x", contents="Say hello")).text
    assert is_whole(tracing)
    tracing.spans.clear()
    stream = await aio.models.generate_content_stream(model="gemini-x", contents="Say hello")
    assert [chunk.text async for chunk in stream] == ["Hel", "lo"]
    assert is_whole(tracing)
    tracing.spans.clear()
    stream = await wrap_google_ai(bare.aio, tracing).models.generate_content_stream(
        model="gemini-x", contents="Say hello"
    )
    async for _ in stream:
        break
    await stream.aclose()
    assert tracing.span.attributes["gen_ai.response.finish_reasons"] == ["error"]
    await bare.aio.aclose()


def test_refused_call_raises_as_it_would(bare: Any, provider: Provider, tracing: Recording) -> None:
    error = {"error": {"code": 400, "message": "you said", "status": "INVALID_ARGUMENT"}}
    provider.always = Reply(error, status=400)
    with pytest.raises(genai.errors.ClientError):
        wrap_google_ai(bare, tracing).models.generate_content(model="m", contents="x")
    assert tracing.span.attributes["error.type"] == "INVALID_ARGUMENT"
    assert tracing.span.status == SpanStatus.ERROR


def test_dropped_derived_client_leaves_the_connections_open(bare: Any, tracing: Recording) -> None:
    for _ in range(3):
        wrap_google_ai(bare, tracing).models.generate_content(model="m", contents="x")
        gc.collect()
    bare.models.generate_content(model="m", contents="x")
    client = wrap_google_ai(
        genai.Client(api_key="k", http_options=bare._api_client._http_options), tracing
    )
    gc.collect()  # the caller's client is not referred to by the caller
    assert client.models.generate_content(model="m", contents="x").text == "Hello"
    again = wrap_google_ai(client, tracing)
    again.models.generate_content(model="m", contents="x")
    assert len(tracing.spans) == 5


def test_private_call_holds_no_content(bare: Any, private: Recording) -> None:
    client = wrap_google_ai(bare, private)
    client.models.generate_content(
        model="gemini-x", contents="Say hello", config={"system_instruction": "hello"}
    )
    assert "hello" not in repr(private.span).lower()
    assert private.span.attributes["gen_ai.usage.input_tokens"] == 23


def test_content_of_any_kind_is_read(bare: Any, tracing: Recording) -> None:
    types = genai.types

    used = types.Part.from_function_call(name="look", args={"at": "sky"})
    result = {"name": "look", "response": {"is": "blue"}}

    def look(at: str) -> str:
        """Look at something."""
        return "blue"

    wrap_google_ai(bare, tracing).models.generate_content(
        model="gemini-x",
        contents=[
            "loose",
            types.Part.from_bytes(data=b"x" * 99, mime_type="image/png"),
            types.Content(role="model", parts=[used]),
            {"role": "user", "parts": [{"function_response": result}]},
        ],
        config=types.GenerateContentConfig(
            system_instruction="Be kind",
            tools=[look],
            max_output_tokens=5,
            stop_sequences=["x"],
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        ),
    )
    attributes = tracing.span.attributes
    blob = {"type": "blob", "modality": "image", "mime_type": "image/png"}
    call = {"type": "tool_call", "name": "look", "arguments": {"at": "sky"}}
    assert json.loads(str(attributes["gen_ai.input.messages"])) == [
        {
            "role": "user",
            "parts": [
                {"type": "text", "content": "loose"},
                {**blob, "content": "[cut: 99 characters]"},
            ],
        },
        {"role": "assistant", "parts": [call]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "response": {"is": "blue"}}]},
    ]
    assert "Be kind" in str(attributes["gen_ai.system_instructions"])
    assert json.loads(str(attributes["gen_ai.tool.definitions"])) == [{"name": "look"}]
    assert attributes["gen_ai.request.max_tokens"] == 5
    assert attributes["gen_ai.request.stop_sequences"] == ["x"]


@pytest.mark.parametrize("method", ["content_captured", "call_attributes", "parent", "record"])
def test_broken_tracing_costs_the_span(method: str, bare: Any, tracing: Recording) -> None:
    tracing.broken = {method: RuntimeError()}
    models = wrap_google_ai(bare, tracing).models
    assert models.generate_content(model="m", contents="x").text == "Hello"
    stream = models.generate_content_stream(model="m", contents="x")
    assert [chunk.text for chunk in stream] == ["Hel", "lo"]
    assert tracing.spans == []
    assert len(tracing.given_up) == 2


@pytest.mark.parametrize("thing", [None, object(), genai])
def test_unknown_object_is_given_back_and_counted(thing: Any, tracing: Recording) -> None:
    assert wrap_google_ai(thing, tracing) is thing
    assert [reason for reason, _ in tracing.given_up] == ["unknown_client"]


@pytest.fixture
def legacy(provider: Provider) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it announces its end
        old = pytest.importorskip("google.generativeai")
    provider.always = lambda asked: (
        Reply([response("Hel", None), response("lo")])
        if "streamGenerateContent" in asked.path
        else Reply(response("Hello"))
    )
    endpoint = {"api_endpoint": provider.url}
    old.configure(api_key="k", transport="rest", client_options=endpoint)
    return old.GenerativeModel("gemini-x", generation_config={"temperature": 0.5})


def test_legacy_model_is_traced(legacy: Any, tracing: Recording) -> None:
    model = wrap_google_ai(legacy, tracing)
    assert type(model) is type(legacy)
    assert model.generate_content("Say hello").text == "Hello"
    assert tracing.span.attributes["gen_ai.request.temperature"] == 0.5
    assert tracing.span.attributes["gen_ai.usage.cache_read.input_tokens"] == 7
    assert output_of(tracing)[0]["parts"] == [{"type": "text", "content": "Hello"}]
    legacy.generate_content("Say hello")
    assert len(tracing.spans) == 1


def test_legacy_stream_and_chat_are_traced(legacy: Any, tracing: Recording) -> None:
    model = wrap_google_ai(wrap_google_ai(legacy, Recording()), tracing)
    stream = model.generate_content("Say hello", stream=True)
    assert tracing.spans == []
    assert [chunk.text for chunk in stream] == ["Hel", "lo"]
    assert stream.text == "Hello"
    assert output_of(tracing)[0] == {
        "role": "assistant",
        "parts": [{"type": "text", "content": "Hello"}],
        "finish_reason": "stop",
    }
    tracing.spans.clear()
    chat = model.start_chat()
    chat.send_message("Say hello")
    chat = wrap_google_ai(legacy.start_chat(), tracing)
    assert chat.send_message("Say hello").text == "Hello"
    assert len(tracing.spans) == 2
    stream = model.generate_content("Say hello", stream=True)
    del stream
    tracing.wait(3)
    assert tracing.spans[-1].attributes["gen_ai.response.finish_reasons"] == ["error"]


@pytest.mark.parametrize("how", ["read", "closed", "left"])
@pytest.mark.parametrize("begins", ["at once", "at the first piece"])
def test_a_stream_that_an_instrumentation_traces_too_gives_one_span(
    how: str, begins: str, bare: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer = instrumented()

    def traced(inner: Any) -> Any:
        def stream(*args: Any, **kwargs: Any) -> Iterator[Any]:
            with tracer.start_as_current_span("generate_content gemini-x"):
                yield from inner(*args, **kwargs)

        def begun(*args: Any, **kwargs: Any) -> Iterator[Any]:
            span = tracer.start_span("generate_content gemini-x")

            def chunks() -> Iterator[Any]:
                with otel.use_span(span, end_on_exit=True):
                    yield from inner(*args, **kwargs)

            return chunks()

        return begun if begins == "at once" else stream

    models = type(bare.models)
    monkeypatch.setattr(models, "generate_content_stream", traced(models.generate_content_stream))
    with capture() as captured:
        client = fallom.session("app", "s-1").wrap_google_ai(bare)
        stream = client.models.generate_content_stream(model="gemini-x", contents="Say hello")
        next(stream)
        assert not otel.get_current_span().get_span_context().is_valid  # nor in the caller's code
        if how == "read":
            list(stream)
        elif how == "closed":
            stream.close()
        del stream
        gc.collect()
        assert active_span() is None
        with tracer.start_as_current_span("another call"):
            pass
    mine, other = captured.spans
    assert mine.attributes["gen_ai.provider.name"] == "gcp.gemini"
    assert (other.name, other.parent_span_id) == ("another call", None)


async def test_an_asynchronous_one_does_so_too(bare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tracer = instrumented()

    def traced(inner: Any) -> Any:
        async def stream(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            async def chunks() -> AsyncIterator[Any]:
                with tracer.start_as_current_span("generate_content gemini-x"):
                    async for chunk in await inner(*args, **kwargs):
                        yield chunk

            return chunks()

        return stream

    models = type(bare.aio.models)
    monkeypatch.setattr(models, "generate_content_stream", traced(models.generate_content_stream))
    with capture() as captured:
        client = fallom.session("app", "s-1").wrap_google_ai(bare)
        stream = await client.aio.models.generate_content_stream(
            model="gemini-x", contents="Say hello"
        )
        async for _ in stream:
            assert not otel.get_current_span().get_span_context().is_valid
        assert active_span() is None
    assert captured.span().attributes["gen_ai.provider.name"] == "gcp.gemini"


def instrumented() -> otel.Tracer:
    """The tracer of an instrumentation of Google's client, which records into fallom."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(FallomSpanProcessor())
    return provider.get_tracer("opentelemetry.instrumentation.google_genai")
