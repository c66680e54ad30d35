"""A flusher that is killed with several batches in flight: they come again, by the same ids."""

from __future__ import annotations

import gzip
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from socket import socket

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

import fallom
from fallom import trace
from fallom._flusher.ship import LaneLimits
from fallom._flusher.window import BATCHES_MAX, SLOW_ANSWER_S
from tests.support.flushers import wait_for
from tests.support.raw_server import RawServer, answer
from tests.support.scripts import ROOT

BATCH = LaneLimits().items_max
BATCHES = 7


class Receiver:
    """Takes the oldest batches; of the others it reads each, and says nothing until it may."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.accepted = 1  # batches
        self.came: list[tuple[int, Counter[bytes]]] = []  # number of the batch, ids of its spans

    def __call__(self, connection: socket, request: bytes) -> None:
        head, _, body = request.partition(b"\r\n\r\n")
        if not head.startswith(b"POST"):
            connection.sendall(answer(404))
            return
        export = ExportTraceServiceRequest.FromString(gzip.decompress(body))
        spans = export.resource_spans[0].scope_spans[0].spans
        (session,) = (
            each.value.string_value
            for each in spans[0].attributes
            if each.key == "fallom.session_id"
        )
        number = int(session[1:]) // BATCH
        self.came.append((number, Counter(span.span_id for span in spans)))
        if number >= self.accepted:
            self.may_answer.wait()
        time.sleep(2 * SLOW_ANSWER_S)
        connection.sendall(answer(200))


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    made = Receiver()
    with closing(RawServer(made)) as server:
        for name in ("TRACES", "CONFIGS", "PROMPTS"):
            monkeypatch.setenv(f"FALLOM_{name}_URL", server.url)
        yield made
        made.may_answer.set()


def flusher(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "fallom", "flusher", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("accepted", [1, 3])
def test_a_flusher_killed_with_batches_in_flight_loses_nothing_and_repeats_those_alone(
    receiver: Receiver, accepted: int
) -> None:
    receiver.accepted = accepted
    fallom.init(flusher="external")
    for number in range(BATCHES * BATCH):
        trace.span({}, config_key="app", session_id=f"s{number}")
    first = flusher()
    try:
        wait_for(lambda: len(receiver.came) == accepted + BATCHES_MAX, 60, what="a full window")
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    receiver.may_answer.set()
    assert flusher("--once").wait(60) == 0
    came = Counter(number for number, _ in receiver.came)
    assert set(came) == set(range(BATCHES)), "nothing is lost"
    assert [n for n in range(BATCHES) if came[n] > 1] == list(
        range(accepted, accepted + BATCHES_MAX)
    )
    assert max(came.values()) == 2
    for number in came:
        first_time, *again = [ids for each, ids in receiver.came if each == number]
        assert all(ids == first_time for ids in again)
    assert fallom.flush(0) == 0
