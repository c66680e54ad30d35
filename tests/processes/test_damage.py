"""Any file of the state directory is damaged at rest: the next worker and flusher go on all the same."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import fallom
from fallom import _runtime, models, trace
from fallom.dev.server import LocalCloud
from tests.support.damage import DAMAGES, FLIPS
from tests.support.flushers import end_flushers, wait_for

BACKLOG = 30
NEW = 10
KINDS = {
    "segment": "spool/metrics-*",
    "wishes": "spool/wishes-*",
    "page": "control",
    "database": "snapshot/cache.db",
    "dead letter": "dead/*.dead",
    "leader's lock": "leader.lock",
    "leader's life": "leader.alive",
    "spawn lock": "spawn.lock",
    "log": "flusher.log",
}


@pytest.fixture
def healthy(cloud: LocalCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory with a snapshot, a dead letter and undelivered spans, and nobody at work."""
    monkeypatch.setenv("FALLOM_LINGER", "0")
    state = tmp_path / "healthy"
    cloud.fault("400,attribute=fallom.metric.poison,path=/v1/traces")
    fallom.init(state_dir=str(state))
    assert fallom.wait_until_ready(20)
    record("warm", 1)
    trace.span({"poison": 1}, config_key="app", session_id="bad")
    assert fallom.flush(20) == 0
    _runtime.reset()
    end_flushers(state)
    fallom.init(state_dir=str(state), flusher="external", segment_bytes_max=4096)
    models.get("app", "nobody", version=77, fallback="none")
    record("old", BACKLOG)
    _runtime.reset()
    return state


def record(who: str, count: int) -> None:
    for number in range(count):
        trace.span({"text": "x" * 300}, config_key="app", session_id=f"{who}-{number}")


def sessions(cloud: LocalCloud, who: str) -> set[str]:
    found = {row["attributes"]["fallom.session_id"] for row in cloud.spans()}
    return {session for session in found if session.startswith(f"{who}-")}


def copies(healthy: Path, pattern: str) -> Iterator[tuple[str, Path, Path]]:
    """Give a copy of the state for each damage, with one file of a kind damaged."""
    for name, damage in DAMAGES.items():
        copy = healthy.parent / f"damaged by {name}"
        shutil.copytree(healthy, copy)
        path = sorted(copy.glob(f"v1/*/{pattern}"))[0]
        damage(path, random.Random(f"{pattern} {name}"))
        yield name, copy, path


@pytest.mark.parametrize("kind", KINDS)
def test_recording_and_delivery_go_on_with_a_damaged(
    cloud: LocalCloud, healthy: Path, kind: str
) -> None:
    for name, copy, path in copies(healthy, KINDS[kind]):
        cloud.clear()
        fallom.init(state_dir=str(copy))
        assert fallom.wait_until_ready(20), name
        assert models.get("app", "s") == "one", name
        record(name, NEW)
        assert fallom.flush(20) == 0, name
        assert len(sessions(cloud, name)) == NEW, name
        old = sessions(cloud, "old")
        _runtime.reset()
        end_flushers(copy)
        if kind != "segment":
            assert len(old) == BACKLOG, name
        elif name.startswith("flip"):
            assert len(old) >= BACKLOG - FLIPS, name
        else:
            assert len(old) >= BACKLOG * 2 // 3, f"{name}: other segments are not damaged"
        check_what_is_left(kind, name, path, lost=BACKLOG - len(old))


def check_what_is_left(kind: str, name: str, path: Path, lost: int) -> None:
    """What was damaged is kept aside and counted."""
    root = path.parent if kind == "page" else path.parent.parent
    if kind == "page" and name != "flip_bits":  # of 4,096 bytes, few mean anything
        assert list(root.glob("control.damaged.*")), name
    if kind == "segment" and lost and name not in ("cut_short", "empty"):  # then nothing is there
        assert list(root.glob("dead/*.damaged")), name
    if kind == "database" and not name.startswith("flip"):  # a flip may hit an unused page
        assert list(root.glob("snapshot/aside/*/cache.db")), name


@pytest.mark.parametrize("name", DAMAGES)
def test_last_known_good_serves_on_in_workers_that_have_it(
    cloud: LocalCloud, state_dir: Path, name: str
) -> None:
    fallom.init()
    assert fallom.wait_until_ready(20)
    assert models.get("app", "s") == "one"
    end_flushers(state_dir)
    cloud.fault("500,path=/configs", "500,path=/prompts")
    (database,) = state_dir.glob("v1/*/snapshot/cache.db")
    DAMAGES[name](database, random.Random(name))
    record("s", 1)  # a flusher starts, and finds the database
    wait_for(lambda: fallom.status()["flusher"]["pid"], what="a flusher")
    wait_for(lambda: "500" in fallom.status()["last_error"], what="a fetch that failed")
    assert models.get("app", "s", fallback="lost") == "one"
    end_flushers(state_dir)  # it has put a sound and empty database into its place
    DAMAGES[name](database, random.Random(name))
    runtime = _runtime.current()
    assert runtime.whereabouts.place is not None
    runtime.whereabouts.place.page.set_generation(runtime.whereabouts.place.page.generation() + 1)
    assert models.get("app", "s", fallback="lost") == "one"
    is_read_in_vain = runtime.snapshot.info().last_error is not None
    assert is_read_in_vain or name.startswith("flip"), "a flip may hit an unused page"
    assert models.get("app", "s", fallback="lost") == "one", "also while it is not tried again"
