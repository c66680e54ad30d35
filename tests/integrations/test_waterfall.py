"""What a waterfall shows of a call: attempts, pieces, tools; whose child it is, and whose parent."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import anthropic
import openai
import pytest
from fake_provider import Provider, Recording, Reply, chat_chunks, chat_completion, chat_reply

from fallom.integrations._anthropic_messages import MessagesReader
from fallom.integrations._openai_chat import ChatReader
from fallom.integrations._openai_responses import ResponsesReader
from fallom.integrations.anthropic import wrap_anthropic
from fallom.integrations.openai import wrap_openai

REQUEST: Any = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def client(provider: Provider, tracing: Recording) -> Any:
    provider.always = chat_reply
    with openai.OpenAI(base_url=provider.url, api_key="k", max_retries=2) as client:
        yield wrap_openai(client, tracing)


def names(tracing: Recording) -> list[str]:
    return [event.name for event in tracing.span.events]


def test_retries_are_attempts_within_the_span(
    client: Any, provider: Provider, tracing: Recording
) -> None:
    busy = Reply({"error": {"message": "busy"}}, status=429, headers={"retry-after-ms": "1"})
    provider.queue = [busy, busy]
    client.chat.completions.create(**REQUEST)
    span = tracing.span
    assert span.attributes["fallom.retries"] == 2
    assert names(tracing) == ["fallom.attempt"] * 3
    numbers = [event.attributes["fallom.attempt.number"] for event in span.events]
    assert numbers == [1, 2, 3]
    times = [event.unix_ns for event in span.events]
    assert times == sorted(set(times))
    assert span.start_unix_ns <= times[0] <= times[-1] <= span.end_unix_ns


def test_a_call_without_retries_has_no_attempts(client: Any, tracing: Recording) -> None:
    client.chat.completions.create(**REQUEST)
    assert names(tracing) == []


def test_a_stream_has_its_first_and_its_last_piece(client: Any, tracing: Recording) -> None:
    list(client.chat.completions.create(**REQUEST, stream=True))
    assert names(tracing) == ["fallom.first_chunk", "fallom.last_chunk"]
    span = tracing.span
    first, last = (event.unix_ns for event in span.events)
    assert span.start_unix_ns < first < last <= span.end_unix_ns


def test_the_last_piece_of_a_stream_that_is_left_is_the_last_that_came(
    client: Any, tracing: Recording
) -> None:
    with client.chat.completions.create(**REQUEST, stream=True) as stream:
        next(stream)
        next(stream)  # text alone
    first, last = (event.unix_ns for event in tracing.span.events)
    assert first < last


async def test_the_last_piece_of_an_async_stream_that_is_left_is_the_last_that_came(
    provider: Provider, tracing: Recording
) -> None:
    provider.always = chat_reply
    async with openai.AsyncOpenAI(base_url=provider.url, api_key="k") as bare:
        client: Any = wrap_openai(bare, tracing)
        async with await client.chat.completions.create(**REQUEST, stream=True) as stream:
            await anext(stream)
            await anext(stream)  # text alone
    first, last = (event.unix_ns for event in tracing.span.events)
    assert first < last


CALLS = [
    {"index": i, "id": f"c{i}", "type": "function", "function": {"name": "look", "arguments": ""}}
    for i in range(2)
]
MORE = {"index": 0, "function": {"arguments": "{}"}}


@pytest.mark.parametrize("content", [True, False])
def test_calls_of_tools_are_counted(content: bool) -> None:
    whole = ChatReader(REQUEST, content)
    message = {"role": "assistant", "tool_calls": CALLS}
    whole.whole({"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]})
    assert whole.answer(False)["fallom.tool_calls"] == 2

    streamed = ChatReader(REQUEST, content)
    for calls in ([CALLS[0]], [MORE], [CALLS[1]]):
        streamed.piece({"choices": [{"index": 0, "delta": {"tool_calls": calls}}]})
    assert streamed.answer(True)["fallom.tool_calls"] == 2

    responses = ResponsesReader(REQUEST, content)
    output = [{"type": "function_call", "name": "look"}, {"type": "message", "content": []}]
    responses.whole({"status": "completed", "output": output})
    assert responses.answer(False)["fallom.tool_calls"] == 1

    messages = MessagesReader(REQUEST, content)
    use = {"type": "tool_use", "id": "t", "name": "look", "input": {}}
    messages.piece({"type": "content_block_start", "index": 0, "content_block": use})
    messages.piece({"type": "content_block_start", "index": 1, "content_block": {"type": "text"}})
    assert messages.answer(True)["fallom.tool_calls"] == 1
    plain = ChatReader(REQUEST, content)
    plain.whole(chat_completion())
    assert "fallom.tool_calls" not in plain.answer(False)


def test_only_calls_that_generate_text_take_the_prompt_tag(
    client: Any, provider: Provider, tracing: Recording
) -> None:
    provider.always = Reply({"data": [], "usage": {}, "model": "m", "object": "list", "created": 1})
    client.embeddings.create(model="e", input="a", encoding_format="float")
    client.images.generate(model="i", prompt="a cat")
    client.audio.speech.create(model="s", input="a", voice="v")
    assert (len(tracing.spans), tracing.prompts_taken) == (3, 0)
    provider.always = chat_reply
    client.chat.completions.create(**REQUEST)
    assert tracing.prompts_taken == 1


def test_counting_tokens_takes_no_prompt_tag(provider: Provider, tracing: Recording) -> None:
    provider.always = Reply({"input_tokens": 3})
    with anthropic.Anthropic(base_url=provider.url, api_key="k", max_retries=0) as bare:
        wrap_anthropic(bare, tracing).messages.count_tokens(
            model="c", messages=[{"role": "user", "content": "hi"}]
        )
    assert (len(tracing.spans), tracing.prompts_taken) == (1, 0)


def test_the_span_is_active_while_the_client_works_and_not_after(
    client: Any, provider: Provider, tracing: Recording
) -> None:
    during: list[Any] = []

    def reply(asked: Any) -> Reply:
        during.extend(tracing.activated)
        return chat_reply(asked)

    provider.always = reply
    client.chat.completions.create(**REQUEST)
    assert during == [(tracing.span.trace_id, tracing.span.span_id)]
    assert tracing.activated == []
    provider.always = Reply({"error": {}}, status=400)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(**REQUEST)
    assert tracing.activated == []


async def test_a_cancelled_call_is_no_longer_active(provider: Provider, tracing: Recording) -> None:
    provider.always = Reply(chat_completion(), hangs=True)
    async with openai.AsyncOpenAI(base_url=provider.url, api_key="k", max_retries=0) as bare:
        task = asyncio.ensure_future(wrap_openai(bare, tracing).chat.completions.create(**REQUEST))
        while not tracing.activated:
            await asyncio.sleep(0.001)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert tracing.activated == []
    assert tracing.span.attributes["error.type"] == "CancelledError"


@pytest.mark.parametrize("method", ["activate", "deactivate"])
def test_a_fault_in_making_it_active_costs_nothing_else(
    client: Any, tracing: Recording, method: str
) -> None:
    tracing.broken = {method: RuntimeError("ours")}
    completion = client.chat.completions.create(**REQUEST)
    assert completion.choices[0].message.content == "Hello there"
    assert len(tracing.spans) == 1
    assert len(tracing.given_up) == 1


def test_a_mask_sees_question_answer_and_error(
    client: Any, provider: Provider, tracing: Recording
) -> None:
    tracing.mask = lambda text: text.replace("secret", "[x]")
    request: Any = {"model": "m", "messages": [{"role": "user", "content": "a secret"}]}
    provider.queue = [Reply(events=chat_chunks("sec", "ret"))]
    list(client.chat.completions.create(**request, stream=True))
    client = client.with_options(max_retries=0)
    provider.queue = [Reply({"error": {"message": "no secret"}}, status=400)]
    with pytest.raises(openai.BadRequestError, match="secret"):
        client.chat.completions.create(**request)
    assert tracing.given_up == []
    assert "secret" not in repr(tracing.spans)
    assert repr(tracing.spans).count("[x]") >= 4
