"""The contestant's end of the line: takes orders as JSON lines, runs rounds, answers as JSON lines.

Standard library only: it runs in the environment of every peer. An adapter gives its paths by name, each a
function that makes a ``Subject``; what is timed is ``Subject.call`` and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

SESSIONS = [f"session-{number}" for number in range(256)]
VARIABLES = {name: f"value of {name}" for name in "abcde"}
SYSTEM = "You are {{a}}, who helps {{b}} with {{c}}. Be brief."
USER = "Tell {{d}} about {{e}}, please."
TEN = {
    "outlier_score": 0.83,
    "user_satisfaction": 4,
    "conversion": True,
    "model": "gpt-4o-mini",
    "prompt_tokens": 1234,
    "completion_tokens": 321,
    "latency_ms": 812.5,
    "region": "us-west-2",
    "plan": "enterprise",
    "route": "/v1/answers/{id}",
}
FLUSH_S = 120.0
_WORDS = (
    "the model answers in a few words what it was asked and says where it does not know ".split()
)


def llm_attributes(number: int) -> dict[str, Any]:
    """Give the attributes of a call to a model: 20, with a short text in and out, about 1.3 kB."""
    turn = number % len(_WORDS)
    words = _WORDS[turn:] + _WORDS[:turn]
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "gpt-4o-2024-08-06",
        "gen_ai.response.id": f"chatcmpl-{number:029d}",
        "gen_ai.request.temperature": 0.7,
        "gen_ai.request.max_tokens": 1024,
        "gen_ai.request.stream": True,
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.response.time_to_first_chunk": 0.1 + number / 1e6,
        "gen_ai.usage.input_tokens": 500 + number % 700,
        "gen_ai.usage.output_tokens": 100 + number % 300,
        "gen_ai.usage.cache_read.input_tokens": number % 400,
        "gen_ai.conversation.id": f"session-{number % 1000}",
        "server.address": "api.openai.com",
        "server.port": 443,
        "fallom.config_key": "my-app",
        "fallom.session_id": f"session-{number % 1000}",
        "gen_ai.input.messages": json.dumps([{"role": "user", "content": " ".join(words * 2)}]),
        "gen_ai.output.messages": json.dumps([{"role": "assistant", "content": " ".join(words)}]),
    }


@dataclass
class Subject:
    """One path of one contestant, ready to be called."""

    call: Callable[[int], Any]
    settle: Callable[[], Any] = lambda: None  # deliver what is queued, not timed
    close: Callable[[], Any] = lambda: None
    answers: Callable[[], Any] = lambda: None  # what a check of correctness needs
    elsewhere_cpu_s: Callable[[], float] = lambda: 0.0  # of helper processes
    prepare: Callable[[], Any] = lambda: None  # before each round, not timed
    extra: dict[str, Any] = field(default_factory=dict)


Paths = dict[str, Callable[[dict[str, Any]], Subject]]
_SIXTEEN = bytes(range(16))


def cal(_: int) -> int:
    """The calibration step: md5 of 16 bytes, to an integer, modulo."""
    return int.from_bytes(hashlib.md5(_SIXTEEN).digest()[:4], "big") % 1_000_000


def serve(paths: Paths) -> None:
    """Take orders until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever the libraries print is none of the protocol's
    subject: Subject | None = None
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if order["do"] == "open":
                subject = paths[order["path"]](order.get("options", {}))
                answer: Any = subject.extra
            else:
                assert subject is not None
                answer = _ORDERS[order["do"]](subject, order)
        except BaseException:  # noqa: BLE001 - whatever it was, the other side is told
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    if subject is not None:
        with contextlib.suppress(Exception):
            subject.close()
    answers.flush()
    os._exit(0)  # exit hooks of peers may wait for a server that is gone by now


def time_round(subject: Subject, order: dict[str, Any]) -> dict[str, Any]:
    """Time ``cal``, then a loop of calls, then single calls for the distribution."""
    calls, start = order["calls"], order["start"]
    subject.prepare()
    before_ns = _loop(cal, 0, order["cal_calls"])
    process_ns, elsewhere_s = time.process_time_ns(), subject.elsewhere_cpu_s()
    loop_ns = _loop(subject.call, start, calls)
    loop_process_ns = time.process_time_ns() - process_ns
    after_ns = _loop(cal, 0, order["cal_calls"])
    process_ns = time.process_time_ns() - loop_process_ns  # as if there had been no cal
    singles = []
    call, clock = subject.call, time.perf_counter_ns
    for number in range(start + calls, start + calls + order["singles"]):
        begun = clock()
        call(number)
        singles.append(clock() - begun)
    subject.settle()
    total_ns = time.process_time_ns() - process_ns
    cals = 2 * order["cal_calls"]
    return {
        "wall_ns": loop_ns[0] / calls,
        "cpu_ns": loop_ns[1] / calls,
        "process_ns": loop_process_ns / calls,
        "all_cpu_ns": (total_ns + 1e9 * (subject.elsewhere_cpu_s() - elsewhere_s))
        / (calls + order["singles"]),
        "cal_wall_ns": (before_ns[0] + after_ns[0]) / cals,
        "cal_cpu_ns": (before_ns[1] + after_ns[1]) / cals,
        "singles_ns": singles,
    }


def _loop(call: Callable[[int], Any], start: int, calls: int) -> tuple[int, int]:
    wall_ns, cpu_ns = time.perf_counter_ns(), time.thread_time_ns()
    for number in range(start, start + calls):
        call(number)
    return time.perf_counter_ns() - wall_ns, time.thread_time_ns() - cpu_ns


def flood(subject: Subject, order: dict[str, Any]) -> dict[str, Any]:
    """Call from several threads as fast as they can, each call timed; begins at a given moment."""
    threads, each, start = order["threads"], order["calls"] // order["threads"], order["start"]
    took: list[list[int]] = [[] for _ in range(threads)]
    ended_ns = [0] * threads

    def body(which: int) -> None:
        mine, clock, call = took[which], time.perf_counter_ns, subject.call
        while time.monotonic_ns() < order["begin_ns"]:
            time.sleep(0.001)
        for number in range(start + which * each, start + (which + 1) * each):
            begun = clock()
            call(number)
            mine.append(clock() - begun)
        ended_ns[which] = time.monotonic_ns()

    calls_before = time.process_time_ns()
    elsewhere_s = subject.elsewhere_cpu_s()
    running = [threading.Thread(target=body, args=(which,)) for which in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    process_ns = time.process_time_ns() - calls_before
    subject.settle()
    return {
        "calls": each * threads,
        "singles_ns": [ns for mine in took for ns in mine],
        "ended_ns": max(ended_ns),
        "process_ns": process_ns,
        "all_cpu_ns": time.process_time_ns()
        - calls_before
        + 1e9 * (subject.elsewhere_cpu_s() - elsewhere_s),
    }


def tell_answers(subject: Subject, _: dict[str, Any]) -> Any:
    """Give what a check of correctness needs, after all that was recorded is delivered."""
    subject.settle()
    return subject.answers()


def warm(subject: Subject, order: dict[str, Any]) -> dict[str, Any]:
    """Call without timing."""
    for number in range(order["start"], order["start"] + order["calls"]):
        subject.call(number)
    subject.settle()
    return {}


_ORDERS = {"round": time_round, "flood": flood, "answers": tell_answers, "warm": warm}
