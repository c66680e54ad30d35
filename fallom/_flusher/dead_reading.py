"""Dead letters for people: read, put back into the spool, deleted. Any process may, beside the flusher.

A file of ``dead/`` is only changed under its lock, which the flusher takes for each letter that it adds:
what remains is written aside with the same name's checksums and renamed into place. A letter is known
by a hash of its content, so that its id outlives that.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from fallom._flusher.dead import LOCK_DEADLINE_S, created_ns_of, letter_id, seed_of_name
from fallom._host.files import File, entries_of, open_file
from fallom._spool.frame import (
    Frame,
    Kind,
    RecordError,
    decode_record,
    encode_frame,
    pack,
    scan,
)
from fallom._spool.segment import Destination, SegmentName, head_of

__all__ = ["Letter", "damaged_of", "letters_of", "purge", "remove_letters", "replay"]

Targets: TypeAlias = Mapping[str, Mapping[Destination, bytes]]


class Letter(NamedTuple):
    """One record that a server refused."""

    id: str
    reason: str
    status: int  # HTTP
    unix_ns: int  # when it was refused
    destination: Destination
    kind: int  # of the record's frame
    resource: Mapping[str, Any]
    payload: bytes  # the record as packed
    target: str = ""  # name of the extra target that refused it; "" for the main one


def letters_of(directory: File) -> Iterator[Letter]:
    """Give the dead letters, oldest file first; what is damaged is passed over.

    Raises:
        OSError: The directory cannot be read.
    """
    for name in _names(directory, ".dead"):
        with contextlib.suppress(FileNotFoundError):  # evicted since it was listed
            yield from (letter for letter, _ in _read(directory, name))


def damaged_of(directory: File) -> list[str]:
    """List the files that hold damaged bytes of segments."""
    return _names(directory, ".damaged")


def remove_letters(directory: File, ids: Collection[str]) -> int:
    """Delete letters; give how many.

    Raises:
        OSError: The disk refuses, or a file stayed locked; what was not deleted is as it was.
    """
    return sum(_remove(directory, name, ids) for name in _names(directory, ".dead"))


def replay(
    directory: File, spool: File, letters: Iterable[Letter], targets: Targets
) -> tuple[int, OSError | None]:
    """Put letters back into the spool, and delete them only when the disk has them there.

    A letter goes to the target that refused it, and to no other.

    Args:
        directory: ``dead/``.
        spool: The spool directory.
        letters: Which.
        targets: By the name of each target ("" for the main one) its hash by destination.

    Returns:
        How many were put back, and why the rest was not.
    """
    groups: dict[tuple[str, Destination], list[Letter]] = {}
    for letter in letters:
        groups.setdefault((letter.target, letter.destination), []).append(letter)
    count, failed = 0, None
    for (target, destination), some in groups.items():
        if destination not in targets.get(target, {}):
            sentence = f"the settings have no extra target {target!r} any more"
            failed = failed or OSError(2, sentence)
            continue
        others = [
            hashes[destination]
            for name, hashes in targets.items()
            if name != target and destination in hashes
        ]
        written, error = _put_back(directory, spool, destination, some, others)
        failed = failed or error
        try:
            remove_letters(directory, frozenset(letter.id for letter in written))
        except OSError as refused:  # they are delivered, and may be replayed once more
            failed = failed or refused
        count += len(written)
    return count, failed


def purge(directory: File, before_unix_ns: int) -> int:
    """Delete what was refused before a time, damaged bytes of that age too; give how many letters.

    Raises:
        OSError: The disk refuses.
    """
    old = frozenset(
        letter.id for letter in letters_of(directory) if letter.unix_ns < before_unix_ns
    )
    for name in damaged_of(directory):
        if created_ns_of(name) < before_unix_ns:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory.fd)
    return remove_letters(directory, old)


def _names(directory: File, ending: str) -> list[str]:
    with entries_of(directory) as entries:
        names = [entry.name for entry in entries if entry.name.endswith(ending)]
    return sorted((name for name in names if created_ns_of(name) >= 0), key=created_ns_of)


def _read(directory: File, name: str) -> list[tuple[Letter, bytes]]:
    """Give the letters of a file, each with its packed form."""
    file = open_file(directory, name, os.O_RDONLY)
    try:
        data = os.pread(file.fd, file.size(), 0)
    finally:
        file.close()
    return list(_letters(data, name))


def _letters(data: bytes, name: str) -> Iterator[tuple[Letter, bytes]]:
    for found in scan(data, 0, seed_of_name(name)):
        if isinstance(found, Frame) and found.kind == Kind.DEAD:
            with contextlib.suppress(RecordError, ValueError, TypeError):
                yield _letter(found.payload), found.payload


def _letter(packed: bytes) -> Letter:
    fields = decode_record(packed)
    reason, status, unix_ns, destination, kind, resource, payload = fields[:7]
    if not isinstance(payload, bytes):
        raise TypeError("the record of a dead letter is bytes")
    return Letter(
        letter_id(packed),
        str(reason),
        int(status),
        int(unix_ns),
        Destination(destination),
        int(kind),
        dict(resource),
        payload,
        str(fields[7]) if len(fields) > 7 else "",
    )


def _remove(directory: File, name: str, ids: Collection[str]) -> int:
    try:
        file = open_file(directory, name, os.O_RDWR)
    except FileNotFoundError:
        return 0
    try:
        if not file.lock(LOCK_DEADLINE_S):
            raise OSError(11, f"{name} stayed locked for {LOCK_DEADLINE_S:g} s; try again")
        if not file.is_intact():
            return 0
        data = os.pread(file.fd, file.size(), 0)
        gone = {packed for letter, packed in _letters(data, name) if letter.id in ids}
        if gone:
            _rewrite(directory, name, data, gone)
        return len(gone)
    finally:
        file.close()  # of its own descriptor: the lock goes with it


def _rewrite(directory: File, name: str, data: bytes, gone: Collection[bytes]) -> None:
    """Put a file without some letters into the place of what it was, or delete it if none is left."""
    seed = seed_of_name(name)
    kept = [
        data[found.offset : found.end]
        for found in scan(data, 0, seed)
        if not (isinstance(found, Frame) and found.payload in gone)
    ]
    if not kept:
        os.unlink(name, dir_fd=directory.fd)
        return
    aside = f"{name}.{secrets.token_hex(4)}.tmp"
    file = open_file(directory, aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        body = b"".join(kept)
        if os.write(file.fd, body) != len(body):
            raise OSError(28, "no space left to rewrite dead letters")
        os.fsync(file.fd)
        os.rename(aside, name, src_dir_fd=directory.fd, dst_dir_fd=directory.fd)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(aside, dir_fd=directory.fd)
        raise
    finally:
        file.close()


def _put_back(
    directory: File,
    spool: File,
    destination: Destination,
    letters: Collection[Letter],
    others: Collection[bytes],
) -> tuple[list[Letter], OSError | None]:
    """Write letters to a sealed segment of their own; give those that are on the disk.

    It is made aside, where the flusher removes it if we are killed: a flusher that saw it grow would not
    know yet that the other targets want nothing of it.
    """
    written: list[Letter] = []
    failed: OSError | None = None
    name = SegmentName(destination, os.urandom(16), is_sealed=True)
    aside = f"{time.time_ns()}-{name.id.hex()}.dead.{secrets.token_hex(4)}.tmp"
    try:
        file = open_file(directory, aside, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    except OSError as error:
        return [], error
    try:
        size = _append(file, head_of(name, {}))
        resource: Mapping[str, Any] | None = None
        try:
            for letter in letters:
                if letter.resource != resource:
                    resource = letter.resource
                    size += _append(
                        file, encode_frame(Kind.HEADER, pack(dict(resource)), name.seed)
                    )
                size += _append(file, encode_frame(letter.kind, letter.payload, name.seed))
                written.append(letter)
        except OSError as error:
            failed = error
        if not written:
            return [], failed
        os.ftruncate(file.fd, size)  # what was written in part is of no use
        os.pwrite(file.fd, head_of(name, dict.fromkeys(others, size)), 0)
        os.fsync(file.fd)
        os.rename(aside, name.file_name(), src_dir_fd=directory.fd, dst_dir_fd=spool.fd)
        os.fsync(spool.fd)
    except OSError as error:
        return [], failed or error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(aside, dir_fd=directory.fd)
        file.close()
    return written, failed


def _append(file: File, data: bytes) -> int:
    if os.write(file.fd, data) != len(data):
        raise OSError(28, "no space left in the spool")
    return len(data)
