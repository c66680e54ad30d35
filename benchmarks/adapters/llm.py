"""A wrapped LLM call beside the bare one, of whichever library this environment has.

Every library gets its documented set-up with an exporter to loopback. Bare and traced calls take turns in
blocks; an instrumentation that changes the client's classes is taken out again for the bare blocks.
"""

from __future__ import annotations

import asyncio
import functools
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import driver
from driver import FLUSH_S, Subject

MESSAGES = [{"role": "user", "content": "word " * 500}]
BLOCK = {"create": 10, "async": 10, "stream": 4}  # calls, by kind
PIECES_MIN = 500


@dataclass
class Library:
    """How one library traces a client."""

    client: Callable[[Any], Any] = lambda client: client  # the traced one, given a bare one
    on: Callable[[], Any] = lambda: None
    off: Callable[[], Any] = lambda: None
    flush: Callable[[], Any] = lambda: None


def fallom(url: str) -> Library:
    import fallom as library

    del url
    library.init()
    session = library.session("app", "s")

    def flush() -> None:
        assert library.flush(FLUSH_S) == 0

    return Library(session.wrap_openai, flush=flush)


def _instrumented(url: str, make: Callable[[], Any]) -> Library:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{url}/v1/traces")))
    instrumentor = make()
    instrumentor.instrument(tracer_provider=provider)
    return Library(
        on=lambda: instrumentor.instrument(tracer_provider=provider),
        off=instrumentor.uninstrument,
        flush=lambda: provider.force_flush(int(FLUSH_S * 1000)),
    )


def openinference(url: str) -> Library:
    def make() -> Any:
        from openinference.instrumentation.openai import OpenAIInstrumentor

        return OpenAIInstrumentor()

    return _instrumented(url, make)


def opentelemetry(url: str) -> Library:
    def make() -> Any:
        from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor

        return OpenAIInstrumentor()

    os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "span_only"
    os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "gen_ai_latest_experimental"
    return _instrumented(url, make)


def langfuse(url: str) -> Library:
    from langfuse import Langfuse
    from langfuse import openai as traced

    client = Langfuse(public_key="pk-lf-1", secret_key="sk-lf-1", base_url=url)
    from openai.resources.chat.completions import AsyncCompletions, Completions

    patched = {each: each.create for each in (Completions, AsyncCompletions)}
    assert traced.OpenAI is not None

    def put(is_traced: bool) -> None:
        for each, create in patched.items():
            each.create = create if is_traced else getattr(create, "__wrapped__", create)

    return Library(on=lambda: put(True), off=lambda: put(False), flush=client.flush)


def langsmith(url: str) -> Library:
    os.environ.update(LANGSMITH_TRACING="true", LANGSMITH_ENDPOINT=url, LANGSMITH_API_KEY="ls-1")
    from langsmith import Client
    from langsmith.wrappers import wrap_openai

    client = Client(api_url=url, api_key="ls-1")
    return Library(
        lambda bare: wrap_openai(bare.copy(), tracing_extra={"client": client}), flush=client.flush
    )


def compare(options: dict[str, Any]) -> Subject:
    """Make a subject whose call is a block of one kind; it tells the typical call's times."""
    from openai import AsyncOpenAI, OpenAI

    library = _library(options["library"], options["url"])
    address = {"base_url": f"{options['url']}/v1", "api_key": "anything"}
    kind, loop = options["kind"], asyncio.new_event_loop()
    bare = (AsyncOpenAI if kind == "async" else OpenAI)(**address)
    traced = library.client(bare)
    library.off()
    took: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    call = {
        "create": _create,
        "stream": _stream,
        "async": lambda c: loop.run_until_complete(_await(c)),
    }[kind]

    def block(number: int) -> None:
        is_traced = bool(number % 2)
        client = traced if is_traced else bare
        if is_traced:
            library.on()
        try:
            each = []
            process_ns = time.process_time_ns()
            for _ in range(BLOCK[kind]):
                begun_ns = time.thread_time_ns()
                call(client)
                each.append((time.thread_time_ns() - begun_ns) / 1000)
            if is_traced:
                library.flush()
            all_us = (time.process_time_ns() - process_ns) / 1000 / BLOCK[kind]
            took[is_traced].append((sorted(each)[len(each) // 4], all_us))  # others' work only adds
        finally:
            if is_traced:
                library.off()

    def answers() -> dict[str, Any]:
        pairs = list(zip(took[False], took[True], strict=True))
        return {
            "traced calls": BLOCK[kind] * len(took[True]),
            "bare_us": statistics.median(each[0] for each in took[False]),
            "traced_us": statistics.median(each[0] for each in took[True]),
            "overhead_us": statistics.median(new[0] - old[0] for old, new in pairs),
            "all_overhead_us": statistics.median(new[1] - old[1] for old, new in pairs),
            "forgotten": [each.clear() for each in took.values()],
        }

    return Subject(block, answers=answers)


@functools.cache
def _library(name: str, url: str) -> Library:
    return LIBRARIES[name](url)


def _create(client: Any) -> None:
    answer = client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert answer.usage.prompt_tokens == 500


def _stream(client: Any) -> None:
    pieces = 0
    for _ in client.chat.completions.create(
        model="gpt-4o", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    ):
        pieces += 1
    assert pieces >= PIECES_MIN


async def _await(client: Any) -> None:
    answer = await client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert answer.usage.prompt_tokens == 500


LIBRARIES = {
    "fallom": fallom,
    "openinference": openinference,
    "opentelemetry": opentelemetry,
    "langfuse": langfuse,
    "langsmith": langsmith,
}

if __name__ == "__main__":
    sys.dont_write_bytecode = False
    driver.serve({"compare": compare})
