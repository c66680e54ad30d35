from __future__ import annotations

import hashlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallom._core.errors import PayloadError
from fallom._snapshot.entries import Kind
from fallom._snapshot.manifest import (
    REMOVED_MAX,
    VERSIONS_MAX,
    Item,
    Manifest,
    decode_manifest,
    encode_manifest,
    with_listed,
    with_pinned,
)
from fallom._snapshot.schema import read_config
from tests.snapshot.builders import config, configs

_WHOLE = st.integers(0, (1 << 63) - 1)
_ITEMS = st.builds(
    Item,
    st.one_of(st.none(), _WHOLE),
    _WHOLE,
    st.dictionaries(_WHOLE, st.text("0123456789abcdef", min_size=32, max_size=32), max_size=3),
)


@given(
    _WHOLE,
    _WHOLE,
    st.dictionaries(st.sampled_from(list(Kind)), st.dictionaries(st.text(), _ITEMS, max_size=4)),
)
def test_manifests_round_trip(
    generation: int, unix_ns: int, sections: dict[Kind, dict[str, Item]]
) -> None:
    manifest = Manifest(generation, unix_ns, sections)
    assert decode_manifest(encode_manifest(manifest)) == manifest


@given(st.binary(max_size=100))
def test_whatever_bytes_are_a_manifest_or_a_payload_error(body: bytes) -> None:
    for data in (body, hashlib.sha256(body).digest() + body):
        try:
            decode_manifest(data)
        except PayloadError:
            continue


@pytest.mark.parametrize(
    "fields",
    [
        5,
        [],
        [2, 1, 1, None, None, None],
        [1],
        [1, -1, 1, None],
        [1, 1, 1, 5],
        [1, 1, 1, {"k": 5}],
        [1, 1, 1, {"k": [1, 0, [1]]}],
        [1, 1, 1, {"k": [1, 0, ["1", "h"]]}],
        [1, 1, 1, {"k": [1, 0, [1, 5]]}],
        [1, 1, 1, {"k": ["1", 0, []]}],
        [1, 1, 1, {"k": [1, 0, [[], "h"]]}],
    ],
)
def test_malformed_manifests_with_a_good_checksum_are_refused(fields: object) -> None:
    body = msgpack.packb(fields)
    with pytest.raises(PayloadError, match="manifest"):
        decode_manifest(hashlib.sha256(body).digest() + body)


def test_elements_of_a_newer_writer_are_ignored() -> None:
    body = msgpack.packb([1, 5, 6, {"k": [1, 0, [1, "h"], "new"]}, None, None, {"new": 1}])
    manifest = decode_manifest(hashlib.sha256(body).digest() + body)
    assert manifest.find(Kind.CONFIG, "k", None) == "h"
    assert manifest.generation == 5


def test_a_flipped_bit_does_not_fit_the_checksum() -> None:
    data = bytearray(encode_manifest(Manifest(5, 6, {})))
    data[-1] ^= 1
    with pytest.raises(PayloadError, match="checksum"):
        decode_manifest(bytes(data))


def test_the_last_listed_version_is_current_and_the_earlier_ones_stay() -> None:
    one = configs(config("k", 1))
    two = configs(config("k", 2))
    section = with_listed({}, one.entries, one.listed, 5)
    section = with_listed(section, two.entries, two.listed, 6)
    assert section["k"].current == 2
    assert set(section["k"].versions) == {1, 2}


def test_a_key_that_is_not_listed_any_more_stays_and_is_flagged_once() -> None:
    both, one = configs(config("a"), config("b")), configs(config("a"))
    section = with_listed({}, both.entries, both.listed, 5)
    section = with_listed(section, one.entries, one.listed, 6)
    later = with_listed(section, one.entries, one.listed, 7)
    assert later["b"].current == 1
    assert later["b"].removed_unix_ns == 6
    back = with_listed(later, both.entries, both.listed, 8)
    assert back["b"].removed_unix_ns == 0


def test_a_key_whose_item_is_refused_is_not_flagged_as_removed() -> None:
    good, bad = configs(config("a")), configs({"key": "a"})
    section = with_listed({}, good.entries, good.listed, 5)
    assert with_listed(section, bad.entries, bad.listed, 6) == section


def test_an_empty_listing_removes_nothing() -> None:
    good, empty = configs(config("a")), configs()
    section = with_listed({}, good.entries, good.listed, 5)
    assert with_listed(section, empty.entries, empty.listed, 6) == section


def test_a_pinned_version_is_not_current() -> None:
    listing = configs(config("k", 5))
    section = with_listed({}, listing.entries, listing.listed, 5)
    section = with_pinned(section, read_config(config("k", 2), "k", 2))
    section = with_pinned(section, read_config(config("other", 2), "other", 2))
    assert section["k"].current == 5
    assert set(section["k"].versions) == {2, 5}
    assert section["other"].current is None
    again = with_listed(section, listing.entries, listing.listed, 9)
    assert again["other"].removed_unix_ns == 0


def test_versions_and_removed_keys_are_bounded() -> None:
    section = {}
    for version in range(1, VERSIONS_MAX + 10):
        listing = configs(config("k", version))
        section = dict(with_listed(section, listing.entries, listing.listed, 5))
    assert len(section["k"].versions) == VERSIONS_MAX
    assert section["k"].current in section["k"].versions
    for number in range(REMOVED_MAX + 10):
        section[f"old{number}"] = Item(1, 10 + number, {1: "h"})
    listing = configs(config("k", 1))
    bounded = with_listed(section, listing.entries, listing.listed, 99_999)
    assert "old0" not in bounded
    assert f"old{REMOVED_MAX + 9}" in bounded
    assert len(bounded) == REMOVED_MAX + 1


def test_a_current_version_is_kept_however_many_pins_come() -> None:
    listing = configs(config("k", 1))
    section = with_listed({}, listing.entries, listing.listed, 5)
    for version in range(2, VERSIONS_MAX + 10):
        section = with_pinned(section, read_config(config("k", version), "k", version))
    assert section["k"].current == 1
    assert 1 in section["k"].versions
