"""The index: from a key to the hash of its entry, by the shards that were read.

A small section is in the manifest, and all of it is known. Of a large one only the last shards are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from fallom._snapshot.database import Rows
from fallom._snapshot.entries import Kind
from fallom._snapshot.manifest import Root
from fallom._snapshot.section import Item
from fallom._snapshot.shards import Shards, decode_shard

__all__ = ["Index", "Name", "is_same_shard"]

SHARDS_HELD = 64  # decoded, some 10 KiB each: an unknown key that is asked for again costs no read

Name: TypeAlias = "tuple[Kind, str, int | None]"  # kind, key, version; None is the current one


class Index:
    """Looks names up. One thread at a time reads; ``next_row`` may be called at any time."""

    def __init__(self) -> None:
        """Have read nothing."""
        self._shards: dict[str, Mapping[str, Item]] = {}

    def next_row(self, root: Root, name: Name) -> str | None:
        """Give the hash of the row to read for a name; None if it is known that there is none.

        It is that of the name's entry, or of its shard, where that is not held.
        """
        kind, key, version = name
        section = root.sections.get(kind, {})
        if isinstance(section, Shards):
            shard_hash = section.hash_for(key)
            held = self._shards.get(shard_hash)
            if held is None:
                return shard_hash
            section = held
        item = section.get(key)
        return None if item is None else item.hash_of(version)

    def find(self, rows: Rows, root: Root, name: Name) -> str | None:
        """Give the hash of a name's entry, reading its shard if need be; None if it is not known.

        Raises:
            PayloadError: The shard is missing or damaged.
        """
        kind, key, version = name
        section = root.sections.get(kind, {})
        if isinstance(section, Shards):
            section = self._items(rows, section.hash_for(key))
        item = section.get(key)
        return None if item is None else item.hash_of(version)

    def _items(self, rows: Rows, shard_hash: str) -> Mapping[str, Item]:
        held = self._shards.get(shard_hash)
        if held is None:
            held = decode_shard(rows.shard(shard_hash), shard_hash)
            while len(self._shards) >= SHARDS_HELD:
                del self._shards[next(iter(self._shards))]
            self._shards[shard_hash] = held
        return held


def is_same_shard(before: Root, after: Root, name: Name) -> bool:
    """Tell whether a name is in a shard that did not change from one generation to another."""
    kind, key, _ = name
    old, new = before.sections.get(kind), after.sections.get(kind)
    if not (isinstance(old, Shards) and isinstance(new, Shards)):
        return False
    return old.hash_for(key) == new.hash_for(key)
