from __future__ import annotations

import re
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallom._core.assignment import CompiledConfig, CompiledTest
from fallom._core.errors import PayloadError
from fallom._core.prompt import ROLES, CompiledPrompt
from fallom._core.targeting import find_target
from fallom._snapshot import entries
from fallom._snapshot.entries import (
    ENTRY_BYTES_MAX,
    AbTestRecord,
    ConfigRecord,
    PromptRecord,
    canonical_value,
    decode_entry,
    encode_entry,
    hash_of,
)

_WEIGHTS = st.floats(0, 1e6)
_TEXTS = st.text(st.characters(), max_size=20)
_VERSIONS = st.integers(0, (1 << 63) - 1)


@given(_TEXTS, _VERSIONS, st.lists(st.tuples(_TEXTS, _WEIGHTS), min_size=1, max_size=5))
def test_configs_round_trip(key: str, version: int, variants: list[tuple[str, float]]) -> None:
    compiled = decode_entry(encode_entry(ConfigRecord(key, version, variants, None)).data)
    assert isinstance(compiled, CompiledConfig)
    assert (compiled.key, compiled.version) == (key, version)
    assert compiled.models == tuple(model for model, _ in variants)


@given(_TEXTS, _VERSIONS, _TEXTS, _TEXTS)
def test_prompts_round_trip(key: str, version: int, system: str, user: str) -> None:
    compiled = decode_entry(encode_entry(PromptRecord(key, version, system, user)).data)
    assert isinstance(compiled, CompiledPrompt)
    assert (compiled.key, compiled.version) == (key, version)
    assert (compiled.system.text, compiled.user.text) == (system, user)


@given(
    st.lists(st.tuples(_TEXTS, st.one_of(st.none(), _VERSIONS), _WEIGHTS), min_size=1, max_size=5)
)
def test_ab_tests_round_trip(variants: list[tuple[str, int | None, float]]) -> None:
    compiled = decode_entry(encode_entry(AbTestRecord("t", 1, variants)).data)
    assert isinstance(compiled, CompiledTest)
    assert [tuple(variant) for variant in compiled.variants] == [v[:2] for v in variants]


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20))
def test_salts_round_trip(salt: str) -> None:
    config = decode_entry(encode_entry(ConfigRecord("k", 1, [("m", 1.0)], None, salt)).data)
    test = decode_entry(encode_entry(AbTestRecord("t", 1, [("p", None, 1.0)], salt)).data)
    assert isinstance(config, CompiledConfig)
    assert isinstance(test, CompiledTest)
    assert config.salt == test.salt == salt.encode() + b"\0"


@given(_TEXTS, st.lists(st.tuples(st.sampled_from(ROLES), _TEXTS), min_size=1, max_size=4))
def test_messages_round_trip(system: str, messages: list[tuple[str, str]]) -> None:
    compiled = decode_entry(encode_entry(PromptRecord("k", 1, system, "u", messages)).data)
    assert isinstance(compiled, CompiledPrompt)
    assert [(role, template.text) for role, template in compiled.chat] == messages
    assert compiled.user.text == "u"


def test_prompt_without_messages_has_the_bytes_of_before_there_were_messages() -> None:
    record = PromptRecord("k", 1, "s", "u")
    assert encode_entry(record).data == msgpack.packb([1, 2, "k", 1, "s", "u"])
    assert encode_entry(record._replace(messages=[])) == encode_entry(record)


@pytest.mark.parametrize("messages", [5, None, "text", [5], [["user"]], [["user", 5]], [[5, "x"]]])
def test_messages_that_are_none_are_refused(messages: object) -> None:
    with pytest.raises(PayloadError):
        decode_entry(msgpack.packb([1, 2, "k", 1, "s", "u", messages]))


def test_entry_without_a_salt_has_the_bytes_of_before_there_were_salts() -> None:
    fields = [1, 1, "k", 1, [["m", 1.0]], None]
    assert encode_entry(ConfigRecord("k", 1, [("m", 1.0)], None)).data == msgpack.packb(fields)


@pytest.mark.parametrize("salt", [5, None, b"bytes"])
def test_salt_that_is_no_text_is_refused(salt: object) -> None:
    fields = [1, 1, "k", 1, [["m", 1.0]], None, salt]
    with pytest.raises(PayloadError):
        decode_entry(msgpack.packb(fields))


def test_salt_with_a_lone_surrogate_is_refused() -> None:
    fields = [1, 1, "k", 1, [["m", 1.0]], None, "\ud800"]
    with pytest.raises(PayloadError):
        decode_entry(msgpack.packb(fields, unicode_errors="surrogatepass"))


def test_targeting_round_trips() -> None:
    targeting = ([("a", {"x": [1, None]}, 1)], [([("b", "in", ["c", 5])], 0)])
    record = ConfigRecord("k", 1, [("m", 50.0), ("n", 50.0)], targeting)
    compiled = decode_entry(encode_entry(record).data)
    assert isinstance(compiled, CompiledConfig)
    assert compiled.targeting is not None
    assert find_target(compiled.targeting, None, {"a": {"x": [1, None]}}) == (-1, 1)
    assert find_target(compiled.targeting, None, {"b": "c"}) == (0, 0)


def test_the_worked_example_of_the_document_decodes() -> None:
    document = entries.__doc__
    assert document is not None
    spelled = re.search(r"``((?:[0-9a-f]{2} )+[0-9a-f]{2})``", document)
    assert spelled is not None
    data = bytes.fromhex(spelled.group(1))
    assert encode_entry(AbTestRecord("t", 2, [("p", None, 1.0)])).data == data
    compiled = decode_entry(data)
    assert isinstance(compiled, CompiledTest)
    assert (compiled.key, compiled.version, compiled.variants) == ("t", 2, (("p", None),))


def test_the_order_of_an_objects_keys_does_not_change_the_hash() -> None:
    one, other = {"a": 1, "b": {"d": 1, "c": 2}}, {"b": {"c": 2, "d": 1}, "a": 1}
    hashes = {
        encode_entry(
            ConfigRecord("k", 1, [("m", 1.0)], ([("f", canonical_value(value), 0)], []))
        ).hash
        for value in (one, other)
    }
    assert len(hashes) == 1


def test_the_hash_is_of_the_bytes() -> None:
    entry = encode_entry(PromptRecord("k", 1, "a", "b"))
    assert entry.hash == hash_of(entry.data)
    assert re.fullmatch("[0-9a-f]{32}", entry.hash)
    assert entry.hash != encode_entry(PromptRecord("k", 1, "a", "c")).hash


@given(st.binary(max_size=200))
def test_whatever_bytes_decode_to_an_entry_or_a_payload_error(data: bytes) -> None:
    _decode_or_refuse(data)


_MSGPACK = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(1 << 63), (1 << 64) - 1),
        st.floats(),
        st.text(max_size=5),
        st.binary(max_size=5),
        st.just(msgpack.ExtType(5, b"x")),
        st.just(msgpack.Timestamp(0)),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=20,
)


@given(st.integers(0, 4), st.lists(_MSGPACK, max_size=5))
def test_whatever_fields_decode_to_an_entry_or_a_payload_error(
    kind: int, fields: list[Any]
) -> None:
    _decode_or_refuse(msgpack.packb([1, kind, *fields]))


@given(st.data())
def test_one_flipped_byte_is_an_entry_or_a_payload_error(data: st.DataObject) -> None:
    targeting = ([("a", ["x"], 1)], [([("b", "in", ["c"])], 0)])
    whole = encode_entry(ConfigRecord("k", 1, [("m", 50.0), ("n", 50.0)], targeting)).data
    damaged = bytearray(whole)
    damaged[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    _decode_or_refuse(bytes(damaged))
    _decode_or_refuse(whole[: data.draw(st.integers(0, len(whole)))])


@pytest.mark.parametrize(
    "data",
    [
        b"\x91" * 100_000,  # nested
        b"\xdd\xff\xff\xff\xff",  # four billion elements announced
        b"\xc6\xff\xff\xff\xff",
        b"\x82\x01\x02\x90\x03",  # keys that are no text
        msgpack.packb([1, 1, "k", 1, [["m", float("nan")]], None]),
        msgpack.packb([1, 1, "k", 1, [["m", -1.0]], None]),
        msgpack.packb([1, 1, "k", 1, [["m", 50]], None]),
        msgpack.packb([1, 1, "k", 1, [], None]),
        msgpack.packb([1, 1, "k", True, [["m", 50.0]], None]),
        msgpack.packb([1, 1, "k", -1, [["m", 50.0]], None]),
        msgpack.packb([1, 1, b"k", 1, [["m", 50.0]], None]),
        msgpack.packb([1, 1, "k", 1, [["m", 50.0]], [[["f", b"x", 0]], []]]),
        msgpack.packb([1, 1, "k", 1, [["m", 50.0]], [[["f", "x", "0"]], []]]),
        msgpack.packb([1, 1, "k", 1, [["m", 50.0]], [[], [[[["f", 5, "x"]], 0]]]]),
        msgpack.packb([2, 2, "k", 1, "a", "b"]),
        msgpack.packb([1, 9, "k", 1, "a", "b"]),
        msgpack.packb([1, "2", "k", 1, "a", "b"]),
        msgpack.packb([1, 2, "k", 1, "a"]),
        msgpack.packb([1, 2, "k", 1, "a", "b"]) + b"\x00",
        bytes(ENTRY_BYTES_MAX + 1),
    ],
)
def test_known_damage_is_refused(data: bytes) -> None:
    with pytest.raises(PayloadError, match="expected an entry of format 1"):
        decode_entry(data)


def _decode_or_refuse(data: bytes) -> None:
    try:
        compiled = decode_entry(data)
    except PayloadError:
        return
    assert isinstance(compiled, CompiledConfig | CompiledPrompt | CompiledTest)
