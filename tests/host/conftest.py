from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fallom._host.files import File, open_directory


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "folder"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def directory(folder: Path) -> Iterator[File]:
    opened = open_directory(str(folder))
    yield opened
    opened.close()
