"""``read_body``: a request's body, bounded on the wire and when it is unpacked."""

from __future__ import annotations

import json
import math
import zlib
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request

__all__ = ["BODY_BYTES_MAX", "gunzip", "read_body", "read_json", "read_json_object"]

BODY_BYTES_MAX: Final = 64 << 20  # a batch of a flusher is at most a few MiB
_GZIP_WINDOW: Final = 31  # zlib's code for "gzip header, largest window"


class BodyTooLargeError(ValueError):
    """A body that unpacks to more than is taken."""


async def read_body(request: Request, bytes_max: int = BODY_BYTES_MAX) -> bytes:
    """Give the body, unpacked.

    Raises:
        HTTPException: 413 above ``bytes_max``, 415 for an unknown encoding, 400 for a broken one.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            raise HTTPException(413, f"The body is larger than {bytes_max} bytes.")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("identity", ""):
        return bytes(body)
    if encoding != "gzip":
        raise HTTPException(
            415, f"Content-Encoding {encoding!r} is not known; send gzip or nothing."
        )
    try:
        return gunzip(bytes(body), bytes_max)
    except BodyTooLargeError as error:
        raise HTTPException(413, str(error)) from None
    except ValueError as error:
        raise HTTPException(400, str(error)) from None


async def read_json(request: Request) -> Any:
    """Give the body as JSON.

    Raises:
        HTTPException: As ``read_body``, and 400 for a body that is not JSON.
    """
    body = await read_body(request)
    try:
        return json.loads(body, parse_constant=_refused, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"The body is not JSON: {error}") from None


async def read_json_object(request: Request) -> dict[str, Any]:
    """Give the body as a JSON object.

    Raises:
        HTTPException: As ``read_json``, and 400 for any other JSON.
    """
    value = await read_json(request)
    if not isinstance(value, dict):
        raise HTTPException(400, f"The body is a JSON {type(value).__name__}; expected an object.")
    return value


def _refused(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:20]} is too large")
    return number


def gunzip(packed: bytes, bytes_max: int = BODY_BYTES_MAX) -> bytes:
    """Unpack a gzip body.

    Raises:
        BodyTooLargeError: It unpacks to more than ``bytes_max``.
        ValueError: It is not gzip, or ends too early.
    """
    parts: list[bytes] = []
    room = bytes_max
    while packed:  # a gzip body may have several members
        unpacker = zlib.decompressobj(_GZIP_WINDOW)
        try:
            part = unpacker.decompress(packed, room + 1)
        except zlib.error as error:
            raise ValueError(f"The body is not gzip: {error}.") from None
        room -= len(part)
        if room < 0:
            raise BodyTooLargeError(f"The unpacked body is larger than {bytes_max} bytes.")
        if not unpacker.eof:
            raise ValueError("The gzip body ends too early.")
        parts.append(part)
        packed = unpacker.unused_data
    return b"".join(parts)
