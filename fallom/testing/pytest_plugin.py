"""Fixtures for pytest, there as soon as fallom is installed.

``fallom_capture``: what the test recorded, as a ``fallom.testing.Capture``; with models and prompts that
the test fixes by the mark ``@pytest.mark.fallom(models={...}, prompts={...}, ...)``, whose arguments
are those of ``fallom.testing.capture``.

With ``fallom_offline = true`` in pytest's configuration, the whole run is captured from before the first
test is collected: an application that calls ``fallom.init()`` when it is imported starts no flusher and
sends nothing, whatever the environment says, and what tests record that use no fixture is thrown away.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fallom.testing import Capture

_RUN = pytest.StashKey[contextlib.ExitStack]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option to pytest's configuration files."""
    parser.addini("fallom_offline", "keep fallom off the network for the whole run", "bool", False)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark, and begin the capture of the run where it is asked for."""
    config.addinivalue_line("markers", "fallom(models, prompts, ab_tests, ...): what fallom serves")
    if config.getini("fallom_offline"):
        from fallom.testing import capture  # paid for by those who use it

        config.stash[_RUN] = stack = contextlib.ExitStack()
        stack.enter_context(capture())


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the capture of the run."""
    stack = config.stash.get(_RUN, None)
    if stack is not None:
        stack.close()


@pytest.fixture
def fallom_capture(request: pytest.FixtureRequest) -> Iterator[Capture]:
    """What this test records, and what fallom serves it; see ``fallom.testing.capture``."""
    from fallom.testing import capture  # paid for by those who use it

    mark = request.node.get_closest_marker("fallom")
    models, arguments = ((), {}) if mark is None else (mark.args, mark.kwargs)
    with capture(*models, **arguments) as captured:
        yield captured
