"""A push: the unsent records of a spool that was copied from another machine, delivered from here.

It is a drain by the same code as any flusher's, of a directory that stands elsewhere. It holds that
directory's election, so that there are never two, nor one beside a flusher that lives there. What any
server has accepted before is not sent again. No limit of this machine's settings deletes anything there.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import Final

from fallom._core.errors import ConfigurationError
from fallom._core.settings import Settings
from fallom._flusher.election import Election, free_orphaned
from fallom._flusher.main import allow_descriptors
from fallom._flusher.targets import hashes_of, target_hashes
from fallom._host.control import ControlPage
from fallom._host.directory import StateDirectory
from fallom._host.files import UnsafeFileError, open_file
from fallom._host.versions import pack_version
from fallom._spool.segment import (
    Destination,
    read_accepted,
    read_furthest,
    segment_names,
    write_accepted,
)
from fallom._spool.survey import count_left, marks_of
from fallom._version import __version__

__all__ = ["Pushed", "push"]

_ACCEPTED: Final = ("spans_accepted", "metrics_accepted", "exposures_accepted")
_GIVEN_UP: Final = ("refused", "rejected", "exposures_off", "damaged")
_NO_LIMIT: Final = 1 << 62
_NO_AGE_S: Final = 1e12


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push did.

    Attributes:
        delivered: Records that the server accepted.
        given_up: Records that were given up, by reason; those that it refused are in ``dead/`` there.
        left: Records that are still unsent.
        error: What is wrong, in a sentence; "" if nothing is.
    """

    delivered: int
    given_up: dict[str, int]
    left: int
    error: str


def push(settings: Settings, directory: StateDirectory, stop: threading.Event) -> Pushed | None:
    """Deliver what is unsent in a directory; blocks until all is, or nothing was accepted for 30 s.

    Args:
        settings: Where and as whom it is sent.
        directory: See ``StateDirectory.adopt``.
        stop: Ends it after the exchange that is under way.

    Returns:
        None if a flusher or another push is at work in that directory.

    Raises:
        ConfigurationError: A file there cannot be used.
        OSError: The disk refuses.
    """
    allow_descriptors()  # of a backlog many segments are open at once
    page = ControlPage.open(directory.root)
    election = Election(directory.path)
    if not election.win(0.0):
        free_orphaned(directory.root, page, time.monotonic_ns())
        if not election.win(0.0):
            return None
    try:
        targets = target_hashes(settings)
        _count_as_accepted(directory, targets)
        page.set_successor(0)
        page.take_over(time.monotonic_ns(), os.getpid(), pack_version(__version__))
        page.set_last_error("")
        before = {**page.tallies(), **page.drops()}
        from fallom._flusher.loop import Flusher  # only of a push that may begin

        unlimited = settings.replaced(
            spool_bytes_max=_NO_LIMIT,
            spool_segments_max=_NO_LIMIT,
            spool_age_max_s=_NO_AGE_S,
            extra_targets=tuple(
                each.replaced(bytes_max=_NO_LIMIT, age_max_s=_NO_AGE_S)
                for each in settings.extra_targets
            ),
        )
        Flusher(unlimited, directory, page, election, stop).run(once=True, lingers=False)
        after = {**page.tallies(), **page.drops()}
        spool = directory.spool
        return Pushed(
            sum(after[name] - before[name] for name in _ACCEPTED),
            {n: after[n] - before[n] for n in _GIVEN_UP if after[n] > before[n]},
            sum(
                count_left(spool, marks_of(spool, each), each)
                for each in (targets, *map(hashes_of, settings.extra_targets))
            ),
            page.last_error(),
        )
    finally:
        election.resign()


def _count_as_accepted(directory: StateDirectory, targets: dict[Destination, bytes]) -> None:
    """Take over what was accepted where the records were made, by whatever server that was."""
    for name in segment_names(directory.spool):
        try:
            file = open_file(directory.spool, name.file_name(), os.O_RDWR)
        except FileNotFoundError:
            continue  # sealed under our eyes; its slots are read under its new name by the next push
        except UnsafeFileError as error:
            raise ConfigurationError(
                f"{error} Or make the copy yours: chown -R $(id -u) {directory.path}", "DIR"
            ) from None
        try:
            furthest = read_furthest(file, name)
            if furthest > read_accepted(file, name, targets[name.destination]):
                write_accepted(file, name, targets[name.destination], furthest)
        finally:
            file.close()
