from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

PROTOBUF = {"content_type": "application/x-protobuf"}
EXPOSURE = {"config_key": "c", "config_version": 2, "session_id": "s", "assigned_model": "m"}


def test_spans_come_back_as_they_were_sent(cloud: Any, batch: Any) -> None:
    request = batch(2, **{"fallom.config_key": "c", "tag": "日本"})
    span = request.resource_spans[0].scope_spans[0].spans[0]
    span.parent_span_id = b"\x09" * 8
    span.status.code, span.status.message = 2, "broke"
    event = span.events.add(time_unix_nano=7, name="chunk")
    pair = event.attributes.add()
    pair.key, pair.value.int_value = "n", 3
    for name, kind, value in (
        ("int", "int_value", -5),
        ("double", "double_value", 0.5),
        ("nan", "double_value", float("nan")),
        ("bool", "bool_value", True),
        ("bytes", "bytes_value", b"\x00\xff"),
    ):
        pair = span.attributes.add()
        pair.key = name
        setattr(pair.value, kind, value)
    pair = span.attributes.add()
    pair.key = "list"
    pair.value.array_value.values.add().string_value = "x"
    pair = span.attributes.add()
    pair.key = "map"
    inner = pair.value.kvlist_value.values.add()
    inner.key, inner.value.int_value = "k", 1

    answer = cloud.post(request)

    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-protobuf")
    assert ExportTraceServiceResponse.FromString(answer.body) == ExportTraceServiceResponse()
    first, second = cloud.spans()
    assert first["trace_id"] == f"{1:032x}"
    assert first["span_id"] == f"{1:016x}"
    assert first["parent_span_id"] == "09" * 8
    assert (first["name"], first["kind"]) == ("span 1", 3)
    assert first["end_unix_ns"] - first["start_unix_ns"] == 5
    assert (first["status"], first["status_message"]) == (2, "broke")
    assert (first["session_id"], first["config_key"]) == ("s1", "c")
    assert first["resource"] == {"service.name": "tests"}
    assert first["events"] == [{"unix_ns": 7, "name": "chunk", "attributes": {"n": 3}}]
    assert first["attributes"] == {
        "fallom.session_id": "s1",
        "fallom.config_key": "c",
        "tag": "日本",
        "int": -5,
        "double": 0.5,
        "nan": "nan",
        "bool": True,
        "bytes": "AP8=",
        "list": ["x"],
        "map": {"k": 1},
    }
    assert second["span_id"] == f"{2:016x}"
    assert first["request_id"] == second["request_id"] == answer.headers["x-request-id"]


def test_span_sent_twice_is_two_rows_and_one_identity(cloud: Any, batch: Any) -> None:
    cloud.post(batch(10))
    cloud.post(batch(10, first=6))
    assert cloud.stats()["spans"] == {"received": 20, "distinct": 15}
    assert len(cloud.spans()) == 20


def test_metrics_sent_as_spans_are_counted_apart(cloud: Any, batch: Any) -> None:
    request = batch(3)
    request.resource_spans[0].scope_spans[0].spans[1].name = "fallom.metrics"
    cloud.post(request)
    cloud.post(request)
    stats = cloud.stats()
    assert stats["metric_spans"] == {"received": 2, "distinct": 1}
    assert stats["spans"] == {"received": 6, "distinct": 3}


def test_body_without_gzip_and_one_of_two_gzip_members_are_taken(cloud: Any, batch: Any) -> None:
    raw = batch(4).SerializeToString()
    assert cloud.ask("POST", "/v1/traces", raw, **PROTOBUF).status == 200
    members = gzip.compress(raw[:50]) + gzip.compress(raw[50:])
    answer = cloud.ask("POST", "/v1/traces", members, content_encoding="gzip", **PROTOBUF)
    assert answer.status == 200
    assert cloud.stats()["spans"] == {"received": 8, "distinct": 4}


def test_times_beyond_sqlite_integers_are_stored(cloud: Any, batch: Any) -> None:
    request = batch(1)
    request.resource_spans[0].scope_spans[0].spans[0].end_time_unix_nano = (1 << 64) - 1
    assert cloud.post(request).status == 200
    assert cloud.spans()[0]["end_unix_ns"] == (1 << 63) - 1


@pytest.mark.parametrize(
    ("headers", "body", "status", "words"),
    [
        (PROTOBUF, b"\xff\xff\xff", 400, b"ExportTraceServiceRequest"),
        ({**PROTOBUF, "content_encoding": "gzip"}, b"plain", 400, b"not gzip"),
        (
            {**PROTOBUF, "content_encoding": "gzip"},
            gzip.compress(b"x" * 99, mtime=0)[:-9],
            400,
            b"too early",
        ),
        ({**PROTOBUF, "content_encoding": "br"}, b"x", 415, b"send gzip"),
        ({"content_type": "application/json"}, b"{}", 415, b"application/x-protobuf"),
        ({}, b"", 415, b"application/x-protobuf"),
    ],
)
def test_body_that_cannot_be_used_is_refused_with_the_reason(
    cloud: Any, headers: dict[str, str], body: bytes, status: int, words: bytes
) -> None:
    answer = cloud.ask("POST", "/v1/traces", body, **headers)
    assert answer.status == status
    assert words in answer.body
    assert cloud.stats()["spans"]["received"] == 0


def test_compressed_bomb_is_refused_without_being_unpacked(cloud: Any) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(256)) + packer.flush()
    answer = cloud.ask("POST", "/v1/traces", bomb, content_encoding="gzip", **PROTOBUF)
    assert answer.status == 413
    status = Path(f"/proc/{cloud.pid}/status").read_text()
    peak_kib = next(int(s.split()[1]) for s in status.splitlines() if s.startswith("VmHWM"))
    assert peak_kib < 300 << 10  # the bound is 64 MiB, the bomb 256 MiB


def test_exposure_sent_twice_is_counted_once_as_distinct(cloud: Any) -> None:
    for session_id in ("s", "s", "t"):
        assert cloud.post_json("/sessions", {**EXPOSURE, "session_id": session_id}).status == 200
    assert cloud.stats()["exposures"] == {"received": 3, "distinct": 2}
    row = cloud.exposures()[0]
    assert {name: row[name] for name in EXPOSURE} == EXPOSURE


def test_custom_metrics_are_kept_as_json(cloud: Any) -> None:
    body = {"config_key": "c", "session_id": "s", "data": {"score": 0.8, "ok": True, "x": "\ud800"}}
    assert cloud.post_json("/spans", body).status == 200
    assert cloud.stats()["metrics"] == {"received": 1, "distinct": 1}
    assert cloud.metrics()[0]["data"] == body["data"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("/sessions", []),
        ("/sessions", {"config_key": "c"}),
        ("/sessions", {**EXPOSURE, "config_version": "2", "session_id": "s"}),
        (
            "/sessions",
            {
                "config_key": "c",
                "config_version": 1 << 70,
                "session_id": "s",
                "assigned_model": "m",
            },
        ),
        ("/sessions", {**EXPOSURE, "config_version": 1, "session_id": "\ud800"}),
        ("/spans", {"config_key": "c", "session_id": "s", "data": [1]}),
        ("/spans", "text"),
    ],
)
def test_json_of_another_shape_is_refused(cloud: Any, path: str, value: Any) -> None:
    answer = cloud.post_json(path, value)
    assert answer.status == 400
    assert "expected" in answer.json()["error"]


def test_text_that_is_not_json_is_refused(cloud: Any) -> None:
    for body in (b"{", b"[" * 100_000, b"\xff", b'{"x": NaN}', b'{"x": 1e999}'):
        assert cloud.ask("POST", "/sessions", body).status == 400


def test_every_request_is_logged_with_a_hash_of_its_authorization(cloud: Any, batch: Any) -> None:
    cloud.post(batch(1), authorization="Bearer secret", user_agent="tester")
    cloud.ask("GET", "/configs")
    cloud.ask("GET", "/nowhere")
    first, second, third = cloud.fetches()
    hashed = hashlib.sha256(b"Bearer secret").hexdigest()[:16]
    assert first["authorization_hash"] == hashed
    assert (first["method"], first["path"], first["status"]) == ("POST", "/v1/traces", 200)
    assert first["user_agent"] == "tester"
    assert first["request_bytes"] > 0
    assert second["authorization_hash"] == ""
    assert third["status"] == 404
    assert cloud.stats()["fetches"] == {"/v1/traces": 1, "/configs": 1, "/nowhere": 1}


def test_many_senders_at_once_lose_nothing(cloud: Any, batch: Any) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: cloud.post(batch(50, first=1 + 50 * i)), range(40)))
    assert {answer.status for answer in answers} == {200}
    assert cloud.stats()["spans"] == {"received": 2000, "distinct": 2000}
    assert cloud.stats()["fetches"] == {"/v1/traces": 40}


def test_data_can_be_cleared(cloud: Any, batch: Any) -> None:
    cloud.post(batch(3))
    cloud.post_json("/spans", {"config_key": "c", "session_id": "s", "data": {}})
    cloud.clear()
    stats = cloud.stats()
    assert [stats[name]["received"] for name in ("spans", "exposures", "metrics")] == [0, 0, 0]
    assert stats["fetches"] == {}


def test_rows_are_read_in_pages(cloud: Any, batch: Any) -> None:
    cloud.post(batch(5))
    page = json.loads(cloud.ask("GET", "/_dev/spans?limit=2").body)
    assert [span["name"] for span in page] == ["span 1", "span 2"]
    page = json.loads(cloud.ask("GET", f"/_dev/spans?after={page[-1]['id']}&limit=9").body)
    assert [span["name"] for span in page] == ["span 3", "span 4", "span 5"]
    assert cloud.ask("GET", "/_dev/spans?limit=-1").status == 400
    assert cloud.ask("GET", "/_dev/spans?limit=10001").status == 400
    assert cloud.ask("GET", "/_dev/spans?after=x").status == 400
