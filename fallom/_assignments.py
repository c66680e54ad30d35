"""What this process assigned: told to the server once a session, remembered for the session's calls.

Both memories are bounded. What is forgotten is told once more, which changes nothing, or is missing from
a span.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

from fallom._core.assignment import CompiledConfig
from fallom._core.recent import Recent, RecentValues
from fallom._core.span import AttributeValue
from fallom._session_attributes import assigned_attributes
from fallom._spool.frame import pack

__all__ = ["Assignments", "Made"]

REMEMBERED_MAX = 8_000
_WAYS_MAX = 1_000  # config, version, variant, reason, generation: as many as are in use
# Of msgpack: an array, the heads of short texts by their length, a number.
_ARRAY_OF_5, _UINT64 = b"\x95", b"\xcf"
_SHORT = [bytes([0xA0 + length]) for length in range(32)]
_SHORT += [bytes([0xD9, length]) for length in range(32, 256)]
_pack_time = struct.Struct(">sQ").pack
_ID_CHARS_MAX = 256  # of ids that are remembered: bounds the memory to a few MiB


class Made(NamedTuple):
    """An assignment; one object for all sessions that got theirs in the same way."""

    model: str
    generation: int  # of the snapshot for which it holds; -1: it hangs on more than the session
    attributes: Mapping[str, AttributeValue]  # of the session's spans
    config: CompiledConfig  # what decided; as long as it is kept, no other has its id
    told_as: int  # hash of all that the server is told of it but the session
    before_id: bytes  # of the record of an exposure, packed, what stands before the session's id
    after_id: bytes  # and between that and the time

    def exposure(self, session_id: str, unix_ns: int) -> bytes | None:
        """Give the packed ``Exposure`` of a session; None for an id that is not as most are.

        By hand it takes 0.1 us, by msgpack 0.2.
        """
        try:
            raw = session_id.encode()
        except UnicodeEncodeError:
            return None
        length = len(raw)
        if length >= len(_SHORT) or type(session_id) is not str:
            return None
        return b"".join(
            (self.before_id, _SHORT[length], raw, self.after_id, _pack_time(_UINT64, unix_ns))
        )


class Assignments(RecentValues[tuple[str, str], Made]):
    """What was last assigned, by config key and session, of one process; a forked child goes on with it."""

    __slots__ = ("_told", "_ways")

    def __init__(self) -> None:
        """Start with nothing known."""
        super().__init__(REMEMBERED_MAX)
        self._told = Recent(REMEMBERED_MAX)
        self._ways: dict[tuple[int, int, str, int], Made] = {}

    def by_weight(
        self, config: CompiledConfig, session_id: str, index: int, generation: int, is_last: bool
    ) -> Made | None:
        """Take what the weights gave to a session.

        Args:
            config: Whose weights.
            session_id: The session.
            index: The variant's.
            generation: Of the snapshot for which it holds, see ``Made``.
            is_last: Whether it is remembered as the last one although it was told before.

        Returns:
            What was assigned, if it was not told before; it counts as told from now on.
        """
        way = id(config), index, "weight", generation
        made = self._ways.get(way) or self._way(config, *way[1:])
        is_new = self._told.is_new(hash((made.told_as, session_id)))
        if (is_new or is_last) and len(session_id) <= _ID_CHARS_MAX:
            self.remember((config.key, session_id), made)
        return made if is_new else None

    def is_new(self, config: CompiledConfig, session_id: str, index: int) -> bool:
        """Tell whether this assignment was not told before; it counts as told from now on."""
        return self._told.is_new(hash((_told_as(config, index), session_id)))

    def by_targeting(
        self, config: CompiledConfig, session_id: str, index: int, reason: str
    ) -> Made:
        """Take what targeting decided for a session, in this call: the next may have another context."""
        made = self._way(config, index, reason, -1)
        if len(session_id) <= _ID_CHARS_MAX:
            self.remember((config.key, session_id), made)
        return made

    def _way(self, config: CompiledConfig, index: int, reason: str, generation: int) -> Made:
        way = id(config), index, reason, generation
        made = self._ways.get(way)
        if made is None:
            if len(self._ways) >= _WAYS_MAX:
                self._ways.clear()
            attributes = assigned_attributes(config.version, index, reason)
            model, told_as = config.models[index], _told_as(config, index)
            before_id = _ARRAY_OF_5 + pack(config.key) + pack(config.version)
            made = Made(model, generation, attributes, config, told_as, before_id, pack(model))
            self._ways[way] = made
        return made


def _told_as(config: CompiledConfig, index: int) -> int:
    return hash((config.key, config.version, config.models[index]))
