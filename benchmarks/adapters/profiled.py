"""One path in a loop, for ``benchmarks.cases.profiles``: ``profiled.py path calls [bytecodes.json]``.

With a file, the bytecodes that each Python function runs are counted and written there; without, whoever
started it counts instructions.
"""

from __future__ import annotations

import collections
import gc
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any

import fallom_now

_ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "word " * 500}}
    ],
    "usage": {"prompt_tokens": 500, "completion_tokens": 500, "total_tokens": 1000},
}  # fmt: skip


def main(path: str, calls: int, counted: str | None) -> None:
    """Run it so often, and end without exit hooks."""
    run = _flusher() if path == "flusher" else _loop(path, calls)
    gc.disable()
    if counted is None:
        run()
    else:
        Path(counted).write_text(json.dumps(_bytecodes(run)))
    os._exit(0)


def _loop(path: str, calls: int) -> Callable[[], None]:
    call = _llm_call(path) if path.startswith("llm") else fallom_now.PATHS[path]({}).call
    for number in range(20):  # what is done once is done here
        call(-1 - number)

    def run() -> None:
        for number in range(calls):
            call(number)

    return run


def _llm_call(path: str) -> Callable[[int], Any]:
    """Give a call of a client whose provider answers without a network."""
    import httpx
    from openai import OpenAI

    import fallom

    fallom.init()
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=_ANSWER))
    bare = OpenAI(
        api_key="k", base_url="http://localhost/v1", http_client=httpx.Client(transport=transport)
    )
    wrapped = fallom.session("app", "s").wrap_openai(bare)
    messages = [{"role": "user", "content": "word " * 500}]
    for client in (wrapped, bare):
        client.chat.completions.create(model="gpt-4o", messages=messages)
    create = (wrapped if path == "llm.wrapped" else bare).chat.completions.create
    return lambda _: create(model="gpt-4o", messages=messages)


def _flusher() -> Callable[[], None]:
    """Drain what is in the spool: then so many calls are so many records."""
    from fallom import _runtime
    from fallom._flusher.main import run_external

    settings = _runtime.current().settings

    def run() -> None:
        assert run_external(settings, once=True) == 0

    return run


def _bytecodes(run: Callable[[], None]) -> dict[str, int]:
    counts: collections.Counter[CodeType] = collections.Counter()

    def count(frame: Any, event: str, _: Any) -> Any:
        if event == "call":
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event == "opcode":
            counts[frame.f_code] += 1
        return count

    threading.settrace(count)
    sys.settrace(count)
    run()
    sys.settrace(None)
    named: collections.Counter[str] = collections.Counter()
    for code, times in counts.items():
        file = Path(code.co_filename)
        module = file.parent.name if file.stem == "__init__" else file.stem
        if module not in ("profiled", "fallom_now"):
            named[f"{module}.{getattr(code, 'co_qualname', code.co_name)}"] += times
    return named


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
