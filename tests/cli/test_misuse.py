"""What goes wrong around a command is said in a sentence: wrong times, full disks, files in the way."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import click
import pytest

import fallom
from fallom import trace
from fallom._spool.follow import Followed
from fallom._spool.frame import Kind
from fallom.cli.tail import _line
from tests.support.commands import COMMAND
from tests.support.commands import fallom as run
from tests.support.commands import fallom_here as here
from tests.support.records import make_exposure
from tests.support.scripts import ROOT


@pytest.mark.parametrize("when", ["nan", "inf", "1e300", "99999999999999d", "0001-01-01"])
def test_a_time_that_no_calendar_has_is_refused(published: None, when: str) -> None:
    ended = here("configs", "explain", "my-app", "s", f"--at={when}")
    assert ended.returncode == 2
    assert f"--at is '{when}'; expected a time" in ended.stderr


@pytest.mark.parametrize("command", ["flush", "doctor"])
@pytest.mark.parametrize("seconds", ["nan", "-1", "soon"])
def test_a_timeout_that_is_no_number_of_seconds_is_refused(command: str, seconds: str) -> None:
    ended = here(command, "--timeout", seconds)
    assert ended.returncode == 2
    assert "Invalid value for '--timeout'" in ended.stderr


def test_numbers_that_json_has_not_are_told_by_name() -> None:
    fallom.init(flusher="external")
    trace.span({"score": float("nan")}, config_key="c\x1b[1m", session_id="s")
    with fallom.session(config_key="c", session_id="s"), trace.step("s") as step:
        step.set_attribute("most", float("inf"))

    def refused(word: str) -> None:
        raise AssertionError(word)

    said = here("tail", "--no-follow", "--json").stdout.splitlines()
    metric, span = (json.loads(line, parse_constant=refused) for line in said)
    assert metric["data"] == {"score": "nan"}
    assert span["attributes"]["most"] == "inf"


def test_no_part_of_a_record_moves_the_cursor_of_who_follows() -> None:
    exposure = make_exposure()._replace(config_key="\x1b[2J", session_id="\x1b[2J", model="\x1b[2J")
    line = click.unstyle(_line(Followed(1, Kind.EXPOSURE, list(exposure), {})))
    assert line.count("\\x1b[2J") == 3
    assert line.isprintable()


def test_a_file_in_the_way_is_named_and_no_traceback_shown(state_dir: Path) -> None:
    fallom.init(flusher="external")
    trace.span({"score": 1}, config_key="c", session_id="s")
    (control,) = state_dir.glob("v1/*/control")
    control.unlink()
    control.mkdir()
    ended = here("status")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"fallom: {control} is not a regular file")
    assert f"BAD     directory    {control} is not" in here("doctor", "--offline").stdout
    ended = run("flusher", "--once")
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"fallom flusher: {control} is not a regular file")


def test_a_copy_without_the_wanted_application_says_which_it_has(published: None) -> None:
    state_dir = os.environ["FALLOM_STATE_DIR"]
    names = os.listdir(f"{state_dir}/v1")
    ended = here("spool", "ls", state_dir, "--namespace", "none")
    assert ended.returncode == 2
    assert "it holds none that begins with 'none'; there are: " in ended.stderr
    assert all(name in ended.stderr for name in names)


@pytest.mark.parametrize("command", [("configs", "ls"), ("configs", "export", "-"), ("status",)])
def test_an_output_that_is_full_is_said(published: None, command: tuple[str, ...]) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("/dev/full is not there")
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [*COMMAND, *command],
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            text=True,
            timeout=60,
        )
    assert ended.returncode == 1
    assert ended.stderr == "fallom: No space left on device\n"


def test_a_command_without_an_output_does_its_work(published: None) -> None:
    script = 'exec "$@" >&- <&-'
    for command, code in ((("configs", "ls"), 0), (("dead", "purge"), 2)):
        ended = subprocess.run(
            ["sh", "-c", script, "sh", *COMMAND, *command],
            check=False,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            text=True,
            timeout=60,
        )
        assert ended.returncode == code, ended.stderr
        assert "Traceback" not in ended.stderr


def test_an_export_is_written_to_a_pipe_and_does_not_replace_it(
    published: None, tmp_path: Path
) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert here("configs", "export", str(path)).returncode == 0
        assert json.loads(os.read(reader, 1 << 16))["fallom_bootstrap"] == 1
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_an_ab_test_is_not_rendered_in_a_version_that_nobody_gets(published: None) -> None:
    ended = here("prompts", "render", "onboarding-test", "--session", "s", "--version", "2")
    assert ended.returncode == 2
    assert "give --session or --version" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--host", ".."), "--host .. --port 0: "),
        (("--port-file", "no/port"), "--port-file no/port"),
    ],
)
def test_a_cloud_that_cannot_be_set_up_so_says_why(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    ended = run("dev", "--port", "0", "--db", str(tmp_path / "x.db"), *arguments)
    assert ended.returncode == 2
    assert said in ended.stderr
