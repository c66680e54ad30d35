"""References: what the manifests that stay name, so that nothing else does.

Entries and shards are shared between generations; a row goes when no manifest that is kept names it.
What a shard names is remembered once, however many generations have it.
"""

from __future__ import annotations

import contextlib

from fallom._core.errors import PayloadError
from fallom._snapshot.database import Rows
from fallom._snapshot.manifest import Root, decode_root
from fallom._snapshot.shards import decode_shard

__all__ = ["References"]


class References:
    """The rows that have to stay, by the manifest that names them."""

    def __init__(self) -> None:
        """Know of no manifest."""
        self._roots: dict[str, Root] = {}  # by the key of its row
        self._entries: dict[str, frozenset[str]] = {}  # by shard

    def look(self, rows: Rows, count: int) -> None:
        """Keep the newest manifests, ``count`` of them; unreadable ones are not kept."""
        newest = rows.manifest_keys()[:count]
        if not all(key in self._roots for key in newest):
            for key, data in rows.manifests(count):
                if key not in self._roots:
                    with contextlib.suppress(PayloadError):
                        self._roots[key] = decode_root(data)
        self._roots = {key: self._roots[key] for key in newest if key in self._roots}
        for shard in self.shards():
            if shard not in self._entries:
                with contextlib.suppress(PayloadError):
                    self.learn(shard, rows.shard(shard))

    def add(self, key: str, root: Root) -> None:
        """Keep one more."""
        self._roots[key] = root

    def learn(self, shard: str, data: bytes | None) -> None:
        """Take in what a shard names.

        Raises:
            PayloadError: It is missing or damaged.
        """
        items = decode_shard(data, shard).values()
        self._entries[shard] = frozenset(
            entry for item in items for entry in item.versions.values()
        )

    def manifests(self) -> set[str]:
        """Give the keys of the manifests that stay."""
        return set(self._roots)

    def shards(self) -> set[str]:
        """Give the shards that they name."""
        return {shard for root in self._roots.values() for shard in root.shards()}

    def entries(self) -> set[str]:
        """Give the entries that they name; forgets shards that none of them names."""
        named = self.shards()
        self._entries = {shard: held for shard, held in self._entries.items() if shard in named}
        own = {entry for root in self._roots.values() for entry in root.entries()}
        return own.union(*self._entries.values())
