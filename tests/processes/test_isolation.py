"""What a worker never does, watched from outside; and what never leaves it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

import fallom
from fallom import models, prompts, trace
from fallom.dev.server import LocalCloud
from tests.support.flushers import leader_pids, wait_for
from tests.support.scripts import ROOT, run_script, start_script

USE_ALL = """
import os, sys, fallom
from fallom import models, prompts, trace
fallom.init()
assert fallom.wait_until_ready(20)
for number in range(200):
    models.get("app", f"s{number}")
    prompts.get("hello", {"name": "Ada"})
    trace.span({"n": number}, config_key="app", session_id=f"s{number}")
print("ready", flush=True)
sys.stdin.readline() if len(sys.argv) > 1 else None
"""


def test_a_worker_has_no_thread_no_socket_and_no_child(cloud: LocalCloud, tmp_path: Path) -> None:
    path = tmp_path / "worker.py"
    path.write_text(USE_ALL)
    worker = subprocess.Popen(
        [sys.executable, str(path), "wait"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        seen = psutil.Process(worker.pid)
        assert seen.num_threads() == 1
        assert seen.net_connections("all") == []
        assert seen.children() == []
        descriptors = [os.readlink(found) for found in Path(f"/proc/{worker.pid}/fd").iterdir()]
        assert not [target for target in descriptors if "socket" in target or "cache.db" in target]
        worker.kill()


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_worker_makes_no_socket_and_no_thread_at_any_time(
    cloud: LocalCloud, tmp_path: Path
) -> None:
    path, log = tmp_path / "worker.py", tmp_path / "strace.log"
    path.write_text(USE_ALL)
    subprocess.run(
        ["strace", "-e", "trace=socket,connect,clone,clone3,vfork,fork", "-o", str(log)]  # noqa: RUF005
        + [sys.executable, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    calls = log.read_text()
    assert "socket(" not in calls
    assert "connect(" not in calls
    assert "CLONE_THREAD" not in calls


# Recorded calls, between two lines of the test; the provider is a function, so that nothing needs a socket.
CALLS = """
import sys, fallom, httpx
from fallom import models, prompts, trace
from openai import OpenAI
answer = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [
    {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}]}
provider = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=answer)))
fallom.init()
trace.span({"first": 1}, config_key="app", session_id="first")
client = fallom.session("app", "wrapped").wrap_openai(OpenAI(api_key="k", http_client=provider))
events = []
sys.addaudithook(lambda event, _: events.append(event) if event.startswith("socket.") else None)
print("ready", flush=True)
sys.stdin.readline()
for number in range(50):
    trace.span({"n": number}, config_key="app", session_id=f"s{number}")
    assert models.get("app", f"s{number}", fallback="none") == "one"
    assert prompts.get("hello", {"name": "Ada"}).system == "You greet Ada."
    client.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}])
print(f"returned {events}", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("trouble", ["hang", "drip_head,seconds=0.05", "refuses"])
def test_calls_return_while_the_server_has_not_answered_anything_and_make_no_socket(
    cloud: LocalCloud, tmp_path: Path, trouble: str
) -> None:
    run_script(USE_ALL, tmp_path)  # leaves a snapshot
    assert fallom.flush(20) == 0
    arrived = cloud.stats()["spans"]["received"]
    if trouble == "refuses":
        cloud.stop()
    else:
        cloud.fault(trouble)
    with start_script(CALLS, tmp_path, stdin=subprocess.PIPE) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        if trouble == "refuses":
            wait_for(
                lambda: "refused" in fallom.status()["last_error"], what="a refused connection"
            )
        else:
            wait_for(lambda: fault_applied(cloud), what="a request that is not answered")
        worker.stdin.write("go\n")
        worker.stdin.flush()
        assert worker.stdout.readline() == "returned []\n"
        if trouble != "refuses":  # nor has anything been answered meanwhile
            assert cloud.stats()["spans"]["received"] == arrived
        assert fallom.flush(0) >= 101, "all of it is in the spool"
        worker.kill()


def fault_applied(cloud: LocalCloud) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{cloud.url}/_dev/fault", timeout=10) as answer:
        return any(fault["applied"] for fault in json.load(answer)["faults"])


def test_the_flusher_belongs_to_nobody_and_holds_nothing_of_the_worker(
    cloud: LocalCloud, tmp_path: Path, state_dir: Path
) -> None:
    """No zombie, no inherited descriptor, no held pipe, no key in argv or environment."""
    code = """
import os, signal, socket, sys, fallom
listening = socket.socket()
listening.bind(("127.0.0.1", 0))
listening.listen()
os.set_inheritable(listening.fileno(), True)  # as a server that forks in C has it
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
fallom.init(api_key="sk-secret-of-this-test")
assert fallom.wait_until_ready(20)
print(listening.getsockname()[1], flush=True)
sys.stdin.readline()
"""
    with start_script(code, tmp_path) as script:
        assert script.stdout is not None
        script.stdout.readline()
        (pid,) = leader_pids(state_dir)
        flusher = psutil.Process(pid)
        assert flusher.ppid() != script.pid
        assert os.getsid(pid) != os.getsid(script.pid)
        assert not [c for c in flusher.net_connections() if c.status == psutil.CONN_LISTEN]
        assert "sk-secret" not in " ".join(flusher.cmdline()) + str(flusher.environ())
        masks = Path(f"/proc/{pid}/status").read_text()
        assert "SigBlk:\t0000000000000000" in masks
        zombies = [c for c in psutil.Process(script.pid).children() if c.status() == "zombie"]
        assert zombies == []
        script.kill()
        assert script.stdout.read() == ""  # end of file, although the flusher lives
    assert flusher.is_running()
    for path in state_dir.rglob("*"):
        if path.is_file():
            assert b"sk-secret" not in path.read_bytes(), path


def test_privacy_mode_keeps_content_off_the_wire_and_off_the_disk(
    cloud: LocalCloud, state_dir: Path
) -> None:
    from openai import APIStatusError, OpenAI

    secret = "the-patient-is-called-Zebulon"
    fallom.init(capture_content=False)
    client = fallom.session("app", "s").wrap_openai(OpenAI(max_retries=0))
    messages = [{"role": "user", "content": secret}]
    answer = client.chat.completions.create(model="gpt-4o", messages=messages)
    assert secret in str(answer), "the provider echoes"
    for _ in client.chat.completions.create(model="gpt-4o", messages=messages, stream=True):
        pass
    with pytest.raises(APIStatusError):
        client.chat.completions.create(model="fail-500", messages=messages)
    assert fallom.flush(20) == 0
    spans = cloud.spans()
    assert len(spans) == 3
    assert secret not in str(spans)
    assert spans[0]["attributes"]["gen_ai.usage.input_tokens"] > 0
    fallom.shutdown()
    for path in state_dir.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


def test_a_session_leaves_its_context_when_its_block_ends(cloud: LocalCloud) -> None:
    fallom.init()
    with fallom.session("app", "inner", customer_id="c", tags=["t"]):
        assert trace.get_session() == {
            "config_key": "app",
            "session_id": "inner",
            "customer_id": "c",
            "tags": ["t"],
        }
        trace.span({"score": 1})
    assert trace.get_session() is None
    with pytest.raises(ValueError, match="has no session"):
        trace.span({"score": 1})
    assert fallom.flush(20) == 0
    (span,) = cloud.spans()
    assert span["name"] == "fallom.metrics"
    attributes = span["attributes"]
    assert attributes["fallom.metric.score"] == 1
    assert attributes["fallom.session_id"] == attributes["gen_ai.conversation.id"] == "inner"
    assert attributes["fallom.customer_id"] == "c"
    assert span["start_unix_ns"] == span["end_unix_ns"]


def test_calling_init_again_before_and_after_a_fork_is_harmless(
    cloud: LocalCloud, tmp_path: Path, state_dir: Path
) -> None:
    code = """
import os, fallom
from fallom import trace
fallom.init(); fallom.init()
trace.span({}, config_key="app", session_id="parent")
if os.fork() == 0:
    fallom.init()
    trace.span({}, config_key="app", session_id="child")
    os._exit(0)
os.wait()
fallom.init(service_name="renamed")
trace.span({}, config_key="app", session_id="renamed")
assert fallom.flush(20) == 0
"""
    run_script(code, tmp_path)
    wait_for(lambda: cloud.stats()["spans"]["distinct"] == 3)
    names = {
        row["attributes"]["fallom.session_id"]: row["resource"]["service.name"]
        for row in cloud.spans()
    }
    assert names["renamed"] == "renamed"
    assert names["parent"] == names["child"] == "unknown_service:python"
    assert len(leader_pids(state_dir)) == 1


def test_prompts_tag_the_next_call_once(cloud: LocalCloud) -> None:
    from openai import OpenAI

    fallom.init()
    assert fallom.wait_until_ready(20)
    session = fallom.session("app", "s")
    assert session.get_model_sync() == models.get("app", "s") == "one"
    client = session.wrap_openai(OpenAI())
    prompt = prompts.get("hello", {"name": "Ada"})
    for _ in range(2):
        client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": prompt.user}]
        )
    assert fallom.flush(20) == 0
    first, second = (row["attributes"] for row in cloud.spans())
    assert first["fallom.prompt_key"] == "hello"
    assert first["fallom.prompt_version"] == 1
    assert first["fallom.assignment.reason"] == "weight"
    assert first["fallom.config_version"] == 1
    assert "fallom.prompt_key" not in second
