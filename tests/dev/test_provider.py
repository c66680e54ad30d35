from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from fallom.dev.provider.echo import count_tokens, embedding, pieces

HELLO = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "Hello there, world!"},
]
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


def needs(part: Any, name: str) -> None:
    """Skip what this version of the client does not have."""
    if not hasattr(part, name):
        pytest.skip(f"this openai has no {name}")


@pytest.fixture
def client(cloud: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{cloud.url}/v1", api_key="anything", max_retries=0) as client:
        yield client


@pytest.fixture
async def async_client(cloud: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{cloud.url}/v1", api_key="anything") as client:
        yield client


def test_chat_echoes_with_usage_and_request_id(client: Any) -> None:
    answer = client.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert answer.choices[0].message.content == "Hello there, world!"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "gpt-4o"
    assert answer.id.startswith("chatcmpl-")
    assert answer._request_id
    usage = answer.usage
    assert usage.completion_tokens == 5
    assert usage.prompt_tokens > usage.completion_tokens
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_chat_streams_the_same_text_in_pieces(client: Any) -> None:
    chunks = list(client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True))
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert "".join(filter(None, texts)) == "Hello there, world!"
    assert len([text for text in texts if text]) == 3
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert {chunk.usage for chunk in chunks} == {None}
    assert len({chunk.id for chunk in chunks}) == 1


def test_stream_has_usage_in_a_last_chunk_when_it_is_asked_for(client: Any) -> None:
    plain = client.chat.completions.create(model="gpt-4o", messages=HELLO)
    *chunks, last = client.chat.completions.create(
        model="gpt-4o", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    assert last.choices == []
    assert last.usage == plain.usage
    assert {chunk.usage for chunk in chunks} == {None}


def test_several_choices_and_parts_of_content(client: Any) -> None:
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]
    answer = client.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": parts}], n=2
    )
    assert [choice.message.content for choice in answer.choices] == ["a b", "a b"]
    assert [choice.index for choice in answer.choices] == [0, 1]


def test_long_answer_is_cut_at_max_tokens(client: Any) -> None:
    answer = client.chat.completions.create(model="gpt-4o", messages=HELLO, max_completion_tokens=2)
    assert answer.choices[0].message.content == "Hello th"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 2


@pytest.mark.parametrize("stream", [False, True])
def test_demanded_tool_is_called(client: Any, stream: bool) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": WEATHER}}
    asked = {"model": "gpt-4o", "messages": HELLO, "tools": [tool], "tool_choice": "required"}
    if stream:
        needs(client.chat.completions, "stream")
        with client.chat.completions.stream(**asked) as events:
            answer = events.get_final_completion()
    else:
        answer = client.chat.completions.create(**asked)
    (call,) = answer.choices[0].message.tool_calls
    assert (call.function.name, call.function.arguments) == ("weather", '{"city": "echo"}')
    assert answer.choices[0].finish_reason == "tool_calls"


def test_demanded_form_is_kept(client: Any) -> None:
    needs(client.chat.completions, "parse")

    class Place(BaseModel):
        name: str
        people: int
        streets: list[str]

    class Trip(BaseModel):
        place: Place
        is_booked: bool | None

    answer = client.chat.completions.parse(model="gpt-4o", messages=HELLO, response_format=Trip)
    trip = answer.choices[0].message.parsed
    assert trip == Trip(place=Place(name="echo", people=1, streets=[]), is_booked=True)


def test_lone_surrogates_and_nul_come_back(cloud: Any) -> None:
    text = "\ud800 \x00 é"
    body = {"model": "echo", "messages": [{"role": "user", "content": text}]}
    assert (
        cloud.post_json("/v1/chat/completions", body).json()["choices"][0]["message"]["content"]
        == text
    )


async def test_async_client_gets_the_same(async_client: Any) -> None:
    answer = await async_client.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert answer.choices[0].message.content == "Hello there, world!"
    stream = await async_client.chat.completions.create(model="slow", messages=HELLO, stream=True)
    texts = [chunk.choices[0].delta.content async for chunk in stream]
    assert "".join(filter(None, texts)) == "Hello there, world!"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ],
)
def test_model_name_asks_for_an_error(
    client: Any, status: int, kind: type[openai.APIStatusError]
) -> None:
    for stream in (False, True):
        with pytest.raises(kind) as caught:
            client.chat.completions.create(model=f"x-fail-{status}", messages=HELLO, stream=stream)
        assert caught.value.status_code == status
        assert caught.value.request_id
        assert caught.value.body["message"]
        assert caught.value.code == {
            401: "invalid_api_key",
            404: "model_not_found",
            429: "rate_limit_exceeded",
        }.get(status)


def test_client_tries_again_by_itself_and_soon(cloud: Any, client: Any) -> None:
    with pytest.raises(openai.RateLimitError):
        client.with_options(max_retries=2).chat.completions.create(model="fail-429", messages=HELLO)
    assert cloud.stats()["fetches"] == {"/v1/chat/completions": 3}


@pytest.mark.parametrize(
    "body", [{}, {"model": "m"}, {"model": 5, "messages": []}, {"model": "m", "messages": []}, []]
)
def test_request_without_what_is_needed_is_an_error_of_the_api(cloud: Any, body: Any) -> None:
    answer = cloud.post_json("/v1/chat/completions", body)
    assert answer.status == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


ODD_SCHEMAS = (
    {"type": 5},
    {"type": "array", "minItems": 1},
    {"anyOf": {"a": 1}},
    {"enum": {"a": 1}},
    {"properties": [1]},
    {"$defs": [1], "$ref": "#/$defs/a"},
)


def _form(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"schema": schema}}


def test_absurd_requests_are_answered_and_do_not_break_the_server(cloud: Any) -> None:
    for odd in (
        {"messages": [None, 5, "x", {"role": "user", "content": 7}]},
        {"messages": [{"content": [None, {"text": 5}]}], "n": "many", "max_tokens": "x"},
        {"messages": [{}], "tools": {}, "tool_choice": "required", "response_format": 5},
        {"messages": [{}], "tools": [None, {"function": None}], "tool_choice": {"function": None}},
        {"messages": [{}], "response_format": {"type": "json_schema", "json_schema": 5}},
        {"messages": [{}], "stream": True, "stream_options": 5},
        *({"messages": [{}], "response_format": _form(schema)} for schema in ODD_SCHEMAS),
    ):
        answer = cloud.post_json("/v1/chat/completions", {"model": "echo", **odd})
        assert answer.status == 200, (odd, answer)


def test_responses_plain_and_streamed_agree(client: Any) -> None:
    needs(client, "responses")
    plain = client.responses.create(
        model="gpt-4o", input="Hello there, world!", instructions="be brief"
    )
    assert plain.output_text == "Hello there, world!"
    assert plain.status == "completed"
    events = list(
        client.responses.create(
            model="gpt-4o", input="Hello there, world!", instructions="be brief", stream=True
        )
    )
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == "Hello there, world!"
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    assert events[-1].response.usage == plain.usage
    with client.responses.stream(model="gpt-4o", input="Hi") as stream:
        assert stream.get_final_response().output_text == "Hi"


def test_responses_can_be_cut_and_can_call_tools(client: Any) -> None:
    needs(client, "responses")
    cut = client.responses.create(model="gpt-4o", input="Hello there, world!", max_output_tokens=1)
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    tool = {"type": "function", "name": "weather", "parameters": WEATHER, "strict": True}
    asked = {"model": "gpt-4o", "input": HELLO, "tools": [tool], "tool_choice": "required"}
    (call,) = client.responses.create(**asked).output
    assert (call.type, call.name, call.arguments) == (
        "function_call",
        "weather",
        '{"city": "echo"}',
    )
    last = list(client.responses.create(**asked, stream=True))[-1]
    assert last.response.output[0].arguments == call.arguments


async def test_responses_of_the_async_client(async_client: Any) -> None:
    needs(async_client, "responses")
    stream = await async_client.responses.create(model="gpt-4o", input="Hi there", stream=True)
    types = [event.type async for event in stream]
    assert types[-1] == "response.completed"


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings_depend_on_the_text_alone(client: Any, encoding: Any) -> None:
    answer = client.embeddings.create(
        model="text-embedding-3-small",
        input=["a", "b", "a"],
        dimensions=8,
        encoding_format=encoding,
    )
    assert answer.usage.prompt_tokens == 3
    first, second, third = answer.data
    if encoding == "float":
        assert first.embedding == third.embedding != second.embedding
        assert len(first.embedding) == 8
        assert first.embedding == embedding("a", 8)
    assert [item.index for item in answer.data] == [0, 1, 2]


def test_embeddings_by_the_clients_default_encoding_are_floats(client: Any) -> None:
    answer = client.embeddings.create(model="text-embedding-3-small", input="a")
    assert answer.data[0].embedding == pytest.approx(embedding("a", 1536))


def test_models_are_listed(client: Any) -> None:
    assert "gpt-4o" in [model.id for model in client.models.list()]
    assert client.models.retrieve("org/some-model").id == "org/some-model"


def test_pieces_join_to_the_text() -> None:
    for text in ("", " ", "a", " a  b \n\nc ", "日本語 のテスト", "\n"):
        assert "".join(pieces(text)) == text


def test_tokens_grow_with_the_text() -> None:
    assert [count_tokens(text) for text in ("", "a", "abcd", "abcde", "日本")] == [0, 1, 1, 2, 2]
