"""The public API as an application's type checker sees it: mypy --strict and pyright; it is never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from typing_extensions import assert_type

import fallom
from fallom import masks, models, prompts, trace
from fallom.testing import Capture, CapturedSpan, capture


class Client:
    """Stands for a client library's class: what is wrapped keeps its type."""


def settings() -> None:
    assert_type(fallom.init(api_key="key"), None)
    fallom.init("key", "https://traces.example.com", flusher="external", sample_rate=0.1)
    fallom.init(mask=masks.compose(masks.api_keys, masks.email_addresses))
    fallom.init(fsync="sometimes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    fallom.init(api_kay="key")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def mistaken() -> None:
    fallom.statuz()  # type: ignore[attr-defined]  # pyright: ignore
    models.gett("config", "session")  # type: ignore[attr-defined]  # pyright: ignore
    trace.spann({})  # type: ignore[attr-defined]  # pyright: ignore
    assert_type(trace.is_initialized(), bool)
    assert_type(trace.session("config", "session"), fallom.FallomSession)


def reading() -> None:
    assert_type(models.get("config", "session"), str)
    assert_type(
        models.get("config", "session", version=2, fallback="gpt-4o", context={"a": 1}), str
    )
    explained = models.explain("config", "session")
    assert_type(explained, fallom.Explanation)
    assert_type(explained.model, str | None)
    prompt = prompts.get("prompt", variables={"name": "Ann", "count": 3})
    assert_type(prompt, fallom.PromptResult)
    assert_type(prompt.system, str)
    assert_type(prompts.get_ab("test", "session").variant_index, int | None)
    instead = prompts.get(
        "prompt", fallback=[{"role": "user", "content": "Hello"}], missing="error"
    )
    assert_type(instead.messages, list[Any])
    assert_type(instead.missing, tuple[str, ...])
    prompts.get_ab("test", "session", fallback={"system": "Be brief.", "user": "Hello"})
    prompts.get("prompt", fallback=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    prompts.get("prompt", missing="x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    models.get("config")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def sessions() -> None:
    session = fallom.session("config", "session", customer_id="customer", tags=["a"])
    assert_type(session, fallom.FallomSession)
    assert_type(session.wrap_openai(Client()), Client)
    assert_type(session.wrap_anthropic(Client()), Client)
    assert_type(session.wrap_google_ai(Client()), Client)
    assert_type(await session.get_model(fallback="gpt-4o"), str)
    assert_type(session.get_model_sync(), str)
    with session as inner:
        assert_type(inner, fallom.FallomSession)
    async with fallom.session("config", "session") as entered:
        assert_type(entered, fallom.FallomSession)
    assert_type(await fallom.aflush(timeout=1), int)


@trace.step("weather", kind="tool")
def weather(city: str) -> int:
    return len(city)


@trace.step("search", kind="retrieval")
async def search(query: str) -> list[str]:
    return [query]


@trace.step("pieces")
def pieces(count: int) -> Iterator[int]:
    yield from range(count)


@trace.step("tokens")
async def tokens(count: int) -> AsyncIterator[int]:
    yield count


async def steps() -> None:
    assert_type(weather("Oslo"), int)
    assert_type(await search("Oslo"), list[str])
    assert_type(pieces(3), Iterator[int])
    assert_type(tokens(3), AsyncIterator[int])
    weather(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with trace.step("plan", kind="agent") as plan:
        plan.set_attribute("cities", 1)
    trace.step("plan", kind="nothing")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    trace.span({"score": 0.5}, config_key="config", session_id="session")
    assert_type(trace.get_session(), dict[str, Any] | None)


def ending() -> None:
    assert_type(fallom.flush(timeout=1), int)
    assert_type(fallom.wait_until_ready(), bool)
    assert_type(fallom.status(), dict[str, Any])
    try:
        models.get("config", "session")
    except fallom.NotFoundError as error:
        assert_type(error.key, str)


def testing() -> None:
    with capture(models={"config": "gpt-4o"}, prompts={"hello": "Hello"}) as captured:
        assert_type(captured, Capture)
        assert_type(captured.spans, list[CapturedSpan])
        assert_type(captured.span().model, str | None)
