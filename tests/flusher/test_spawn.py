"""Starting a flusher: one for all, told by its standard input, and nobody's child."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from fallom._core.settings import Settings, settings_from_dict
from fallom._flusher import spawn
from fallom._flusher.spawn import Started, ensure_flusher, interpreter, last_log_line
from fallom._host.control import ControlPage
from fallom._host.directory import StateDirectory
from fallom._host.files import File, open_file
from tests.support.descriptors import nothing_left_open
from tests.support.flushers import wait_for
from tests.support.processes import at_once, in_child

SECRET = "sk-very-secret"
SECOND_NS = 1_000_000_000
NOW_NS = 10**15

# Stands in for Python: it is started just as the flusher is, and writes down what it finds.
STAND_IN = """#!{python} -S
import json, os, runpy, sys
facts = dict(
    argv=sys.argv,
    environ=dict(os.environ),
    told=json.loads(sys.stdin.buffer.read()),
    parent=os.getppid(),
    session=os.getsid(0),
    group=os.getpgid(0),
    cwd=os.getcwd(),
    streams=[os.readlink("/proc/self/fd/%d" % n) for n in (1, 2)],
    cmdline=open("/proc/self/cmdline").read(),
    status=open("/proc/self/status").read(),
)
boot = runpy.run_path(sys.argv[-1])
boot["make_independent"]()
boot["yield_the_processor"]()
facts["descriptors"] = sorted(map(int, os.listdir("/proc/self/fd")))
facts["nice"] = os.nice(0)
group = "/proc/self/autogroup"
facts["group_nice"] = open(group).read().rsplit(None, 1)[-1] if os.path.exists(group) else None
print("the last line")
place = {place!r} + "/%d" % os.getpid()
with open(place + ".part", "w") as out:
    json.dump(facts, out)
os.rename(place + ".part", place + ".json")
"""


class Starts:
    """A namespace in which starts run the stand-in."""

    def __init__(self, tmp_path: Path) -> None:
        self.path = tmp_path / "starts"
        self.path.mkdir()
        self.directory = StateDirectory(str(self._base(tmp_path)), "0123456789abcdef")
        self.page = ControlPage.open(self.directory.root)
        self.settings = Settings(api_key=SECRET, traces_headers={"X": SECRET}, linger_s=3.0)
        self.python = tmp_path / "python"
        self.python.write_text(STAND_IN.format(python=sys.executable, place=str(self.path)))
        self.python.chmod(0o700)

    @staticmethod
    def _base(tmp_path: Path) -> Path:
        (tmp_path / "base").mkdir(mode=0o700)
        return tmp_path / "base"

    def ensure(self, now_ns: int = NOW_NS, **changes: Any) -> tuple[Started, int]:
        return ensure_flusher(self.settings, self.directory, self.page, now_ns, **changes)

    def found(self, count: int = 1) -> list[dict[str, Any]]:
        """Give what the started ones found, as soon as there are so many."""
        files = wait_for(
            lambda: (files := list(self.path.glob("*.json"))) and len(files) >= count and files
        )
        return [json.loads(file.read_text()) for file in files]


@pytest.fixture
def starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Starts]:
    made = Starts(tmp_path)
    monkeypatch.setenv("FALLOM_PYTHON", str(made.python))
    yield made
    made.page.close()
    made.directory.close()


def lead(starts: Starts) -> File:
    leader = open_file(starts.directory.root, "leader.lock", os.O_RDWR | os.O_CREAT)
    assert leader.lock()
    return leader


# Which interpreter.


def executable(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o700)
    return str(path)


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be a process whose prefix is empty and whose executable is no Python."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    monkeypatch.setattr(sys, "executable", executable(tmp_path / "uwsgi"))
    return tmp_path


VERSION = f"python{sys.version_info[0]}.{sys.version_info[1]}"


def test_the_one_that_the_user_named_comes_first(bare: Path) -> None:
    named = executable(bare / "mine")
    assert interpreter({"FALLOM_PYTHON": named}) == named


def test_this_process_own_is_used_if_it_is_a_python(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = executable(bare / "python3")
    monkeypatch.setattr(sys, "executable", own)
    assert interpreter({"FALLOM_PYTHON": "/nonexistent"}) == own


@pytest.mark.parametrize("own", ["uwsgi", "", None])
def test_under_uwsgi_that_of_the_prefix_is_used(
    bare: Path, monkeypatch: pytest.MonkeyPatch, own: str | None
) -> None:
    monkeypatch.setattr(sys, "executable", own and str(bare / own))
    least = executable(bare / "path" / VERSION)
    assert interpreter({"PATH": f"relative:{bare / 'path'}"}) == least
    generic = executable(bare / "prefix" / "bin" / "python3")
    assert interpreter({}) == generic
    exact = executable(bare / "prefix" / "bin" / VERSION)
    assert interpreter({}) == exact


@pytest.mark.parametrize("useless", ["relative", "/nonexistent", "/", ""])
def test_with_none_at_all_the_variable_is_named(bare: Path, useless: str) -> None:
    with pytest.raises(FileNotFoundError, match="FALLOM_PYTHON"):
        interpreter({"FALLOM_PYTHON": useless, "PATH": str(bare)})


# What it is told, and what it is not.


def test_everything_is_told_by_standard_input_and_nothing_secret_otherwise(
    starts: Starts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FALLOM_API_KEY", SECRET)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("http_proxy", "http://proxy")
    assert starts.ensure() == (Started.STARTED, 0)
    [found] = starts.found()
    assert settings_from_dict(found["told"]["settings"]) == starts.settings
    assert found["told"]["base"] == starts.directory.base
    assert all(os.path.isabs(entry) for entry in found["told"]["sys_path"])
    assert found["environ"]["http_proxy"] == "http://proxy"
    for open_to_others in ("argv", "environ", "cmdline"):
        assert SECRET not in json.dumps(found[open_to_others])
    for path in Path(starts.directory.path).rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()


def test_it_is_independent_of_the_worker(starts: Starts) -> None:
    inherited, other = socket.socketpair()
    inherited.set_inheritable(True)
    try:
        assert starts.ensure()[0] is Started.STARTED
        [found] = starts.found()
    finally:
        inherited.close()
        other.close()
    assert found["session"] != os.getsid(0)
    assert found["group"] != os.getpgid(0)
    assert found["parent"] != os.getpid()
    assert found["cwd"] == "/"
    assert found["descriptors"][:3] == [0, 1, 2]
    assert len(found["descriptors"]) == 4, "but for the one that lists them"
    assert found["streams"] == [f"{starts.directory.path}/flusher.log"] * 2
    assert found["nice"] >= min(10, os.nice(0) + 10)
    # The kernel counts nice within a session; that of the session itself is another number.
    assert found["group_nice"] in (None, "10")


def test_no_zombie_and_no_descriptor_is_left_in_the_worker(starts: Starts) -> None:
    def start() -> tuple[int, Started]:
        with nothing_left_open():
            started, _ = starts.ensure()
        return len(psutil.Process().children()), started

    assert in_child(start) == (0, Started.STARTED)
    starts.found()


def test_it_starts_in_hosts_that_collect_or_ignore_their_children(starts: Starts) -> None:
    def start() -> Started:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        return starts.ensure()[0]

    assert in_child(start) is Started.STARTED
    starts.found()


def test_signals_that_the_worker_blocks_or_ignores_reach_it(starts: Starts) -> None:
    def start() -> Started:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        return starts.ensure()[0]

    assert in_child(start) is Started.STARTED
    [found] = starts.found()
    status = dict(line.split(":\t", 1) for line in found["status"].splitlines() if ":\t" in line)
    assert int(status["SigBlk"], 16) == 0
    ignored = int(status["SigIgn"], 16)
    assert not ignored & 1 << signal.SIGTERM - 1


def test_a_worker_without_standard_streams_starts_one_all_the_same(starts: Starts) -> None:
    def start() -> Started:
        for number in (0, 1, 2):
            os.close(number)
        return starts.ensure()[0]

    assert in_child(start) is Started.STARTED
    [found] = starts.found()
    assert found["told"]["base"] == starts.directory.base
    assert found["streams"] == [f"{starts.directory.path}/flusher.log"] * 2


# One, and not too often.


def test_of_sixteen_workers_that_notice_at_once_one_starts_one(starts: Starts) -> None:
    answers = at_once(16, lambda _: starts.ensure()[0])
    assert answers.count(Started.STARTED) == 1
    assert set(answers) == {Started.STARTED, Started.BUSY}
    assert len(starts.found()) == 1


def test_starts_that_never_beat_are_backed_off_to_a_minute(
    starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spawn, "_start", lambda *_: None)
    now_ns, pauses = NOW_NS, []
    for failures in range(9):
        assert starts.ensure(now_ns) == (Started.STARTED, failures)
        began_ns = now_ns
        while (found := starts.ensure(now_ns + SECOND_NS // 2))[0] is Started.BUSY:
            assert found == (Started.BUSY, failures)
            now_ns += SECOND_NS // 2
            assert now_ns - began_ns <= 61 * SECOND_NS
        now_ns += SECOND_NS // 2
        pauses.append((now_ns - began_ns) / SECOND_NS)
        # That answer was a start already: go back to before it.
        write_starts(starts, began_ns, failures)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def write_starts(starts: Starts, last_ns: int, failures: int) -> None:
    lock = open_file(starts.directory.root, "spawn.lock", os.O_RDWR)
    os.pwrite(lock.fd, struct.pack("<QQ", last_ns, failures), 0)
    lock.close()


def test_after_one_that_beat_the_next_starts_at_once(
    starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spawn, "_start", lambda *_: None)
    assert starts.ensure(NOW_NS) == (Started.STARTED, 0)
    write_starts(starts, NOW_NS, 5)
    starts.page.take_over(NOW_NS + 1, 1, 1)
    assert starts.ensure(NOW_NS + 2) == (Started.STARTED, 0)


@pytest.mark.parametrize(
    "content", [b"", b"short", b"\xff" * 16, struct.pack("<QQ", NOW_NS * 2, 3)]
)
def test_a_damaged_memory_of_starts_or_one_of_before_a_reboot_is_none(
    starts: Starts, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(spawn, "_start", lambda *_: None)
    (Path(starts.directory.path) / "spawn.lock").write_bytes(content)
    assert starts.ensure(NOW_NS) == (Started.STARTED, 0)


def test_a_leader_that_hangs_is_alive(starts: Starts) -> None:
    starts.page.take_over(NOW_NS - 100 * SECOND_NS, 1, 1)
    leader = lead(starts)
    assert starts.ensure() == (Started.ALIVE, 0)
    leader.close()


@pytest.mark.parametrize("why", ["it is leaving", "a higher version takes over"])
def test_beside_a_leader_that_will_leave_a_candidate_is_started(
    starts: Starts, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.setattr(spawn, "_start", lambda *_: None)
    starts.page.take_over(NOW_NS, 1, 1)
    leader = lead(starts)
    if why == "it is leaving":
        starts.page.beat(0)
        assert starts.ensure() == (Started.STARTED, 0)
    else:
        assert starts.ensure(is_hand_over=True) == (Started.STARTED, 0)
    leader.close()


def test_candidates_that_a_leader_kept_from_leading_are_no_failures(
    starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader that said it is leaving found something and stayed; the last of them would be stuck."""
    monkeypatch.setattr(spawn, "_start", lambda *_: None)
    starts.page.take_over(NOW_NS - 1, 1, 1)
    leader = lead(starts)
    starts.page.beat(0)
    for number in range(5):
        now_ns = NOW_NS + number * 600_000_000
        assert starts.ensure(now_ns) == (Started.STARTED, 0)
        assert starts.ensure(now_ns + 400_000_000) == (Started.BUSY, 0), "that one still waits"
    leader.close()
    assert starts.ensure(now_ns + 900_000_000) == (Started.BUSY, 0), "it has the lock in a moment"
    assert starts.ensure(now_ns + 1_100_000_000) == (Started.STARTED, 1)


def test_a_worker_that_finds_another_at_it_does_not_wait(starts: Starts) -> None:
    other = open_file(starts.directory.root, "spawn.lock", os.O_RDWR | os.O_CREAT)
    other.lock()
    assert starts.ensure() == (Started.BUSY, 0)
    other.close()


# When the system refuses.


def refuse(*_: Any) -> None:
    raise OSError(12, "no memory")


@pytest.mark.parametrize("step", ["interpreter", "_spawn", "_open_log", "is_led"])
def test_a_refusal_of_the_system_is_an_answer_and_leaves_nothing_open(
    starts: Starts, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(spawn, step, refuse)
    with nothing_left_open():
        assert starts.ensure() == (Started.FAILED, 0)
    monkeypatch.undo()


def test_what_is_too_long_for_a_pipe_is_refused_and_not_waited_for(
    starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [f"/{'x' * 100}/{n}" for n in range(1000)])
    assert starts.ensure()[0] is Started.FAILED


def test_a_pipe_that_is_too_small_is_not_waited_for(
    starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = os.pipe

    def small() -> tuple[int, int]:
        ends = pipe()
        fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, 4096)
        return ends

    if not hasattr(fcntl, "F_SETPIPE_SZ"):
        pytest.skip("this system has pipes of one size")
    monkeypatch.setattr(spawn.os, "pipe", small)
    monkeypatch.setattr(sys, "path", [f"/{'x' * 100}/{n}" for n in range(100)])
    assert starts.ensure()[0] is Started.FAILED


def test_without_a_shell_it_is_started_directly(
    starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = os.access
    monkeypatch.setattr(
        spawn.os, "access", lambda path, mode: path != "/bin/sh" and access(path, mode)
    )

    def start() -> Started:
        started, _ = starts.ensure()
        os.waitpid(-1, 0)
        return started

    assert in_child(start) is Started.STARTED
    starts.found()


# Its log.


def test_the_last_line_of_its_log_is_for_warnings(starts: Starts) -> None:
    assert last_log_line(starts.directory) == ""
    starts.ensure()
    starts.found()
    wait_for(lambda: last_log_line(starts.directory) == "the last line")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"\n\n", ""),
        (b"a\nb\n \n", "b"),
        (b"x" * 10_000, "x" * 4096),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_any_log_has_a_last_line(starts: Starts, content: bytes, line: str) -> None:
    (Path(starts.directory.path) / "flusher.log").write_bytes(content)
    assert last_log_line(starts.directory) == line


def test_a_long_log_is_begun_anew(starts: Starts) -> None:
    log = Path(starts.directory.path) / "flusher.log"
    log.write_bytes(b"x" * ((1 << 20) + 1))
    starts.ensure()
    starts.found()
    assert log.stat().st_size < 1000
    assert log.stat().st_mode & 0o777 == 0o600
