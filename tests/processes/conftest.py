"""Real workers, real kills, and the local cloud as the receiver."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fallom.dev.server import LocalCloud

CONFIGS = {
    "configs/app.yaml": "variants:\n  - {model: one, weight: 100}\n",
    "prompts/hello.yaml": "system_prompt: You greet {{name}}.\nuser_template: Hello\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the cloud serves; a test may rewrite it."""
    served = tmp_path / "served"
    for name, text in CONFIGS.items():
        (served / name).parent.mkdir(parents=True, exist_ok=True)
        (served / name).write_text(text, encoding="utf-8")
    return served


@pytest.fixture
def cloud(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCloud]:
    """A local cloud; this process and those that it starts talk to it."""
    with LocalCloud(folder, db=tmp_path / "cloud.db") as running:
        for name, value in running.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("FALLOM_LINGER", "1")
        yield running


def distinct(cloud: LocalCloud) -> int:
    """Count the distinct spans that arrived."""
    return int(cloud.stats()["spans"]["distinct"])
