"""``fallom configs explain`` beside the published rule of assignment, and beside what was served then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import fallom
from fallom import models
from tests.core.test_assignment import VECTORS, W1, W2, W3
from tests.support.commands import fallom_here as here


@pytest.fixture
def vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that serves the configs of the published vectors."""
    folder = tmp_path / "folder/configs"
    folder.mkdir(parents=True)
    for name, weights in {"w1": W1, "w2": W2, "w3": W3}.items():
        variants = [{"model": model, "weight": weight} for model, weight in weights]
        (folder / f"{name}.json").write_text(json.dumps({"variants": variants}))
    for name, value in {
        "FALLOM_CONFIGS_URL": f"file://{folder.parent}",
        "FALLOM_PROMPTS_URL": f"file://{folder.parent}",
        "FALLOM_TRACES_URL": "http://127.0.0.1:9",
        "FALLOM_LINGER": "1",
    }.items():
        monkeypatch.setenv(name, value)
    fallom.init()
    assert fallom.wait_until_ready(20)


def test_explain_agrees_with_the_published_vectors_and_with_what_is_served(vectors: None) -> None:
    for session_id, bucket, *expected in VECTORS:
        for key, model in zip(("w1", "w2", "w3"), expected, strict=True):
            ended = here("configs", "explain", "--json", "--", key, session_id)
            assert ended.returncode == 0, ended.stderr
            told = json.loads(ended.stdout)
            assert (told["bucket"], told["model"], told["reason"]) == (bucket, model, "weight")
            assert models.get(key, session_id) == model
    said = here("configs", "explain", "w1", "caf\u00e9").stdout
    assert said.startswith("claude (variant 1)\n")
    assert "bucket 587,364 of 1,000,000" in said
