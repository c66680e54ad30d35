"""Findings of ``fallom doctor`` that a sound machine has not: what the system says is put in its place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fallom._core.settings import Settings, resolve_settings
from fallom._flusher import http as http_module
from fallom._flusher import spawn
from fallom._host.place import Place
from fallom.cli import premises
from fallom.cli.finding import Finding, Level
from fallom.cli.reach import look_at_servers

MIB = 1 << 20


@pytest.fixture
def settings() -> Settings:
    return resolve_settings({}, os.environ)


@pytest.fixture
def place(settings: Settings) -> Iterator[Place]:
    found = Place.find(settings.state_dir, settings.namespace, os.environ)
    yield found
    found.directory.close()


def disk(monkeypatch: pytest.MonkeyPatch, *, free: int, inodes: int = 10**6) -> None:
    found = SimpleNamespace(f_bavail=free // 4096, f_frsize=4096, f_files=10**7, f_favail=inodes)
    monkeypatch.setattr(premises.os, "statvfs", lambda _: found)


def told(found: Iterator[Finding]) -> list[tuple[Level, str]]:
    findings = list(found)
    assert all(each.mend for each in findings if each.level is not Level.GOOD)
    return [(each.level, each.what) for each in findings]


def test_what_is_no_file_is_bad_and_the_command_removes_it(place: Place) -> None:
    os.mkfifo(f"{place.directory.path}/spool/planted", 0o600)
    found = list(premises.look_at_directory(place, is_explicit=True))
    assert (found[-1].level, found[-1].subject) == (Level.BAD, "permissions")
    assert found[-1].mend == f"rm {place.directory.path}/spool/planted"


@pytest.mark.parametrize(
    ("free", "level", "words"),
    [
        (15 * MIB, Level.BAD, "about to be dropped"),
        (17 * MIB, Level.WARNING, "does not fit"),
        (511 * MIB, Level.WARNING, "does not fit"),
        (513 * MIB, Level.GOOD, "513.0 MiB free"),
    ],
)
def test_free_space_is_judged_by_what_the_spool_may_take(
    place: Place,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    free: int,
    level: Level,
    words: str,
) -> None:
    disk(monkeypatch, free=free)
    ((found, what),) = told(premises.look_at_space(place, settings))
    assert found is level
    assert words in what


def test_a_disk_without_inodes_is_bad(
    place: Place, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, free=1 << 40, inodes=999)
    found = told(premises.look_at_space(place, settings))
    assert found[1] == (Level.BAD, "999 inodes are free")


def test_a_spool_that_is_nearly_full_is_told(
    place: Place, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, free=1 << 40)
    full = SimpleNamespace(directory=place.directory, page=SimpleNamespace(spool_bytes=int))
    assert [level for level, _ in told(premises.look_at_space(full, settings))] == [Level.GOOD]  # type: ignore[arg-type]
    full.page.spool_bytes = lambda: 470 * MIB
    _, (level, what) = told(premises.look_at_space(full, settings))  # type: ignore[arg-type]
    assert level is Level.WARNING
    assert "470.0 MiB of 512.0 MiB" in what


def test_without_an_interpreter_no_flusher_can_be_started(
    place: Place, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spawn.os, "access", lambda *_: False)
    level, what = told(premises.look_at_election(place, settings, 0))[-1]
    assert level is Level.BAD
    assert "FALLOM_PYTHON" in what


def versions(monkeypatch: pytest.MonkeyPatch, wanted: list[str] | None, **installed: str) -> Any:
    def find(name: str) -> Any:
        found = wanted if name == "fallom" else installed.get(name)
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(metadata, "requires", find)
    monkeypatch.setattr(metadata, "version", find)
    return told(premises.look_at_versions())


def test_versions_are_compared_with_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["a>=1.10,<2", "b", 'c>=9; extra == "dev"']
    ((level, what),) = versions(monkeypatch, wanted, a="1.9", b="1")
    assert level is Level.BAD
    assert "a 1.9 is installed; fallom needs a>=1.10,<2" in what
    ((level, _),) = versions(monkeypatch, wanted, a="2.0", b="1")
    assert level is Level.BAD
    ((level, what),) = versions(monkeypatch, wanted, a="1.10.3")
    assert (level, what) == (Level.BAD, "b is not installed")
    ((level, _),) = versions(monkeypatch, wanted, a="1.10", b="0")
    assert level is Level.GOOD
    ((level, what),) = versions(monkeypatch, None)
    assert level is Level.WARNING
    assert "not installed as a package" in what


class Asked:
    """Stands where requests leave, and answers each with a status."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.requests: list[http_module.Request] = []

    def send(self, request: http_module.Request) -> Any:
        self.requests.append(request)
        return http_module.Response(self.status, {}, b"")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    server = Asked(200)
    monkeypatch.setattr(http_module, "Http", lambda: server)
    return server


def at_hand() -> Settings:
    return resolve_settings(
        {f"{name}_url": "http://127.0.0.1:9" for name in ("traces", "configs", "prompts")}, {}
    )


def test_each_server_is_asked_once_and_has_the_time_that_was_said(asked: Asked) -> None:
    assert len(list(look_at_servers(at_hand(), 0.7))) == 3
    assert [request.deadline_s for request in asked.requests] == [0.7] * 3
    assert [request.url.rpartition("/")[2] for request in asked.requests] == [
        "traces",
        "configs",
        "prompts",
    ]


@pytest.mark.parametrize("status", [400, 415])
def test_a_backend_that_takes_no_empty_export_is_reachable(asked: Asked, status: int) -> None:
    asked.status = status
    levels = [level for level, _ in told(look_at_servers(at_hand(), 1.0))]
    assert levels == [Level.WARNING, Level.BAD, Level.BAD]


def test_a_folder_that_is_not_there_is_bad(asked: Asked, tmp_path: Path) -> None:
    given = {"configs_url": f"file://{tmp_path}/gone", "traces_url": "http://127.0.0.1:9"}
    settings = resolve_settings({**given, "prompts_url": "http://127.0.0.1:9"}, {})
    found = {each.subject: each for each in look_at_servers(settings, 1.0)}
    assert found["configs"].level is Level.BAD
    assert "gone" in found["configs"].what
    assert found["configs"].mend.startswith("Make the folder")
