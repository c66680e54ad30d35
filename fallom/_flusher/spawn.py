"""How a worker makes sure that a flusher lives. Standard library only: this is the part workers import.

A worker that finds the beat stale takes ``spawn.lock`` without waiting, probes the leader's lock, and
starts a flusher if that is free. The file ``spawn.lock`` holds two numbers, so that sixteen workers that
notice at once start one: when the last start was (monotonic ns), and how many starts in a row never beat
unless a leader that was leaving stayed. Only those are backed off.

The process that is started belongs to nobody: a session of its own, so that a signal to the server's
group does not reach it; no inherited descriptor, which would keep the server's port busy after it
stopped, or its parent's pipe open; and its parent is a shell that exits at once, so that it never is a
worker's zombie. What it needs to know, the key among it, goes to its standard input.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import posix
import signal
import struct
import sys
from collections.abc import Mapping
from typing import Any

from fallom._core.settings import Settings, settings_to_dict
from fallom._flusher.election import CANDIDATE_WAIT_S, SPAWN_LOCK, is_led
from fallom._host.control import ControlPage
from fallom._host.directory import StateDirectory
from fallom._host.files import File, open_file
from fallom._version import __version__

__all__ = ["Started", "ensure_flusher", "last_log_line"]

BACKOFF_MIN_NS = 1_000_000_000
BACKOFF_MAX_NS = 60_000_000_000
BACKOFF_LED_NS = int(CANDIDATE_WAIT_S * 5e8)  # meanwhile the one before waits, and will lead
FAILURES_BEFORE_WARNING = 3
LOG_BYTES_MAX = 1 << 20
_STDIN_BYTES_MAX = 60_000  # a pipe takes 64 KiB without a reader

_LOG = "flusher.log"
_STARTS = struct.Struct("<QQ")
_BOOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "boot.py")

# "&" gives a job the null device as standard input, hence the detour by descriptor 3.
_SHELL = 'cd /; exec 3<&0; "$0" "$@" <&3 3<&- &'

# What a flusher needs of the environment: how to find libraries, proxies and certificates, and the
# time zone for its log. Settings and the key do not travel by it.
_ENVIRONMENT = (
    "PATH HOME LANG LC_ALL TZ TMPDIR LD_LIBRARY_PATH VIRTUAL_ENV SSL_CERT_FILE SSL_CERT_DIR "
    "REQUESTS_CA_BUNDLE http_proxy https_proxy no_proxy all_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY "
    "ALL_PROXY"
).split()


class Started(enum.Enum):
    """What ``ensure_flusher`` found or did."""

    ALIVE = "alive"  # somebody holds the leader's lock
    STARTED = "started"
    BUSY = "busy"  # another worker is at it, or a start has not had time to beat
    FAILED = "failed"  # the system refused; tried again later


def ensure_flusher(
    settings: Settings,
    directory: StateDirectory,
    page: ControlPage,
    monotonic_ns: int,
    *,
    is_hand_over: bool = False,
) -> tuple[Started, int]:
    """Start a flusher if none lives. Blocks for a few milliseconds when it starts one.

    Args:
        settings: What the flusher is told.
        directory: The namespace.
        page: Its control page.
        monotonic_ns: Now.
        is_hand_over: Start a candidate although a flusher lives, because ours is of a higher version.

    Returns:
        What was found or done, and how many starts in a row never beat.
    """
    try:
        lock = open_file(directory.root, SPAWN_LOCK, os.O_RDWR | os.O_CREAT)
    except OSError:
        return Started.FAILED, 0
    try:
        if not lock.lock():
            return Started.BUSY, 0
        # A leader that said it is leaving may have done its last look already: a candidate waits for
        # its lock. Any other that holds the lock is alive, whatever its beat says.
        led = is_led(directory.root, page, monotonic_ns)
        is_leaving = led and page.is_leaving()
        if led and not is_leaving and not is_hand_over:
            return Started.ALIVE, 0
        last_ns, failures = _read_starts(lock, monotonic_ns)
        if last_ns and page.started_ns() < last_ns:  # that start has never beaten
            wait_ns = min(BACKOFF_MAX_NS, BACKOFF_MIN_NS << min(failures, 6))
            if monotonic_ns - last_ns < (BACKOFF_LED_NS if is_leaving else wait_ns):
                return Started.BUSY, failures
            failures += 1
        else:
            failures = 0
        if is_leaving:
            failures = 0  # it does not beat if the leader stays after all, and that is no failure
        # Before it counts as a start: a worker whose environment was deleted under it cannot start
        # any, and must not have the others back off.
        python = interpreter(os.environ)
        os.stat(_BOOT)
        os.pwrite(lock.fd, _STARTS.pack(monotonic_ns, failures), 0)
        _start(python, settings, directory, os.environ)
    except OSError:
        return Started.FAILED, 0
    else:
        return Started.STARTED, failures
    finally:
        lock.close()


def last_log_line(directory: StateDirectory) -> str:
    """Give the last line of the flusher's log, "" if there is none."""
    try:
        log = open_file(directory.root, _LOG, os.O_RDONLY)
    except OSError:
        return ""
    try:
        tail = os.pread(log.fd, 4096, max(0, log.size() - 4096))
    except OSError:
        return ""
    finally:
        log.close()
    lines = tail.decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip() if lines else ""


def interpreter(environ: Mapping[str, str]) -> str:
    """Find the Python to run: under uWSGI ``sys.executable`` is uwsgi.

    Raises:
        FileNotFoundError: There is none; FALLOM_PYTHON may name it.
    """
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    found = [environ.get("FALLOM_PYTHON", "")]
    if os.path.basename(sys.executable or "").startswith(("python", "pypy")):
        found.append(sys.executable)
    found += [os.path.join(sys.prefix, "bin", name) for name in (version, "python3")]
    found += [os.path.join(entry, version) for entry in environ.get("PATH", "").split(":")]
    for path in found:
        if os.path.isabs(path) and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise FileNotFoundError("no Python interpreter was found; name one by FALLOM_PYTHON")


def _read_starts(lock: File, monotonic_ns: int) -> tuple[int, int]:
    raw = os.pread(lock.fd, _STARTS.size, 0)
    if len(raw) < _STARTS.size:
        return 0, 0
    last_ns, failures = _STARTS.unpack(raw)
    if last_ns > monotonic_ns:  # the host was restarted since, or the file is damaged
        return 0, 0
    return last_ns, min(failures, 1000)


def _start(
    python: str, settings: Settings, directory: StateDirectory, environ: Mapping[str, str]
) -> None:
    boot = json.dumps(_boot_values(settings, directory)).encode()
    if len(boot) > _STDIN_BYTES_MAX:
        raise OSError(7, "sys.path and settings are too long to be handed over")
    log = _open_log(directory)
    read_end, write_end = os.pipe()
    try:
        os.set_blocking(write_end, False)  # a user with a thousand pipes gets small ones
        if os.write(write_end, boot) != len(boot):
            raise OSError(11, "the pipe to the flusher is too small")
        os.close(write_end)
        write_end = -1
        actions = [
            (os.POSIX_SPAWN_DUP2, read_end, 0),
            (os.POSIX_SPAWN_DUP2, log.fd, 1),
            (os.POSIX_SPAWN_DUP2, log.fd, 2),
        ]
        command = ["/bin/sh", "-c", _SHELL, python, "-I", _BOOT]
        if not os.access("/bin/sh", os.X_OK):  # then it is a child of ours until we end
            command = [python, "-I", _BOOT]
        passed_on = {name: environ[name] for name in _ENVIRONMENT if name in environ}
        pid = _spawn(command, passed_on, actions)
    finally:
        os.close(read_end)
        if write_end >= 0:
            os.close(write_end)
        log.close()
    if command[0] == "/bin/sh":
        # The shell exits as soon as it has started its job. Somebody else's handler may have
        # collected it, or the host ignores SIGCHLD: either is fine.
        with contextlib.suppress(ChildProcessError):
            posix.waitpid(pid, 0)


def _spawn(command: list[str], environ: dict[str, str], actions: list[Any]) -> int:
    """Start a program in a session of its own, with the signals as a program expects them.

    Request threads of uWSGI have all signals blocked and Celery ignores SIGINT; a child inherits both.
    By ``posix``, as is the wait for it: of ``os``, gevent makes functions that go on with another greenlet
    until its loop has heard of the child, and that it may never (in a worker of gunicorn, which has SIGCHLD
    at its default).
    """
    signals: dict[str, Any] = {
        "setsigmask": [],
        "setsigdef": [
            number
            for number in signal.valid_signals()
            if number not in (signal.SIGKILL, signal.SIGSTOP) and number < signal.SIGRTMIN
        ],
    }
    try:
        return posix.posix_spawn(
            command[0], command, environ, file_actions=actions, setsid=True, **signals
        )
    except NotImplementedError:  # an old libc: the flusher makes its session itself
        return posix.posix_spawn(command[0], command, environ, file_actions=actions, **signals)


def _boot_values(settings: Settings, directory: StateDirectory) -> dict[str, Any]:
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return {
        "settings": settings_to_dict(settings),
        "base": directory.base,
        "version": __version__,
        # Absolute: the flusher's working directory is "/".
        "sys_path": [here, *(os.path.abspath(entry) for entry in sys.path if entry)],
    }


def _open_log(directory: StateDirectory) -> File:
    log = open_file(directory.root, _LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    if log.size() > LOG_BYTES_MAX:
        log.close()
        os.unlink(_LOG, dir_fd=directory.root.fd)  # old lines help nobody; a new file is made
        log = open_file(directory.root, _LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    return log
