from __future__ import annotations

import gzip
import http.client
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from fallom.dev.server import LocalCloud


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def make_batch(spans: int, first: int = 1, **attributes: str) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    service = resource_spans.resource.attributes.add()
    service.key, service.value.string_value = "service.name", "tests"
    scope_spans = resource_spans.scope_spans.add()
    for number in range(first, first + spans):
        span = scope_spans.spans.add()
        span.trace_id = number.to_bytes(16, "big")
        span.span_id = number.to_bytes(8, "big")
        span.name = f"span {number}"
        span.kind = 3
        span.start_time_unix_nano = 1_700_000_000_000_000_000 + number
        span.end_time_unix_nano = span.start_time_unix_nano + 5
        for name, value in {"fallom.session_id": f"s{number}", **attributes}.items():
            pair = span.attributes.add()
            pair.key, pair.value.string_value = name, value
    return request


class AskedCloud(LocalCloud):
    """A local cloud with a plain HTTP client, so that tests see status, headers and bytes."""

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        timeout_s: float = 20.0,
        **headers: str,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, names)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def post(self, batch: ExportTraceServiceRequest, **headers: str) -> Answer:
        body = gzip.compress(batch.SerializeToString())
        kind = {"content_type": "application/x-protobuf", "content_encoding": "gzip"}
        return self.ask("POST", "/v1/traces", body, **{**kind, **headers})

    def post_json(self, path: str, value: Any) -> Answer:
        return self.ask("POST", path, json.dumps(value).encode(), content_type="application/json")


@pytest.fixture(scope="module")
def shared_cloud() -> Iterator[AskedCloud]:
    with AskedCloud() as cloud:
        yield cloud


@pytest.fixture
def cloud(shared_cloud: AskedCloud) -> Iterator[AskedCloud]:
    """A cloud that has received nothing and misbehaves in no way."""
    shared_cloud.fault()
    shared_cloud.clear()
    yield shared_cloud
    shared_cloud.fault()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "folder"
    for name in ("configs", "prompts", "ab-tests"):
        (root / name).mkdir(parents=True)
    (root / "configs" / "greeter.yaml").write_text(
        "variants:\n  - {model: gpt-4o, weight: 60}\n  - {model: mini, weight: 40}\n"
    )
    return root


@pytest.fixture
def batch() -> Callable[..., ExportTraceServiceRequest]:
    return make_batch


@pytest.fixture
def new_cloud() -> type[AskedCloud]:
    """For tests that kill or configure one of their own."""
    return AskedCloud
