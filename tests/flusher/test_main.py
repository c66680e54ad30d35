"""How a flusher process begins: its log, and what it may open."""

from __future__ import annotations

import logging
import os
import resource
import threading
from pathlib import Path

import pytest

from fallom._core.settings import Settings, settings_to_dict
from fallom._flusher import loop, main
from fallom._flusher.loop import Flusher
from fallom._flusher.main import DESCRIPTORS, CappedLog, run_external, run_spawned
from fallom._flusher.push import push
from fallom._flusher.spawn import LOG_BYTES_MAX
from fallom._host.directory import StateDirectory
from tests.support.processes import in_child


def test_the_log_of_a_flusher_that_lives_long_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "flusher.log"
    line = "x" * 1000
    with path.open("a") as stream:
        handler = CappedLog(stream)
        for number in range(3 * LOG_BYTES_MAX // len(line)):
            record = logging.LogRecord("fallom", logging.WARNING, "", 0, line, None, None)
            handler.emit(record)
            if number % 100 == 0:
                assert path.stat().st_size <= LOG_BYTES_MAX + 2 * len(line)
        record = logging.LogRecord("fallom", logging.WARNING, "", 0, "the last", None, None)
        handler.emit(record)
    text = path.read_text()
    assert text.startswith("x")
    assert text.endswith("the last\n")


def test_a_log_that_is_no_file_is_written_to_all_the_same(tmp_path: Path) -> None:
    with Path("/dev/null").open("a") as stream:
        CappedLog(stream).emit(logging.LogRecord("fallom", 30, "", 0, "line", None, None))


@pytest.mark.parametrize("soft", [300, DESCRIPTORS + 1])
def test_a_flusher_may_open_files_for_a_backlog_whoever_started_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, soft: int
) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard <= DESCRIPTORS:
        pytest.skip(f"no process here may open more than {hard} files")
    settings = Settings(state_dir=str(tmp_path / "state"))
    allowed = lambda *_, **__: resource.getrlimit(resource.RLIMIT_NOFILE)[0]  # noqa: E731
    monkeypatch.setattr(main, "_lead", allowed)

    def run() -> int:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return run_external(settings, once=True)

    def run_as_spawned() -> int:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        ended_with: list[int] = []
        monkeypatch.setattr(os, "_exit", ended_with.append)
        told = {"settings": settings_to_dict(settings), "base": str(tmp_path / "state")}
        run_spawned(told)
        monkeypatch.undo()
        return ended_with[0]

    assert in_child(run) == max(soft, DESCRIPTORS)
    assert in_child(run_as_spawned) == max(soft, DESCRIPTORS)


def test_a_push_may_open_as_many_files_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard <= DESCRIPTORS:
        pytest.skip(f"no process here may open more than {hard} files")
    (tmp_path / "state").mkdir(mode=0o700)
    settings = Settings()
    found: list[int] = []

    class Looking(Flusher):
        def run(self, once: bool, lingers: bool) -> int:
            found.append(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
            return 0

    monkeypatch.setattr(loop, "Flusher", Looking)

    def run() -> list[int]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
        directory = StateDirectory(str(tmp_path / "state"), settings.namespace)
        push(settings, directory, threading.Event())
        return found

    assert in_child(run) == [DESCRIPTORS]
