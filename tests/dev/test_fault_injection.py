from __future__ import annotations

import contextlib
import email.utils
import gzip
import http.client
import socket
import threading
import time
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse


def received(cloud: Any) -> int:
    count: int = cloud.stats()["spans"]["received"]
    return count


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500, 502, 503, 504])
def test_status_is_answered_so_many_times_and_nothing_stored(
    cloud: Any, batch: Any, status: int
) -> None:
    cloud.fault(f"{status},path=/v1/traces,times=2")
    assert [cloud.post(batch(1)).status for _ in range(3)] == [status, status, 200]
    assert received(cloud) == 1


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_that_has_no_body_is_answered_without_one(cloud: Any, status: int) -> None:
    cloud.fault(f"{status},path=/configs")
    connection = http.client.HTTPConnection("127.0.0.1", cloud.port, timeout=20)
    with contextlib.closing(connection):
        for _ in range(2):  # the second only if the first left the connection whole
            connection.request("GET", "/configs")
            sock = connection.sock
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (status, b"")
            assert connection.sock is sock


def test_fault_of_one_path_leaves_the_others_alone(cloud: Any, batch: Any) -> None:
    cloud.fault("503,path=/v1/traces")
    assert cloud.ask("GET", "/configs").status == 200
    assert cloud.post(batch(1)).status == 503


def test_steering_is_never_touched(cloud: Any) -> None:
    cloud.fault("500")
    assert cloud.ask("GET", "/_dev/stats").status == 200
    assert cloud.ask("GET", "/").status == 200
    assert cloud.ask("GET", "/configs").status == 500
    cloud.fault()
    assert cloud.ask("GET", "/configs").status == 200


def test_faults_are_tried_in_order_and_counted(cloud: Any) -> None:
    cloud.fault("500,times=1", {"kind": "status", "status": 502, "times": 1})
    assert [cloud.ask("GET", "/configs").status for _ in range(3)] == [500, 502, 200]
    faults = cloud.ask("GET", "/_dev/fault").json()["faults"]
    assert [fault["applied"] for fault in faults] == [1, 1]


def test_fault_with_a_mistake_is_refused_and_changes_nothing(cloud: Any) -> None:
    cloud.fault("502,times=1")
    with pytest.raises(ValueError, match="did you mean 'times'"):
        cloud.fault("503,time=1")
    assert cloud.ask("GET", "/configs").status == 502


def test_both_forms_of_retry_after(cloud: Any) -> None:
    cloud.fault("429,retry_after=7,times=1", "429,retry_after=date:30")
    assert cloud.ask("GET", "/configs").headers["retry-after"] == "7"
    moment = email.utils.parsedate_to_datetime(cloud.ask("GET", "/configs").headers["retry-after"])
    assert 25 <= moment.timestamp() - time.time() <= 31


def test_413_is_for_large_bodies_only(cloud: Any, batch: Any) -> None:
    size = len(gzip.compress(batch(1).SerializeToString()))
    cloud.fault(f"413,above={size}")
    assert cloud.post(batch(1)).status == 200
    assert cloud.post(batch(40)).status == 413
    assert received(cloud) == 1


def test_400_is_for_batches_with_the_marked_span_only(cloud: Any, batch: Any) -> None:
    cloud.fault("400,attribute=poison=yes,path=/v1/traces")
    marked = batch(3)
    marked.MergeFrom(batch(1, first=9, poison="yes"))
    assert cloud.post(batch(2)).status == 200
    assert cloud.post(batch(1, poison="no")).status == 200
    assert cloud.post(marked).status == 400
    assert cloud.ask("GET", "/configs").status == 200
    assert received(cloud) == 3


def test_partial_success_stores_all_but_the_rejected(cloud: Any, batch: Any) -> None:
    cloud.fault("partial,rejected=2,times=1")
    answer = cloud.post(batch(5))
    partial = ExportTraceServiceResponse.FromString(answer.body).partial_success
    assert (answer.status, partial.rejected_spans) == (200, 2)
    assert partial.error_message
    assert [span["name"] for span in cloud.spans()] == ["span 1", "span 2", "span 3"]


@pytest.mark.parametrize(("kind", "stored"), [("reset", 0), ("lost_answer", 4), ("reset_body", 4)])
def test_reset_before_or_after_the_batch_is_stored(
    cloud: Any, batch: Any, kind: str, stored: int
) -> None:
    cloud.fault(f"{kind},path=/v1/traces,times=1")
    with pytest.raises(ConnectionResetError) as caught:
        cloud.post(batch(4))
    assert type(caught.value) is ConnectionResetError  # RemoteDisconnected is an orderly end
    assert received(cloud) == stored
    assert cloud.post(batch(1, first=9)).status == 200


def test_reset_within_the_body_comes_after_a_part_of_it(cloud: Any) -> None:
    whole = cloud.ask("GET", "/configs").body
    cloud.fault("reset_body,times=1")
    connection = http.client.HTTPConnection("127.0.0.1", cloud.port, timeout=20)
    connection.request("GET", "/configs")
    response = connection.getresponse()
    assert int(response.headers["content-length"]) > len(whole)
    part = response.read1(len(whole))
    assert part
    assert whole.startswith(part)
    with pytest.raises(ConnectionResetError):
        response.read()
    response.close()
    connection.close()


def test_close_ends_the_connection_in_order_without_an_answer(cloud: Any, batch: Any) -> None:
    cloud.fault("close,times=1")
    with pytest.raises(http.client.RemoteDisconnected):
        cloud.post(batch(1))
    assert received(cloud) == 0


def test_hang_answers_nothing_until_the_fault_is_lifted(cloud: Any, batch: Any) -> None:
    cloud.fault("hang,path=/v1/traces")
    with pytest.raises(TimeoutError):
        cloud.ask("POST", "/v1/traces", b"", timeout_s=0.3, content_type="application/x-protobuf")
    ended: list[BaseException] = []

    def post() -> None:
        try:
            cloud.post(batch(1))
        except OSError as error:
            ended.append(error)

    waiting = threading.Thread(target=post)
    waiting.start()
    cloud.wait_for(
        lambda c: (
            c.ask("GET", "/_dev/fault").json()["faults"][0]["applied"] == 2
        )  # both hang by now
    )
    assert cloud.ask("GET", "/configs").status == 200
    cloud.fault()
    waiting.join(10)
    assert [type(error) for error in ended] == [ConnectionResetError]
    assert received(cloud) == 0


def test_delay_answers_as_usual_later(cloud: Any, batch: Any) -> None:
    cloud.fault("delay,seconds=0.3")
    start_s = time.monotonic()
    assert cloud.post(batch(1)).status == 200
    assert time.monotonic() - start_s >= 0.3


def test_drip_keeps_each_read_alive_for_longer_than_the_socket_timeout(
    cloud: Any, batch: Any
) -> None:
    cloud.fault("drip,seconds=0.05,bytes=20")
    start_s = time.monotonic()
    answer = cloud.ask("GET", "/nowhere", timeout_s=0.5)
    assert time.monotonic() - start_s > 0.5
    assert answer.status == 404
    assert len(answer.body) >= 20
    cloud.fault("drip,seconds=0.01,bytes=20,path=/v1/traces")
    assert len(cloud.post(batch(2)).body) == 20
    assert received(cloud) == 2


def test_drip_of_the_head_never_comes_to_an_end(cloud: Any) -> None:
    cloud.fault("drip_head,seconds=0.01")
    with socket.create_connection(("127.0.0.1", cloud.port), 10) as connection:
        connection.sendall(b"GET /configs HTTP/1.1\r\nHost: localhost\r\n\r\n")
        text = b""
        while len(text) < 60:
            text += connection.recv(100)
    assert text.startswith(b"HTTP/1.1 200 OK\r\nX-Drip: ...")


def test_garbage_huge_and_bomb_are_200_with_bodies_nobody_should_trust(cloud: Any) -> None:
    cloud.fault(
        "garbage,bytes=300,times=1", "huge,bytes=3000000,times=1", "bomb,bytes=50000000,times=1"
    )
    assert len(cloud.ask("GET", "/configs").body) == 300
    assert len(cloud.ask("GET", "/configs").body) == 3_000_000
    answer = cloud.ask("GET", "/configs")
    assert answer.headers["content-encoding"] == "gzip"
    assert len(answer.body) < 100_000
    assert len(gzip.decompress(answer.body)) == 50_000_000


def test_client_that_leaves_a_huge_answer_stops_it(cloud: Any) -> None:
    cloud.fault(f"huge,bytes={1 << 39}")
    connection = http.client.HTTPConnection("127.0.0.1", cloud.port, timeout=20)
    connection.request("GET", "/configs")
    response = connection.getresponse()
    response.read(1 << 20)
    response.close()
    connection.close()
    cloud.wait_for(lambda c: c.stats()["fetches"].get("/configs") == 1, timeout_s=10)


def test_answer_that_is_not_http(cloud: Any) -> None:
    cloud.fault("not_http,times=1")
    with pytest.raises(http.client.BadStatusLine):
        cloud.ask("GET", "/configs")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirect_points_where_it_was_told(cloud: Any, batch: Any, status: int) -> None:
    cloud.fault(f"redirect,status={status},to=http://127.0.0.1:1/elsewhere")
    answer = cloud.post(batch(1))
    assert (answer.status, answer.headers["location"]) == (status, "http://127.0.0.1:1/elsewhere")
    assert received(cloud) == 0


def test_requests_that_were_cut_off_are_logged_with_status_0(cloud: Any, batch: Any) -> None:
    cloud.fault("reset,times=1", "401,times=1")
    with pytest.raises(ConnectionResetError):
        cloud.post(batch(1))
    cloud.post(batch(1))
    assert [row["status"] for row in cloud.fetches()] == [0, 401]


def test_no_fault_leaves_a_traceback_on_the_console(new_cloud: Any, batch: Any) -> None:
    with new_cloud() as cloud:
        kinds = (
            "reset",
            "lost_answer",
            "reset_body",
            "close",
            "not_http",
            "garbage",
            "drip,seconds=0",
        )
        for kind in kinds:
            cloud.fault(kind)
            for _ in range(2):
                with contextlib.suppress(OSError, http.client.HTTPException):
                    cloud.post(batch(1))
        cloud.fault()
        assert cloud.log() == ""


def test_fault_of_the_command_line_holds_from_the_start(new_cloud: Any, batch: Any) -> None:
    with new_cloud(fault="503,path=/v1/traces,times=1") as cloud:
        assert [cloud.post(batch(1)).status for _ in range(2)] == [503, 200]
