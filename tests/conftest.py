"""Every test has a state directory of its own, no setting of the developer's, and leaves no process."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from fallom import _runtime
from fallom._context import CURRENT_PROMPT, CURRENT_SESSION
from tests.support.flushers import end_flushers

# On a busy machine an example takes its time, which says nothing about what is tested.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_configure() -> None:
    """Have this process, and those that tests start, as a terminal would."""
    # Instrumentations change the client libraries of this process for good; their tests have processes.
    os.environ["FALLOM_AUTO_INSTRUMENT"] = "false"
    # A shell that starts the tests in the background, and nohup, ignore these, which children inherit.
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """The state directory of this test."""
    return tmp_path / "state"


@pytest.fixture(autouse=True)
def _apart(state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in os.environ:
        if name.startswith(("FALLOM_", "OTEL_")):
            monkeypatch.delenv(name)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # most users' programs are without it
    monkeypatch.setenv("FALLOM_STATE_DIR", str(state_dir))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FALLOM_AUTO_INSTRUMENT", "false")
    yield
    _runtime.reset()
    CURRENT_SESSION.set(None)
    CURRENT_PROMPT.set(None)
    if state_dir.exists():
        end_flushers(state_dir)
    assert not _instrumented(), "the clients of this process are others' too; give them a process"


def _instrumented() -> list[str]:
    """Name the instrumentations that have changed a client library of this process."""
    names = ("opentelemetry.instrumentation.genai.openai", "opentelemetry.instrumentation.openai")
    loaded = {name: getattr(sys.modules.get(name), "OpenAIInstrumentor", None) for name in names}
    return [
        name
        for name, make in loaded.items()
        if make is not None and make().is_instrumented_by_opentelemetry
    ]
