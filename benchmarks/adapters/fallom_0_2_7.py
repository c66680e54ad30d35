"""fallom 0.2.7 from PyPI.

Its ``models.get`` starts a thread and a POST for each call; the path ``models.get`` measures the evaluation
alone, with that part replaced by nothing, and ``models.first`` the call as it was shipped.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from driver import FLUSH_S, SESSIONS, SYSTEM, TEN, USER, VARIABLES, Subject, serve

VARIANTS = [{"model": "one", "weight": 50}, {"model": "two", "weight": 50}]


def _fill() -> None:
    from fallom import models, prompts

    # An empty cache would fetch, without a key in vain.
    models._initialized = prompts._initialized = True
    config = {"key": "app", "version": 1, "variants": VARIANTS}
    models._config_cache["app"] = {"versions": {1: config}, "latest": 1}
    prompt = {"system_prompt": SYSTEM, "user_template": USER}
    prompts._prompt_cache["p"] = {"versions": {1: prompt}, "current": 1}
    test = {"variants": [{"prompt_key": "p", "prompt_version": None, "weight": 100}]}
    prompts._prompt_ab_cache["t"] = {"versions": {1: test}, "current": 1}


def models_warm(_: dict[str, Any]) -> Subject:
    from fallom import models

    _fill()
    models._return_with_trace = lambda key, session, model, version: model
    get, sessions = models.get, SESSIONS
    return Subject(
        lambda number: get("app", sessions[number & 255], fallback="f"),
        answers=lambda: {"models": [get("app", session) for session in sessions]},
    )


def models_first(options: dict[str, Any]) -> Subject:
    from fallom import models

    _fill()
    models._api_key, models._base_url = "key", options["url"]
    get = models.get
    return Subject(lambda number: get("app", f"first-{number}", fallback="f"), _threads_end)


def prompts_get(_: dict[str, Any]) -> Subject:
    from fallom import prompts

    _fill()
    get = prompts.get

    def answers() -> dict[str, str]:
        prompt = get("p", VARIABLES)
        return {"system": prompt.system, "user": prompt.user}

    return Subject(lambda _: get("p", VARIABLES), answers=answers)


def prompts_get_ab(_: dict[str, Any]) -> Subject:
    from fallom import prompts

    _fill()
    get, sessions = prompts.get_ab, SESSIONS

    def answers() -> dict[str, str]:
        prompt = get("t", "s", VARIABLES)
        return {"system": prompt.system, "user": prompt.user}

    return Subject(lambda number: get("t", sessions[number & 255], VARIABLES), answers=answers)


def span(options: dict[str, Any]) -> Subject:
    """As shipped: a thread and a POST a call. The count is in the data, for there are no ids."""
    from fallom import trace

    trace.init(api_key="key", base_url=options["url"])
    record = trace.span
    offset = options.get("offset", 0)
    return Subject(lambda number: record({**TEN, "n": number + offset}, "app", "s"), _threads_end)


def _threads_end() -> None:
    give_up = time.monotonic() + FLUSH_S
    while threading.active_count() > 1 and time.monotonic() < give_up:
        time.sleep(0.01)


PATHS = {
    "models.get": models_warm,
    "models.first": models_first,
    "prompts.get": prompts_get,
    "prompts.get_ab": prompts_get_ab,
    "span": span,
}

if __name__ == "__main__":
    serve(PATHS)
