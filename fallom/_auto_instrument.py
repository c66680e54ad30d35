"""What ``init`` does with other libraries by itself: found cheaply, used when they are imported.

OpenTelemetry instrumentations of LLM clients are used where they are installed, and Celery is told to carry
the context of a task.

``init`` pays for one listing of each directory on the path, and only a process that imports such a
client pays for the SDK: the instrumentation waits for the client's first import.

Spans go to the application's tracer provider if it has set one by then, where ours is one processor
more and takes only what has to do with models; else to a provider of our own, which is not made the
global one, so that the application may still set its.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fallom._import_watch import when_imported
from fallom._runtime import current

__all__ = ["Instrumentation", "connect_celery", "find_instrumentations", "instrument_clients"]

_logger = logging.getLogger("fallom")

# Distribution, with underscores -> the package that it instruments. Of several for one package the
# first that works is used: two would give two spans a call.
_KNOWN = {
    "opentelemetry_instrumentation_genai_openai": "openai",
    "opentelemetry_instrumentation_openai_v2": "openai",
    "opentelemetry_instrumentation_openai": "openai",
    "opentelemetry_instrumentation_genai_anthropic": "anthropic",
    "opentelemetry_instrumentation_anthropic": "anthropic",
    "opentelemetry_instrumentation_google_genai": "google.genai",
    "opentelemetry_instrumentation_google_generativeai": "google.generativeai",
    "opentelemetry_instrumentation_vertexai": "vertexai",
    "opentelemetry_instrumentation_genai_langchain": "langchain_core",
    "opentelemetry_instrumentation_langchain": "langchain_core",
    "opentelemetry_instrumentation_genai_bedrock": "botocore",
    "opentelemetry_instrumentation_bedrock": "botocore",
    "opentelemetry_instrumentation_cohere": "cohere",
    "opentelemetry_instrumentation_groq": "groq",
    "opentelemetry_instrumentation_mistralai": "mistralai",
    "opentelemetry_instrumentation_ollama": "ollama",
    "opentelemetry_instrumentation_together": "together",
}
_GROUP = "[opentelemetry_instrumentor]"


class Instrumentation(NamedTuple):
    """An instrumentation that is installed."""

    client: str  # the package that it instruments
    module: str
    name: str  # of the instrumentor's class in it


def instrument_clients(path: Iterable[str]) -> None:
    """Use the instrumentations of LLM clients that are on ``path``. Never raises; doing it again is free.

    A client that is not imported yet is instrumented when it is.
    """
    try:
        for client, candidates in find_instrumentations(path).items():
            when_imported(client, _instrumenting(candidates))
    except Exception as error:  # noqa: BLE001  # the edge guard of all that others' packages do here
        _warn("OpenTelemetry instrumentations", error)


def connect_celery() -> None:
    """Have tasks of Celery carry the context, from when Celery is imported. Never raises."""
    # Its signals, not the package: that one loads its parts when they are used.
    when_imported("celery.signals", _connect_celery)


def _connect_celery() -> None:
    if not current().settings.auto_instrument:  # another init has said so since
        return
    try:
        from fallom.integrations.celery import install  # paid for by those who use it

        install()
    except Exception as error:  # noqa: BLE001  # the edge guard: others' code, in an import
        _warn("Celery's signals", error)


def find_instrumentations(path: Iterable[str]) -> dict[str, list[Instrumentation]]:
    """Give the instrumentations on ``path`` by the package that they instrument, the best first.

    By the names of the directories with the distributions' metadata: the standard library's way reads
    the metadata of every distribution, which takes tens of milliseconds where hundreds are installed.
    """
    there: dict[str, str] = {}
    for directory in dict.fromkeys(path):
        try:
            entries = os.listdir(directory or ".")
        except OSError:  # a zip file, or nothing at all: the path may name what is not there
            continue
        for entry in entries:
            if entry.startswith("opentelemetry_instrumentation_") and entry.endswith(".dist-info"):
                there.setdefault(entry.partition("-")[0], os.path.join(directory, entry))
    found: dict[str, list[Instrumentation]] = {}
    for distribution, client in _KNOWN.items():
        entry_point = _entry_point(there[distribution]) if distribution in there else None
        if entry_point is not None:
            found.setdefault(client, []).append(Instrumentation(client, *entry_point))
    return found


def _entry_point(metadata: str) -> tuple[str, str] | None:
    try:
        with open(os.path.join(metadata, "entry_points.txt"), encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError):
        return None
    _, _, rest = text.partition(_GROUP)
    for line in rest.splitlines():
        if line.startswith("["):
            return None
        module, colon, name = line.partition("=")[2].strip().partition(":")
        if colon:
            return module, name
    return None


def _instrumenting(candidates: Sequence[Instrumentation]) -> Callable[[], None]:
    def instrument() -> None:
        if not current().settings.auto_instrument:  # another init has said so since
            return
        # What the application has set up itself comes first: a second one would double its spans.
        for candidate in sorted(candidates, key=_is_set_up, reverse=True):
            try:
                _instrument(candidate)
            except Exception as error:  # noqa: BLE001  # the edge guard: others' code, in an import
                _warn(candidate.module, error)
            else:
                return

    return instrument


def _is_set_up(candidate: Instrumentation) -> bool:
    """Tell whether the application uses an instrumentation already; it is one object a process."""
    instrumentor = getattr(sys.modules.get(candidate.module), candidate.name, None)
    found = getattr(instrumentor, "_instance", None)
    return bool(getattr(found, "is_instrumented_by_opentelemetry", False))


def _warn(what: str, error: BaseException) -> None:
    why = f"{what} cannot be used: {type(error).__name__}"
    current().warn(why, "auto_instrument=False leaves them alone")
    _logger.debug("%s", why, exc_info=error)


def _instrument(found: Instrumentation) -> None:
    # Only here, where a client is used that is instrumented: the SDK takes its time to import.
    from opentelemetry import trace

    from fallom.opentelemetry import FallomSpanProcessor

    instrumentor: Any = getattr(importlib.import_module(found.module), found.name)()
    is_instrumented = instrumentor.is_instrumented_by_opentelemetry
    provider: Any = trace.get_tracer_provider()
    if hasattr(provider, "add_span_processor"):  # the SDK's, set by the application
        inner = getattr(provider, "_active_span_processor", None)
        processors = getattr(inner, "_span_processors", ())
        if not any(isinstance(processor, FallomSpanProcessor) for processor in processors):
            provider.add_span_processor(FallomSpanProcessor(only_llm=True))
        if not is_instrumented:
            instrumentor.instrument()
    elif not is_instrumented:
        instrumentor.instrument(**_own_provider())


def _own_provider() -> Mapping[str, Any]:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    from fallom.opentelemetry import FallomSpanProcessor

    # An empty resource, because OpenTelemetry finds its own with threads; the process's is added.
    provider = TracerProvider(resource=Resource.get_empty(), shutdown_on_exit=False)
    provider.add_span_processor(FallomSpanProcessor())
    return {"tracer_provider": provider}
