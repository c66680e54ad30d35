"""What reads do where no config was ever fetched, where one was, and where the cloud is down."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

import fallom
from fallom import _runtime, models, prompts
from fallom.dev.server import LocalCloud
from fallom.exceptions import NotFoundError
from tests.support.flushers import end_flushers, wait_for

NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing listens


@pytest.fixture
def nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIGS", "PROMPTS", "TRACES"):
        monkeypatch.setenv(f"FALLOM_{name}_URL", NOWHERE)


@pytest.mark.usefixtures("nobody_answers")
def test_the_first_read_waits_once_for_a_process_and_then_falls_back_at_once() -> None:
    fallom.init(cold_start_timeout=0.3)
    waits = []
    for _ in range(3):
        started_s = time.monotonic()
        assert models.get("app", "s", fallback="spare") == "spare"
        waits.append(time.monotonic() - started_s)
    # One deadline for the process: the first call has it, and the others have what is left of it.
    assert waits[0] >= 0.3
    assert waits[1] + waits[2] < 0.3


@pytest.mark.usefixtures("nobody_answers")
def test_without_a_fallback_the_error_names_the_key_and_the_cause() -> None:
    fallom.init(cold_start_timeout=0)
    with pytest.raises(
        NotFoundError, match=r"config 'app' is not known \(no snapshot\).*fallback="
    ):
        models.get("app", "s")
    with pytest.raises(NotFoundError, match="prompt 'hello' is not known"):
        prompts.get("hello")
    with pytest.raises(ValueError, match="A/B test 'ab'"):
        prompts.get_ab("ab", "s")


@pytest.mark.usefixtures("nobody_answers")
async def test_under_a_running_event_loop_a_read_with_a_fallback_does_not_wait() -> None:
    fallom.init(cold_start_timeout=30)
    ticks = await ticks_during(asyncio.to_thread(lambda: None))
    assert models.get("app", "s", fallback="spare") == "spare"
    assert ticks >= 0


async def ticks_during(awaitable: object) -> int:
    """Count how often the loop came round while something was awaited."""
    count = 0

    async def tick() -> None:
        nonlocal count
        while True:
            await asyncio.sleep(0)
            count += 1

    ticking = asyncio.ensure_future(tick())
    await awaitable  # type: ignore[misc]
    ticking.cancel()
    return count


@pytest.mark.usefixtures("nobody_answers")
async def test_get_model_waits_with_the_loop_running() -> None:
    fallom.init(cold_start_timeout=0.2)
    session = fallom.session("app", "s")
    started_s = time.monotonic()
    ticks = await ticks_during(session.get_model(fallback="spare"))
    assert time.monotonic() - started_s >= 0.2
    assert ticks > 10


def test_get_model_uses_the_session_s_customer(cloud: LocalCloud, folder: Path) -> None:
    (folder / "configs/app.yaml").write_text(
        "variants:\n  - {model: one, weight: 100}\n  - {model: special, weight: 0}\n"
        "targeting:\n  individualTargets:\n"
        "    - {field: customerId, value: c-1, variantIndex: 1}\n"
    )
    fallom.init()
    assert fallom.wait_until_ready(20)
    assert fallom.session("app", "s").get_model_sync() == "one"
    assert fallom.session("app", "s", customer_id="c-1").get_model_sync() == "special"
    assert asyncio.run(fallom.session("app", "s", customer_id="c-1").get_model()) == "special"
    explained = models.explain("app", "s", customer_id="c-1")
    assert (explained.reason, explained.index) == ("individual_target", 1)
    assert models.explain("app", "s").reason == "weight"
    assert models.explain("nope", "s", fallback="f").reason == "fallback: config_not_found"
    assert models.explain("app", "s", version=9).reason == "fallback: version_not_found"


def test_the_last_snapshot_serves_at_once_after_a_restart_with_the_cloud_down(
    cloud: LocalCloud, state_dir: Path, tmp_path: Path
) -> None:
    from tests.support.scripts import run_script

    fallom.init()
    assert fallom.wait_until_ready(20)
    assert models.get("app", "s") == "one"
    end_flushers(state_dir)
    cloud.kill()
    code = """
import time, fallom
fallom.init(cold_start_timeout=30)
started = time.monotonic()
assert fallom.models.get("app", "s", fallback="spare") == "one"
assert fallom.prompts.get("hello", {"name": "Ada"}).system == "You greet Ada."
assert time.monotonic() - started < 30, "it waited"
"""
    run_script(code, tmp_path)


def test_a_pinned_version_is_fetched_when_it_is_asked_for(cloud: LocalCloud, folder: Path) -> None:
    (folder / "configs/app.yaml").write_text(
        "versions:\n  - {version: 1, variants: [{model: old, weight: 100}]}\n"
        "  - {version: 2, variants: [{model: new, weight: 100}]}\n"
    )
    fallom.init(cold_start_timeout=20)
    assert models.get("app", "s") == "new"
    assert models.get("app", "s", version=1) == "old"
    explained = models.explain("app", "s", version=1)
    assert (explained.model, explained.is_pinned, explained.config_version) == ("old", True, 1)


def test_a_pinned_version_that_does_not_exist_is_waited_for_once(cloud: LocalCloud) -> None:
    fallom.init(cold_start_timeout=0.3)
    assert fallom.wait_until_ready(20)
    started_s = time.monotonic()
    assert models.get("app", "s", version=77, fallback="spare") == "spare"
    assert time.monotonic() - started_s >= 0.3
    started_s = time.monotonic()
    for _ in range(5):
        assert models.get("app", "s", version=77, fallback="spare") == "spare"
    assert time.monotonic() - started_s < 0.3


def test_exposures_are_sent_once_a_session_whoever_saw_it(
    cloud: LocalCloud, tmp_path: Path
) -> None:
    from tests.support.scripts import run_script

    code = """
import os, fallom
from fallom import models
fallom.init()
assert fallom.wait_until_ready(20)
for worker in range(4):
    if os.fork() == 0:
        for number in range(50):
            models.get("app", f"s{number}")
            models.get("app", f"s{number}")
        models.get("nope", "s0", fallback="spare")
        os._exit(0)
for worker in range(4): os.wait()
assert fallom.flush(20) == 0
"""
    run_script(code, tmp_path)
    sent = wait_for(lambda: cloud.exposures() if len(cloud.exposures()) >= 50 else None)
    assert sorted(row["session_id"] for row in sent) == sorted(f"s{number}" for number in range(50))


def test_a_key_that_is_newer_than_what_an_earlier_run_left_is_waited_for_unless_there_is_a_fallback(
    cloud: LocalCloud, folder: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FALLOM_COLD_START_TIMEOUT", "30")
    monkeypatch.setenv("FALLOM_SYNC_INTERVAL", "0.1")
    fallom.init()
    assert fallom.wait_until_ready(20)
    cloud.fault("500,path=/configs")
    _forget(state_dir)
    (folder / "configs/new.yaml").write_text("variants:\n  - {model: one, weight: 100}\n")
    (folder / "prompts").mkdir(exist_ok=True)
    (folder / "prompts/new.yaml").write_text("user_template: Hello\n")
    assert models.get("new", "s", fallback="spare") == "spare"
    cloud.fault()
    assert models.get("new", "s") == "one"
    _forget(state_dir)
    (folder / "prompts/newer.yaml").write_text("user_template: Hello again\n")
    assert prompts.get("newer").user == "Hello again"
    _forget(state_dir)
    (folder / "configs/newest.yaml").write_text("variants:\n  - {model: two, weight: 100}\n")
    assert asyncio.run(fallom.session("newest", "s").get_model()) == "two"


def _forget(state_dir: Path) -> None:
    """Leave what a run leaves that ended some time ago: a snapshot, and no flusher."""
    end_flushers(state_dir)
    fallom.shutdown()
    place = _runtime.current().whereabouts.place
    assert place is not None
    wait_for(lambda: time.time() - place.page.synced_s() > 1.2, what="the last fetch to be old")
    _runtime.reset()
    fallom.init()


def test_a_key_that_nobody_has_is_waited_for_once_a_process(
    cloud: LocalCloud, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FALLOM_SYNC_INTERVAL", "0.1")
    monkeypatch.setenv("FALLOM_COLD_START_TIMEOUT", "2")
    fallom.init()
    assert fallom.wait_until_ready(20)
    cloud.kill()
    _forget(state_dir)
    waits = []
    for _ in range(3):
        started_s = time.monotonic()
        with pytest.raises(NotFoundError):
            models.get("nobody's", "s")
        waits.append(time.monotonic() - started_s)
    assert waits[0] >= 2
    assert waits[1] + waits[2] < 2
