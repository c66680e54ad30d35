"""The past of the snapshot: what was published at a time, for explaining, listing and exporting.

The publisher keeps the last 16 manifests and every entry that one of them names. Whoever looks here reads
them by a connection of its own, and holds nothing afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from fallom._core.errors import PayloadError
from fallom._snapshot.database import DATABASE_NAME, DatabaseMissingError, Rows, StrPath, reading
from fallom._snapshot.entries import Compiled, Kind, decode_entry, hash_of
from fallom._snapshot.manifest import Manifest, assemble, decode_root
from fallom._snapshot.section import Item
from fallom._snapshot.shards import decode_shard

__all__ = ["History", "opened_history"]

MANIFESTS_MAX = 1000  # of any version of the publisher
BUSY_TIMEOUT_S = 2.0


class History(NamedTuple):
    """What is kept, newest first; readable while the context that gave it is open."""

    manifests: tuple[Manifest, ...]
    rows: Rows | None

    def at(self, unix_ns: int | None) -> Manifest | None:
        """Give what was published at a time; None of that time is kept. Without a time, the newest."""
        for manifest in self.manifests:
            if unix_ns is None or manifest.published_unix_ns <= unix_ns:
                return manifest
        return None

    def data(self, manifest: Manifest, kind: Kind, key: str, version: int | None) -> bytes | None:
        """Give an entry's bytes; None if it is not known, or its row is lost or damaged."""
        entry_hash = manifest.find(kind, key, version)
        if entry_hash is None or self.rows is None:
            return None
        data = self.rows.entry(entry_hash)
        return data if data is not None and hash_of(data) == entry_hash else None

    def entry(
        self, manifest: Manifest, kind: Kind, key: str, version: int | None = None
    ) -> Compiled | None:
        """Give an entry, compiled; None if it is not known, or its row is lost or damaged."""
        data = self.data(manifest, kind, key, version)
        try:
            return None if data is None else decode_entry(data)
        except PayloadError:
            return None


@contextmanager
def opened_history(directory: StrPath) -> Iterator[History]:
    """Open the history; an empty one where nothing was ever published.

    Call it where no thread of this process forks meanwhile. Blocks for at most 2 s.

    Raises:
        DatabaseError: The database cannot be read.
    """
    try:
        with reading(os.path.join(directory, DATABASE_NAME), BUSY_TIMEOUT_S) as rows:
            yield History(tuple(_decoded(rows)), rows)
    except DatabaseMissingError:
        yield History((), None)


def _decoded(rows: Rows) -> Iterator[Manifest]:
    known: dict[str, Mapping[str, Item]] = {}  # shards; most are of many generations

    def items(shard: str) -> Mapping[str, Item]:
        if shard not in known:
            try:
                known[shard] = decode_shard(rows.shard(shard), shard)
            except PayloadError:  # its keys are not known then
                known[shard] = {}
        return known[shard]

    newer: Manifest | None = None
    for _, data in rows.manifests(MANIFESTS_MAX):
        try:
            manifest = assemble(decode_root(data), items)
        except PayloadError:  # damaged; the others are as good as before
            continue
        if newer is None or manifest.generation != newer.generation:
            yield manifest
            newer = manifest
