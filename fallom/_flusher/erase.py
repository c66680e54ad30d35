"""Erasing a person's unsent records on one host: spool and ``dead/``. Any process may, beside the flusher.

What moves meanwhile, from the spool to ``dead/`` or back by a replay, is found because all is looked at
again until a pass finds nothing. Killed at any point it has removed a part, and is done again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from fallom._flusher.dead_reading import damaged_of, letters_of, remove_letters
from fallom._host.control import ControlPage
from fallom._host.counts import Drop
from fallom._host.directory import StateDirectory
from fallom._host.files import File, entries_of, open_file
from fallom._spool.erasing import Erasure, Person, erase_from_spool, person_of
from fallom._spool.segment import Destination

__all__ = ["Removed", "erase"]

PASSES_MAX = 10


@dataclass(slots=True)
class Removed:
    """What was removed, or would be.

    Attributes:
        spool: From the spool.
        dead_letters: What a server had refused.
        damaged_files: Of ``dead/``, with bytes that are no letter and had the id in them.
        failed: What could not be looked at, in sentences.
    """

    spool: Erasure = field(default_factory=Erasure)
    dead_letters: int = 0
    damaged_files: int = 0
    failed: list[str] = field(default_factory=list)


def erase(
    directory: StateDirectory,
    page: ControlPage,
    targets: Mapping[Destination, bytes] | None,
    session_id: str = "",
    customer_id: str = "",
    is_dry: bool = False,
) -> Removed:
    """Remove what is unsent of a session, or of a customer.

    Args:
        directory: Of the namespace.
        page: Its page; what was unsent is counted there.
        targets: To tell what was delivered; None counts as delivered what any target has.
        session_id: Whose; or
        customer_id: whose.
        is_dry: Only count.

    Raises:
        OSError: A directory cannot be read, or ``dead/`` cannot be written.
    """
    person = person_of(directory.spool, session_id, customer_id)
    removed = Removed()
    for _ in range(1 if is_dry else PASSES_MAX):
        found = erase_from_spool(directory.spool, person, targets, is_dry)
        removed.spool.add(found)
        records = found.unsent.total() - found.unsent["calls in flight"]
        if records and not is_dry:
            page.add_drops(directory.root, {Drop.ERASED: records}, deadline_s=1.0)
        letters, damaged = _erase_dead(directory.dead, person, is_dry)
        removed.dead_letters += letters
        removed.damaged_files += damaged
        removed.failed = found.failed
        if not (found.count or letters or damaged):
            break
    return removed


def _erase_dead(dead: File, person: Person, is_dry: bool) -> tuple[int, int]:
    """Remove letters, and files of damaged bytes; give how many of both."""
    ids = {each.id for each in letters_of(dead) if person.owns(each.kind, each.payload)}
    files = [*damaged_of(dead), *_asides_of(dead)]
    damaged = [name for name in files if _mentions(dead, name, person)]
    if is_dry:
        return len(ids), len(damaged)
    for name in damaged:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=dead.fd)
    gone = remove_letters(dead, ids) if ids else 0
    os.fsync(dead.fd)
    return gone, len(damaged)


def _asides_of(dead: File) -> list[str]:
    """List what a rewriting or a replay left that was killed; one under way fails as a whole without it."""
    with entries_of(dead) as entries:
        names = [entry.name for entry in entries]
    return [name for name in names if ".dead." in name and name.endswith(".tmp")]


def _mentions(dead: File, name: str, person: Person) -> bool:
    """Tell whether the id of a person occurs in a file."""
    try:
        file = open_file(dead, name, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        data = os.pread(file.fd, file.size(), 0)
    finally:
        file.close()
    return person.is_named_in(data)
