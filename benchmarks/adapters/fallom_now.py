"""fallom as it is in this checkout. Its settings come from the environment that the case makes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from driver import FLUSH_S, SESSIONS, SYSTEM, TEN, USER, VARIABLES, Subject, serve

VARIANTS = [{"model": "one", "weight": 50}, {"model": "two", "weight": 50}]


def publish(payloads: dict[str, Any]) -> None:
    """Publish listings as the flusher does, without a network."""
    from fallom import _runtime
    from fallom._snapshot.entries import Kind
    from fallom._snapshot.publish import Publisher
    from fallom._snapshot.schema import read_listing

    kinds = {
        "configs": Kind.CONFIG,
        "prompts": Kind.PROMPT,
        "prompt_ab_tests": Kind.AB_TEST,
    }
    place = _runtime.current().whereabouts.open()
    listings = [read_listing(kinds[name], {name: items}) for name, items in payloads.items()]
    place.page.set_generation(Publisher(Path(place.directory.snapshot_path)).publish(listings))


def open_offline() -> None:
    import fallom

    fallom.init()
    publish(
        {
            "configs": [{"key": "app", "version": 1, "variants": VARIANTS}],
            "prompts": [{"key": "p", "version": 1, "system_prompt": SYSTEM, "user_template": USER}],
            "prompt_ab_tests": [
                {"key": "t", "version": 1, "variants": [{"prompt_key": "p", "weight": 100}]}
            ],
        }
    )


def written() -> dict[str, Any]:
    """Count what is in the spool, by reading it."""
    import fallom
    from fallom import _runtime
    from fallom._flusher.targets import target_hashes
    from fallom._spool.survey import count_left, marks_of

    runtime = _runtime.current()
    spool, targets = runtime.whereabouts.open().directory.spool, target_hashes(runtime.settings)
    return {
        "written": count_left(spool, marks_of(spool, targets), targets),
        "dropped": fallom.status()["dropped"],
    }


def models_warm(_: dict[str, Any]) -> Subject:
    from fallom import models

    open_offline()
    get, sessions = models.get, SESSIONS
    for session in sessions:
        get("app", session, fallback="f")
    return Subject(
        lambda number: get("app", sessions[number & 255], fallback="f"),
        answers=lambda: {"models": [get("app", session) for session in sessions], **written()},
    )


def models_first(_: dict[str, Any]) -> Subject:
    from fallom import models

    open_offline()
    get = models.get
    return Subject(lambda number: get("app", f"first-{number}", fallback="f"), answers=written)


def prompts_get(_: dict[str, Any]) -> Subject:
    from fallom import prompts

    open_offline()
    get = prompts.get

    def answers() -> dict[str, str]:
        prompt = get("p", VARIABLES)
        return {"system": prompt.system, "user": prompt.user}

    return Subject(lambda _: get("p", VARIABLES), answers=answers)


def prompts_get_ab(_: dict[str, Any]) -> Subject:
    from fallom import prompts

    open_offline()
    get, sessions = prompts.get_ab, SESSIONS

    def answers() -> dict[str, str]:
        prompt = get("t", "s", VARIABLES)
        return {"system": prompt.system, "user": prompt.user}

    return Subject(lambda number: get("t", sessions[number & 255], VARIABLES), answers=answers)


def span(options: dict[str, Any]) -> Subject:
    """Record metrics of 10 fields; with a flusher if the environment says so."""
    import fallom
    from fallom import trace

    fallom.init()
    record = trace.span
    if options.get("delivered"):
        from fallom import _runtime

        def settle() -> None:
            left = fallom.flush(FLUSH_S)
            assert left == 0, f"{left} records were left"

        _runtime.current().look()  # the first look starts the flusher
        give_up = time.monotonic() + 20
        while not fallom.status()["flusher"]["pid"] and time.monotonic() < give_up:
            time.sleep(0.02)
        return Subject(
            lambda number: record(TEN, "app", "s"),
            settle,
            answers=lambda: {"dropped": fallom.status()["dropped"]},
            elsewhere_cpu_s=flusher_cpu_s,
        )
    return Subject(lambda number: record(TEN, "app", "s"), answers=written)


def flusher_cpu_s() -> float:
    """Give the CPU time that the flusher has used so far; it is shared by all workers of the host."""
    import fallom

    pid = fallom.status()["flusher"]["pid"]
    if not pid:
        return 0.0
    nanoseconds = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        nanoseconds += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
    return nanoseconds / 1e9


PATHS = {
    "models.get": models_warm,
    "models.first": models_first,
    "prompts.get": prompts_get,
    "prompts.get_ab": prompts_get_ab,
    "span": span,
}

if __name__ == "__main__":
    serve(PATHS)
