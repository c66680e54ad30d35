"""A segment: one file of frames for one destination, its head, and who may do what with it.

Named ``<destination>-<id>.live`` while it may be written to, ``.done`` once it is sealed. Its
writer holds an exclusive ``flock`` for as long as it lives. A free lock means that the writer is
gone; a held one proves nothing, since a forked child may hold it.

**The one rule** of birth, take-over and deletion: whoever wants to write opens the file, takes the
lock without waiting, and sees that the file still has the name it was opened by; only then is it
theirs. The flusher deletes a segment only under that lock, after it looked at the size again, or when
it is sealed: nobody writes to it any more.

The head is 256 bytes; frames follow it.

| offset | bytes | field | meaning |
| --- | --- | --- | --- |
| 0 | 8 | magic | ``fallomSG`` |
| 8 | 4 | format | 1; a segment of another format is left alone and counted |
| 12 | 4 | destination | ``Destination``, only shown: the name decides |
| 16 | 16 | id | random; the name has it too, and the name decides |
| 32 | 4 | checksum | CRC-32 of bytes 0 to 31, in any format: a flipped bit makes no later format |
| 64 | 8 x 24 | slots | one a target: hash (8), accepted offset (8), CRC-32 of both (4), 0 (4) |

A slot that is damaged reads as "nothing accepted": those frames are sent again. The checksum of a
slot starts from the id, so that no other file's slot is believed. The slots are written by the
flusher alone, by a descriptor without O_APPEND.
"""

from __future__ import annotations

import contextlib
import enum
import os
import struct
import time
import zlib
from collections.abc import Mapping
from typing import NamedTuple

from fallom._core.digest import sha256
from fallom._host.files import File, entries_of, open_file
from fallom._spool.frame import seed_of

__all__ = [
    "HEAD_BYTES",
    "Destination",
    "SegmentName",
    "create_segment",
    "extra_target_hash",
    "head_of",
    "open_listed",
    "parse_segment_name",
    "read_accepted",
    "read_furthest",
    "seal",
    "segment_names",
    "target_hash",
    "try_take_over",
    "write_accepted",
]

HEAD_BYTES = 256
FORMAT = 1
MAX_TARGETS = 8

_LISTED_AT_ONCE = 24  # musl asks the kernel for 28 such names a call, glibc for 512
_STILL_NS = 1_100_000_000  # ext4 with inodes of 128 bytes keeps times by the second

_MAGIC = b"fallomSG"
_HEAD = struct.Struct("<8sII16sI")
_HEAD_SUMMED = 32  # bytes before the checksum
_EXTRA = b"+\0"  # how the hash of an extra target begins; another's does by chance, once in 65,536
_SLOTS_AT = 64
_SLOT = struct.Struct("<8sQI4x")
_SLOT_BODY = struct.Struct("<8sQ")


class Destination(enum.IntEnum):
    """Where the records of a segment go; each has its own pace, so that none holds back another."""

    TRACES = 1
    METRICS = 2
    EXPOSURES = 3
    WISHES = 4  # read by the flusher itself


_WORDS = {destination: destination.name.lower() for destination in Destination}
_DESTINATIONS = {word: destination for destination, word in _WORDS.items()}


class SegmentName(NamedTuple):
    """What a segment's file name says."""

    destination: Destination
    id: bytes
    is_sealed: bool

    @property
    def seed(self) -> int:
        """What the checksums of its frames start from."""
        return seed_of(self.id)

    def file_name(self) -> str:
        """Give the name of the file."""
        ending = "done" if self.is_sealed else "live"
        return f"{_WORDS[self.destination]}-{self.id.hex()}.{ending}"


def parse_segment_name(file_name: str) -> SegmentName | None:
    """Read a file name; None if it is no segment's."""
    stem, dot, ending = file_name.partition(".")
    word, dash, hexed = stem.partition("-")
    if not dot or not dash or ending not in ("live", "done") or word not in _DESTINATIONS:
        return None
    try:
        found = bytes.fromhex(hexed)
    except ValueError:
        return None
    name = SegmentName(_DESTINATIONS[word], found, ending == "done")
    return name if len(found) == 16 and name.file_name() == file_name else None


def segment_names(spool: File) -> list[SegmentName]:
    """List the segments of a spool directory; files that are none are left out.

    What is there from the beginning to the end is in it, once, by the name that it had last.
    """
    still_ns, changed_ns = time.time_ns() - _STILL_NS, os.fstat(spool.fd).st_mtime_ns
    found = _listed(spool)
    if len(found) >= _LISTED_AT_ONCE:
        is_still = changed_ns == os.fstat(spool.fd).st_mtime_ns < still_ns
        if not is_still:
            # A long listing takes several calls, and what is sealed between two of them may be in none, or
            # in both. It is sealed only once, so that the next listing has it.
            found |= _listed(spool)
    names: dict[bytes, SegmentName] = {}
    for name in filter(None, map(parse_segment_name, found)):
        if name.is_sealed or name.id not in names:
            names[name.id] = name
    return list(names.values())


def open_listed(spool: File, name: SegmentName, flags: int = os.O_RDWR) -> File | None:
    """Open a segment that was listed, also if it was sealed since; None when it is gone.

    Raises:
        UnsafeFileError: What is in its place is no segment.
        OSError: It may be there, and cannot be opened now.
    """
    for is_sealed in (name.is_sealed, True):
        with contextlib.suppress(FileNotFoundError):
            return open_file(spool, name._replace(is_sealed=is_sealed).file_name(), flags)
    return None


def create_segment(spool: File, destination: Destination) -> tuple[SegmentName, File]:
    """Make a new segment and lock it.

    Raises:
        OSError: The disk refuses; nothing is left behind.
    """
    for _ in range(8):
        name = SegmentName(destination, os.urandom(16), is_sealed=False)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL
        file = open_file(spool, name.file_name(), flags)
        # Between those two steps the flusher may have looked, found it without an owner, and be about
        # to delete it: then it holds the lock, or the file has no name any more.
        if not (file.lock() and file.is_intact()):
            file.close()
            continue
        head = _head(name)
        try:
            if os.write(file.fd, head) == len(head):
                return name, file
            raise OSError(28, "no space left for the head of a segment")
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(name.file_name(), dir_fd=spool.fd)
            file.close()
            raise
    raise OSError(11, "eight new segments in a row were taken by others")


def try_take_over(spool: File, name: SegmentName, bytes_max: int) -> File | None:
    """Become the writer of a live segment whose writer is gone.

    Returns:
        The file, locked, or None: it has an owner, is full, is gone, or its head is not as it
        should be (then it is the flusher's to deal with).
    """
    try:
        file = open_file(spool, name.file_name(), os.O_RDWR | os.O_APPEND)
    except OSError:
        return None
    try:
        if file.lock() and _is_named(spool, name, file) and file.size() < bytes_max:
            head = os.pread(file.fd, HEAD_BYTES, 0)
            is_whole = len(head) == HEAD_BYTES and head[: _HEAD.size] == _head(name)[: _HEAD.size]
            # Cut short (by a power loss, say) below what was accepted, it would grow again, and what
            # is written now would count as accepted.
            if is_whole and _accepted_max(head, name) <= file.size():
                return file
    except OSError:
        pass  # whatever is wrong with it, another segment will do
    file.close()
    return None


def seal(spool: File, name: SegmentName) -> None:
    """Say that nothing will be written to a segment any more. Only under its lock."""
    sealed = name._replace(is_sealed=True)
    with contextlib.suppress(FileNotFoundError):
        os.rename(name.file_name(), sealed.file_name(), src_dir_fd=spool.fd, dst_dir_fd=spool.fd)


def target_hash(url: str) -> bytes:
    """Give the 8 bytes that name a target in a slot."""
    return sha256(url.encode()).digest()[:8]


def extra_target_hash(name: str, url: str) -> bytes:
    """Give the 8 bytes that name an extra target in a slot: two of them may have one URL."""
    return _EXTRA + sha256(f"{name} {url}".encode()).digest()[:6]


def read_accepted(file: File, name: SegmentName, target: bytes) -> int:
    """Give the offset up to which ``target`` accepted the segment; ``HEAD_BYTES`` if unknown.

    Raises:
        OSError: The file cannot be read.
    """
    head = os.pread(file.fd, HEAD_BYTES, 0)
    for at in _slot_offsets():
        if at + _SLOT.size <= len(head):
            found, offset, checksum = _SLOT.unpack_from(head, at)
            if found == target and checksum == _slot_checksum(name, found, offset):
                return max(HEAD_BYTES, int(offset))
    return HEAD_BYTES


def read_furthest(file: File, name: SegmentName) -> int:
    """Give the offset up to which some target accepted the segment; ``HEAD_BYTES`` if none is known.

    Extra targets do not count: what one of them has, the main one may lack.

    Raises:
        OSError: The file cannot be read.
    """
    head = os.pread(file.fd, HEAD_BYTES, 0)
    whole = len(head) == HEAD_BYTES
    return max(HEAD_BYTES, _accepted_max(head, name, with_extra=False)) if whole else HEAD_BYTES


def write_accepted(file: File, name: SegmentName, target: bytes, offset: int) -> None:
    """Write down that ``target`` accepted the segment up to ``offset``.

    Args:
        file: The segment, opened without O_APPEND (with it, Linux appends whatever the offset).
        name: Its name.
        target: ``target_hash`` of the target.
        offset: Where the first frame that is not accepted begins.

    Raises:
        OSError: The file cannot be written, or all slots belong to other targets.
    """
    head = os.pread(file.fd, HEAD_BYTES, 0)
    free = None
    for at in _slot_offsets():
        if len(head) < at + _SLOT.size:
            break
        found, was, checksum = _SLOT.unpack_from(head, at)
        if found == target:
            free = at
            break
        valid = checksum == _slot_checksum(name, found, was)
        if free is None and not valid:  # never used, or damaged
            free = at
    if free is None:
        raise OSError(28, f"{file.name}: all {MAX_TARGETS} slots belong to other targets")
    slot = _SLOT.pack(target, offset, _slot_checksum(name, target, offset))
    os.pwrite(file.fd, slot, free)


def head_of(name: SegmentName, accepted: Mapping[bytes, int]) -> bytes:
    """Give the head of a segment that some targets, by their hash, already accepted up to an offset."""
    head = bytearray(_head(name))
    for at, (target, offset) in zip(_slot_offsets(), accepted.items(), strict=False):
        _SLOT.pack_into(head, at, target, offset, _slot_checksum(name, target, offset))
    return bytes(head)


def is_known_format(file: File) -> bool:
    """Tell whether the head names a format that we read; a damaged head counts as known.

    A segment of a later format must be left alone, while one whose head has flipped bits still has
    frames to save: only a head with a right checksum is believed to be another format's.
    """
    head = os.pread(file.fd, _HEAD.size, 0)
    if len(head) < _HEAD.size:
        return True
    magic, found, _, _, checksum = _HEAD.unpack(head)
    is_sound = magic == _MAGIC and checksum == zlib.crc32(head[:_HEAD_SUMMED])
    return not (is_sound and found > FORMAT)


def _listed(spool: File) -> set[str]:
    with entries_of(spool) as entries:
        return {entry.name for entry in entries}


def _head(name: SegmentName) -> bytes:
    summed = _HEAD.pack(_MAGIC, FORMAT, name.destination, name.id, 0)[:_HEAD_SUMMED]
    return (summed + struct.pack("<I", zlib.crc32(summed))).ljust(HEAD_BYTES, b"\0")


def _accepted_max(head: bytes, name: SegmentName, with_extra: bool = True) -> int:
    """Give how far the target that is furthest has accepted; damaged slots count as nothing."""
    furthest = 0
    for at in _slot_offsets():
        target, offset, checksum = _SLOT.unpack_from(head, at)
        counts = with_extra or not target.startswith(_EXTRA)
        if counts and checksum == _slot_checksum(name, target, offset):
            furthest = max(furthest, offset)
    return furthest


def _is_named(spool: File, name: SegmentName, file: File) -> bool:
    """Tell whether the name still leads to the file: it may have been sealed or deleted meanwhile."""
    found = os.stat(name.file_name(), dir_fd=spool.fd, follow_symlinks=False)
    return (found.st_dev, found.st_ino) == file.identity


def _slot_offsets() -> range:
    return range(_SLOTS_AT, _SLOTS_AT + MAX_TARGETS * _SLOT.size, _SLOT.size)


def _slot_checksum(name: SegmentName, target: bytes, offset: int) -> int:
    return zlib.crc32(_SLOT_BODY.pack(target, offset), zlib.crc32(name.id))
