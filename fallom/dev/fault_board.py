"""``FaultBoard``: the faults that are set now, which of them a request gets, and ``/_dev/fault``.

Faults are tried in order; the first that covers a request and still has times left is applied.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fallom._core.errors import ConfigurationError
from fallom.dev.answers import JsonAnswer
from fallom.dev.body import gunzip, read_json
from fallom.dev.faults import Fault, parse_faults
from fallom.dev.otlp import decode_request, span_attributes

__all__ = ["FaultBoard", "fault_routes"]


class FaultBoard:
    """The faults that are set now; used from the event loop only."""

    def __init__(self, faults: Collection[Fault] = ()) -> None:
        self.released = asyncio.Event()  # set when these faults are replaced
        self._faults = list(faults)
        self._applied = [0] * len(self._faults)

    def replace(self, faults: Collection[Fault]) -> None:
        """Set other faults; requests that hang are let go."""
        self.released.set()
        self.released = asyncio.Event()
        self._faults = list(faults)
        self._applied = [0] * len(self._faults)

    def candidates(self, method: str, path: str) -> list[int]:
        """Give the positions of faults that cover a request and have times left."""
        return [
            i
            for i, fault in enumerate(self._faults)
            if fault.covers(method, path) and (not fault.times or self._applied[i] < fault.times)
        ]

    def first(self, positions: list[int], body: bytes, encoding: str) -> Fault | None:
        """Take the first of ``positions`` whose conditions the body meets."""
        for i in positions:
            fault = self._faults[i]
            if (not fault.above or len(body) > fault.above) and _is_marked(fault, body, encoding):
                self._applied[i] += 1
                return fault
        return None

    def to_dict(self) -> dict[str, Any]:
        """Give the faults and how often each was applied, for JSON."""
        pairs = zip(self._faults, self._applied, strict=True)
        return {"faults": [{**fault.to_dict(), "applied": n} for fault, n in pairs]}


def fault_routes(board: FaultBoard) -> list[Route]:
    """Give ``/_dev/fault``: PUT sets, GET shows, DELETE clears."""

    async def fault(request: Request) -> Response:
        if request.method == "PUT":
            try:
                board.replace(parse_faults(await read_json(request)))
            except ConfigurationError as error:
                return JsonAnswer({"error": str(error)}, status_code=400)
        elif request.method == "DELETE":
            board.replace(())
        return JsonAnswer(board.to_dict())

    return [Route("/_dev/fault", fault, methods=["GET", "PUT", "DELETE"])]


def _is_marked(fault: Fault, body: bytes, encoding: str) -> bool:
    """Whether the batch holds a span with the fault's attribute; what cannot be read has none."""
    if not fault.attribute:
        return True
    name, equals, value = fault.attribute.partition("=")
    try:
        request = decode_request(gunzip(body) if encoding == "gzip" else body)
    except ValueError:
        return False
    return any(
        name in attributes and (not equals or str(attributes[name]) == value)
        for attributes in span_attributes(request)
    )
