"""What applications send: ``POST /v1/traces``, ``POST /sessions``, ``POST /spans``.

A 200 leaves only after the commit: a cloud that is killed never acknowledged what it lost.
"""

from __future__ import annotations

import json
import time
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fallom.dev.answers import JsonAnswer
from fallom.dev.body import read_body, read_json_object
from fallom.dev.fault_injection import REJECT_STATE
from fallom.dev.otlp import PROTOBUF, decode_request, encode_response, encode_status, span_rows
from fallom.dev.recorder import Recorder
from fallom.dev.store import ExposureRow, MetricsRow, SpanRow

__all__ = ["ingest_routes"]


def ingest_routes(recorder: Recorder) -> list[Route]:
    """Give the routes, bound to where the rows go."""

    async def traces(request: Request) -> Response:
        return await _traces(request, recorder)

    async def sessions(request: Request) -> Response:
        row = _exposure(await read_json_object(request), request)
        await recorder.store(lambda: [row])
        return JsonAnswer({"status": "ok"})

    async def spans(request: Request) -> Response:
        row = _metrics(await read_json_object(request), request)
        await recorder.store(lambda: [row])
        return JsonAnswer({"status": "ok"})

    return [
        Route("/v1/traces", traces, methods=["POST"]),
        Route("/sessions", sessions, methods=["POST"]),
        Route("/spans", spans, methods=["POST"]),
    ]


async def _traces(request: Request, recorder: Recorder) -> Response:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != PROTOBUF:
        raise HTTPException(
            415,
            f"Content-Type {content_type or '(none)'!r} is not taken here; send an "
            f"ExportTraceServiceRequest as {PROTOBUF} (OTLP/HTTP with binary protobuf).",
        )
    body = await read_body(request)
    received_unix_ns = time.time_ns()
    request_id = request.state.request_id
    reject = getattr(request.state, REJECT_STATE, 0)
    rejected = 0

    def rows() -> list[SpanRow]:
        nonlocal rejected
        all_rows = list(span_rows(decode_request(body), received_unix_ns, request_id))
        rejected = min(reject, len(all_rows))
        return all_rows[: len(all_rows) - rejected]

    try:
        await recorder.store(rows)
    except ValueError as error:
        refusal = encode_status(f"The body is {error}.")
        return Response(refusal, status_code=400, media_type=PROTOBUF)
    message = "rejected by an injected fault" if rejected else ""
    return Response(encode_response(rejected, message), media_type=PROTOBUF)


def _exposure(body: dict[str, Any], request: Request) -> ExposureRow:
    return ExposureRow(
        _text(body, "config_key"),
        _whole(body, "config_version"),
        _text(body, "session_id"),
        _text(body, "assigned_model"),
        time.time_ns(),
        request.state.request_id,
    )


def _metrics(body: dict[str, Any], request: Request) -> MetricsRow:
    data = body.get("data")
    if not isinstance(data, dict):
        raise HTTPException(400, f"'data' is {data!r}; expected an object of fields and values.")
    return MetricsRow(
        _text(body, "config_key"),
        _text(body, "session_id"),
        json.dumps(data, sort_keys=True),
        time.time_ns(),
        request.state.request_id,
    )


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or any("\ud800" <= c <= "\udfff" for c in value):
        raise HTTPException(400, f"{name!r} is {value!r}; expected text without lone surrogates.")
    return value


def _whole(body: dict[str, Any], name: str) -> int:
    value = body.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise HTTPException(400, f"{name!r} is {value!r}; expected a whole number.")
    return value
