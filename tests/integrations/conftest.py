"""Fixtures of the integrations' tests; what they give is in ``fake_provider``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode leaves the path alone

from fake_provider import Provider, Recording, serving


@pytest.fixture
def provider() -> Iterator[Provider]:
    with serving() as provider:
        yield provider


@pytest.fixture
def tracing() -> Recording:
    return Recording()


@pytest.fixture
def private() -> Recording:
    """A ``Tracing`` that must not be given content."""
    return Recording(content=False)
