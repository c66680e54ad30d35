"""The manifest: which keys there are, their versions, and the hash of each version's entry.

One manifest is one generation of the snapshot, immutable. As bytes it is the SHA-256 of the rest (32
bytes), then one msgpack array: ``[1, generation, published unix ns, configs, prompts, A/B tests]``.
Each of the three is nil (this publisher has never heard of them: a reader keeps what it had) or a map
``key -> [current version or nil, unix ns of its removal or 0, [version, hash, version, hash, ...]]``,
versions in the order in which they came. Elements may be added at the end; a reader ignores those that
it does not know. Another format, or a checksum that does not fit, is no manifest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

import msgpack

from fallom._core.errors import PayloadError
from fallom._snapshot.entries import VERSION_MAX, Entry, Kind

__all__ = [
    "MANIFEST_BYTES_MAX",
    "Item",
    "Manifest",
    "Sections",
    "decode_manifest",
    "encode_manifest",
    "with_listed",
    "with_pinned",
]

MANIFEST_BYTES_MAX = 256 << 20  # about two million keys; bounds what a reader loads
VERSIONS_MAX = 64  # of one key; guess: pins older than that are asked for again (configs) or gone
REMOVED_MAX = 1000  # keys that are no longer listed; beyond, the longest removed one is forgotten

_FORMAT = 1
_DIGEST_BYTES = 32


class Item(NamedTuple):
    """What is known of one key."""

    current: int | None  # None: only pinned versions are known
    removed_unix_ns: int  # since when the server does not list it, 0 while it does
    versions: Mapping[int, str]  # version -> hash, in the order in which they came


Sections: TypeAlias = "Mapping[Kind, Mapping[str, Item]]"  # a kind that is absent is not known


@dataclass(frozen=True, slots=True)
class Manifest:
    """One generation of the snapshot; 0 means that nothing was ever published."""

    generation: int = 0
    published_unix_ns: int = 0
    sections: Sections = field(default_factory=dict)

    def find(self, kind: Kind, key: str, version: int | None) -> str | None:
        """Give the hash of an entry; ``version`` None is the current one."""
        item = self.sections.get(kind, {}).get(key)
        if item is None:
            return None
        wanted = item.current if version is None else version
        return None if wanted is None else item.versions.get(wanted)

    def hashes(self) -> Iterator[str]:
        """Give the hash of every entry that this generation names."""
        for section in self.sections.values():
            for item in section.values():
                yield from item.versions.values()

    def removed(self) -> tuple[str, ...]:
        """Give the keys that the server no longer lists, as ``config 'x'``."""
        return tuple(
            f"{kind.name.lower()} {key!r}"
            for kind, section in self.sections.items()
            for key, item in section.items()
            if item.removed_unix_ns
        )

    def over(self, earlier: Manifest) -> Manifest:
        """Give this manifest, with what ``earlier`` says of the kinds that this one does not know."""
        return replace(self, sections={**earlier.sections, **self.sections})

    def having(self, hashes: Set[str]) -> Manifest:
        """Give this manifest without the versions whose entry is not among ``hashes``."""
        return replace(
            self,
            sections={
                kind: dict(_having(section, hashes)) for kind, section in self.sections.items()
            },
        )


def encode_manifest(manifest: Manifest) -> bytes:
    """Give the bytes of a manifest."""
    sections = [_encode_section(manifest.sections.get(kind)) for kind in Kind]
    body: bytes = msgpack.packb(
        [_FORMAT, manifest.generation, manifest.published_unix_ns, *sections]
    )
    return hashlib.sha256(body).digest() + body


def decode_manifest(data: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        PayloadError: These bytes are no manifest of this format.
    """
    body = memoryview(data)[_DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != data[:_DIGEST_BYTES]:
        raise PayloadError("the snapshot's manifest does not fit its checksum; expected it to.")
    try:
        fields = msgpack.unpackb(body, strict_map_key=True)
        if type(fields) is not list or fields[0] != _FORMAT:
            raise PayloadError(f"the snapshot's manifest is not of format {_FORMAT}.")
        sections = {
            kind: {_key(key): _decode_item(item) for key, item in section.items()}
            for kind, section in zip(Kind, fields[3:], strict=False)
            if section is not None
        }
        return Manifest(_whole(fields[1]), _whole(fields[2]), sections)
    except PayloadError:
        raise
    except (
        ValueError,
        TypeError,
        AttributeError,
        IndexError,
        RecursionError,
        msgpack.exceptions.UnpackException,
    ) as error:
        raise PayloadError(
            f"the snapshot's manifest is malformed ({type(error).__name__})."
        ) from None


def with_listed(
    section: Mapping[str, Item], entries: Iterable[Entry], listed: frozenset[str], unix_ns: int
) -> Mapping[str, Item]:
    """Give a section after the server's listing.

    Args:
        section: What was known.
        entries: The good items; of several of one key the last is its current version.
        listed: The keys that the server named, those of refused items too. None at all means that
            the answer was empty, which never counts as "all removed".
        unix_ns: Now.
    """
    after = dict(section)
    for entry in entries:
        _add(after, entry, is_current=True)
    if listed:
        for key, item in section.items():
            if key not in listed and item.current is not None and not item.removed_unix_ns:
                after[key] = item._replace(removed_unix_ns=unix_ns)
    removed = sorted((i.removed_unix_ns, key) for key, i in after.items() if i.removed_unix_ns)
    for _, key in removed[: max(0, len(removed) - REMOVED_MAX)]:
        del after[key]
    return after


def with_pinned(section: Mapping[str, Item], entry: Entry) -> Mapping[str, Item]:
    """Give a section with a version that is not the current one."""
    after = dict(section)
    _add(after, entry, is_current=False)
    return after


def _add(section: dict[str, Item], entry: Entry, is_current: bool) -> None:
    before = section.get(entry.key, Item(None, 0, {}))
    current = entry.version if is_current else before.current
    removed_unix_ns = 0 if is_current else before.removed_unix_ns
    if before.versions.get(entry.version) == entry.hash:  # keep the order in which they came
        section[entry.key] = before._replace(current=current, removed_unix_ns=removed_unix_ns)
        return
    versions = {v: h for v, h in before.versions.items() if v != entry.version}
    versions[entry.version] = entry.hash
    for version in list(versions)[: max(0, len(versions) - VERSIONS_MAX)]:
        if version != current:
            del versions[version]
    section[entry.key] = Item(current, removed_unix_ns, versions)


def _having(section: Mapping[str, Item], hashes: Set[str]) -> Iterator[tuple[str, Item]]:
    for key, item in section.items():
        versions = {v: h for v, h in item.versions.items() if h in hashes}
        if versions:
            current = item.current if item.current in versions else None
            yield key, Item(current, item.removed_unix_ns, versions)


def _encode_section(section: Mapping[str, Item] | None) -> dict[str, Any] | None:
    if section is None:
        return None
    return {
        key: [
            item.current,
            item.removed_unix_ns,
            [part for pair in item.versions.items() for part in pair],
        ]
        for key, item in section.items()
    }


def _decode_item(fields: Any) -> Item:
    current, removed_unix_ns, flat = fields[:3]
    if type(fields) is not list or type(flat) is not list:
        raise TypeError
    versions = dict(zip(flat[0::2], flat[1::2], strict=True))
    for version, entry_hash in versions.items():
        _whole(version)
        _key(entry_hash)
    if current is not None:
        _whole(current)
    return Item(current, _whole(removed_unix_ns), versions)


def _key(value: Any) -> str:
    if type(value) is not str:
        raise TypeError
    return value


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= VERSION_MAX:
        raise TypeError
    return value
