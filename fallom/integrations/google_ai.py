"""``wrap_google_ai``: Google's models, of google-generativeai and of its successor google-genai.

Neither package is imported here: whoever has a model has imported it. Both SDKs end in one method
of one object, ``generate_content`` of a model or of ``client.models``, which chats call too; the
derived object is a copy with that method of its own. With automatic function calling one such call
makes several requests; it is one span, with the usage of the last.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

from fallom._core.span import AttributeValue, Tracing
from fallom.integrations import _attributes as names
from fallom.integrations._call import Call, give_up
from fallom.integrations._content import field
from fallom.integrations._google_content import ContentReader, EmbedReader, Request
from fallom.integrations._provider import server_of
from fallom.integrations._stream import watch_iterator

__all__ = ["wrap_google_ai"]

T = TypeVar("T")


def wrap_google_ai(model: T, tracing: Tracing) -> T:
    """Give an object like ``model`` whose model calls are recorded.

    ``model`` itself is not changed. Wrapping a wrapped object gives one span a call, to the last
    ``tracing``. What is none of the objects below is given back as it is, and counted.

    Args:
        model: A ``GenerativeModel`` or its chat (google-generativeai), or a ``genai.Client``,
            ``client.models``, ``client.aio``, ``client.aio.models`` or a chat (google-genai).
        tracing: Where the spans go.
    """
    derive = next((_KINDS[k] for cls in type(model).__mro__ if (k := _kind(cls)) in _KINDS), None)
    try:
        if derive is None:
            found = f"{type(model).__module__}.{type(model).__qualname__}"
            raise TypeError(f"{found} is no model or client of Google's; it is used untraced.")
        derived: T = derive(model, tracing)
    except Exception as error:  # noqa: BLE001  # named edge guard: an untraced model serves
        give_up(tracing, "unknown_client", error)
        return model
    return derived


def _kind(cls: type) -> tuple[str, str]:
    package = "google.genai" if cls.__module__.startswith("google.genai.") else ""
    if cls.__module__.startswith("google.generativeai."):
        package = "google.generativeai"
    return package, cls.__name__


def _copy(source: Any) -> Any:
    derived = copy.copy(source)
    for name, value in list(vars(derived).items()):
        if hasattr(value, "fallom_inner"):
            delattr(derived, name)
    return derived


def _legacy_model(model: Any, tracing: Tracing) -> Any:
    derived = _copy(model)

    def begin(args: Any, kwargs: Any) -> Call:
        config = kwargs.get("generation_config")
        request = Request(
            model.model_name,
            args[0] if args else kwargs.get("contents"),
            [config, model._generation_config],
            model._system_instruction,
            kwargs.get("tools"),
        )
        attributes: dict[str, AttributeValue] = {
            names.PROVIDER: "gcp.gemini",
            names.SERVER_ADDRESS: "generativelanguage.googleapis.com",
            names.SERVER_PORT: 443,
        }
        if kwargs.get("stream"):
            attributes[names.STREAM] = True
        return Call(tracing, ContentReader(request, tracing.content_captured), attributes)

    derived.generate_content = _sync(derived.generate_content, tracing, begin, _legacy_answer)
    derived.generate_content_async = _async(
        derived.generate_content_async, tracing, begin, _legacy_answer
    )
    return derived


def _legacy_answer(answer: Any, call: Call) -> Any:
    """Observe a response, which the older SDK has read one chunk of when it is streamed."""
    if answer._iterator is None or answer._done:
        call.answered(answer._result)
    else:
        call.piece(answer._result)
        answer._iterator = watch_iterator(answer._iterator, call)
    return answer


def _legacy_chat(chat: Any, tracing: Tracing) -> Any:
    derived = copy.copy(chat)
    derived.model = _legacy_model(chat.model, tracing)
    return derived


def _models(models: Any, tracing: Tracing) -> Any:
    derived = _copy(models)
    is_async = type(models).__name__ == "AsyncModels"
    wrap: Callable[..., Any] = _async if is_async else _sync
    for name in ("generate_content", "embed_content"):
        make = EmbedReader if name == "embed_content" else ContentReader
        begin = _beginner(models, tracing, make, {})
        setattr(derived, name, wrap(getattr(derived, name), tracing, begin, _whole_answer))
    begin = _beginner(models, tracing, ContentReader, {names.STREAM: True})
    inner = derived.generate_content_stream
    derived.generate_content_stream = (
        _async(inner, tracing, begin, _relay_async)
        if is_async
        else _generator(inner, tracing, begin)
    )
    return derived


def _beginner(
    models: Any, tracing: Tracing, make: Any, more: dict[str, AttributeValue]
) -> Callable[[Any, Any], Call]:
    def begin(args: Any, kwargs: Any) -> Call:
        config = kwargs.get("config")
        request = Request(
            kwargs.get("model"),
            kwargs.get("contents"),
            [config],
            field(config, "system_instruction"),
            field(config, "tools"),
        )
        client = models._api_client
        host, port = server_of(str(field(client._http_options, "base_url") or ""))
        attributes: dict[str, AttributeValue] = {
            names.PROVIDER: "gcp.vertex_ai" if client.vertexai else "gcp.gemini",
            names.SERVER_ADDRESS: host,
            names.SERVER_PORT: port,
            **more,
        }
        return Call(tracing, make(request, tracing.content_captured), attributes)

    return begin


def _whole_answer(answer: Any, call: Call) -> Any:
    call.answered(answer)
    return answer


def _async_client(client: Any, tracing: Tracing) -> Any:
    derived = copy.copy(client)
    derived._models = _models(client._models, tracing)
    return derived


def _client(client: Any, tracing: Tracing) -> Any:
    derived = copy.copy(client)
    cls = type(client)
    if not hasattr(cls, "fallom_inner"):
        # A client closes its connections when it is collected. Ours shares them: they end with the
        # caller's client, which is kept as long as ours, and not with ours.
        space = {"__del__": _keep_open, "__module__": cls.__module__, "fallom_inner": cls}
        derived.__class__ = type(cls.__name__, (cls,), space)
    derived._fallom_origin = client
    derived._models = _models(client._models, tracing)
    derived._aio = _async_client(client._aio, tracing)
    return derived


def _keep_open(client: Any) -> None:
    """Take the place of ``__del__``."""


def _chat(chat: Any, tracing: Tracing) -> Any:
    derived = copy.copy(chat)
    derived._modules = _models(chat._modules, tracing)
    return derived


_Begin = Callable[[Any, Any], Call]
_Observe = Callable[[Any, Call], Any]


def _begun(begin: _Begin, tracing: Tracing, args: Any, kwargs: Any) -> Call | None:
    try:
        return begin(args, kwargs)
    except Exception as error:  # noqa: BLE001  # named edge guard: costs the span, not the call
        give_up(tracing, "integration", error)
        return None


def _observed(observe: _Observe, answer: Any, call: Call) -> Any:
    try:
        return observe(answer, call)
    except Exception as error:  # noqa: BLE001  # named edge guard: costs the span, not the call
        call.abandon(error)
        return answer


def _sync(inner: Any, tracing: Tracing, begin: _Begin, observe: _Observe) -> Any:
    @functools.wraps(inner)
    def traced(*args: Any, **kwargs: Any) -> Any:
        call = _begun(begin, tracing, args, kwargs)
        if call is None:
            return inner(*args, **kwargs)
        entered = call.enter()
        try:
            answer = inner(*args, **kwargs)
        except BaseException as error:
            call.failed(error)
            raise
        finally:
            call.leave(entered)
        return _observed(observe, answer, call)

    traced.fallom_inner = inner  # type: ignore[attr-defined]
    return traced


def _async(inner: Any, tracing: Tracing, begin: _Begin, observe: _Observe) -> Any:
    @functools.wraps(inner)
    async def traced(*args: Any, **kwargs: Any) -> Any:
        call = _begun(begin, tracing, args, kwargs)
        if call is None:
            return await inner(*args, **kwargs)
        entered = call.enter()
        try:
            answer = await inner(*args, **kwargs)
        except BaseException as error:
            call.failed(error)
            raise
        finally:
            call.leave(entered)
        return _observed(observe, answer, call)

    traced.fallom_inner = inner  # type: ignore[attr-defined]
    return traced


def _generator(inner: Any, tracing: Tracing, begin: _Begin) -> Any:
    """Relay a generator, by a generator: the request is sent, and the call begins, at first use.

    The call is active while the SDK's code runs, and an instrumentation's around it, not the caller's.
    """

    @functools.wraps(inner)
    def traced(*args: Any, **kwargs: Any) -> Iterator[Any]:
        call = _begun(begin, tracing, args, kwargs)
        if call is None:
            yield from inner(*args, **kwargs)
            return
        entered = call.enter()
        try:
            chunks = inner(*args, **kwargs)
        except BaseException as error:
            call.failed(error)
            raise
        finally:
            call.leave(entered)
        events = watch_iterator(chunks, call)
        try:
            while True:
                entered = call.enter()
                try:
                    chunk = next(events)
                except StopIteration:
                    return
                finally:
                    call.leave(entered)
                yield chunk
        finally:
            entered = call.enter()
            try:
                call.ended()  # nothing, but when the caller closes it
                chunks.close()
            finally:
                call.leave(entered)

    traced.fallom_inner = inner  # type: ignore[attr-defined]
    return traced


def _relay_async(chunks: Any, call: Call) -> AsyncIterator[Any]:
    """Relay an asynchronous generator, by an asynchronous generator; the call is active as above."""

    async def relayed() -> AsyncIterator[Any]:
        events = watch_iterator(chunks, call)
        try:
            while True:
                entered = call.enter()
                try:
                    chunk = await events.__anext__()
                except StopAsyncIteration:
                    return
                finally:
                    call.leave(entered)
                yield chunk
        finally:
            entered = call.enter()
            try:
                call.ended()
                await chunks.aclose()
            finally:
                call.leave(entered)

    return relayed()


_KINDS: dict[tuple[str, str], Callable[[Any, Tracing], Any]] = {
    ("google.generativeai", "GenerativeModel"): _legacy_model,
    ("google.generativeai", "ChatSession"): _legacy_chat,
    ("google.genai", "Client"): _client,
    ("google.genai", "AsyncClient"): _async_client,
    ("google.genai", "Models"): _models,
    ("google.genai", "AsyncModels"): _models,
    ("google.genai", "Chat"): _chat,
    ("google.genai", "AsyncChat"): _chat,
}
