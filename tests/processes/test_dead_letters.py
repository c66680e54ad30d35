"""Dead letters for people: a replay after the cause is mended delivers exactly the dead spans, once."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fallom
from fallom import trace
from fallom._flusher.dead import DeadLetters
from fallom._flusher.dead_reading import letters_of, remove_letters
from fallom._host.files import open_directory
from fallom._spool.frame import Kind, pack
from fallom._spool.reader import Item
from fallom._spool.segment import Destination
from fallom.dev.server import LocalCloud
from tests.support.flushers import wait_for
from tests.support.processes import Child
from tests.support.scripts import ROOT


def dead(*arguments: str, status: int = 0) -> str:
    """Run ``fallom dead``; give what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "fallom", "dead", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr if status else done.stdout


def listed() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(dead("ls", "--json"))
    return found


def sessions(cloud: LocalCloud) -> list[str]:
    return sorted(row["attributes"]["fallom.session_id"] for row in cloud.spans())


@pytest.fixture
def poisoned(cloud: LocalCloud) -> LocalCloud:
    """A cloud that has taken 40 spans and refused 3 of them."""
    cloud.fault("400,attribute=fallom.metric.poison,path=/v1/traces")
    fallom.init()
    for number in range(40):
        trace.span({"number": number}, config_key="app", session_id=f"good{number:02}")
    for number in range(3):
        data = {"poison": number, "bytes": b"\xff"}
        trace.span(data, config_key="app", session_id=f"bad{number}")
    assert fallom.flush(60) == 0
    assert len(sessions(cloud)) == 40
    wait_for(lambda: fallom.status()["dropped"] == {"refused": 3})
    return cloud


def test_letters_are_listed_with_the_reason_and_shown_with_all_they_hold(
    poisoned: LocalCloud,
) -> None:
    letters = listed()
    assert [letter["reason"] for letter in letters] == ["HTTP 400"] * 3
    assert {letter["destination"] for letter in letters} == {"metrics"}
    shown = json.loads(dead("show", letters[0]["id"][:6]))
    assert shown["record"]["data"]["poison"] in range(3)
    assert shown["record"]["data"]["bytes"] == "ff"
    assert shown["resource"]["telemetry.sdk.name"] == "fallom"
    assert dead("ls").count("HTTP 400") == 3


def test_a_replay_delivers_exactly_the_dead_spans_once_and_leaves_no_letter(
    poisoned: LocalCloud, state_dir: Path
) -> None:
    before = {row["span_id"] for row in poisoned.spans()}
    poisoned.fault()
    first, *_ = listed()
    assert "1 record(s)" in dead("replay", first["id"])
    wait_for(lambda: len(sessions(poisoned)) == 41, what="the one that was named")
    assert len(listed()) == 2
    dead("replay", "--all")
    assert fallom.flush(30) == 0
    wait_for(lambda: len(sessions(poisoned)) == 43, what="the others")
    assert sessions(poisoned)[:3] == ["bad0", "bad1", "bad2"]
    assert poisoned.stats()["spans"] == {"received": 43, "distinct": 43}
    added = [row for row in poisoned.spans() if row["span_id"] not in before]
    assert {row["resource"]["telemetry.sdk.name"] for row in added} == {"fallom"}
    assert listed() == []
    assert not list(state_dir.glob("v1/*/dead/*.dead"))
    assert "0 record(s)" in dead("replay", "--all")


def test_a_replay_that_the_disk_refuses_keeps_the_letters(
    poisoned: LocalCloud, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned.fault()
    code = (
        "import errno, os, sys\n"
        "import fallom._flusher.dead_reading as reading\n"
        "def refuse(*_): raise OSError(errno.ENOSPC, 'no space left')\n"
        "reading._append = refuse\n"
        "from fallom.__main__ import main\n"
        "sys.exit(main(['dead', 'replay', '--all']))\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "3 stay dead letters" in done.stderr
    assert len(listed()) == 3


def test_letters_are_exported_to_a_file_that_only_its_owner_can_read(
    poisoned: LocalCloud, tmp_path: Path
) -> None:
    path = tmp_path / "letters.jsonl"
    dead("export", str(path))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(row["record"]["session_id"] for row in rows) == ["bad0", "bad1", "bad2"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "cannot be made" in dead("export", str(path), status=2)
    assert len(listed()) == 3


def test_a_purge_deletes_only_what_is_older(poisoned: LocalCloud) -> None:
    assert dead("purge", "--older-than", "1h", "--yes").startswith("0 ")
    assert len(listed()) == 3
    assert dead("purge", "--yes").startswith("3 ")
    assert listed() == []


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("show", "0000"), 1, "no dead letter '0000'"),
        (("show", ""), 1, "no dead letter ''"),
        (("replay",), 2, "--all"),
        (("replay", "--all", "ab"), 2, "--all"),
        (("purge", "--older-than", "soon"), 2, "for example, 30m"),
        (("purge",), 2, "nobody can be asked here; give --yes"),
    ],
)
def test_what_cannot_be_meant_is_an_error_that_says_so(
    cloud: LocalCloud, arguments: tuple[str, ...], status: int, words: str
) -> None:
    fallom.init(flusher="external")
    trace.span({"n": 1}, config_key="app", session_id="s")
    assert words in dead(*arguments, status=status)


def test_where_nothing_was_recorded_nothing_is_made_to_look_for_letters(state_dir: Path) -> None:
    assert "Nothing was recorded or fetched here yet" in dead("ls", status=1)
    assert not state_dir.exists()


def test_every_command_counts_as_json_and_finds_a_namespace_by_its_first_digits(
    poisoned: LocalCloud, state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace = fallom.status()["namespace"]
    path = tmp_path / "letters.jsonl"
    poisoned.fault()
    # As an operator without the application's settings.
    monkeypatch.delenv("FALLOM_STATE_DIR")
    monkeypatch.setenv("FALLOM_API_KEY", "another")
    here = ("--state-dir", str(state_dir), "--namespace", namespace[:6], "--json")
    letters = json.loads(dead("ls", *here))
    assert len(letters) == 3
    assert json.loads(dead("show", letters[0]["id"], *here))["id"] == letters[0]["id"]
    exported = json.loads(dead("export", str(path), *here))
    assert exported == {"exported": 3, "path": str(path)}
    replayed = json.loads(dead("replay", letters[0]["id"], *here))
    assert replayed == {"replayed": 1, "left": 0, "error": None}
    assert json.loads(dead("purge", "--yes", *here)) == {"deleted": 2}
    wait_for(lambda: len(sessions(poisoned)) == 41, what="the one that was replayed")


def test_letters_that_are_added_while_others_are_removed_are_all_there(tmp_path: Path) -> None:
    path = tmp_path / "dead"
    path.mkdir(mode=0o700)

    def add() -> None:
        letters = DeadLetters(open_directory(str(path)), 1 << 30, 1e9)
        for number in range(300):
            item = Item(Kind.SPAN, None, {"who": "flusher"}, pack(["keep", number]))
            letters.add(item, Destination.TRACES, "HTTP 400", 400, number)
            item = Item(Kind.SPAN, None, {"who": "flusher"}, pack(["go", number]))
            letters.add(item, Destination.TRACES, "HTTP 400", 400, 10_000 + number)

    flusher = Child(add)
    directory = open_directory(str(path))
    gone = 0
    while gone < 300:
        ids = [letter.id for letter in letters_of(directory) if letter.unix_ns >= 10_000]
        gone += remove_letters(directory, frozenset(ids))
    flusher.result()
    assert sorted(letter.unix_ns for letter in letters_of(directory)) == list(range(300))
    assert not [name for name in os.listdir(path) if name.endswith(".tmp")]
