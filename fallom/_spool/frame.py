"""THE format of the spool: a record in a frame. Who writes: workers. Who reads: the flusher.

A frame is one msgpack value behind a 16-byte header, written by one ``write(2)`` and never longer
than 1 MiB: 1.7 million such writes were never seen torn by a kill, from 4 MiB on they are.

| offset | bytes | field | meaning |
| --- | --- | --- | --- |
| 0 | 4 | magic | ``f1 0c 4d 7e``; where reading goes on after damage |
| 4 | 1 | version | 1; a frame of another version counts as one of an unknown kind |
| 5 | 1 | kind | ``Kind``; a frame of an unknown kind is not sent: it goes to ``dead/``, and is counted |
| 6 | 2 | reserved | 0; ignored |
| 8 | 4 | length | of the payload, little-endian, at most 1 MiB - 16 |
| 12 | 4 | checksum | CRC-32 of the segment's id, then of bytes 4 to 11, then of the payload (erased: not) |
| 16 | length | payload | one msgpack value |

The checksum starts from the segment's random id, so that text which a user put into a span (say, a
copy of a spool file) is never taken for a frame when reading resumes in the middle of a damaged one.

Worked example, id of 16 zero bytes, kind WISH, record ``["k", 2]``::

    f1 0c 4d 7e  01 04 00 00  04 00 00 00  c6 8b b2 88  92 a1 6b 02

What is erased keeps its place: the kind and the checksum of its header are overwritten, then its payload
with zeros. Since that checksum is the header's alone, the frame is whole between the two steps.

What damage means: ``scan`` gives each whole frame and, between them, the ``Damage`` that it stepped
over, found by looking for the next magic whose frame has a right checksum; k flipped bits cost at
most k frames. A frame that the data ends within is ``incomplete``: its writer may be at it, so the
reader waits, unless a whole frame stands behind it or the writer is gone. Then it is damage too.
"""

from __future__ import annotations

import enum
import struct
import zlib
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgpack

__all__ = [
    "FRAME_BYTES_MAX",
    "HEADER_BYTES",
    "KIND_AT",
    "NOT_SENT",
    "RECORD_BYTES_MAX",
    "Damage",
    "Frame",
    "FrameEncoder",
    "FrameTooLargeError",
    "Kind",
    "RecordError",
    "decode_record",
    "encode_frame",
    "encode_tombstone",
    "new_packer",
    "pack",
    "scan",
    "seed_of",
]

FRAME_BYTES_MAX = 1 << 20
HEADER_BYTES = 16
KIND_AT = 5  # in a frame
VERSION = 1

_MAGIC = b"\xf1\x0c\x4d\x7e"
_PREFIX = struct.Struct("<BBHI")  # version, kind, reserved, length: what the checksum covers
_CHECKSUM = struct.Struct("<I")
_HEADER = struct.Struct("<12sI")  # magic and prefix, checksum
_crc32, _pack_header = zlib.crc32, _HEADER.pack  # of each record
_KEPT_BYTES_MAX = 512  # of payloads whose heads are kept: 150 KiB a kind, if all lengths come
_PAYLOAD_MAX = FRAME_BYTES_MAX - HEADER_BYTES
RECORD_BYTES_MAX = FRAME_BYTES_MAX - (64 << 10)  # leaves room for what a dead letter adds to it


class Kind(enum.IntEnum):
    """What a frame holds. A number is never used again for something else."""

    UNKNOWN = 0  # never written: a frame of another version
    HEADER = 1  # resource attributes of the writer, for the frames that follow
    SPAN = 2
    START = 3  # a call that began: its span without end and content; the span is its tombstone
    WISH = 4
    EXPOSURE = 5
    METRICS = 6
    DEAD = 7  # in dead/ only: what was refused, why, and the record's own frame kind
    ERASED = 8  # its record was removed, and nothing is left of it


_MAY_BE_LONGER: Final = (Kind.DEAD, Kind.ERASED)  # as long as a frame can be
NOT_SENT: Final = (Kind.HEADER, Kind.START, Kind.ERASED)


class Frame(NamedTuple):
    """A whole frame as found: payload not decoded yet."""

    offset: int
    end: int
    kind: int
    payload: bytes


class Damage(NamedTuple):
    """Bytes that are no frame. ``is_incomplete`` says that the data ended within one."""

    offset: int
    end: int
    is_incomplete: bool


class RecordError(ValueError):
    """A record that cannot be put into a frame, or a payload that is no record."""


class FrameTooLargeError(RecordError):
    """A record of more than 1 MiB."""


def pack(record: Any) -> bytes:
    """Pack a record by msgpack.

    Raises:
        RecordError: It holds what msgpack cannot say.
    """
    try:
        packed: bytes = msgpack.packb(record, use_bin_type=True, unicode_errors="surrogatepass")
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise RecordError(f"{type(error).__name__}: {error}") from None
    return packed


def new_packer() -> Any:
    """Give a packer whose ``pack`` gives what ``pack`` here gives, or raises where that may not.

    It takes no lone surrogates: their error handler makes all text dearer, 0.2 us of a record.
    """
    return msgpack.Packer()


def encode_frame(kind: int, payload: bytes, seed: int) -> bytes:
    """Put a packed record into a frame.

    Args:
        kind: ``Kind``.
        payload: What ``pack`` gave.
        seed: ``seed_of`` the segment that the frame is written to.

    Raises:
        FrameTooLargeError: It is longer than ``RECORD_BYTES_MAX``; of a dead letter, than 1 MiB.
    """
    head, checksum = _head_of(kind, len(payload), seed)
    return _pack_header(head, _crc32(payload, checksum)) + payload


class FrameEncoder(dict[tuple[int, int], tuple[bytes, int]]):
    """Puts records into frames of one segment, as ``encode_frame``: of each record of a process.

    What of a header kind and length alone say, and its checksum, is kept by both: metrics and exposures are
    as long as others. That takes a quarter off, 0.1 us.
    """

    __slots__ = ("_seed",)

    def __init__(self, seed: int) -> None:
        """Take ``seed_of`` the segment."""
        super().__init__()
        self._seed = seed

    def __missing__(self, kind_and_length: tuple[int, int]) -> tuple[bytes, int]:
        kind, length = kind_and_length
        found = _head_of(kind, length, self._seed)
        if length <= _KEPT_BYTES_MAX:
            self[kind_and_length] = found
        return found

    def frame(self, kind: int, payload: bytes) -> bytes:
        """Put a packed record into a frame.

        Raises:
            FrameTooLargeError: As ``encode_frame``.
        """
        head, checksum = self[kind, len(payload)]
        return _pack_header(head, _crc32(payload, checksum)) + payload


def encode_tombstone(payload_bytes: int, seed: int) -> bytes:
    """Give the header of an erased frame, to be written over that of a frame with such a payload."""
    return _pack_header(*_head_of(Kind.ERASED, payload_bytes, seed))


def _head_of(kind: int, length: int, seed: int) -> tuple[bytes, int]:
    """Give a frame's header up to the checksum, and the checksum of it alone."""
    if length > RECORD_BYTES_MAX and (kind not in _MAY_BE_LONGER or length > _PAYLOAD_MAX):
        raise FrameTooLargeError(f"a record of {length} bytes; at most {RECORD_BYTES_MAX}")
    prefix = _PREFIX.pack(VERSION, kind, 0, length)
    return _MAGIC + prefix, _crc32(prefix, seed)


def seed_of(segment_id: bytes) -> int:
    """Give what the checksums of a segment's frames start from."""
    return zlib.crc32(segment_id)


def decode_record(payload: bytes) -> Any:
    """Unpack a record; lengths are bounded by the payload's own.

    Raises:
        RecordError: It is no single msgpack value, or nested too deeply.
    """
    try:
        try:
            return msgpack.unpackb(payload, **_UNPACKING)
        except TypeError:  # a key of several values, which msgpack can say and Python cannot hash
            return msgpack.unpackb(payload, object_pairs_hook=_mapping, **_UNPACKING)
    except (ValueError, RecursionError, msgpack.UnpackException, TypeError) as error:
        raise RecordError(f"{type(error).__name__}: {error}") from None


def scan(data: bytes, start: int, seed: int, at: int = 0) -> Iterator[Frame | Damage]:
    """Give the frames of ``data`` from ``start`` on, and the damage between them, in order.

    Args:
        data: Part of a segment, without its head.
        start: Where a frame is expected.
        seed: ``seed_of`` the segment.
        at: Offset in the file of ``data[0]``; added to every offset given.
    """
    position, end = start, len(data)
    while position < end:
        found = _frame_at(data, position, seed)
        if found is None:
            following, incomplete_at = _resynchronise(data, position, seed)
            if following < end:
                yield Damage(at + position, at + following, is_incomplete=False)
                position = following
                continue
            if incomplete_at > position:
                yield Damage(at + position, at + incomplete_at, is_incomplete=False)
            if incomplete_at < end:
                yield Damage(at + incomplete_at, at + end, is_incomplete=True)
            return
        kind, payload_end = found
        payload = data[position + HEADER_BYTES : payload_end]
        yield Frame(at + position, at + payload_end, kind, payload)
        position = payload_end


def _frame_at(data: bytes, position: int, seed: int) -> tuple[int, int] | None:
    """Give (kind, end) of the whole frame at ``position``, None if there is none."""
    if data[position : position + 4] != _MAGIC or position + HEADER_BYTES > len(data):
        return None
    version, kind, _, length = _PREFIX.unpack_from(data, position + 4)
    end = position + HEADER_BYTES + length
    if length > _PAYLOAD_MAX or end > len(data):
        return None
    view = memoryview(data)
    checksum = zlib.crc32(view[position + 4 : position + 12], seed)
    if kind != Kind.ERASED:
        checksum = zlib.crc32(view[position + HEADER_BYTES : end], checksum)
    if _CHECKSUM.unpack_from(data, position + 12)[0] != checksum:
        return None
    return (kind if version == VERSION else Kind.UNKNOWN), end


def _resynchronise(data: bytes, position: int, seed: int) -> tuple[int, int]:
    """Find the next whole frame behind ``position``.

    Returns:
        Its offset (the length of ``data`` if there is none), and from where on the data may be a
        frame that is still being written.
    """
    end = len(data)
    incomplete_at = -1
    candidate = position - 1
    while True:
        candidate = data.find(_MAGIC[:1], candidate + 1)
        if candidate < 0:
            return end, end if incomplete_at < 0 else incomplete_at
        if candidate > position and _frame_at(data, candidate, seed) is not None:
            return candidate, candidate
        if incomplete_at < 0 and _may_be_incomplete(data, candidate):
            incomplete_at = candidate


def _may_be_incomplete(data: bytes, position: int) -> bool:
    """Tell whether the data ends within what may be a frame at ``position``."""
    head = data[position : position + 4]
    if head != _MAGIC[: len(head)]:
        return False
    if position + HEADER_BYTES > len(data):
        return True
    length: int = _PREFIX.unpack_from(data, position + 4)[3]
    return length <= _PAYLOAD_MAX and position + HEADER_BYTES + length > len(data)


def _no_extension(code: int, _data: bytes) -> Any:
    raise ValueError(f"msgpack extension {code} is not used by fallom")


def _mapping(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    return {str(name) if isinstance(name, list) else name: value for name, value in pairs}


_UNPACKING: Final[dict[str, Any]] = {
    "raw": False,
    "strict_map_key": False,
    "unicode_errors": "surrogatepass",
    "ext_hook": _no_extension,
}
