"""How a flusher process begins and ends: stand for election, run, leave. Two ways in.

``run_spawned``: started by a worker (``spawn``), told everything by it. ``run_external``: started by an
operator, ``fallom flusher``, with settings from the environment.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from fallom._core.settings import Settings, settings_from_dict
from fallom._flusher.boot import yield_the_processor
from fallom._flusher.election import CANDIDATE_WAIT_S, Election, free_orphaned
from fallom._flusher.spawn import LOG_BYTES_MAX
from fallom._host.control import ControlPage, remove_asides
from fallom._host.directory import StateDirectory, find_state_directory
from fallom._host.versions import pack_version
from fallom._version import __version__

__all__ = ["allow_descriptors", "run_external", "run_spawned"]

HAND_OVER_WAIT_S = 30.0  # for a leader of a lower version, which finishes its batches
ONCE_WAIT_S = 10.0
DESCRIPTORS = 4096  # segments of all destinations and targets, and connections
GARBAGE_THRESHOLD = 50_000  # objects; some batches' worth

_logger = logging.getLogger("fallom")


def run_spawned(told: Mapping[str, Any]) -> NoReturn:
    """Be the flusher that a worker started; the process ends with it."""
    settings = settings_from_dict(told["settings"])
    _log_to(CappedLog(sys.stderr), settings.debug)
    allow_descriptors()
    directory = StateDirectory(str(told["base"]), settings.namespace)
    status = _lead(settings, directory, once=False, wait_s=CANDIDATE_WAIT_S, lingers=True)
    # At once: threads may still be within an exchange whose answer no longer matters.
    logging.shutdown()
    os._exit(0 if status is None else status)


def run_external(settings: Settings, once: bool) -> int:
    """Be the flusher under a supervisor, or drain the spool once.

    Args:
        settings: From the environment.
        once: Ship what is there and return, instead of running until SIGTERM.

    Returns:
        0: stopped, or everything was delivered; 1: ``once``, and something is left; 3: another flusher
        leads this namespace and does not leave.

    Raises:
        StateDirectoryError: The state directory cannot be used.
    """
    _log_to(logging.StreamHandler(sys.stderr), settings.debug)
    allow_descriptors()
    directory = find_state_directory(settings.state_dir, settings.namespace, os.environ)
    wait_s = ONCE_WAIT_S if once else float("inf")
    status = _lead(settings, directory, once=once, wait_s=wait_s, lingers=False)
    if status is None:
        _logger.error("another flusher leads %s; stop it, or let it do the work", directory.path)
        return 3
    return status


def _lead(
    settings: Settings, directory: StateDirectory, *, once: bool, wait_s: float, lingers: bool
) -> int | None:
    """Win the election and run; None if it was not won."""
    page = ControlPage.open(directory.root)
    election = Election(directory.path)
    ours = pack_version(__version__)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    if not lingers:  # in a terminal; one that a worker started ignores it
        signal.signal(signal.SIGINT, lambda *_: _stop_at_interrupt(stop))
    if not election.win(0.0):
        is_successor = page.flusher_version() < ours and not page.is_leaving()
        if is_successor:
            # All that takes time comes first, so that the namespace is without a flusher for moments.
            import fallom._flusher.loop as _loop  # noqa: F401

            page.set_successor(ours)
            wait_s = max(wait_s, HAND_OVER_WAIT_S)
        elif not lingers:
            _logger.info("waiting for the flusher that leads %s to leave", directory.path)
        if not _won_within(election, directory, page, wait_s, stop):
            return None
    page.set_successor(0)
    page.take_over(time.monotonic_ns(), os.getpid(), ours)
    remove_asides(directory.root, time.time())
    from fallom._flusher.loop import Flusher  # a candidate that loses need not load all that

    if lingers:
        yield_the_processor()  # only now: a worker without configs waits for what was before

    # Records hold each other in no circle, and are freed as they go; to look for circles among the
    # thousands that are in flight took a tenth of the CPU.
    gc.set_threshold(GARBAGE_THRESHOLD)
    flusher = Flusher(settings, directory, page, election, stop)
    try:
        return flusher.run(once=once, lingers=lingers)
    finally:
        faulthandler.cancel_dump_traceback_later()
        election.resign()


def _stop_at_interrupt(stop: threading.Event) -> None:
    """End after the exchange that is under way; a second interrupt ends at once."""
    stop.set()
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _won_within(
    election: Election,
    directory: StateDirectory,
    page: ControlPage,
    wait_s: float,
    stop: threading.Event,
) -> bool:
    give_up = time.monotonic() + wait_s
    while not stop.is_set():
        if election.win(min(1.0, max(0.0, give_up - time.monotonic()))):
            return True
        if time.monotonic() >= give_up:
            return False
        free_orphaned(directory.root, page, time.monotonic_ns())
    return False


def allow_descriptors() -> None:
    """Raise the soft limit of open files, which often is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, DESCRIPTORS)), hard))


class CappedLog(logging.StreamHandler):  # type: ignore[type-arg]  # it takes none before 3.11
    """A log that is a file opened for appending, begun anew where it is too long.

    ``spawn`` looks at its length only when it starts a flusher, and one may live for months.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        with contextlib.suppress(OSError, ValueError):  # no file, or closed
            if os.fstat(self.stream.fileno()).st_size > LOG_BYTES_MAX:
                os.ftruncate(self.stream.fileno(), 0)
        super().emit(record)


def _log_to(handler: logging.Handler, debug: bool) -> None:
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    _logger.addHandler(handler)
    _logger.setLevel(logging.DEBUG if debug else logging.INFO)
    _logger.propagate = False
