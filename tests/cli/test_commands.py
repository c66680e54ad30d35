"""The commands that look at what is on this host, in pipes and in real terminals."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import termios
import time
from pathlib import Path

import pytest

import fallom
from fallom import models, trace
from fallom.dev.server import LocalCloud
from tests.support.commands import COMMAND, start_fallom
from tests.support.commands import fallom as run
from tests.support.commands import fallom_here as here
from tests.support.scripts import ROOT


@pytest.fixture
def ready(cloud: LocalCloud) -> LocalCloud:
    """A host on which configs and prompts were fetched."""
    fallom.init()
    assert fallom.wait_until_ready(20)
    return cloud


def in_terminal(*arguments: str, columns: int = 80, **environ: str) -> str:
    """Run a command in a terminal of its own; give what it showed."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 60, columns, 0, 0))
    env = {**os.environ, "TERM": "xterm", **environ}
    env.pop("COLUMNS", None)  # it would win over the terminal's
    with subprocess.Popen(
        [*COMMAND, *arguments], stdin=follower, stdout=follower, stderr=follower, cwd=ROOT, env=env
    ) as process:
        os.close(follower)
        shown = b""
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up:
            if select.select([leader], [], [], 0.1)[0]:
                try:
                    data = os.read(leader, 4096)
                except OSError:  # the other side is gone
                    break
                if not data:
                    break
                shown += data
            elif process.poll() is not None:
                break
        process.wait(20)
    os.close(leader)
    return shown.decode()


def test_colour_is_for_terminals_that_want_it(published: None) -> None:
    assert "\x1b[" in in_terminal("status")
    assert "\x1b[" not in in_terminal("status", NO_COLOR="1")
    assert "\x1b" not in run("status").stdout
    assert "\x1b" not in run("configs", "ls").stdout


def test_lines_are_broken_between_words_in_a_terminal_and_never_in_a_pipe(published: None) -> None:
    shown = in_terminal("configs", "ls", columns=60, NO_COLOR="1").splitlines()
    assert max(map(len, shown)) <= 60
    begins = shown[0].index("variants")
    assert all(line[begins - 1] == " " for line in shown if len(line) > begins)
    for name in ("claude-3-5-sonnet", "target(s),", "rule(s)"):
        assert any(name in line for line in shown), "no word is broken"
    environ = {"FALLOM_BASE_URL": "http://127.0.0.1:9", "FALLOM_TRACES_URL": "", "NO_COLOR": "1"}
    told = in_terminal("doctor", columns=60, **environ).splitlines()
    reason = next(n for n, line in enumerate(told) if "traces  " in line)
    assert "Connection refused" in " ".join(each.strip() for each in told[reason : reason + 5])
    assert all(line[:21].isspace() for line in told[reason + 1 : reason + 3])
    piped = here("doctor", **environ).stdout
    assert any("v1/traces" in line and "Connection refused" in line for line in piped.splitlines())


def test_the_commands_summaries_are_whole_sentences_in_eighty_columns(published: None) -> None:
    for group in ((), ("configs",), ("dead",), ("prompts",), ("spool",)):
        listed = here(*group, "--help", COLUMNS="80").stdout.partition("Commands:")[2]
        lines = [line for line in listed.partition("\n\n")[0].splitlines() if line]
        assert lines
        assert not [line for line in lines if not line.endswith(".")], group


def test_configs_are_listed_shown_and_explained_as_the_library_assigns(published: None) -> None:
    listed = here("configs", "ls")
    assert listed.returncode == 0
    assert "summarizer-config" in listed.stdout
    items = {item["key"]: item for item in json.loads(here("configs", "ls", "--json").stdout)}
    assert items["my-app"]["variants"][0] == {"model": "gpt-4o", "weight": 70.0}
    shown = json.loads(here("configs", "show", "summarizer-config").stdout)
    assert shown["targeting"]["enabled"] is True
    for number in range(3):
        got = models.explain("summarizer-config", f"session-{number}")
        told = json.loads(
            here("configs", "explain", "summarizer-config", f"session-{number}", "--json").stdout
        )
        assert (told["model"], told["bucket"], told["reason"]) == (
            got.model,
            got.bucket,
            got.reason,
        )
    words = here("configs", "explain", "my-app", "session-0").stdout
    assert "by weight: bucket" in words
    assert "config my-app version 1" in words


def test_targeting_is_explained_with_context_and_customer(published: None) -> None:
    context = {"plan": "enterprise", "region": "us-west"}
    got = models.explain("summarizer-config", "s", context=context)
    arguments = ("configs", "explain", "summarizer-config", "s", "--context", "plan=enterprise")
    arguments += ("--context", "region=us-west")
    told = json.loads(here(*arguments, "--json").stdout)
    assert got.reason.startswith("rule")
    assert (told["model"], told["reason"]) == (got.model, got.reason)
    assert here("configs", "explain", "my-app", "s", "--context", "plan").returncode == 2


def test_the_past_is_explained_and_its_limits_are_told(published: None) -> None:
    ago = here("configs", "explain", "my-app", "s", "--at", "7d")
    assert ago.returncode == 1
    assert "is not kept any more; it is since" in ago.stdout
    now = here("configs", "explain", "my-app", "s", "--at", str(time.time()))
    assert now.returncode == 0
    bad = here("configs", "explain", "my-app", "s", "--at", "soon")
    assert bad.returncode == 2
    assert "expected a time such as" in bad.stderr


def test_what_is_not_known_is_told_with_what_is_near(published: None) -> None:
    ended = here("configs", "show", "my-ap")
    assert ended.returncode == 1
    assert "Did you mean 'my-app'?" in ended.stderr
    ended = here("configs", "show", "my-app", "--version", "9")
    assert "there are 1" in ended.stderr


def test_prompts_are_listed_shown_and_rendered(published: None) -> None:
    listed = here("prompts", "ls").stdout
    assert "onboarding-test" in listed
    shown = here("prompts", "show", "onboarding")
    assert "--- system" in shown.stdout
    given = ("--var", "user_name=Ann", "--var", "company=Acme")
    got = fallom.prompts.get("onboarding", {"user_name": "Ann", "company": "Acme"})
    told = json.loads(here("prompts", "render", "onboarding", *given, "--json").stdout)
    assert (told["system"], told["user"]) == (got.system, got.user)
    tested = fallom.prompts.get_ab("onboarding-test", "s")
    told = json.loads(
        here("prompts", "render", "onboarding-test", "--session", "s", "--json").stdout
    )
    assert (told["version"], told["variant_index"]) == (tested.version, tested.variant_index)
    missing = here("prompts", "render", "onboarding")
    assert "without a value" in missing.stderr
    assert here("prompts", "render", "onboarding-test").returncode == 2


def test_what_was_exported_is_a_bootstrap(published: None, tmp_path: Path) -> None:
    path = tmp_path / "bootstrap.json"
    ended = here("configs", "export", str(path))
    assert ended.returncode == 0
    assert "2 configs" in ended.stderr
    payload = json.loads(path.read_text())
    assert {item["key"] for item in payload["configs"]} == {"my-app", "summarizer-config"}
    assert here("configs", "export", "-").stdout == path.read_text()


def test_tail_shows_what_was_recorded_and_what_is(ready: LocalCloud) -> None:
    with fallom.session(config_key="my-app", session_id="before"), trace.step("plan", kind="agent"):
        pass
    with start_fallom("tail", PYTHONUNBUFFERED="1") as tail:
        assert tail.stdout is not None
        assert "session=before" in tail.stdout.readline()
        trace.span({"score": 0.5}, config_key="my-app", session_id="now\x1b[31m")
        line = tail.stdout.readline()
        assert "score=0.5" in line
        assert r"session=now\x1b[31m" in line
        models.get("my-app", "assigned")
        assert "of my-app v1  session=assigned" in tail.stdout.readline()
        tail.send_signal(2)
        assert tail.wait(20) == 130
    rows = [json.loads(each) for each in run("tail", "--no-follow", "--json").stdout.splitlines()]
    assert [row["type"] for row in rows][-3:] == ["span", "metrics", "exposure"]
    assert rows[-1]["resource"]["process.pid"] == os.getpid()


def test_tail_into_a_pipe_that_closes_ends_quietly(ready: LocalCloud) -> None:
    for number in range(1500):  # more than a pipe holds
        trace.span({"n": number}, config_key="my-app", session_id="x" * 100)
    shell = f"{' '.join(COMMAND)} tail --no-follow -n 5000 | head -1"
    ended = subprocess.run(
        ["sh", "-c", shell], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
    )
    assert "Traceback" not in ended.stderr
    assert len(ended.stdout.splitlines()) == 1


def test_flush_waits_and_tells_what_is_left(ready: LocalCloud) -> None:
    trace.span({"n": 1}, config_key="my-app", session_id="s")
    ended = run("flush")
    assert (ended.returncode, ended.stdout) == (0, "Everything that was recorded is delivered.\n")
    ready.fault("503,path=/v1/traces")
    trace.span({"n": 2}, config_key="my-app", session_id="s")
    ended = run("flush", "--timeout", "0.5", "--json")
    assert ended.returncode == 1
    assert json.loads(ended.stdout)["left"] == 1
    ready.fault()


def test_flush_shows_a_bar_in_a_terminal_only(ready: LocalCloud) -> None:
    ready.fault("delay,seconds=1,path=/v1/traces")
    for number in range(100):
        trace.span({"n": number}, config_key="my-app", session_id="s")
    assert "Delivering" in in_terminal("flush")
    assert "Delivering" not in run("flush").stderr


def test_shells_complete_words_and_keys(published: None) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert f"_FALLOM_COMPLETE={shell}_complete" in here("completion", shell).stdout
    env = {"_FALLOM_COMPLETE": "bash_complete", "COMP_WORDS": "fallom con", "COMP_CWORD": "1"}
    assert run(**env).stdout == "plain,configs\n"
    for words, found in {
        "fallom configs show my": "plain,my-app",
        "fallom configs explain s": "plain,summarizer-config",
        "fallom prompts render onb": "plain,onboarding",
        "fallom prompts show x": "",
    }.items():
        env = {**env, "COMP_WORDS": words, "COMP_CWORD": "3"}
        assert here(**env).stdout.strip() == found


@pytest.mark.parametrize(
    "command",
    [
        ("configs", "ls"),
        ("prompts", "ls"),
        ("tail",),
        ("spool", "ls"),
        ("configs", "explain", "a", "b"),
    ],
)
def test_on_a_host_without_state_the_place_is_explained_and_nothing_is_made(
    state_dir: Path, command: tuple[str, ...]
) -> None:
    ended = here(*command)
    assert ended.returncode == 1
    assert "Nothing was recorded or fetched here yet" in ended.stderr
    assert not state_dir.exists()
    assert here(*command, "--namespace", "abc").returncode == 2
