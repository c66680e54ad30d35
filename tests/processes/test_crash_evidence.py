"""A call whose process died in the middle of it is a span that says so; one that ended never is."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

import fallom
from fallom.dev.server import LocalCloud
from tests.support.flushers import wait_for
from tests.support.scripts import run_script, start_script
from tests.support.spools import allocated_bytes

# Streams an answer, and says so in the middle of it.
CALL = """
import os, sys, fallom
from fallom import trace
from openai import OpenAI
fallom.init()
session = fallom.session("app", sys.argv[1], customer_id="c", metadata={"plan": "free"})
client = session.wrap_openai(OpenAI())
messages = [{"role": "user", "content": "the-secret-question"}]
stream = client.chat.completions.create(model="gpt-4o", messages=messages, stream=True)
next(iter(stream))
"""
WAIT = "print('in flight', flush=True)\nsys.stdin.readline()\n"


def died(cloud: LocalCloud) -> list[dict[str, Any]]:
    return [row for row in cloud.spans() if row["attributes"].get("error.type") == "process_died"]


def kill_in_flight(code: str, folder: Path, *arguments: str) -> None:
    with start_script(code, folder, None, *arguments) as script:
        assert script.stdout is not None
        assert script.stdout.readline() == "in flight\n", script.stderr and script.stderr.read()
        script.kill()


def test_a_call_whose_process_is_killed_is_told_with_what_was_known(
    cloud: LocalCloud, tmp_path: Path
) -> None:
    kill_in_flight(CALL + WAIT, tmp_path, "s")
    (span,) = wait_for(lambda: died(cloud))
    attributes = span["attributes"]
    assert span["name"] == "chat gpt-4o"
    assert attributes["gen_ai.request.model"] == "gpt-4o"
    assert attributes["fallom.session_id"] == "s"
    assert attributes["fallom.customer_id"] == "c"
    assert attributes["fallom.metadata.plan"] == "free"
    assert span["end_unix_ns"] >= span["start_unix_ns"] > 0
    assert "the-secret-question" not in str(span), "a start has no content"


def test_a_call_that_ended_is_told_once_and_as_it_was(cloud: LocalCloud, tmp_path: Path) -> None:
    kill_in_flight(CALL + "for _ in stream: pass\n" + WAIT, tmp_path, "ended")
    kill_in_flight(CALL + WAIT, tmp_path, "killed")
    (span,) = wait_for(lambda: died(cloud))
    assert span["attributes"]["fallom.session_id"] == "killed"
    spans = {row["attributes"]["fallom.session_id"]: row for row in cloud.spans()}
    assert "error.type" not in spans["ended"]["attributes"]
    assert len(cloud.spans()) == 2


def test_a_start_is_repeated_when_its_segment_is_full(cloud: LocalCloud, tmp_path: Path) -> None:
    rotate = """
for number in range(30):
    with trace.step(f"step {number}", attributes={"text": "x" * 1000}): pass
"""
    small = CALL.replace("fallom.init()", "fallom.init(segment_bytes_max=4096)")
    kill_in_flight(small + rotate + WAIT, tmp_path, "killed")
    kill_in_flight(small + rotate + "for _ in stream: pass\n" + WAIT, tmp_path, "ended")
    (span,) = wait_for(lambda: died(cloud))
    assert span["attributes"]["fallom.session_id"] == "killed"
    names = [row["name"] for row in wait_for(lambda: _rows(cloud, 62))]
    assert names.count("chat gpt-4o") == 2


def test_a_child_that_dies_says_nothing_of_its_parent_s_call(
    cloud: LocalCloud, tmp_path: Path
) -> None:
    fork = """
if os.fork() == 0:
    with trace.step("in the child"): pass
    os._exit(1)
os.wait()
for _ in stream: pass
"""
    run_script(CALL + fork, tmp_path, None, "parent")
    rows = wait_for(lambda: _rows(cloud, 2))
    assert sorted(row["name"] for row in rows) == ["chat gpt-4o", "in the child"]
    assert fallom.flush(5) == 0
    assert died(cloud) == []


def test_a_start_outlives_the_flusher_that_read_it(cloud: LocalCloud, tmp_path: Path) -> None:
    step = "with trace.step('before'): pass\nassert fallom.flush(20) == 0\n"
    with start_script(CALL + step + WAIT, tmp_path, None, "s") as script:
        assert script.stdout is not None
        assert script.stdout.readline() == "in flight\n"
        fallom.init()
        flusher = fallom.status()["flusher"]["pid"]  # the leader: a candidate may stand beside it
        os.kill(flusher, signal.SIGKILL)
        wait_for(lambda: fallom.status()["flusher"]["pid"] not in (flusher, None))
        assert died(cloud) == [], "its process lives"
        script.kill()
    (span,) = wait_for(lambda: died(cloud))
    assert span["attributes"]["fallom.session_id"] == "s"


def _rows(cloud: LocalCloud, count: int) -> list[dict[str, Any]]:
    rows = cloud.spans()
    return rows if len(rows) >= count else []


# Each has the span of the call refused, and the process killed afterwards.
REFUSALS = {
    "the quota": """
while not fallom.status()["dropped"].get("quota"):
    trace.span({"text": "x" * 2000}, config_key="app", session_id="filler")
for _ in stream: pass
""",
    "a full disk": """
def refuse(fd, data):
    raise OSError(28, "no space left on device")
write, os.write = os.write, refuse
for _ in stream: pass
os.write = write
assert fallom.status()["dropped"].get("disk"), fallom.status()
""",
    "its own size": """
import fallom._spool.frame as frame, fallom._spool.writer as writer
most = frame.RECORD_BYTES_MAX
frame.RECORD_BYTES_MAX = writer.RECORD_BYTES_MAX = 100
for _ in stream: pass
frame.RECORD_BYTES_MAX = writer.RECORD_BYTES_MAX = most
assert fallom.status()["dropped"].get("too_large"), fallom.status()
""",
}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_call_that_ended_is_never_told_as_died_though_its_span_was_refused(
    cloud: LocalCloud,
    tmp_path: Path,
    state_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    refusal: str,
) -> None:
    monkeypatch.setenv("FALLOM_SPOOL_POLICY", "drop_newest")
    monkeypatch.setenv("FALLOM_SPOOL_BYTES_MAX", "1100000")
    cloud.fault("503,path=/v1/traces")
    kill_in_flight(CALL + REFUSALS[refusal] + WAIT, tmp_path, "refused")
    cloud.fault()
    # Else the next one's start may be refused too. A backoff of half a minute may be under way.
    assert fallom.flush(90) == 0
    # On the disk, and by the flusher's word, which may be of before it was full: both let it record.
    wait_for(lambda: allocated_bytes(state_dir) < 500_000, what="what was delivered to be deleted")
    wait_for(lambda: fallom.status()["spool"]["allocated_bytes"] < 500_000, what="its next look")
    kill_in_flight(CALL + WAIT, tmp_path, "killed")
    wait_for(lambda: died(cloud), timeout_s=90)
    assert fallom.flush(60) == 0
    assert {row["attributes"]["fallom.session_id"] for row in died(cloud)} == {"killed"}


def test_calls_that_are_still_in_flight_are_told_though_the_span_of_another_was_refused(
    cloud: LocalCloud, tmp_path: Path
) -> None:
    other = """
first = stream
second = client.chat.completions.create(model="gpt-4o-mini", messages=messages, stream=True)
"""
    kill_in_flight(
        CALL
        + other
        + REFUSALS["its own size"].replace("stream", "first")
        + "with trace.step('next'): pass\n"
        + WAIT,
        tmp_path,
        "s",
    )
    (span,) = wait_for(lambda: died(cloud))
    assert span["name"] == "chat gpt-4o-mini"
