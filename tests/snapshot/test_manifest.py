from __future__ import annotations

import hashlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallom._core.errors import PayloadError
from fallom._snapshot.entries import Kind
from fallom._snapshot.manifest import Root, decode_root, encode_root
from fallom._snapshot.section import Item

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
    manifest = Root(generation, unix_ns, sections)
    assert decode_root(encode_root(manifest)) == manifest


@given(st.binary(max_size=100))
def test_whatever_bytes_are_a_manifest_or_a_payload_error(body: bytes) -> None:
    for data in (body, hashlib.sha256(body).digest() + body):
        try:
            decode_root(data)
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
        decode_root(hashlib.sha256(body).digest() + body)


def test_elements_of_a_newer_writer_are_ignored() -> None:
    body = msgpack.packb([1, 5, 6, {"k": [1, 0, [1, "h"], "new"]}, None, None, {"new": 1}])
    manifest = decode_root(hashlib.sha256(body).digest() + body)
    assert manifest.sections[Kind.CONFIG]["k"].hash_of(None) == "h"
    assert manifest.generation == 5


def test_a_flipped_bit_does_not_fit_the_checksum() -> None:
    data = bytearray(encode_root(Root(5, 6, {})))
    data[-1] ^= 1
    with pytest.raises(PayloadError, match="checksum"):
        decode_root(bytes(data))
