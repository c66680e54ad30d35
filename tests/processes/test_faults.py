"""What a misbehaving server can do: for each fault, what arrives, what is dead and why, what is retried.

The flusher is the real one, with shorter waits. Workers record while the fault holds: every record is
acknowledged, none is dropped, whatever the server does.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

import fallom
from fallom import trace
from fallom.dev.server import LocalCloud
from tests.support.flushers import end_flushers, leader_pids, wait_for
from tests.support.scripts import ROOT

SPANS = 30

IMPATIENT_BOOT = """
import runpy, sys
sys.path.insert(0, {root!r})
import fallom._core.outcome, fallom._flusher.delivery, fallom._flusher.ship
fallom._core.outcome.PAUSE_S = fallom._flusher.ship.PAUSE_S = 0.3
fallom._core.outcome.BACKOFF_BASE_S = 0.1
fallom._core.outcome.BACKOFF_MAX_S = 0.3
fallom._flusher.delivery.EXCHANGE_DEADLINE_S = 1.0
runpy.run_path({boot!r}, run_name="__main__")
"""


@pytest.fixture
def impatient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flusher that waits a hundredth of what it does otherwise."""
    script = tmp_path / "_flusher/boot.py"  # by this name flushers are found
    script.parent.mkdir()
    boot = ROOT / "fallom/_flusher/boot.py"
    script.write_text(IMPATIENT_BOOT.format(root=str(ROOT), boot=str(boot)))
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexec {sys.executable} -I {script}\n")
    python.chmod(0o755)
    monkeypatch.setenv("FALLOM_PYTHON", str(python))


def record(count: int = SPANS, name: str = "s") -> None:
    noise = random.Random(7)
    for number in range(count):
        data = {"number": number, "text": noise.randbytes(300).hex()}
        trace.span(data, config_key="app", session_id=f"{name}{number}")


def applied(cloud: LocalCloud) -> int:
    """Count how often the faults that are set were applied."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{cloud.url}/_dev/fault", timeout=10) as answer:
        faults = json.load(answer)["faults"]
    return sum(fault["applied"] for fault in faults)


def dead() -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "fallom", "dead", "ls", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def spans(cloud: LocalCloud) -> tuple[int, int]:
    found = cloud.stats()["spans"]
    return found["received"], found["distinct"]


class Trouble(NamedTuple):
    """A fault that keeps everything from being accepted, and what is said about it."""

    fault: str
    said: str
    stores: bool = False  # the server has the spans, and only its answer is lost


TROUBLES = {
    "400 for everything": Trouble("400", "HTTP 400"),
    "401": Trouble("401", "check the API key"),
    "403": Trouble("403", "HTTP 403"),
    "404": Trouble("404", "check the URL"),
    "413 for everything": Trouble("413", "HTTP 413"),
    "429 with seconds": Trouble("429,retry_after=1", "HTTP 429"),
    "429 with a date": Trouble("429,retry_after=date:1", "HTTP 429"),
    "500": Trouble("500", "HTTP 500"),
    "502": Trouble("502", "HTTP 502"),
    "503": Trouble("503", "HTTP 503"),
    "504": Trouble("504", "HTTP 504"),
    "reset before the answer": Trouble("reset", "reset"),
    "closed without an answer": Trouble("close", "reset"),
    "no HTTP": Trouble("not_http", ""),
    "hang": Trouble("hang", "timeout"),
    "head drips": Trouble("drip_head,seconds=0.05", "timeout"),
    "body drips": Trouble("drip,seconds=0.1", "timeout", stores=True),
    "answer lost": Trouble("lost_answer", "reset", stores=True),
    "reset in the body": Trouble("reset_body", "reset", stores=True),
}

SPLIT = ("400 for everything", "413 for everything")


@pytest.mark.parametrize("name", TROUBLES)
def test_nothing_is_lost_or_dead_and_all_is_sent_again_until_the_trouble_ends(
    cloud: LocalCloud, impatient: None, name: str
) -> None:
    trouble = TROUBLES[name]
    cloud.fault(f"{trouble.fault},path=/v1/traces")
    fallom.init()
    record()
    wait_for(lambda: applied(cloud) >= 2, what="a second try")
    record(SPANS, "late")
    assert fallom.flush(0) == 2 * SPANS, "all are acknowledged and kept while the trouble lasts"
    wait_for(lambda: trouble.said in fallom.status()["last_error"], what="it to be said")
    assert (spans(cloud)[1] > 0) == trouble.stores
    cloud.fault()
    assert fallom.flush(40) == 0
    received, distinct = spans(cloud)
    assert (received > distinct) == trouble.stores, "sent again only what was sent before"
    if name in SPLIT:
        # It may end while a batch is being split: what was refused on its own until then is dead.
        assert distinct + len(dead()) == 2 * SPANS
        assert {letter["reason"] for letter in dead()} <= {trouble.said}
    else:
        assert distinct == 2 * SPANS
        assert fallom.status()["dropped"] == {}
        assert dead() == []


@pytest.mark.parametrize("form", ["2", "date:3"])
def test_a_retry_after_is_waited_for_in_both_its_forms(
    cloud: LocalCloud, impatient: None, form: str
) -> None:
    cloud.fault(f"429,retry_after={form},times=1,path=/v1/traces")
    fallom.init()
    record()
    assert fallom.flush(40) == 0
    tried = [row for row in cloud.fetches() if row["path"] == "/v1/traces"]
    refused = next(row for row in tried if row["status"] == 429)
    later = [row for row in tried if row["received_unix_ns"] > refused["received_unix_ns"]]
    waited_s = (later[0]["received_unix_ns"] - refused["received_unix_ns"]) / 1e9
    assert waited_s >= 1.9, "not before the server's time, which has whole seconds"
    assert spans(cloud) == (SPANS, SPANS)


def test_a_batch_that_is_too_large_is_split_and_a_span_that_alone_is_goes_to_dead(
    cloud: LocalCloud, impatient: None
) -> None:
    cloud.fault("413,above=4000,path=/v1/traces")
    fallom.init()
    record()
    text = random.Random(1).randbytes(9000).hex()
    trace.span({"text": text}, config_key="app", session_id="large")
    assert fallom.flush(40) == 0
    assert spans(cloud) == (SPANS, SPANS)
    wait_for(lambda: fallom.status()["dropped"] == {"refused": 1})
    (letter,) = dead()
    assert (letter["reason"], letter["status"]) == ("HTTP 413", 413)


def test_a_span_that_the_server_cannot_read_is_found_and_the_others_arrive(
    cloud: LocalCloud, impatient: None
) -> None:
    cloud.fault("400,attribute=fallom.metric.poison,path=/v1/traces")
    fallom.init()
    record()
    for number in range(4):
        trace.span({"poison": number}, config_key="app", session_id="bad")
    record(SPANS, "more")
    assert fallom.flush(40) == 0
    assert spans(cloud) == (2 * SPANS, 2 * SPANS)
    assert [letter["reason"] for letter in dead()] == ["HTTP 400"] * 4


def test_a_partial_success_is_counted_and_not_sent_again(
    cloud: LocalCloud, impatient: None
) -> None:
    cloud.fault("partial,rejected=2,path=/v1/traces,times=1")
    fallom.init()
    record()
    assert fallom.flush(40) == 0
    wait_for(lambda: fallom.status()["dropped"] == {"rejected": 2})
    assert spans(cloud) == (SPANS - 2, SPANS - 2)
    assert dead() == []


@pytest.mark.parametrize("fault", ["garbage", "huge,bytes=200000000", "bomb,bytes=60000000"])
def test_an_answer_that_cannot_be_read_counts_by_its_status_and_costs_no_memory(
    cloud: LocalCloud, impatient: None, state_dir: Path, fault: str
) -> None:
    cloud.fault(f"{fault},path=/v1/traces")
    fallom.init()
    record()
    assert fallom.flush(40) == 0, "a status of 200 is an acceptance, whatever is said with it"
    wait_for(lambda: fallom.status()["sent"]["metrics_accepted"] == SPANS)
    assert fallom.status()["sent"]["batches_retried"] == 0
    (pid,) = leader_pids(state_dir)
    assert psutil.Process(pid).memory_info().rss < 110 << 20


@pytest.fixture
def elsewhere() -> Iterator[socket.socket]:
    """Another host; nobody may come to it."""
    with socket.create_server(("127.0.0.2", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_to_another_host_is_not_followed_and_keeps_everything(
    cloud: LocalCloud, impatient: None, elsewhere: socket.socket, status: int
) -> None:
    host, port = elsewhere.getsockname()
    cloud.fault(f"redirect,status={status},to=http://{host}:{port}/v1/traces,path=/v1/traces")
    fallom.init(api_key="a-key-of-this-test")
    record()
    wait_for(lambda: applied(cloud) >= 2, what="a second try")
    wait_for(lambda: "redirects are not followed" in fallom.status()["last_error"])
    with pytest.raises(BlockingIOError):
        elsewhere.accept()
    cloud.fault()
    assert fallom.flush(40) == 0
    assert spans(cloud) == (SPANS, SPANS)
    assert os.environ.get("FALLOM_API_KEY") is None


def test_a_fetch_that_failed_is_no_last_error_any_more_once_all_was_fetched(
    cloud: LocalCloud, state_dir: Path
) -> None:
    cloud.fault("500,path=/configs")
    fallom.init(sync_interval=0.2)
    record()
    wait_for(lambda: "500" in fallom.status()["last_error"], what="a fetch that failed")
    end_flushers(state_dir)
    assert "500" in fallom.status()["last_error"]
    cloud.fault()
    record()
    wait_for(lambda: fallom.status()["last_error"] == "", what="the next flusher's fetch")
