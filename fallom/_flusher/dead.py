"""``dead/``: what a server refused for good, with its reason, and damaged bytes; bounded.

A dead letter holds the record just as it was in the spool, so that it can be sent again once the
cause is mended. Files are in the spool's frame format, one after the other up to a size; a file's
random id, in its name, is what its checksums start from. What falls out of the directory is counted.

A frame of kind DEAD is the array: reason, HTTP status, when (unix ns), destination, the record's own
kind, resource, the record as packed, and the name of the extra target that refused it, "" for the main one.
The letters of an extra target are in files of its own, with its name before the ending, and have a bound of
their own: what one target refuses evicts nothing of another's.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import threading
from typing import NamedTuple

from fallom._host.files import File, entries_of, open_file
from fallom._spool.frame import (
    FrameTooLargeError,
    Kind,
    encode_frame,
    pack,
    scan,
    seed_of,
)
from fallom._spool.reader import Item
from fallom._spool.segment import Destination, SegmentName

__all__ = ["LOCK_DEADLINE_S", "DeadLetters", "created_ns_of", "letter_id", "seed_of_name"]

FILE_BYTES_MAX = 4 << 20
LOCK_DEADLINE_S = 5.0  # whoever holds a file's lock rewrites 4 MiB at most
FILE_AGE_MAX_NS = 3_600_000_000_000  # a file is evicted by the age of its first letter
ASIDE_AGE_MAX_NS = 60_000_000_000  # a file that is rewritten is aside for moments
ID_DIGITS = 12
DAMAGED_BYTES_MAX = 1 << 20  # of one stretch of damage; the rest of it is only counted


class _DeadFile(NamedTuple):
    created_ns: int
    name: str
    size: int


def created_ns_of(name: str) -> int:
    """Give when a file of ``dead/`` was begun (unix ns), by its name; -1 if it is none of them."""
    created, _, rest = name.partition("-")
    is_one = created.isascii() and created.isdigit() and rest.endswith((".dead", ".damaged"))
    if is_one and name.endswith(".dead"):
        try:
            seed_of_name(name)
        except ValueError:  # of somebody else; there is no telling what it holds
            return -1
    return int(created) if is_one else -1


def seed_of_name(name: str) -> int:
    """Give what the checksums of a file's frames start from.

    Raises:
        ValueError: The name has no id.
    """
    return seed_of(bytes.fromhex(name.partition("-")[2].partition(".")[0]))


def letter_id(packed: bytes) -> str:
    """Give what a letter is known by."""
    return hashlib.sha256(packed).hexdigest()[:ID_DIGITS]


class DeadLetters:
    """Writes to ``dead/``; every lane and the main thread may use it."""

    def __init__(self, directory: File, bytes_max: int, age_max_s: float, target: str = "") -> None:
        """Open nothing yet; ``target`` is the name of the extra target whose letters they are."""
        self.directory = directory
        self._target = target
        self._ending = f".{target}.dead" if target else ".dead"
        self._bytes_max = bytes_max
        self._age_max_ns = int(age_max_s * 1e9)
        self._file: File | None = None
        self._created_ns = 0
        self._seed = 0
        self._lock = threading.Lock()

    def add(
        self, item: Item, destination: Destination, reason: str, status: int, unix_ns: int
    ) -> str:
        """Keep a record that was refused; give the letter's id.

        Raises:
            OSError: The disk refuses: the record must stay in the spool.
        """
        with self._lock:
            return self._add(item, destination, reason, status, unix_ns)

    def _add(
        self, item: Item, destination: Destination, reason: str, status: int, unix_ns: int
    ) -> str:
        letter = [reason, status, unix_ns, int(destination), item.kind, item.resource, item.payload]
        letter.append(self._target)
        file = self._locked(unix_ns)
        try:
            try:
                packed = pack(letter)
                frame = encode_frame(Kind.DEAD, packed, self._seed)
            except FrameTooLargeError:  # a resource of tens of KiB: the record matters more
                letter[5] = {}
                packed = pack(letter)
                frame = encode_frame(Kind.DEAD, packed, self._seed)
            if os.write(file.fd, frame) != len(frame):
                raise OSError(28, "no space left for a dead letter")
            return letter_id(packed)
        finally:
            file.unlock()

    def _locked(self, unix_ns: int) -> File:
        """Give the file to add to, locked: ``fallom dead`` may be putting a shorter one into its place."""
        while True:
            file = self._current(unix_ns)
            if not file.lock(LOCK_DEADLINE_S):
                raise OSError(11, f"{file.name} stayed locked for {LOCK_DEADLINE_S:g} s")
            if file.is_intact():
                return file
            self.close()

    def keep_damaged(self, name: SegmentName, offset: int, data: bytes, unix_ns: int) -> None:
        """Keep bytes of a segment that are no frame, for whoever wants to look at them."""
        file_name = f"{unix_ns}-{name.id.hex()[:8]}-{offset}.damaged"
        with contextlib.suppress(OSError):
            file = open_file(self.directory, file_name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            os.write(file.fd, data[:DAMAGED_BYTES_MAX])
            file.close()

    def evict(self, unix_ns: int) -> int:
        """Delete what is too old or too much, oldest first, and what a rewriting left that was killed.

        Returns:
            How many dead letters were given up.
        """
        with self._lock:
            return self._evict(unix_ns)

    def _evict(self, unix_ns: int) -> int:
        self._remove_asides(unix_ns)
        files = sorted(self._files())
        total = sum(found.size for found in files)
        lost = 0
        for found in files:
            too_old = unix_ns - found.created_ns > self._age_max_ns
            if not too_old and total <= self._bytes_max:
                break
            lost += self._delete(found)
            total -= found.size
        return lost

    def close(self) -> None:
        """Close the file that is written to."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _current(self, unix_ns: int) -> File:
        if self._file is not None:
            is_old = not 0 <= unix_ns - self._created_ns < FILE_AGE_MAX_NS
            if is_old or not self._file.is_intact() or self._file.size() >= FILE_BYTES_MAX:
                self.close()
        if self._file is None:
            file_id = secrets.token_bytes(16)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL
            name = f"{unix_ns}-{file_id.hex()}{self._ending}"
            self._file = open_file(self.directory, name, flags)
            self._created_ns = unix_ns
            self._seed = seed_of(file_id)
        return self._file

    def _files(self) -> list[_DeadFile]:
        found = []
        with entries_of(self.directory) as entries:
            names = [entry.name for entry in entries]
        for name in names:
            created_ns = created_ns_of(name)
            if created_ns >= 0 and self._is_ours(name):
                with contextlib.suppress(OSError):
                    status = os.stat(name, dir_fd=self.directory.fd, follow_symlinks=False)
                    found.append(_DeadFile(created_ns, name, status.st_size))
        return found

    def _is_ours(self, name: str) -> bool:
        _, _, ending = name.partition(".")
        return f".{ending}" in ((self._ending,) if self._target else (".dead", ".damaged"))

    def _remove_asides(self, unix_ns: int) -> None:
        with contextlib.suppress(OSError), entries_of(self.directory) as entries:
            for entry in entries:
                stem, aside, rest = entry.name.partition(".dead.")
                if aside and rest.endswith(".tmp") and created_ns_of(f"{stem}.dead") >= 0:
                    changed_ns = entry.stat(follow_symlinks=False).st_mtime_ns
                    if unix_ns - changed_ns > ASIDE_AGE_MAX_NS:
                        os.unlink(entry.name, dir_fd=self.directory.fd)

    def _delete(self, found: _DeadFile) -> int:
        letters = 0
        with contextlib.suppress(OSError, ValueError):
            if found.name.endswith(".dead"):
                file = open_file(self.directory, found.name, os.O_RDONLY)
                data = os.pread(file.fd, found.size, 0)
                file.close()
                seed = seed_of_name(found.name)
                letters = sum(hasattr(frame, "payload") for frame in scan(data, 0, seed))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(found.name, dir_fd=self.directory.fd)
        return letters
