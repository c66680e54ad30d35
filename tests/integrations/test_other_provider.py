"""Calls to a provider that others wrote (the package llmock): what it sends is not what we expect of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai
import pydantic
import pytest
from fake_provider import Recording
from google import genai

from fallom._core.span import SpanStatus
from fallom.integrations.anthropic import wrap_anthropic
from fallom.integrations.google_ai import wrap_google_ai
from fallom.integrations.openai import wrap_openai

llmock = pytest.importorskip("llmock", reason="the other provider is the package llmock")
from llmock.scenarios import Fail, Reply, StreamFault, ToolCall  # noqa: E402  # there only if llmock is
from llmock.testing import LLMockServer  # noqa: E402

# Older versions of uvicorn, which serves it, import what websockets will drop.
pytestmark = pytest.mark.filterwarnings("ignore:websockets:DeprecationWarning")

QUESTION: Any = [{"role": "user", "content": "What is the capital of Norway?"}]
TOOL_ARGUMENTS = {"city": "Oslo"}
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


class Answer(pydantic.BaseModel):
    city: str


@pytest.fixture(scope="module")
def server() -> Iterator[LLMockServer]:
    with LLMockServer() as server:
        yield server


@pytest.fixture
def other(server: LLMockServer) -> LLMockServer:
    server.state.scenarios.clear()
    return server


@pytest.fixture
def openai_client(other: LLMockServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="k", base_url=other.base_url("openai"), max_retries=0) as client:
        yield client


@pytest.fixture
def anthropic_client(other: LLMockServer) -> Iterator[anthropic.Anthropic]:
    url = other.base_url("anthropic")
    with anthropic.Anthropic(api_key="k", base_url=url, max_retries=0) as client:
        yield client


@pytest.fixture
def google_client(other: LLMockServer) -> genai.Client:
    options: Any = {"base_url": other.base_url("gemini"), "api_version": "v1beta"}
    return genai.Client(api_key="k", http_options=options)


def openai_create(client: Any) -> Any:
    return client.chat.completions.create(model="gpt-4o", messages=QUESTION)


def openai_stream(client: Any) -> Any:
    return list(client.chat.completions.create(model="gpt-4o", messages=QUESTION, stream=True))


def openai_stream_with_usage(client: Any) -> Any:
    options: Any = {"include_usage": True}
    return list(
        client.chat.completions.create(
            model="gpt-4o", messages=QUESTION, stream=True, stream_options=options
        )
    )


def openai_stream_helper(client: Any) -> Any:
    with client.chat.completions.stream(model="gpt-4o", messages=QUESTION) as stream:
        return [event.type for event in stream], stream.get_final_completion()


def openai_parse(client: Any) -> Any:
    return client.chat.completions.parse(model="gpt-4o", messages=QUESTION, response_format=Answer)


def openai_tools(client: Any) -> Any:
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
    return client.chat.completions.create(model="gpt-4o", messages=QUESTION, tools=[tool])


def openai_tools_stream(client: Any) -> Any:
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
    return list(
        client.chat.completions.create(model="gpt-4o", messages=QUESTION, tools=[tool], stream=True)
    )


def openai_raw(client: Any) -> Any:
    raw = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=QUESTION)
    return raw.status_code, raw.parse()


def openai_responses(client: Any) -> Any:
    return client.responses.create(model="gpt-4o", input="What is the capital of Norway?")


def openai_responses_stream(client: Any) -> Any:
    return list(client.responses.create(model="gpt-4o", input="Norway?", stream=True))


def openai_responses_parse(client: Any) -> Any:
    return client.responses.parse(model="gpt-4o", input="Norway?", text_format=Answer)


def openai_embeddings(client: Any) -> Any:
    return client.embeddings.create(model="text-embedding-3-small", input=["Oslo", "Bergen"])


def openai_image(client: Any) -> Any:
    return client.images.generate(model="gpt-image-1", prompt="Oslo")


CLAUDE: Any = {"model": "claude", "max_tokens": 64, "messages": QUESTION}


def anthropic_create(client: Any) -> Any:
    return client.messages.create(**CLAUDE)


def anthropic_stream(client: Any) -> Any:
    return list(client.messages.create(**CLAUDE, stream=True))


def anthropic_stream_helper(client: Any) -> Any:
    with client.messages.stream(**CLAUDE) as stream:
        return [event.type for event in stream], stream.get_final_message()


def anthropic_tools(client: Any) -> Any:
    tool: Any = {"name": "weather", "input_schema": PARAMETERS}
    return client.messages.create(**CLAUDE, tools=[tool])


def google_generate(client: Any) -> Any:
    return client.models.generate_content(model="gemini", contents="What is the capital?")


def google_stream(client: Any) -> Any:
    return list(client.models.generate_content_stream(model="gemini", contents="Capital?"))


def google_chat(client: Any) -> Any:
    return client.chats.create(model="gemini").send_message("What is the capital?")


OPENAI: list[Callable[[Any], Any]] = [
    openai_create,
    openai_stream,
    openai_stream_with_usage,
    openai_stream_helper,
    openai_parse,
    openai_tools,
    openai_tools_stream,
    openai_raw,
    openai_responses,
    openai_responses_stream,
    openai_responses_parse,
    openai_embeddings,
    openai_image,
]
ANTHROPIC: list[Callable[[Any], Any]] = [
    anthropic_create,
    anthropic_stream,
    anthropic_stream_helper,
    anthropic_tools,
]
GOOGLE: list[Callable[[Any], Any]] = [google_generate, google_stream, google_chat]
# What older clients do not have.
NEEDS = {
    openai_stream_helper: "chat.completions.stream",
    openai_parse: "chat.completions.parse",
    openai_responses: "responses",
    openai_responses_stream: "responses",
    openai_responses_parse: "responses",
}
# Drawn or told by the clock at each answer.
DRAWN = {"id", "created", "created_at", "completed_at", "item_id", "call_id", "response_id", "date"}


def plain(value: Any) -> Any:
    """A value in plain containers with its types by name, without what differs between two calls."""
    if isinstance(value, pydantic.BaseModel):
        fields = {name: plain(getattr(value, name)) for name in value.model_fields_set}
        known = {name: found for name, found in fields.items() if name not in DRAWN}
        known.pop("sdk_http_response", None)  # has the date
        return type(value).__name__, known
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items() if name not in DRAWN}
    return value


def usage_in(value: Any) -> list[int]:
    """All token counts that an answer tells, in whatever form it tells them."""
    text = json.dumps(plain(value), default=str)
    return [
        found
        for name in ("input_tokens", "prompt_tokens", "prompt_token_count")
        for part in text.split(f'"{name}": ')[1:]
        if (found := int(part.split(",")[0].split("}")[0] or 0))
    ]


SHAPES = [
    *[("openai", wrap_openai, shape) for shape in OPENAI],
    *[("anthropic", wrap_anthropic, shape) for shape in ANTHROPIC],
    *[("google", wrap_google_ai, shape) for shape in GOOGLE],
]


@pytest.mark.parametrize(
    ("library", "wrap", "shape"), SHAPES, ids=[shape.__name__ for _, _, shape in SHAPES]
)
def test_shape_gives_what_the_bare_client_gives_and_one_span(
    library: str,
    wrap: Callable[[Any, Recording], Any],
    shape: Callable[[Any], Any],
    request: pytest.FixtureRequest,
    tracing: Recording,
) -> None:
    client = request.getfixturevalue(f"{library}_client")
    needs(client, shape)
    expected = shape(client)
    found = shape(wrap(client, tracing))
    assert plain(found) == plain(expected)
    check_tokens(tracing, found)


@pytest.mark.parametrize(
    ("library", "wrap", "shape"), SHAPES, ids=[shape.__name__ for _, _, shape in SHAPES]
)
def test_a_mask_sees_each_text_of_each_shape(
    library: str,
    wrap: Callable[[Any, Recording], Any],
    shape: Callable[[Any], Any],
    request: pytest.FixtureRequest,
    tracing: Recording,
) -> None:
    client = request.getfixturevalue(f"{library}_client")
    needs(client, shape)
    tracing.mask = lambda text: "#" * len(text)
    shape(wrap(client, tracing))
    for name in ("gen_ai.input.messages", "gen_ai.output.messages"):
        texts = [*contents(json.loads(str(tracing.span.attributes.get(name, "[]"))))]
        assert [text for text in texts if text.strip("#")] == []


def contents(value: Any) -> Iterator[str]:
    """Give the texts that messages hold."""
    if isinstance(value, list):
        for item in value:
            yield from contents(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name == "content" and isinstance(item, str):
                yield item
            else:
                yield from contents(item)


def needs(client: Any, shape: Callable[[Any], Any]) -> None:
    """Skip a shape that this version of the client does not have."""
    path = NEEDS.get(shape, "")
    for name in path.split(".") if path else ():
        if not hasattr(client, name):
            pytest.skip(f"this {type(client).__name__} has no {path}")
        client = getattr(client, name)


def check_tokens(tracing: Recording, answer: Any) -> None:
    attributes = tracing.span.attributes
    told = usage_in(answer)
    if told:
        assert attributes["gen_ai.usage.input_tokens"] == max(told)
    elif attributes["gen_ai.operation.name"] == "chat":
        assert attributes["gen_ai.usage.input_tokens"]


def test_scripted_tool_call_is_on_the_span(
    other: LLMockServer, openai_client: openai.OpenAI, tracing: Recording
) -> None:
    other.state.scenarios.add(Reply(tool_calls=(ToolCall("weather", TOOL_ARGUMENTS),)))
    openai_tools_stream(wrap_openai(openai_client, tracing))
    output = json.loads(str(tracing.span.attributes["gen_ai.output.messages"]))
    (part,) = [part for part in output[0]["parts"] if part["type"] == "tool_call"]
    assert part["name"] == "weather"
    assert part["arguments"] in (TOOL_ARGUMENTS, json.dumps(TOOL_ARGUMENTS))


@pytest.fixture(params=["openai", "anthropic", "google"])
def streaming(request: pytest.FixtureRequest, tracing: Recording) -> tuple[Any, Any]:
    """A stream of the bare client, and one of the wrapped client, of each library."""
    name = request.param
    client = request.getfixturevalue(f"{name}_client")
    wrap = {"openai": wrap_openai, "anthropic": wrap_anthropic, "google": wrap_google_ai}[name]
    stream = {"openai": openai_stream, "anthropic": anthropic_stream, "google": google_stream}[name]
    traced = wrap(client, tracing)
    return lambda: stream(client), lambda: stream(traced)


def outcome_of(call: Callable[[], Any]) -> Any:
    try:
        return plain(call())
    except Exception as error:
        return type(error)


@pytest.mark.parametrize("kind", ["disconnect", "truncate", "malformed"])
def test_broken_stream_ends_as_the_bare_clients_and_gives_one_span(
    kind: Any, other: LLMockServer, streaming: tuple[Any, Any], tracing: Recording
) -> None:
    bare, traced = streaming
    outcomes = []
    for call in (bare, traced):
        other.state.scenarios.add(StreamFault(kind, after_chunks=2))
        outcomes.append(outcome_of(call))
    assert outcomes[1] == outcomes[0]
    tracing.wait()
    if isinstance(outcomes[1], type):
        assert tracing.span.attributes["error.type"]


@pytest.mark.parametrize("status", [401, 429, 500, 503])
def test_refused_call_raises_as_the_bare_clients_and_gives_one_span(
    status: int, other: LLMockServer, streaming: tuple[Any, Any], tracing: Recording
) -> None:
    bare, traced = streaming
    outcomes = []
    for call in (bare, traced):
        other.state.scenarios.clear()
        other.state.scenarios.add(Fail(status, times=None))
        outcomes.append(outcome_of(call))
    other.state.scenarios.clear()
    assert isinstance(outcomes[0], type)
    assert outcomes[1] is outcomes[0]
    assert tracing.span.status is SpanStatus.ERROR
    assert tracing.span.attributes["error.type"]  # the provider's code where it tells one


def test_retries_after_a_rate_limit_are_counted(other: LLMockServer, tracing: Recording) -> None:
    other.state.scenarios.add(Fail(429, retry_after=0.01, times=2))
    with openai.OpenAI(api_key="k", base_url=other.base_url("openai"), max_retries=2) as client:
        openai_create(wrap_openai(client, tracing))
    assert [event.name for event in tracing.span.events].count("fallom.attempt") == 3
