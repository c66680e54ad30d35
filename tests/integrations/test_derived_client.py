"""The derived client: of the caller's class, sharing its connections, and the caller's unchanged."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import logging
import pickle
import subprocess
import sys
import weakref
from typing import Any
from unittest import mock

import anthropic
import openai
import pytest
from fake_provider import Asked, Provider, Recording, Reply, chat_completion, chat_reply

from fallom._core.span import SpanStatus
from fallom.integrations._stainless import _base_url_of
from fallom.integrations.anthropic import wrap_anthropic
from fallom.integrations.openai import wrap_openai
from tests.support.flushers import wait_for

REQUEST: Any = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Say hello"}]}


@pytest.fixture
def bare(provider: Provider) -> Any:
    provider.always = chat_reply
    with openai.OpenAI(base_url=provider.url, api_key="k", max_retries=0) as client:
        yield client


def call(client: Any) -> Any:
    return client.chat.completions.create(**REQUEST)


def test_derived_client_is_of_the_same_class_and_shares_the_pool(
    bare: Any, tracing: Recording
) -> None:
    bare.note = "put here by the caller"
    client = wrap_openai(bare, tracing)
    assert client is not bare
    assert type(client) is openai.OpenAI
    assert client._client is bare._client
    assert client.note == "put here by the caller"
    assert client.chat is not bare.chat
    assert client.chat is client.chat


def test_callers_client_is_unchanged_and_untraced(bare: Any, tracing: Recording) -> None:
    call(bare)
    before = dict(vars(bare))
    client = wrap_openai(bare, tracing)
    call(client)
    assert vars(bare) == before
    call(bare)
    assert len(tracing.spans) == 1


def test_wrapped_client_wrapped_again_gives_one_span_to_the_last(
    bare: Any, tracing: Recording
) -> None:
    first = Recording()
    call(wrap_openai(wrap_openai(bare, first), tracing))
    assert first.spans == []
    assert len(tracing.spans) == 1


def test_options_of_a_wrapped_client_survive_wrapping_again(bare: Any, tracing: Recording) -> None:
    client = wrap_openai(wrap_openai(bare, Recording()).with_options(timeout=7.5), tracing)
    assert client.timeout == 7.5
    call(client)
    assert len(tracing.spans) == 1


@pytest.mark.parametrize("method", ["with_options", "copy"])
def test_options_changed_on_a_wrapped_client_keep_it_traced(
    method: str, bare: Any, provider: Provider, tracing: Recording
) -> None:
    client = getattr(wrap_openai(bare, tracing), method)(default_headers={"x-team": "a"})
    assert type(client) is openai.OpenAI
    call(client.with_options(timeout=3))
    assert provider.asked[0].headers["x-team"] == "a"
    assert len(tracing.spans) == 1
    assert tracing.given_up == []


def test_post_that_the_caller_put_on_its_client_is_still_used(
    bare: Any, tracing: Recording
) -> None:
    inner, seen = bare.post, []

    def post(path: str, **kwargs: Any) -> Any:
        seen.append(path)
        return inner(path, **kwargs)

    bare.post = post
    call(wrap_openai(bare, tracing))
    assert seen == ["/chat/completions"]
    assert len(tracing.spans) == 1


def test_subclass_with_another_constructor_is_kept(provider: Provider, tracing: Recording) -> None:
    class Own(openai.OpenAI):
        def __init__(self, place: str, *, team: str) -> None:
            super().__init__(base_url=place, api_key="k")
            self.team = team

    provider.always = chat_reply
    client = wrap_openai(Own(provider.url, team="blue"), tracing)
    assert type(client) is Own
    assert client.team == "blue"
    call(client)
    assert len(tracing.spans) == 1


def test_azure_is_traced_as_azure(provider: Provider, tracing: Recording) -> None:
    provider.always = chat_reply
    azure = openai.AzureOpenAI(
        azure_endpoint=provider.url, api_key="k", api_version="2024-10-21", max_retries=0
    )
    client = wrap_openai(azure, tracing)
    assert type(client) is openai.AzureOpenAI
    assert len(list(client.chat.completions.create(**REQUEST, stream=True))) == 4
    assert provider.asked[0].path.startswith("/openai/deployments/gpt-4o/chat/completions")
    assert tracing.span.attributes["gen_ai.provider.name"] == "azure.ai.openai"
    assert tracing.span.attributes["gen_ai.usage.input_tokens"] == 20


def test_old_azure_version_is_not_asked_for_usage(provider: Provider, tracing: Recording) -> None:
    provider.always = chat_reply
    azure = openai.AzureOpenAI(
        azure_endpoint=provider.url, api_key="k", api_version="2024-06-01", max_retries=0
    )
    list(wrap_openai(azure, tracing).chat.completions.create(**REQUEST, stream=True))
    assert "stream_options" not in provider.asked[0].json


@pytest.mark.parametrize(
    ("base_url", "name"),
    [
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://eu.api.openai.com/v1", "openai"),
        ("https://api.x.ai/v1", "x_ai"),
        ("http://gateway.internal:8080/v1", "openai"),
    ],
)
def test_provider_is_told_by_the_host(base_url: str, name: str, tracing: Recording) -> None:
    client = wrap_openai(openai.OpenAI(base_url=base_url, api_key="k", max_retries=0), tracing)
    client._client.send = mock.Mock(side_effect=OSError("no network"))
    with pytest.raises((OSError, openai.APIConnectionError)):  # the older versions' word for it
        call(client)
    assert tracing.span.attributes["gen_ai.provider.name"] == name
    assert tracing.span.attributes["server.address"] in base_url
    assert tracing.span.attributes["server.port"] == (8080 if "8080" in base_url else 443)


@pytest.mark.parametrize(
    "make", [openai.OpenAI, openai.AsyncOpenAI, anthropic.Anthropic, anthropic.AsyncAnthropic]
)
def test_base_url_of_the_libraries_own_clients_is_read_where_they_keep_it(make: Any) -> None:
    library = make.__mro__[1].__module__.partition(".")[0]
    found = _base_url_of(make(api_key="k"), library)
    assert repr(found) == "operator.attrgetter('_base_url')"


@pytest.mark.parametrize("wrap", [wrap_openai, wrap_anthropic])
@pytest.mark.parametrize(
    "thing", [None, object(), "client", openai, mock.Mock(spec=openai.OpenAI), {"post": 1}]
)
def test_unknown_object_is_given_back_and_counted_once(
    wrap: Any, thing: Any, tracing: Recording
) -> None:
    assert wrap(thing, tracing) is thing
    ((reason, error),) = tracing.given_up
    assert reason == "unknown_client"
    assert isinstance(error, TypeError)


def test_client_of_another_library_is_given_back(bare: Any, tracing: Recording) -> None:
    assert wrap_anthropic(bare, tracing) is bare
    assert "openai" in str(tracing.given_up[0][1])


def test_thousand_sessions_on_one_client_stay_apart(bare: Any, provider: Provider) -> None:
    provider.always = lambda asked: Reply(chat_completion(id=asked.json["user"]))

    def session(number: int) -> Recording:
        tracing = Recording()
        tracing.attributes = {"fallom.session_id": f"s-{number}"}
        wrap_openai(bare, tracing).chat.completions.create(**REQUEST, user=f"s-{number}")
        return tracing

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        sessions = list(pool.map(session, range(1_000)))
    for number, tracing in enumerate(sessions):
        assert tracing.span.attributes["fallom.session_id"] == f"s-{number}"
        assert tracing.span.attributes["gen_ai.response.id"] == f"s-{number}"


async def test_concurrent_async_sessions_stay_apart(provider: Provider) -> None:
    provider.always = lambda asked: Reply(chat_completion(id=asked.json["user"]))
    async with openai.AsyncOpenAI(base_url=provider.url, api_key="k") as bare:

        async def session(number: int) -> Recording:
            tracing = Recording()
            client = wrap_openai(bare, tracing)
            await client.chat.completions.create(**REQUEST, user=f"s-{number}")
            return tracing

        sessions = await asyncio.gather(*(session(number) for number in range(100)))
    ids = [tracing.span.attributes["gen_ai.response.id"] for tracing in sessions]
    assert ids == [f"s-{number}" for number in range(100)]


def test_memory_does_not_grow_with_sessions(provider: Provider) -> None:
    class Forgetful(Recording):
        def record(self, span: Any) -> None:
            pass

    provider.always = chat_reply
    derived: list[weakref.ref[Any]] = []
    with openai.OpenAI(base_url=provider.url, api_key="k", max_retries=0) as bare:
        for _ in range(60):
            tracing = Forgetful()  # which each call holds
            client = wrap_openai(bare, tracing)
            list(client.chat.completions.create(**REQUEST, stream=True))
            # Closed, not dropped: with older clients a dropped stream may lock up httpcore's pool,
            # traced or not, when the collector finds it while the pool is at work.
            with client.chat.completions.create(**REQUEST, stream=True) as stream:
                next(stream)
            held = (tracing, client, client.chat, client.chat.completions, stream)
            derived += map(weakref.ref, held)
        del tracing, client, stream, held

        def left() -> list[Any]:
            gc.collect()  # does nothing while one of the provider's threads collects
            return [ref() for ref in derived if ref() is not None]

        wait_for(lambda: not left(), what="the end of all that was derived")


def test_span_joins_the_active_trace(bare: Any, tracing: Recording) -> None:
    tracing.active = (b"t" * 16, b"p" * 8)
    call(wrap_openai(bare, tracing))
    assert tracing.span.trace_id == b"t" * 16
    assert tracing.span.parent_span_id == b"p" * 8


def test_attributes_of_the_session_are_those_of_the_calls_start(
    bare: Any, tracing: Recording
) -> None:
    stream = wrap_openai(bare, tracing).chat.completions.create(**REQUEST, stream=True)
    tracing.attributes = {"fallom.session_id": "a later one"}
    list(stream)
    assert tracing.span.attributes["fallom.session_id"] == "s-1"


def test_retries_are_counted(provider: Provider, tracing: Recording) -> None:
    limit = {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}
    refused = Reply(limit, status=429, headers={"retry-after-ms": "1"})
    provider.queue = [refused, refused, Reply(chat_completion())]
    call(wrap_openai(openai.OpenAI(base_url=provider.url, api_key="k", max_retries=2), tracing))
    assert len(provider.asked) == 3
    assert tracing.span.attributes["fallom.retries"] == 2
    assert tracing.span.status == SpanStatus.UNSET


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (401, openai.AuthenticationError, "invalid_api_key"),
        (429, openai.RateLimitError, "rate_limit_exceeded"),
        (500, openai.InternalServerError, "server_error"),
    ],
)
def test_refused_call_raises_as_it_would_and_gives_a_span(
    status: int, kind: type, code: str, bare: Any, provider: Provider, tracing: Recording
) -> None:
    provider.always = Reply(
        {"error": {"message": "you said: Say hello", "code": code}},
        status=status,
        headers={"retry-after-ms": "1"},
    )
    with pytest.raises(kind) as caught:
        call(wrap_openai(bare.with_options(max_retries=1), tracing))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    assert caught.value.request_id == "req_1"
    attributes = tracing.span.attributes
    assert tracing.span.status == SpanStatus.ERROR
    assert attributes["error.type"] == code
    assert attributes["fallom.request_id"] == "req_1"
    assert attributes.get("fallom.retries") == (None if status == 401 else 1)
    assert "you said" in tracing.span.status_message


def test_message_of_an_error_is_content(bare: Any, provider: Provider, private: Recording) -> None:
    provider.always = Reply({"error": {"message": "you said: Say hello"}}, status=400)
    with pytest.raises(openai.BadRequestError):
        call(wrap_openai(bare, private))
    assert private.span.status_message == ""
    assert private.span.attributes["error.type"] == "BadRequestError"
    assert "you said" not in repr(private.span)


def test_refused_connection_and_timeout_give_their_class(
    bare: Any, provider: Provider, tracing: Recording
) -> None:
    provider.queue = [Reply({}, hangs=True)]
    with pytest.raises(openai.APITimeoutError):
        call(wrap_openai(bare.with_options(timeout=0.2), tracing))
    with pytest.raises(openai.APIConnectionError):
        call(wrap_openai(bare.with_options(base_url="http://127.0.0.1:1"), tracing))
    kinds = [span.attributes["error.type"] for span in tracing.spans]
    assert kinds == ["APITimeoutError", "APIConnectionError"]


def test_importing_the_wrappers_loads_no_client_library() -> None:
    code = (
        "import sys, threading\n"
        "import fallom.integrations.openai, fallom.integrations.anthropic\n"
        "import fallom.integrations.google_ai\n"
        "names = {'openai', 'anthropic', 'google.genai', 'google.generativeai', 'httpx', 'socket'}\n"
        "loaded = names & set(sys.modules)\n"
        "sys.exit(repr(loaded) if loaded or threading.active_count() > 1 else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["AnthropicBedrock", "AnthropicVertex", "AnthropicFoundry"])
def test_clients_for_clouds_are_traced(name: str, provider: Provider, tracing: Recording) -> None:
    arguments: dict[str, dict[str, Any]] = {
        "AnthropicBedrock": {"aws_region": "eu-1", "aws_access_key": "a", "aws_secret_key": "b"},
        "AnthropicVertex": {"region": "eu-1", "project_id": "p", "access_token": "t"},
        "AnthropicFoundry": {"api_key": "k"},
    }
    cls = getattr(anthropic, name, None)
    if cls is None:
        pytest.skip(f"this anthropic has no {name}")
    bare = cls(base_url=provider.url, max_retries=0, **arguments[name])
    client = wrap_anthropic(bare, tracing)
    assert type(client) is cls
    assert client.messages._post is client.post
    assert bare.messages._post is not client.post
    logging.getLogger(name).debug("%s", client)


def test_pickling_is_that_of_the_bare_client(bare: Any, tracing: Recording) -> None:
    client = wrap_openai(bare, tracing)
    expected, found = call(bare), call(client)
    assert pickle.loads(pickle.dumps(found)) == expected
    outcomes = []
    for candidate in (bare, client):
        with pytest.raises(TypeError) as refusal:
            pickle.dumps(candidate)
        outcomes.append(str(refusal.value))
    assert outcomes[1] == outcomes[0]


def test_asked_is_what_the_server_saw(provider: Provider) -> None:
    assert provider.asked == []
    assert Asked("/", {}, b"{}").json == {}
