"""What goes wrong inside tracing costs the span, never the call, and is counted."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from fake_provider import Provider, Recording, chat_reply

from fallom.integrations import _call, _openai_chat, _stainless, _stream
from fallom.integrations.openai import wrap_openai

REQUEST: Any = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Say hello"}]}
BROKEN = ["content_captured", "call_attributes", "parent", "record"]


class Fault(Exception):
    """What our own code raises in these tests."""


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


def use(client: Any) -> None:
    """A whole call and a stream, which must be as if nothing were observed."""
    completion = client.chat.completions.create(**REQUEST)
    assert completion.choices[0].message.content == "Hello there"
    with client.chat.completions.create(**REQUEST, stream=True) as stream:
        texts = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert "".join(texts) == "Hello"


async def ause(client: Any) -> None:
    completion = await client.chat.completions.create(**REQUEST)
    assert completion.choices[0].message.content == "Hello there"
    async with await client.chat.completions.create(**REQUEST, stream=True) as stream:
        texts = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(texts) == "Hello"


def is_counted(tracing: Recording, kind: type[BaseException] = Fault) -> bool:
    assert tracing.spans == []
    assert {type(error) for _, error in tracing.given_up} == {kind}
    return len(tracing.given_up) == 2  # one a call


@pytest.mark.parametrize("method", BROKEN)
def test_broken_tracing_costs_the_span(
    method: str, client: Any, provider: Provider, tracing: Recording
) -> None:
    tracing.broken = {method: Fault()}
    use(client)
    assert len(provider.asked) == 2
    assert is_counted(tracing)


@pytest.mark.parametrize("method", BROKEN)
async def test_broken_tracing_costs_the_span_of_an_async_call(
    method: str, aclient: Any, provider: Provider, tracing: Recording
) -> None:
    tracing.broken = {method: Fault()}
    await ause(aclient)
    assert len(provider.asked) == 2
    assert is_counted(tracing)


def test_tracing_that_cannot_even_count_costs_the_span(client: Any, tracing: Recording) -> None:
    tracing.broken = {"record": Fault(), "gave_up": Fault()}
    use(client)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (_openai_chat.ChatReader, "__init__"),
        (_openai_chat.ChatReader, "request"),
        (_openai_chat.ChatReader, "answer"),
        (_openai_chat.ChatReader, "_take _take_plain"),
        (_openai_chat, "encode_messages"),
        (_call, "_new_ids"),
        (_call, "_span_of"),
        (_stainless, "server_of"),
        (_stainless, "Call"),
        (_call.Call, "note"),
    ],
)
def test_broken_observer_costs_the_span(
    place: Any,
    name: str,
    client: Any,
    provider: Provider,
    tracing: Recording,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fault(*args: Any, **kwargs: Any) -> Any:
        raise Fault

    for each in name.split():
        monkeypatch.setattr(place, each, fault)
    use(client)
    assert len(provider.asked) == 2
    assert is_counted(tracing)


def test_fault_of_the_short_way_to_read_a_chunk_costs_the_span(
    client: Any, tracing: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*args: Any) -> bool:
        raise Fault

    monkeypatch.setattr(_openai_chat.ChatReader, "plain", fault)
    use(client)
    assert len(tracing.spans) == 1  # of the call that is no stream
    assert [type(error) for _, error in tracing.given_up] == [Fault]


async def test_fault_of_the_short_way_to_read_an_async_chunk_costs_the_span(
    aclient: Any, tracing: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*args: Any) -> bool:
        raise Fault

    monkeypatch.setattr(_openai_chat.ChatReader, "plain", fault)
    await ause(aclient)
    assert len(tracing.spans) == 1
    assert [type(error) for _, error in tracing.given_up] == [Fault]


@pytest.mark.parametrize("name", ["watch_body", "_Decoder", "_Body"])
def test_body_that_cannot_be_watched_is_the_callers_all_the_same(
    name: str, client: Any, tracing: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*args: Any, **kwargs: Any) -> Any:
        raise Fault

    monkeypatch.setattr(_stream, name, fault)
    use(client)
    assert len(tracing.spans) == 1  # of the call that is no stream
    assert [type(error) for _, error in tracing.given_up] == [Fault]


def test_error_of_the_call_is_raised_when_tracing_is_broken(
    client: Any, tracing: Recording
) -> None:
    tracing.broken = {"record": Fault()}
    with pytest.raises(openai.APIConnectionError) as caught:
        use(client.with_options(base_url="http://127.0.0.1:1"))
    assert not isinstance(caught.value.__context__, Fault)
    assert [type(error) for _, error in tracing.given_up] == [Fault]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_interrupt_within_tracing_is_not_hidden(
    kind: type[BaseException], client: Any, tracing: Recording
) -> None:
    tracing.broken = {"record": kind()}
    with pytest.raises(kind):
        client.chat.completions.create(**REQUEST)
    assert tracing.given_up == []


def test_interrupt_of_the_caller_passes_and_gives_a_span(
    client: Any, tracing: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(client._client, "send", interrupted)
    with pytest.raises(KeyboardInterrupt):
        client.chat.completions.create(**REQUEST)
    assert tracing.span.attributes["error.type"] == "KeyboardInterrupt"
