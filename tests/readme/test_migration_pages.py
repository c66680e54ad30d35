"""The pages about migration: what they say of this version holds, and their code runs as printed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import fallom
from fallom import models, prompts, trace
from fallom.dev.server import LocalCloud
from fallom.testing import capture
from tests.support.flushers import wait_for
from tests.support.scripts import ROOT, run_script

FROM_OPENTELEMETRY = (ROOT / "docs/migration/from-opentelemetry.md").read_text(encoding="utf-8")
TARGETED = {
    "variants": [{"model": "a", "weight": 100}, {"model": "b", "weight": 0}],
    "targeting": {
        "individualTargets": [{"field": "customerId", "value": "vip", "variantIndex": 1}]
    },
}


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCloud]:
    with LocalCloud(db=tmp_path / "cloud.db") as running:
        for name, value in running.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("FALLOM_LINGER", "1")
        yield running


def test_the_new_exporter_runs_as_printed_and_its_span_arrives(
    cloud: LocalCloud, tmp_path: Path
) -> None:
    pytest.importorskip("opentelemetry.sdk")
    (code,) = re.findall(r"```python\n(.*?)```", FROM_OPENTELEMETRY, flags=re.DOTALL)
    run_script(code.replace("http://127.0.0.1:4318", cloud.url), tmp_path)
    (span,) = wait_for(cloud.spans)
    assert span["name"] == "checkout"


def test_what_raises_is_what_programs_against_0_2_caught() -> None:
    with capture(models={"agent": "gpt-4o"}):
        with pytest.raises(ValueError, match="nope"):
            models.get("nope", "s")
        with pytest.raises(ValueError, match="nope"):
            prompts.get("nope")
        with pytest.raises(ValueError, match="session"):
            trace.span({"a": 1})
        with pytest.raises(TypeError):
            models.get("agent", 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="nonsense"):
        fallom.init(nonsense=1)  # type: ignore[call-arg]


def test_nothing_is_printed_and_no_key_is_no_error(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FALLOM_FLUSHER", "external")
    trace.init()
    with capture():
        assert models.get("nope", "s", fallback="f", debug=True) == "f"
        assert models.get("nope", 5, fallback="f") == "f"  # type: ignore[arg-type]
    printed = capfd.readouterr()
    assert printed.out == ""


def test_a_session_knows_its_customer() -> None:
    with capture(models={"agent": TARGETED}):
        session = fallom.session("agent", "s", customer_id="vip")
        assert asyncio.run(session.get_model()) == session.get_model_sync() == "b"
        assert asyncio.run(fallom.session("agent", "s").get_model()) == "a"


def test_an_assignment_is_told_once_a_session_and_a_fallback_never() -> None:
    with capture(models={"agent": "gpt-4o"}) as captured:
        for _ in range(3):
            models.get("agent", "s")
            models.get("nope", "s", fallback="f")
        assert len(captured.exposures) == 1


def test_the_last_init_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FALLOM_FLUSHER", "external")
    fallom.init(traces_url="http://127.0.0.1:1")
    fallom.init(traces_url="http://127.0.0.1:2")
    assert trace.get_base_url() == "http://127.0.0.1:2"
