"""Configs and prompts without a server: from a folder, from a shipped snapshot, and of the past."""

from __future__ import annotations

import datetime
import json
import math
import time
from pathlib import Path

import pytest

import fallom
from fallom import _runtime, models, prompts
from fallom.dev.server import LocalCloud
from tests.support.flushers import wait_for
from tests.support.scripts import run_script


def test_configs_come_from_a_folder_and_edits_are_seen(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = f"file://{folder}"
    fallom.init(
        traces_url="http://127.0.0.1:9",
        configs_url=base,
        prompts_url=base,
        sync_interval=0.2,
        linger=1,
    )
    assert fallom.wait_until_ready(20)
    assert models.get("app", "s") == "one"
    assert prompts.get("hello", {"name": "Ann"}).system == "You greet Ann."
    (folder / "configs/app.yaml").write_text(
        "versions:\n"
        "  - variants: [{model: one, weight: 100}]\n"
        "  - variants: [{model: two, weight: 100}]\n"
    )
    wait_for(lambda: models.get("app", "s") == "two", what="the edit")
    assert models.get("app", "s", version=1) == "one"
    # There is nobody to tell who got what, and so nothing is recorded or dropped.
    assert fallom.flush(0) == 0
    assert fallom.status()["dropped"] == {}
    assert fallom.status()["snapshot"]["checked_age_s"] < 60


def test_a_shipped_snapshot_serves_at_the_first_start_without_waiting(
    cloud: LocalCloud, tmp_path: Path
) -> None:
    item = {"key": "app", "version": 1, "variants": [{"model": "shipped", "weight": 100}]}
    path = tmp_path / "bootstrap.json"
    path.write_text(json.dumps({"fallom_bootstrap": 1, "configs": [item]}))
    code = f"""
import time, fallom
from fallom import models
fallom.init(configs_url="http://127.0.0.1:9", bootstrap={str(path)!r}, cold_start_timeout=60)
started = time.monotonic()
assert models.get("app", "s") == "shipped"
assert time.monotonic() - started < 30
assert models.explain("app", "s").reason == "weight"
"""
    run_script(code, tmp_path)
    earlier = (
        code
        + """
prompts.init(base_url="http://127.0.0.1:9/prompts")
assert models.get("app", "s2") == "shipped"
"""
    )
    run_script(earlier.replace("import models", "import models, prompts"), tmp_path)
    fallom.init(bootstrap=path)  # the server is there: what it says wins
    wait_for(lambda: models.get("app", "s") == "one")


def test_a_shipped_snapshot_that_the_environment_names_serves_without_an_init(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    item = {"key": "app", "version": 1, "variants": [{"model": "shipped", "weight": 100}]}
    path = tmp_path / "bootstrap.json"
    path.write_text(json.dumps({"fallom_bootstrap": 1, "configs": [item]}))
    monkeypatch.setenv("FALLOM_BOOTSTRAP", str(path))
    monkeypatch.setenv("FALLOM_FLUSHER", "external")
    assert models.get("app", "s") == "shipped"
    _runtime.reset()
    path.write_text("no snapshot")
    assert models.get("app", "s", fallback="f") == "f"
    assert "bootstrap" in caplog.text


def test_an_application_can_ask_what_a_session_had_before(cloud: LocalCloud, folder: Path) -> None:
    fallom.init(sync_interval=0.2)
    assert fallom.wait_until_ready(20)
    then_s = time.time()
    (folder / "configs/app.yaml").write_text("version: 2\nvariants: [{model: two, weight: 100}]\n")
    wait_for(lambda: models.get("app", "s") == "two")
    now = models.explain("app", "s", at=datetime.datetime.now(datetime.timezone.utc))
    assert (now.model, now.config_version) == ("two", 2)
    past = models.explain("app", "s", at=then_s)
    assert (past.model, past.config_version, past.reason) == ("one", 1, "weight")
    assert past.snapshot_age_s is not None
    assert past.generation < now.generation
    before = models.explain("app", "s", fallback="mine", at=1.0)
    assert (before.model, before.reason) == ("mine", "fallback: not_kept")
    with pytest.raises(TypeError, match="at must be"):
        models.explain("app", "s", at="yesterday")  # type: ignore[arg-type]
    for no_time in (math.nan, math.inf, 10**400):
        with pytest.raises(ValueError, match="expected a datetime or unix seconds"):
            models.explain("app", "s", at=no_time)
