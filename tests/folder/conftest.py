from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "folder"
    for name in ("configs", "prompts", "ab-tests"):
        (root / name).mkdir(parents=True)
    (root / "configs" / "greeter.yaml").write_text(
        "variants:\n  - {model: gpt-4o, weight: 60}\n  - {model: mini, weight: 40}\n"
    )
    return root
