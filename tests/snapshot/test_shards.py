"""Large sections: a change costs the shard that it is in, and nothing else is lost or read."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallom._core.errors import PayloadError
from fallom._snapshot import database
from fallom._snapshot import manifest as manifest_module
from fallom._snapshot.entries import Entry, Kind, hash_of
from fallom._snapshot.manifest import Root, assemble, decode_root, encode_root
from fallom._snapshot.publish import Publisher
from fallom._snapshot.reader import RETRY_S
from fallom._snapshot.schema import Listing
from fallom._snapshot.section import Item
from fallom._snapshot.shards import WHOLE_MAX, Shards, decode_shard, divide
from tests.snapshot.builders import Page, config, configs, prompt, prompts, removed

HASHES = st.text("0123456789abcdef", min_size=32, max_size=32)
ITEMS = st.builds(
    Item,
    st.none() | st.integers(0, 9),
    st.integers(0, 9),
    st.dictionaries(st.integers(0, 9), HASHES, max_size=2),
)
SECTIONS = st.dictionaries(st.text(), ITEMS, max_size=300)
MANY = 1000


def many(**versions: int) -> Listing:
    """List 1,000 prompts, all of version 1 but those that are named."""
    names = [f"p{number}" for number in range(MANY)]
    return prompts(*(prompt(name, versions.get(name, 1)) for name in names))


def entry_of(listing: Listing, key: str) -> Entry:
    return next(entry for entry in listing.entries if entry.key == key)


def shards_of(root: Root) -> Shards:
    found = root.sections[Kind.PROMPT]
    assert isinstance(found, Shards)
    return found


def current_root(directory: Path) -> Root:
    with database.reading(directory / "cache.db", 1.0) as rows:
        data = rows.manifest()
    assert data is not None
    return decode_root(data)


def alter(directory: Path, statement: str) -> None:
    connection = sqlite3.connect(directory / "cache.db")
    connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.fixture
def shard_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The shards that were read of the database, in order."""
    seen: list[str] = []
    shard = database.Rows.shard

    def spied(self: database.Rows, shard_hash: str) -> bytes | None:
        seen.append(shard_hash)
        return shard(self, shard_hash)

    monkeypatch.setattr(database.Rows, "shard", spied)
    return seen


def test_the_documented_shard_reads_as_documented() -> None:
    example = bytes.fromhex("92 01 81 a1 6b 93 02 00 92 02 a2 61 62")
    item = Item(2, 0, {2: "ab"})
    assert decode_shard(example, hash_of(example)) == {"k": item}
    four, eight = (bytes(range(16 * count)) for count in (4, 8))
    assert Shards(keys=1, removed=(), table=four).hash_for("k") == four[16:32].hex()
    assert Shards(keys=1, removed=(), table=eight).hash_for("k") == eight[80:96].hex()
    shards, made = divide({"k": item}, None)
    assert (shards.table.hex(), made) == (hash_of(example), {hash_of(example): example})


@given(SECTIONS, SECTIONS)
def test_a_section_is_whole_again_from_its_shards_old_and_new(
    before: dict[str, Item], after: dict[str, Item]
) -> None:
    first, stored = divide(before, None)
    second, made = divide(after, (before, first))
    stored.update(made)
    root = decode_root(encode_root(Root(1, 2, {Kind.PROMPT: second})))
    assert root == Root(1, 2, {Kind.PROMPT: second})
    manifest = assemble(root, lambda shard: decode_shard(stored[shard], shard))
    assert manifest.sections[Kind.PROMPT] == after
    assert len(second) == len(after)
    alone, _ = divide(after, None)
    if alone.count == second.count:
        assert alone.table == second.table  # however it came about


@given(SECTIONS, st.text())
def test_a_key_is_in_the_shard_that_is_looked_into_for_it(
    section: dict[str, Item], other: str
) -> None:
    shards, made = divide(section, None)
    for key in (*section, other):
        shard_hash = shards.hash_for(key)
        assert decode_shard(made[shard_hash], shard_hash).get(key) == section.get(key)


@given(st.binary(max_size=60))
def test_whatever_bytes_are_a_shard_or_a_payload_error(data: bytes) -> None:
    for shard_hash in (hash_of(data), "0" * 32):
        try:
            decode_shard(data, shard_hash)
        except PayloadError:
            continue


def test_a_small_section_stands_in_the_manifest_and_a_large_one_in_shards(
    publisher: Publisher, directory: Path
) -> None:
    publisher.publish([configs(*(config(f"c{n}") for n in range(WHOLE_MAX))), many()])
    root = current_root(directory)
    assert not isinstance(root.sections[Kind.CONFIG], Shards)
    assert 8 <= shards_of(root).count <= MANY // 16


def test_one_change_writes_one_shard(publisher: Publisher, directory: Path) -> None:
    publisher.publish([many()])
    before = set(current_root(directory).shards())
    publisher.publish([many(p500=2)])
    assert len(set(current_root(directory).shards()) - before) == 1


def test_a_reader_reads_the_shards_of_what_it_uses_and_again_when_they_changed(
    publisher: Publisher, directory: Path, page: Page, shard_reads: list[str]
) -> None:
    page.publish(publisher, many())
    reader = page.reader(directory)
    assert reader.prompt("p500") is not None
    assert shard_reads == [shards_of(current_root(directory)).hash_for("p500")]
    page.publish(publisher, many(p1=2))  # of another shard, as a look at their hashes says
    shard_reads.clear()  # the publisher reads them as well
    after = shards_of(current_root(directory))
    assert after.hash_for("p500") != after.hash_for("p1")
    assert reader.prompt("p500") is not None
    assert shard_reads == []
    page.publish(publisher, many(p1=2, p500=2))
    shard_reads.clear()
    found = reader.prompt("p500")
    assert found is not None
    assert found.version == 2
    assert len(shard_reads) == 1


def test_a_key_that_nobody_knows_is_looked_for_once_a_generation(
    publisher: Publisher, directory: Path, page: Page, shard_reads: list[str]
) -> None:
    page.publish(publisher, many())
    reader = page.reader(directory)
    shard_reads.clear()
    for _ in range(5):
        assert reader.prompt("nobody") is None
        assert reader.prompt("p1", 99) is None
    assert len(shard_reads) <= 2


def test_versions_removals_and_counts_are_known_of_a_large_section(
    publisher: Publisher, directory: Path, page: Page
) -> None:
    page.publish(publisher, many())
    page.publish(publisher, prompts(*(prompt(f"p{n}", 2) for n in range(1, MANY))))
    reader = page.reader(directory)
    assert reader.prompt("p7", 1) is not None
    assert reader.prompt("p0") is not None
    info = reader.info()
    assert info.counts == {"config": 0, "prompt": MANY, "ab_test": 0}
    assert info.removed == ("prompt 'p0'",)


def test_a_section_may_become_large_and_small_again(
    publisher: Publisher, directory: Path, page: Page
) -> None:
    reader = page.reader(directory)
    for number in (5, 150, 1000, 40, 3000, 7):
        fresh = Publisher(directory.with_name(f"of {number}"))
        listing = prompts(*(prompt(f"p{n}", number) for n in range(number)))
        page.publish(publisher, listing)
        page.publish(fresh, listing)
        page.publish(publisher, listing)
        for found in (reader, page.reader(directory)):
            last = found.prompt(f"p{number - 1}")
            assert last is not None
            assert last.version == number


def test_all_that_kept_manifests_name_stays_and_nothing_else(directory: Path) -> None:
    publisher = Publisher(directory, manifests_kept=3)
    for version in range(1, 8):
        if version == 5:
            publisher = Publisher(directory, manifests_kept=3)  # knows nothing of the past
        publisher.publish([many(**{f"p{version}": 2 + version})])
    with database.reading(directory / "cache.db", 1.0) as rows:
        roots = [decode_root(data) for _, data in rows.manifests(99)]
        shards = {shard for root in roots for shard in root.shards()}
        assert len(roots) == 3
        assert rows.shard_hashes() == shards
        items = [item for each in shards for item in decode_shard(rows.shard(each), each).values()]
        assert rows.entry_hashes() == {h for item in items for h in item.versions.values()}


def test_a_manifest_of_many_keys_by_an_earlier_version_is_read_and_then_cut(
    directory: Path, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(manifest_module, "WHOLE_MAX", 1 << 30)
        page.publish(Publisher(directory), many())
    reader = page.reader(directory)
    assert reader.prompt("p500") is not None
    assert not list(current_root(directory).shards())
    publisher = Publisher(directory)
    assert publisher.publish([many()]) == page.generation  # nothing changed, nothing is written
    page.publish(publisher, many(p500=2))
    assert list(current_root(directory).shards())
    found = reader.prompt("p500")
    assert found is not None
    assert found.version == 2
    assert reader.prompt("p501") is not None


@pytest.mark.parametrize("damage", ["UPDATE Cache SET value = x'00'", "DELETE FROM Cache"])
def test_a_lost_shard_does_not_take_away_what_serves_and_is_fetched_anew(
    directory: Path, page: Page, damage: str
) -> None:
    publisher = Publisher(directory)
    page.publish(publisher, many())
    reader, late = page.reader(directory), page.reader(directory)
    assert reader.prompt("p500") is not None
    publisher.publish([many(p500=2)])
    lost = shards_of(current_root(directory)).hash_for("p500")
    alter(directory, f"{damage} WHERE key = 's:{lost}'")
    page.generation += 1
    found = reader.prompt("p500")
    assert found is not None
    assert found.version == 1
    assert "shard" in str(reader.info().last_error)
    assert late.prompt("p500") is None
    outside = next(
        f"p{n}" for n in range(MANY) if shards_of(current_root(directory)).hash_for(f"p{n}") != lost
    )
    assert late.prompt(outside) is not None
    again = Publisher(directory)
    assert again.manifest().find(Kind.PROMPT, "p500", None) is None
    assert again.rebuilds == 1
    page.publish(again, many(p500=2))
    page.now_s += RETRY_S
    for each in (reader, late):
        found = each.prompt("p500")
        assert found is not None
        assert found.version == 2


def test_a_lost_shard_of_keys_that_are_no_longer_listed_is_not_told_for_ever(
    directory: Path, page: Page
) -> None:
    publisher = Publisher(directory)
    page.publish(publisher, many())
    publisher.publish([prompts(*(prompt(f"p{n}") for n in range(1, MANY)))])
    assert removed(publisher) == ["p0"]
    shards = shards_of(current_root(directory))
    lost = shards.hash_for("p0")
    kept = [f"p{n}" for n in range(1, MANY) if shards.hash_for(f"p{n}") != lost]
    publisher.publish([prompts(*map(prompt, kept))])
    lost = shards_of(current_root(directory)).hash_for("p0")
    alter(directory, f"DELETE FROM Cache WHERE key = 's:{lost}'")
    again = Publisher(directory)
    again.publish([prompts(*map(prompt, kept))])
    assert (again.rebuilds, Publisher(directory).manifest().generation) == (
        1,
        again.manifest().generation,
    )
    last = Publisher(directory)
    last.manifest()
    assert last.rebuilds == 0
