"""Every way in which a stream can end gives one span, and the caller what it would have got."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from fake_provider import Provider, Recording, Reply, chat_chunks, chat_reply

from fallom._core.span import Span, SpanStatus
from fallom.integrations.openai import wrap_openai

REQUEST: Any = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Say hello"}]}


@pytest.fixture
def client(provider: Provider, tracing: Recording) -> Any:
    provider.always = chat_reply
    with openai.OpenAI(base_url=provider.url, api_key="k", max_retries=0) as client:
        yield wrap_openai(client, tracing)


@pytest.fixture
async def aclient(provider: Provider, tracing: Recording) -> Any:
    provider.always = chat_reply
    async with openai.AsyncOpenAI(base_url=provider.url, api_key="k", max_retries=0) as client:
        yield wrap_openai(client, tracing)


def start(client: Any) -> Any:
    return client.chat.completions.create(**REQUEST, stream=True)


def text_of(span: Span) -> str:
    (message,) = json.loads(str(span.attributes["gen_ai.output.messages"]))
    assert message["finish_reason"] == span.attributes["gen_ai.response.finish_reasons"][0]  # type: ignore[index]
    return "".join(part["content"] for part in message["parts"])


def is_partial(span: Span, text: str = "Hel") -> bool:
    assert span.attributes["gen_ai.response.finish_reasons"] == ["error"]
    assert text_of(span) == text
    return span.status == SpanStatus.UNSET and "error.type" not in span.attributes


def read_two(stream: Any) -> None:
    next(stream)
    next(stream)


def test_exhausted_stream_gives_its_span_at_the_end_and_not_before(
    client: Any, tracing: Recording
) -> None:
    stream = start(client)
    read_two(stream)
    assert tracing.spans == []
    assert len(list(stream)) == 2
    assert text_of(tracing.span) == "Hello"
    stream.close()
    with pytest.raises(StopIteration):
        next(stream)
    assert len(tracing.spans) == 1


def test_next_to_the_end_gives_one_span(client: Any, tracing: Recording) -> None:
    stream = start(client)
    count = 0
    while next(stream, None) is not None:
        count += 1
    assert count == 4
    assert text_of(tracing.span) == "Hello"


def test_closed_stream_gives_its_part(client: Any, tracing: Recording) -> None:
    stream = start(client)
    read_two(stream)
    stream.close()
    assert stream.response.is_closed
    assert is_partial(tracing.span)


def test_stream_closed_before_the_first_chunk_gives_a_span(client: Any, tracing: Recording) -> None:
    start(client).close()
    assert tracing.span.attributes["gen_ai.response.finish_reasons"] == ["error"]
    assert "gen_ai.response.time_to_first_chunk" not in tracing.span.attributes


def test_closed_response_of_a_stream_gives_its_part(client: Any, tracing: Recording) -> None:
    stream = start(client)
    read_two(stream)
    stream.response.close()
    assert is_partial(tracing.span)


def test_left_context_gives_its_part(client: Any, tracing: Recording) -> None:
    with start(client) as stream:
        read_two(stream)
    assert is_partial(tracing.span)


def test_callers_error_within_the_context_passes_and_gives_its_part(
    client: Any, tracing: Recording
) -> None:
    error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError) as caught, start(client) as stream:  # noqa: PT012
        read_two(stream)
        raise error
    assert caught.value is error
    assert is_partial(tracing.span)


def test_stream_left_after_its_finish_reason_is_no_error(client: Any, tracing: Recording) -> None:
    with start(client) as stream:
        for chunk in stream:
            if chunk.choices[0].finish_reason:
                break
    assert tracing.span.attributes["gen_ai.response.finish_reasons"] == ["stop"]


def test_dropped_stream_gives_its_part(client: Any, tracing: Recording) -> None:
    stream = start(client)
    read_two(stream)
    del stream
    tracing.wait()
    assert is_partial(tracing.span)


def test_stream_dropped_unread_gives_a_span(client: Any, tracing: Recording) -> None:
    start(client)
    tracing.wait()
    assert tracing.span.attributes["gen_ai.response.finish_reasons"] == ["error"]


def test_closed_generator_of_the_caller_gives_its_part(client: Any, tracing: Recording) -> None:
    def relay() -> Any:
        with start(client) as stream:
            yield from stream

    generator = relay()
    read_two(generator)
    generator.close()  # GeneratorExit in the caller's own code, as when a web client goes away
    assert is_partial(tracing.span)


def test_a_second_thread_gets_the_clients_own_error_and_the_stream_goes_on(
    client: Any, provider: Provider, tracing: Recording
) -> None:
    provider.queue = [Reply(events=chat_chunks("Hel", finish=None, usage=False), hangs=True)]
    stream = start(client)
    read_two(stream)
    with ThreadPoolExecutor(1) as pool:
        rest = pool.submit(list, stream)
        while not stream._iterator.gi_running:
            time.sleep(0.001)
        with pytest.raises(ValueError, match="already executing"):
            next(stream)
        provider.let_go.set()
        assert rest.result() == []
    assert is_partial(tracing.span)


def test_a_reader_that_takes_its_time_gets_each_piece_when_it_asks_for_it(
    client: Any, provider: Provider, tracing: Recording
) -> None:
    provider.queue = [Reply(events=chat_chunks("a", "b", "c"), hangs=False)]
    stream = start(client)
    seen: list[int] = []
    for chunk in stream:
        seen.append(len(seen))
        chunk.choices.clear()  # what the reader does to a piece is behind its recording
        assert tracing.spans == []
    assert len(seen) == 5
    assert text_of(tracing.span) == "abc"


def test_closed_iterator_of_a_stream_gives_its_part_and_leaves_the_response_as_without_us(
    client: Any, provider: Provider, tracing: Recording
) -> None:
    with openai.OpenAI(base_url=provider.url, api_key="k", max_retries=0) as bare:
        streams = [start(bare), start(client)]
        for stream in streams:
            assert inspect.isgenerator(stream._iterator)
            read_two(stream)
            stream._iterator.close()
        theirs, ours = (stream.response.is_closed for stream in streams)
        assert theirs == ours  # newer versions close it
        assert is_partial(tracing.span)
        for stream in streams:
            stream.close()
    assert len(tracing.spans) == 1


def test_broken_connection_raises_the_clients_error_and_gives_its_part(
    client: Any, provider: Provider, tracing: Recording
) -> None:
    provider.queue = [Reply(events=chat_chunks("Hel", finish=None, usage=False), breaks=True)]
    with pytest.raises(Exception) as bare:  # noqa: PT011  # httpx's own in old versions
        list(start(openai.OpenAI(base_url=provider.url, api_key="k", max_retries=0)))
    provider.queue = [Reply(events=chat_chunks("Hel", finish=None, usage=False), breaks=True)]
    with pytest.raises(type(bare.value)):
        list(start(client))
    assert text_of(tracing.span) == "Hel"
    assert tracing.span.status == SpanStatus.ERROR
    assert tracing.span.attributes["error.type"] == type(bare.value).__name__


def test_error_event_raises_and_gives_its_part(
    client: Any, provider: Provider, tracing: Recording
) -> None:
    error = {"error": {"message": "said: hello", "type": "server_error", "code": "overloaded"}}
    provider.queue = [Reply(events=[*chat_chunks("Hel", finish=None, usage=False), error])]
    with pytest.raises(openai.APIError, match="said"):
        list(start(client))
    assert tracing.span.attributes["error.type"] == "overloaded"
    assert tracing.span.status_message == "said: hello"
    assert text_of(tracing.span) == "Hel"


def test_timeout_within_a_stream_raises_and_gives_its_part(
    client: Any, provider: Provider, tracing: Recording
) -> None:
    provider.queue = [Reply(events=chat_chunks("Hel", finish=None, usage=False), hangs=True)]
    with pytest.raises(Exception, match=r"(?i)timed out"):
        list(start(client.with_options(timeout=0.3)))
    assert tracing.span.status == SpanStatus.ERROR
    assert "Timeout" in str(tracing.span.attributes["error.type"])


def test_stream_without_a_finish_reason_says_error(
    client: Any, provider: Provider, tracing: Recording
) -> None:
    provider.queue = [Reply(events=chat_chunks("Hel", finish=None, usage=False))]
    list(start(client))
    assert is_partial(tracing.span)


async def test_exhausted_async_stream_gives_one_span(aclient: Any, tracing: Recording) -> None:
    stream = await start(aclient)
    assert len([chunk async for chunk in stream]) == 4
    await stream.close()
    assert text_of(tracing.span) == "Hello"


async def test_closed_async_stream_gives_its_part(aclient: Any, tracing: Recording) -> None:
    stream = await start(aclient)
    await stream.__anext__()
    await stream.__anext__()
    assert tracing.spans == []
    await stream.close()
    assert is_partial(tracing.span)


async def test_left_async_context_gives_its_part(aclient: Any, tracing: Recording) -> None:
    async with await start(aclient) as stream:
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
    assert is_partial(tracing.span)


async def test_dropped_async_stream_gives_its_part(aclient: Any, tracing: Recording) -> None:
    stream = await start(aclient)
    await stream.__anext__()
    await stream.__anext__()
    del stream
    for _ in range(200):
        gc.collect()
        if tracing.spans:
            break
        await asyncio.sleep(0.01)
    assert is_partial(tracing.span)


async def test_cancelled_async_stream_raises_and_gives_its_part(
    aclient: Any, provider: Provider, tracing: Recording
) -> None:
    provider.queue = [Reply(events=chat_chunks("Hel", finish=None, usage=False), hangs=True)]
    read = asyncio.Event()

    async def consume() -> None:
        async for chunk in await start(aclient):
            if chunk.choices[0].delta.content:
                read.set()

    task = asyncio.create_task(consume())
    await read.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tracing.span.status == SpanStatus.ERROR
    assert tracing.span.attributes["error.type"] == "CancelledError"
    assert text_of(tracing.span) == "Hel"


async def test_call_cancelled_before_its_answer_gives_a_span(
    aclient: Any, provider: Provider, tracing: Recording
) -> None:
    provider.queue = [Reply({}, hangs=True)]
    task = asyncio.create_task(start(aclient))
    while not provider.asked:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tracing.span.attributes["error.type"] == "CancelledError"
    assert "gen_ai.response.finish_reasons" not in tracing.span.attributes


async def test_call_abandoned_with_its_loop_gives_a_span_and_no_noise(
    aclient: Any, provider: Provider, tracing: Recording, recwarn: Any
) -> None:
    provider.queue = [Reply({}, hangs=True)]
    coroutine = aclient.post("/chat/completions", cast_to=object, body=REQUEST)
    begun, other = contextvars.copy_context(), contextvars.Context()
    future = begun.run(coroutine.send, None)  # driven by hand, as by a loop that stops
    assert tracing.spans == []
    other.run(coroutine.close)  # wherever the collector runs
    if future is not None:
        future.cancel()
    assert tracing.span.attributes["error.type"] == "GeneratorExit"
