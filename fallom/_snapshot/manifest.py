"""The manifest: which keys there are, their versions, and the hash of each version's entry.

One manifest is one generation of the snapshot, immutable. As bytes it is the SHA-256 of the rest (32
bytes), then one msgpack array: ``[1, generation, published unix ns, configs, prompts, A/B tests]``.
Each of the three is one of

- nil: this publisher has never heard of them, and a reader keeps what it had;
- a map ``key -> item``, see ``section``, where there are at most 128 keys;
- an array ``[number of keys, [removed keys], table of shards]`` where there are more, see ``shards``.

Earlier publishers wrote a map however many keys there were: it is read, and written in shards with the
next change. Elements may be added at the end; a reader ignores those that it does not know. Another
format, or a checksum that does not fit, is no manifest.

``Root`` is what those bytes say, and all that a worker reads of it whole. ``Manifest`` is everything,
with all shards; that is the publisher's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import msgpack

from fallom._core.digest import sha256
from fallom._core.errors import PayloadError
from fallom._snapshot.entries import Kind
from fallom._snapshot.section import MALFORMED, Item, having, pack_item, text, unpack_item, whole
from fallom._snapshot.shards import WHOLE_MAX, Shards, divide, is_table

__all__ = [
    "MANIFEST_BYTES_MAX",
    "Manifest",
    "Root",
    "Sections",
    "assemble",
    "decode_root",
    "encode_root",
    "root_of",
]

MANIFEST_BYTES_MAX = 256 << 20  # of an earlier publisher: two million keys; bounds what is loaded

_FORMAT = 1
_DIGEST_BYTES = 32


Sections: TypeAlias = "Mapping[Kind, Mapping[str, Item]]"  # a kind that is absent is not known


class Root(NamedTuple):
    """One generation as its own row says it; 0 means that nothing was ever published."""

    generation: int = 0
    published_unix_ns: int = 0
    sections: Mapping[Kind, Mapping[str, Item] | Shards] = {}

    def removed(self) -> tuple[str, ...]:
        """Give the keys that the server no longer lists, as ``config 'x'``."""
        return tuple(
            f"{kind.name.lower()} {key!r}"
            for kind, section in self.sections.items()
            for key in _removed(section)
        )

    def over(self, earlier: Root) -> Root:
        """Give this generation, with what ``earlier`` says of the kinds that this one does not know."""
        return self._replace(sections={**earlier.sections, **self.sections})

    def shards(self) -> Iterator[str]:
        """Give the hash of every shard."""
        for section in self.sections.values():
            if isinstance(section, Shards):
                yield from section.hashes()

    def entries(self) -> Iterator[str]:
        """Give the hash of every entry that stands here and not in a shard."""
        for section in self.sections.values():
            if not isinstance(section, Shards):
                for item in section.values():
                    yield from item.versions.values()


class Manifest(NamedTuple):
    """One generation of the snapshot, whole; 0 means that nothing was ever published."""

    generation: int = 0
    published_unix_ns: int = 0
    sections: Mapping[Kind, Mapping[str, Item]] = {}

    def find(self, kind: Kind, key: str, version: int | None) -> str | None:
        """Give the hash of an entry; ``version`` None is the current one."""
        item = self.sections.get(kind, {}).get(key)
        return None if item is None else item.hash_of(version)

    def hashes(self) -> Iterator[str]:
        """Give the hash of every entry that this generation names."""
        for section in self.sections.values():
            for item in section.values():
                yield from item.versions.values()

    def having(self, hashes: set[str]) -> Manifest:
        """Give this manifest without the versions whose entry is not among ``hashes``."""
        sections = {kind: dict(having(section, hashes)) for kind, section in self.sections.items()}
        return self._replace(sections=sections)


def root_of(manifest: Manifest, before: Manifest, root: Root) -> tuple[Root, dict[str, bytes]]:
    """Give the root of a manifest, and the bytes of shards that are new, by hash.

    Args:
        manifest: What is to be published.
        before: What was published before.
        root: The root of that; shards without a change are taken from it.
    """
    sections: dict[Kind, Mapping[str, Item] | Shards] = {}
    made: dict[str, bytes] = {}
    for kind, section in manifest.sections.items():
        if len(section) <= WHOLE_MAX:
            sections[kind] = section
            continue
        earlier = root.sections.get(kind)
        known = (before.sections[kind], earlier) if isinstance(earlier, Shards) else None
        shards, new = divide(section, known)
        sections[kind] = shards
        made.update(new)
    return Root(manifest.generation, manifest.published_unix_ns, sections), made


def assemble(root: Root, items: Callable[[str], Mapping[str, Item]]) -> Manifest:
    """Give the manifest of a root; ``items`` gives those of a shard, by its hash."""
    sections: dict[Kind, Mapping[str, Item]] = {}
    for kind, section in root.sections.items():
        if isinstance(section, Shards):
            sections[kind] = {
                key: item for each in section.hashes() for key, item in items(each).items()
            }
        else:
            sections[kind] = section
    return Manifest(root.generation, root.published_unix_ns, sections)


def encode_root(root: Root) -> bytes:
    """Give the bytes of a manifest's row."""
    sections = [_encode_section(root.sections.get(kind)) for kind in Kind]
    body: bytes = msgpack.packb([_FORMAT, root.generation, root.published_unix_ns, *sections])
    return sha256(body).digest() + body


def decode_root(data: bytes) -> Root:
    """Read a manifest's row.

    Raises:
        PayloadError: These bytes are no manifest of this format.
    """
    body = memoryview(data)[_DIGEST_BYTES:]
    if sha256(body).digest() != data[:_DIGEST_BYTES]:
        raise PayloadError("the snapshot's manifest does not fit its checksum; expected it to.")
    try:
        fields = msgpack.unpackb(body, strict_map_key=True)
        if type(fields) is not list or fields[0] != _FORMAT:
            raise PayloadError(f"the snapshot's manifest is not of format {_FORMAT}.")
        sections = {
            kind: _decode_section(section)
            for kind, section in zip(Kind, fields[3:], strict=False)
            if section is not None
        }
        return Root(whole(fields[1]), whole(fields[2]), sections)
    except PayloadError:
        raise
    except MALFORMED as error:
        raise PayloadError(
            f"the snapshot's manifest is malformed ({type(error).__name__})."
        ) from None


def _removed(section: Mapping[str, Item] | Shards) -> tuple[str, ...]:
    if isinstance(section, Shards):
        return section.removed
    return tuple(key for key, item in section.items() if item.removed_unix_ns)


def _encode_section(section: Mapping[str, Item] | Shards | None) -> Any:
    if section is None:
        return None
    if isinstance(section, Shards):
        return [section.keys, section.removed, section.table]
    return {key: pack_item(item) for key, item in section.items()}


def _decode_section(section: Any) -> Mapping[str, Item] | Shards:
    if type(section) is list:
        keys, removed, table = section[:3]
        if type(removed) is not list or not is_table(table):
            raise TypeError
        return Shards(keys=whole(keys), removed=tuple(map(text, removed)), table=table)
    return {text(key): unpack_item(item) for key, item in section.items()}
