"""``wrap_anthropic``: Anthropic's client, and those with its class (Bedrock, Vertex, Foundry).

``anthropic`` is never imported here: whoever has a client has imported it. Its newer versions make
OpenTelemetry spans of their own as soon as the application has set up a tracer provider. They go to
the application's exporters, ours to the spool; the client's ``open_telemetry`` option is the
caller's to set, and is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fallom._core.span import Tracing
from fallom.integrations._anthropic_messages import MessagesReader, TokenCountReader
from fallom.integrations._call import Reader
from fallom.integrations._provider import provider_of
from fallom.integrations._stainless import Change, Dialect, wrap

__all__ = ["wrap_anthropic"]

T = TypeVar("T")

# Of the subclasses for clouds, whose hosts may be anything behind a gateway.
_CLOUDS = {
    "Bedrock": "aws.bedrock",
    "AWS": "aws.bedrock",
    "Vertex": "gcp.vertex_ai",
    "GoogleCloud": "gcp.vertex_ai",
    "Foundry": "azure.ai.inference",
}


def wrap_anthropic(client: T, tracing: Tracing) -> T:
    """Give a client like ``client`` whose model calls are recorded.

    It has the class and options of ``client`` and shares its HTTP connections; ``client`` itself is
    not changed. Wrapping a wrapped client gives one span a call, to the last ``tracing``. An object
    that is no Anthropic client is given back as it is, and counted.

    Args:
        client: An ``Anthropic`` or ``AsyncAnthropic``, or one of the clients for clouds.
        tracing: Where the spans go.
    """
    return wrap(client, tracing, _DIALECT)


def _provider(client: Any) -> str:
    default = "anthropic"
    for cls in type(client).__mro__:
        for word, name in _CLOUDS.items():
            if word in cls.__name__ and cls.__module__.startswith("anthropic."):
                default = name
    return provider_of(str(client.base_url), default)


def _reader(path: str, body: Any, content_captured: bool) -> Reader | None:
    make = _READERS.get(path.partition("?")[0])
    return None if make is None else make(body, content_captured)


def _unchanged(client: Any, path: str, body: Any, options: Mapping[str, Any]) -> Change | None:
    """Change nothing: Anthropic's streams tell their usage."""
    return None


_READERS: dict[str, Callable[[Any, bool], Reader]] = {
    "/v1/messages": MessagesReader,
    "/v1/messages/count_tokens": TokenCountReader,
}
_DIALECT = Dialect("anthropic", _provider, _reader, _unchanged)
