from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fallom._core.settings import Settings
from fallom._flusher.dead import DeadLetters
from fallom._flusher.http import Request
from fallom._host.files import File, open_directory
from tests.support.targets import FakeHttp


def _opened(path: Path) -> File:
    path.mkdir(mode=0o700)
    return open_directory(str(path))


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[File]:
    directory = _opened(tmp_path / "spool")
    yield directory
    directory.close()


@pytest.fixture
def dead_directory(tmp_path: Path) -> Iterator[File]:
    directory = _opened(tmp_path / "dead")
    yield directory
    directory.close()


@pytest.fixture
def dead(dead_directory: File) -> Iterator[DeadLetters]:
    letters = DeadLetters(dead_directory, 64 << 20, 14 * 86_400.0)
    yield letters
    letters.close()


@pytest.fixture
def settings() -> Settings:
    return Settings(
        api_key="key", traces_url="http://127.0.0.1:1", configs_url="http://127.0.0.1:2"
    )


@pytest.fixture
def fake_http() -> Callable[[Callable[[Request], Any]], FakeHttp]:
    return FakeHttp
