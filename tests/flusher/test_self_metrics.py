"""What fallom counts about itself, as OTLP metrics to a server that has a path for them or not."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from fallom._core.settings import resolve_settings
from fallom._flusher.http import NetworkError, Request
from fallom._flusher.self_metrics import SelfMetrics
from fallom._host.counts import Drop, Tally
from tests.support.commands import fallom as run
from tests.support.raw_server import RawServer
from tests.support.scripts import run_script
from tests.support.targets import FakeHttp

FOUND: dict[str, Any] = {
    "namespace": "0123456789abcdef",
    "tallies": {t.name.lower(): int(t) for t in Tally},
    "drops": {d.name.lower(): 7 if d is Drop.DISK else 0 for d in Drop},
    "waiting_records": 3,
    "waiting_bytes": 1000,
    "lag_s": 1.5,
    "spool_bytes": 4096,
    "snapshot_checked_age_s": None,
}


def parsed(body: bytes) -> ExportMetricsServiceRequest:
    """Read it as a server does: a field that OTLP does not have is an error."""
    return json_format.Parse(gzip.decompress(body), ExportMetricsServiceRequest())


def sender(reply: Callable[[Request], Any], said: list[str]) -> tuple[SelfMetrics, FakeHttp]:
    http = FakeHttp(reply)
    given = {"traces_url": "http://127.0.0.1:9/v1/traces", "api_key": "k"}
    settings = resolve_settings(given, {})
    return SelfMetrics(settings, http, lambda: FOUND, said.append), http


def test_counters_and_gauges_are_what_was_found() -> None:
    said: list[str] = []
    metrics, http = sender(lambda _: 200, said)
    assert metrics.send_once()
    (request,) = http.requests
    assert request.url == "http://127.0.0.1:9/v1/metrics"
    assert request.headers["Authorization"] == "Bearer k"
    assert request.body is not None
    export = parsed(request.body)
    (scope,) = export.resource_metrics[0].scope_metrics
    by_name = {metric.name: metric for metric in scope.metrics}
    dropped = by_name["fallom.dropped"].sum
    assert dropped.is_monotonic
    assert [(p.attributes[0].value.string_value, p.as_int) for p in dropped.data_points] == [
        ("disk", 7)
    ]
    assert by_name["fallom.lag"].gauge.data_points[0].as_double == 1.5
    assert by_name["fallom.waiting"].gauge.data_points[0].as_int == 3
    assert "fallom.snapshot.checked_age" not in by_name, "it is not known"
    assert said == []


@pytest.mark.parametrize(("status", "goes_on"), [(404, False), (405, False), (500, True)])
def test_a_server_without_the_path_is_told_of_once_and_not_asked_again(
    status: int, goes_on: bool
) -> None:
    said: list[str] = []
    metrics, _ = sender(lambda _: status, said)
    assert metrics.send_once() is goes_on
    assert str(status) in said[0]


def test_a_server_that_cannot_be_reached_costs_nothing_but_a_word() -> None:
    said: list[str] = []
    metrics, _ = sender(lambda _: NetworkError("connect", "refused"), said)
    assert metrics.send_once()
    assert "refused" in said[0]


def test_a_flusher_tells_what_it_delivered_before_it_leaves(tmp_path: Any) -> None:
    def answer(connection: Any, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    server = RawServer(answer)
    try:
        environ = {
            "FALLOM_TRACES_URL": server.url,
            "FALLOM_CONFIGS_URL": "file:///nowhere",
            "FALLOM_PROMPTS_URL": "file:///nowhere",
            "FALLOM_FLUSHER": "external",
            "FALLOM_SELF_METRICS": "otlp",
            "FALLOM_STATE_DIR": os.environ["FALLOM_STATE_DIR"],
        }
        code = """
import fallom
fallom.init()
for number in range(5):
    fallom.trace.span({"n": number}, config_key="app", session_id="s")
"""
        run_script(code, tmp_path, environ)
        ended = run("flusher", "--once", **environ)
        assert ended.returncode == 0, ended.stderr
        (request,) = [each for each in server.requests if b"/v1/metrics" in each]
        body = request.partition(b"\r\n\r\n")[2]
        export = parsed(body)
        (scope,) = export.resource_metrics[0].scope_metrics
        (delivered,) = [m for m in scope.metrics if m.name == "fallom.delivered"]
        values = {p.attributes[0].value.string_value: p.as_int for p in delivered.sum.data_points}
        assert values == {"spans": 0, "metrics": 5, "exposures": 0}
    finally:
        server.close()
