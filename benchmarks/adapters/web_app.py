"""A web application whose requests record ten spans each, by the way that BENCH_TRACING names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from typing import Any

from driver import TEN

SPANS = 10
_WORK = 1500  # rounds of hashing: some ms, as a small request takes


def _recorder() -> Callable[[], Any]:
    kind = os.environ["BENCH_TRACING"]
    if kind == "fallom":
        import fallom
        from fallom import trace

        fallom.init()
        return lambda: trace.span(TEN, "app", "s")
    if kind == "opentelemetry":
        made: list[Any] = []

        def record() -> None:
            if not made:  # after gunicorn has forked, as its documentation asks for
                from opentelemetry_sdk import provider_for

                made.append(provider_for(os.environ["BENCH_URL"]).get_tracer("bench").start_span)
            made[0]("metrics", attributes=TEN).end()

        return record
    return lambda: None


_record = _recorder()


def app(_: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Work a little, record, answer."""
    digest = b"request"
    for _round in range(_WORK):
        digest = hashlib.sha256(digest).digest()
    for _span in range(SPANS):
        _record()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "64")])
    return [digest.hex().encode()]
