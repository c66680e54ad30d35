"""The application of the demo: one request calls all that fallom has. Run by gunicorn, 4 workers.

Each answer tells what the request recorded, so that whoever drives it can count what must arrive, and
how long each fallom call took.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from openai import APIError, OpenAI

import fallom
from fallom import models, prompts, trace

T = TypeVar("T")

fallom.init(service_name="fallom-demo")
client = OpenAI(max_retries=4, timeout=10.0)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer one request as a chat application would."""
    session_id = environ["PATH_INFO"].rpartition("/")[2]
    took_ns: dict[str, int] = {}

    def timed(name: str, call: Callable[[], T]) -> T:
        started_ns = time.perf_counter_ns()
        result = call()
        took_ns[name] = time.perf_counter_ns() - started_ns
        return result

    session = timed("session", lambda: fallom.session("summarizer-config", session_id))
    model = timed(
        "models.get",
        lambda: models.get("summarizer-config", session_id, fallback="gpt-4o-mini"),
    )
    variables = {"user_name": "Ada", "company": "Acme"}
    prompt = timed(
        "prompts.get_ab",
        lambda: prompts.get_ab("onboarding-test", session_id, variables),
    )
    openai = timed("wrap_openai", lambda: session.wrap_openai(client))
    try:
        answer = openai.chat.completions.create(
            model=model,
            messages=[
                {"role": "system", "content": prompt.system},
                {"role": "user", "content": prompt.user},
            ],
        )
        status = "ok" if answer.choices else "empty"
    except APIError as error:  # while the cloud is down; the call is traced all the same
        status = type(error).__name__
    timed(
        "trace.span",
        lambda: trace.span(
            {"satisfaction": len(session_id) % 5, "converted": True},
            config_key="summarizer-config",
            session_id=session_id,
        ),
    )
    told = {
        "pid": os.getpid(),
        "session_id": session_id,
        "model": model,
        "status": status,
        "took_ns": took_ns,
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(told).encode()]
