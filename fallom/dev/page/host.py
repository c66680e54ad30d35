"""``read_host``: the state of fallom on this host, as ``fallom status`` reads it, of every namespace.

Which namespace an application uses depends on its key, which is nowhere on disk: so all of a state
directory are read, and those in use are shown first. Nothing is made for a namespace that has no page.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from fallom._core.settings import Settings, resolve_settings
from fallom._flusher.dead_reading import letters_of
from fallom._flusher.targets import target_hashes
from fallom._host.control import ControlPage
from fallom._host.directory import StateDirectory, namespaces_of
from fallom._host.place import Place
from fallom._spool.segment import segment_names
from fallom._spool.survey import marks_of
from fallom._status import drops_of, flusher_of

__all__ = ["Letters", "Namespace", "read_host"]

_LAYOUT: Final = "v1"
_NAMESPACES_MAX: Final = 50
_LETTERS_MAX: Final = 20
_USED_S: Final = 3600.0  # a namespace whose page was written later than that ago is in use


class Letters(NamedTuple):
    """The dead letters of a namespace: how many, and the last ones as (time, destination, reason)."""

    total: int
    newest: list[tuple[int, str, str]]


class Namespace(NamedTuple):
    """One namespace of a state directory."""

    name: str
    path: str
    is_in_use: bool
    flusher: Mapping[str, Any]  # as in ``fallom.status``
    generation: int
    segments: int
    allocated_bytes: int
    waiting_bytes: int
    sent: Mapping[str, int]
    dropped: Mapping[str, int]
    sampled_out: int
    letters: Letters
    last_error: str


def read_host(bases: Sequence[str], url: str) -> list[Namespace]:
    """Read all namespaces below ``bases``, those in use first.

    Args:
        bases: State directories.
        url: Of this cloud: what waits for it is told.
    """
    urls = dict.fromkeys(("traces_url", "configs_url", "prompts_url"), url)
    settings = resolve_settings(urls, {})
    found = []
    for base in bases:
        for name in namespaces_of(base)[:_NAMESPACES_MAX]:
            with contextlib.suppress(OSError):
                found.append(_read(base, name, settings))
    return sorted(
        found, key=lambda one: (not one.flusher["is_alive"], not one.is_in_use, -one.generation)
    )


def _read(base: str, name: str, settings: Settings) -> Namespace:
    control = os.stat(f"{base}/{_LAYOUT}/{name}/control", follow_symlinks=False)
    directory = StateDirectory(base, name)
    try:
        place = Place(directory, ControlPage.open(directory.root))
        try:
            return _state(place, name, control.st_mtime, settings)
        finally:
            place.page.close()
    finally:
        directory.close()


def _state(place: Place, name: str, touched_s: float, settings: Settings) -> Namespace:
    page, spool = place.page, place.directory.spool
    flusher = flusher_of(place, settings.flusher)
    dropped, sampled_out = drops_of(place, {})
    waiting = marks_of(spool, target_hashes(settings))
    letters = list(letters_of(place.directory.dead))
    newest = sorted(letters, key=lambda letter: -letter.unix_ns)[:_LETTERS_MAX]
    return Namespace(
        name=name,
        path=place.directory.path,
        is_in_use=flusher["is_alive"] or time.time() - touched_s < _USED_S,
        flusher=flusher,
        generation=page.generation(),
        segments=len(segment_names(spool)),
        allocated_bytes=page.spool_bytes(),
        waiting_bytes=sum(mark.end - mark.start for mark in waiting),
        sent={name: count for name, count in page.tallies().items() if count},
        dropped=dropped,
        sampled_out=sampled_out,
        letters=Letters(
            len(letters),
            [(one.unix_ns, one.destination.name.lower(), one.reason) for one in newest],
        ),
        last_error=page.last_error(),
    )
