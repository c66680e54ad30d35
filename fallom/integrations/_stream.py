"""Watching a streamed answer while the caller reads it, without standing in its way.

The stream that the caller gets is the client library's own object, of its own class, made by its
own code; ``with``, ``for``, ``close()``, ``.response`` are its own. Two things inside it are ours:

- ``_iterator``, the generator from which ``__next__`` and ``__iter__`` of the library's streams
  take their events, in every version that we know (openai 1.x to 3.x, anthropic 0.40 to 2.x). What
  stands in its place sees each event already parsed, and sees the error that ends it. A class of
  our own in place of the stream would fail ``isinstance``; a patched ``__next__`` is not looked at
  on an instance; a hook in the decoder would parse each event twice.
- ``response.stream``, the body below. Every way to close a stream (its ``close``, ``with``, the
  typed streams of ``.stream()``, which close the response behind its back, the generator's own
  ``finally``) ends in this object's ``close``. It is excluded when a response is pickled.

The caller may also read the body by itself: raw responses, ``response.iter_lines()``. Then the body
decodes what passes and understands the events from the bytes.
"""

from __future__ import annotations

import codecs
import json
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from fallom.integrations._call import Call

__all__ = ["watch_body", "watch_iterator", "watch_stream"]

_BODY_BYTES_MAX = 1 << 20  # of a body that is not a stream of events: longer ones are not read


def watch_stream(stream: Any, call: Call, is_hidden: Callable[[Any], bool] | None) -> None:
    """Have ``call`` see what the caller reads from a client library's stream.

    Args:
        stream: A ``Stream`` or ``AsyncStream``; changed in the two places named above.
        call: Takes the events.
        is_hidden: Says of an event that the caller would not have got it; None hides nothing.
    """
    stream._iterator = watch_iterator(stream._iterator, call, is_hidden)
    watch_body(stream.response, call)


def watch_iterator(events: Any, call: Call, is_hidden: Callable[[Any], bool] | None = None) -> Any:
    """Give an iterator, of the same of two kinds, that gives ``events`` and has ``call`` see them."""
    if hasattr(type(events), "__anext__"):
        return _AsyncEvents(events, call, is_hidden)
    return _events(events, call, is_hidden)


def watch_body(response: Any, call: Call) -> None:
    """Have ``call`` see how the caller reads and closes an HTTP response's body."""
    headers = response.headers
    body = _Body(
        response.stream,
        call,
        _Decoder(str(headers.get("content-type", "")), str(headers.get("content-encoding", ""))),
    )
    response.stream = body


def _events(events: Any, call: Call, is_hidden: Callable[[Any], bool] | None) -> Iterator[Any]:
    """Stand where a stream's generator stood; a generator too, which is resumed for little.

    One that is closed or dropped lets go of ``events``, which ends as it would have without us.
    """
    see, plain, now = call.piece, call.plain or _nothing, time.perf_counter_ns
    try:
        call.is_advancing = True
        for event in events:
            call.is_advancing = False
            try:
                is_plain = plain(event)
            except Exception as error:  # noqa: BLE001  # named edge guard: costs the span, not the call
                call.abandon(error)
                is_plain, plain = False, _nothing
            if is_plain:
                call.last_ns = now()
            else:
                see(event)
            if is_hidden is None or not call.hides(is_hidden, event):
                yield event
            call.is_advancing = True
        call.is_advancing = False
    except GeneratorExit:  # the reader left
        call.ended()
        raise
    except BaseException as error:
        call.is_advancing = False
        call.failed(error)
        raise
    call.ended()


def _nothing(event: Any) -> bool:
    """Take no event: of a reader that has no short way for any."""
    return False


class _AsyncEvents:
    """Stands where an asynchronous stream's generator stood."""

    def __init__(self, events: Any, call: Call, is_hidden: Callable[[Any], bool] | None) -> None:
        self._events = events
        self._call = call
        self._is_hidden = is_hidden
        self._plain = call.plain or _nothing

    def __aiter__(self) -> _AsyncEvents:
        return self

    async def __anext__(self) -> Any:
        call = self._call
        while True:
            call.is_advancing = True
            try:
                event = await self._events.__anext__()
            except StopAsyncIteration:
                call.ended()
                raise
            except BaseException as error:  # cancellation comes this way
                call.failed(error)
                raise
            finally:
                call.is_advancing = False
            try:
                is_plain = self._plain(event)
            except Exception as error:  # noqa: BLE001  # named edge guard: costs the span, not the call
                call.abandon(error)
                is_plain, self._plain = False, _nothing
            if is_plain:
                call.last_ns = time.perf_counter_ns()
            else:
                call.piece(event)
            if self._is_hidden is None or not call.hides(self._is_hidden, event):
                return event

    def __getattr__(self, name: str) -> Any:
        return getattr(self._events, name)


class _Body:
    """Stands where a response's byte stream stood, and says that it is of that class.

    httpx asks ``isinstance(stream, SyncByteStream)``. There are two packages with such a class
    (httpx and httpx2) and we import neither, so the class is answered, not inherited.
    """

    def __init__(self, body: Any, call: Call, decoder: _Decoder) -> None:
        self._body = body
        self._call = call
        self._decoder = decoder

    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # see the class's docstring
        return type(self._body)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)

    def __iter__(self) -> Iterator[bytes]:
        # What the stream's own iterator has begun to read it also ends, or breaks off: events are seen
        # there as such, and so is the error.
        return iter(self._body) if self._call.is_advancing else self._seen()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._body.__aiter__() if self._call.is_advancing else self._seen_async()

    def _seen(self) -> Iterator[bytes]:
        try:
            for chunk in self._body:
                self._see(chunk)
                yield chunk
        except GeneratorExit:  # the reader left; whether it was early is for the close to say
            raise
        except BaseException as error:
            self._call.failed(error)
            raise

    async def _seen_async(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._body:
                self._see(chunk)
                yield chunk
        except GeneratorExit:
            raise
        except BaseException as error:
            self._call.failed(error)
            raise

    def close(self) -> None:
        try:
            self._body.close()
        finally:
            self._closed()

    async def aclose(self) -> None:
        try:
            await self._body.aclose()
        finally:
            self._closed()

    def _see(self, chunk: bytes) -> None:
        if self._call.reads_bytes:
            self._call.bytes_seen(chunk, self._decoder)

    def _closed(self) -> None:
        # Within an iterator's step the end or the error comes next, and says more.
        if not self._call.is_advancing:
            self._call.body_ended(self._decoder)


class _Decoder:
    """Bytes of a body -> JSON of its events, or of the whole. Gives up where it cannot read."""

    def __init__(self, content_type: str, encoding: str) -> None:
        self._is_events = content_type.startswith("text/event-stream")
        self._is_readable = self._is_events or "json" in content_type
        self._is_readable &= encoding in ("", "identity", "gzip", "deflate")
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32) if encoding else None
        self._text = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def feed(self, chunk: bytes) -> Iterator[Any]:
        """Take bytes and give the events that they complete."""
        if not self._is_readable:
            return
        try:
            plain = self._inflate.decompress(chunk, _BODY_BYTES_MAX) if self._inflate else chunk
        except zlib.error:
            self._is_readable = False
            return
        self._held += self._text.decode(plain)
        if len(self._held) > _BODY_BYTES_MAX:
            self._is_readable, self._held = False, ""
        if self._is_events:
            *lines, self._held = self._held.split("\n")
            for line in lines:
                event = _json(line[5:]) if line.startswith("data:") else None
                if event is not None:
                    yield event

    def rest(self) -> Any:
        """Give the body as one JSON value, None if there is none."""
        return _json(self._held) if self._is_readable and not self._is_events else None


def _json(text: str) -> Any:
    """Decode JSON; None for what is none: ``[DONE]``, or a body that was left half read."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
