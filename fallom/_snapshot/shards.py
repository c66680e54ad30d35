"""Shards: a section of many keys, cut by the hash of the key, so that one change costs one piece.

A section of more than 128 keys is not in the manifest itself. Its keys are spread over a power of two of
shards, by the lowest bits of the CRC-32 of the key's UTF-8; each shard is a row of its own, immutable,
under the hash of its bytes, as entries are. The manifest has the hashes. Whoever knows the shard's hash
knows whether anything in it changed; a worker reads the shards of the keys that it uses.

A shard is one msgpack array, canonical: ``[1, {key: item, ...}]``, keys sorted, items as the manifest
has them. Elements may be added at the end. In the manifest such a section is the array ``[number of keys,
[removed keys], table]``, the table being the shards' hashes, 16 bytes each, in the order of their number.

Worked example, a shard with the key "k" whose current version 2 is the entry "ab":
``92 01 81 a1 6b 93 02 00 92 02 a2 61 62``. The CRC-32 of "k" is 0x0862575d, so of 4
shards it is number 1, and of 8 number 5.

The number of shards stays while a shard has 16 to 128 keys on average; then all are written anew.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping

import msgpack

from fallom._core.errors import PayloadError
from fallom._core.frozen import Frozen
from fallom._snapshot.entries import hash_of
from fallom._snapshot.section import MALFORMED, Item, pack_item, text, unpack_item

__all__ = ["SHARD_BYTES_MAX", "WHOLE_MAX", "Shards", "decode_shard", "divide"]

WHOLE_MAX = 128  # keys that a section holds without shards: decoded in half a millisecond
SHARD_BYTES_MAX = (
    64 << 20
)  # bounds what a reader loads; 128 keys of 64 versions are half a megabyte

_KEYS_MIN, _KEYS_MADE, _KEYS_MAX = 16, 32, 128  # of a shard, on average
_HASH_BYTES = 16
_FORMAT = 1


class Shards(Frozen):
    """A section whose items are in shards."""

    keys: int
    removed: tuple[str, ...]  # keys that the server no longer lists
    table: bytes

    def __len__(self) -> int:
        """Give how many keys there are."""
        return self.keys

    @property
    def count(self) -> int:
        """How many shards there are."""
        return len(self.table) // _HASH_BYTES

    def hash_at(self, number: int) -> str:
        """Give the hash of a shard."""
        return self.table[number * _HASH_BYTES : (number + 1) * _HASH_BYTES].hex()

    def hash_for(self, key: str) -> str:
        """Give the hash of the shard in which a key is, if it is anywhere."""
        return self.hash_at(_number(key, self.count))

    def hashes(self) -> Iterator[str]:
        """Give the hashes of all shards."""
        return map(self.hash_at, range(self.count))


def is_table(table: object) -> bool:
    """Tell whether this can be the table of a section."""
    if type(table) is not bytes or len(table) % _HASH_BYTES:
        return False
    count = len(table) // _HASH_BYTES
    return count > 0 and count & (count - 1) == 0


def divide(
    section: Mapping[str, Item], before: tuple[Mapping[str, Item], Shards] | None
) -> tuple[Shards, dict[str, bytes]]:
    """Cut a section into shards.

    Args:
        section: Its items.
        before: An earlier state and its shards: those without a change are taken from there.

    Returns:
        The shards, and the bytes of those that are new, by hash.
    """
    count = _fitting_count(len(section), before[1].count if before else 0)
    numbers: Iterable[int] = range(count)
    table = bytearray(count * _HASH_BYTES)
    if before is not None and before[1].count == count:
        numbers = {_number(key, count) for key in _changed(before[0], section)}
        table[:] = before[1].table
    items: dict[int, dict[str, Item]] = {number: {} for number in numbers}
    for key, item in section.items():
        held = items.get(_number(key, count))
        if held is not None:
            held[key] = item
    made: dict[str, bytes] = {}
    for number, held in items.items():
        data = _encode_shard(held)
        name = hash_of(data)
        made[name] = data
        table[number * _HASH_BYTES : (number + 1) * _HASH_BYTES] = bytes.fromhex(name)
    removed = tuple(key for key, item in section.items() if item.removed_unix_ns)
    return Shards(keys=len(section), removed=removed, table=bytes(table)), made


def decode_shard(data: bytes | None, shard_hash: str) -> dict[str, Item]:
    """Read a shard.

    Raises:
        PayloadError: It is missing, or these bytes are not it.
    """
    if data is None or hash_of(data) != shard_hash:
        state = "missing" if data is None else "damaged"
        raise PayloadError(
            f"shard {shard_hash} of the snapshot is {state}; expected it to be whole."
        )
    try:
        fields = msgpack.unpackb(data, strict_map_key=True)
        if type(fields) is not list or fields[0] != _FORMAT:
            raise PayloadError(f"a shard of the snapshot is not of format {_FORMAT}.")
        return {text(key): unpack_item(item) for key, item in fields[1].items()}
    except PayloadError:
        raise
    except MALFORMED as error:
        raise PayloadError(
            f"a shard of the snapshot is malformed ({type(error).__name__})."
        ) from None


def _encode_shard(items: Mapping[str, Item]) -> bytes:
    packed = {key: pack_item(items[key]) for key in sorted(items)}
    data: bytes = msgpack.packb([_FORMAT, packed])
    return data


def _number(key: str, count: int) -> int:
    return zlib.crc32(key.encode("utf-8", "surrogatepass")) & count - 1


def _changed(before: Mapping[str, Item], after: Mapping[str, Item]) -> Iterator[str]:
    for key, item in after.items():
        if before.get(key) != item:
            yield key
    for key in before.keys() - after.keys():
        yield key


def _fitting_count(keys: int, before: int) -> int:
    if before and _KEYS_MIN <= keys / before <= _KEYS_MAX:
        return before
    count = 1
    while count * _KEYS_MADE < keys:
        count *= 2
    return count
