"""The part of the control page that shows what became of the records for each extra target.

Six blocks of 256 bytes from 2560 on, in the order of the targets' names. Written by the flusher alone; only
shown.

| offset | bytes | field |
| --- | --- | --- |
| 0 | 32 | name, padded with NUL; none: the block is not in use |
| 32 | 12 x 8 | counters (``TargetCount``) |
| 128 | 128 | last error, UTF-8, padded with NUL |
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Mapping
from typing import NamedTuple

from fallom._host.control import ControlPage

__all__ = ["TARGET_DROPS", "TargetBoard", "TargetCount", "TargetState"]

BLOCKS = 6
_AT, _BLOCK_BYTES = 2560, 256
_NAME_BYTES, _ERROR_BYTES = 32, 128
_COUNTS = struct.Struct("<12Q")
_COUNTS_AT, _ERROR_AT = 32, 128


class TargetCount(enum.IntEnum):
    """What is counted of an extra target. The number is its place in the block."""

    ACCEPTED = 0
    BATCHES_SENT = 1
    BATCHES_RETRIED = 2
    REFUSED = 3  # for good; they are in dead/
    REJECTED = 4  # of accepted batches (partial success)
    BUDGET = 5  # given up: more than the target's own budget was held for it
    AGED = 6  # given up: held for it for too long
    QUOTA = 7  # given up: the spool was full, and the main target came first
    DEAD_EVICTED = 8  # fell out of its part of dead/
    PAUSED_UNTIL = 9  # wall-clock s, 0 for none


# Records that a target will not get; the others of them are with it, or wait.
TARGET_DROPS = (
    TargetCount.REFUSED,
    TargetCount.REJECTED,
    TargetCount.BUDGET,
    TargetCount.AGED,
    TargetCount.QUOTA,
    TargetCount.DEAD_EVICTED,
)


class TargetState(NamedTuple):
    """What a block says."""

    name: str
    counts: dict[TargetCount, int]
    last_error: str


class TargetBoard:
    """The blocks of one page."""

    def __init__(self, page: ControlPage) -> None:
        """Read nothing yet."""
        self._page = page

    def states(self) -> list[TargetState]:
        """Give the blocks in use."""
        found = [self._state(number) for number in range(BLOCKS)]
        return [state for state in found if state.name]

    def begin(self, number: int, name: str) -> None:
        """Say whose block it is; counts of another's are forgotten."""
        if self._state(number).name != name:
            block = name.encode().ljust(_BLOCK_BYTES, b"\0")
            self._page.write(_offset(number), block)

    def add(self, number: int, counts: Mapping[TargetCount, int]) -> None:
        """Add to counters."""
        known = self._state(number).counts
        for count, more in counts.items():
            self._write(number, count, known[count] + more)

    def set_paused(self, number: int, until_unix_s: int) -> None:
        """Show until when the target is left alone; 0 for none."""
        self._write(number, TargetCount.PAUSED_UNTIL, until_unix_s)

    def set_last_error(self, number: int, message: str) -> None:
        """Show its last error, cut to 128 bytes of UTF-8."""
        raw = message.encode("utf-8", "replace")[:_ERROR_BYTES]
        self._page.write(_offset(number) + _ERROR_AT, raw.ljust(_ERROR_BYTES, b"\0"))

    def _state(self, number: int) -> TargetState:
        block = self._page.read(_offset(number), _BLOCK_BYTES)
        counts = _COUNTS.unpack_from(block, _COUNTS_AT)
        return TargetState(
            _text(block[:_NAME_BYTES]),
            {count: counts[count] for count in TargetCount},
            _text(block[_ERROR_AT:]),
        )

    def _write(self, number: int, count: TargetCount, value: int) -> None:
        at = _offset(number) + _COUNTS_AT + 8 * count
        self._page.write(at, struct.pack("<Q", value & 0xFFFF_FFFF_FFFF_FFFF))


def _offset(number: int) -> int:
    return _AT + number * _BLOCK_BYTES


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("utf-8", "replace")
