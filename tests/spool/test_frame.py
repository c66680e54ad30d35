"""Frames: what goes in comes out, and damage costs what it hit and nothing else."""

from __future__ import annotations

import contextlib
import re
import zlib
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fallom._spool import frame
from fallom._spool.frame import (
    FRAME_BYTES_MAX,
    HEADER_BYTES,
    RECORD_BYTES_MAX,
    Damage,
    Frame,
    FrameEncoder,
    FrameTooLargeError,
    Kind,
    RecordError,
    decode_record,
    encode_frame,
    encode_tombstone,
    pack,
    scan,
    seed_of,
)

SEGMENT_ID = bytes(range(16))
SEED = seed_of(SEGMENT_ID)
MAGIC = b"\xf1\x0c\x4d\x7e"

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters())  # with halves of surrogate pairs
    | st.binary()
)
records = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)
payloads = st.binary(max_size=200) | st.just(MAGIC * 5) | records.map(pack)


def encoded(payloads: list[bytes], kind: int = Kind.SPAN) -> bytes:
    return b"".join(encode_frame(kind, payload, SEED) for payload in payloads)


def frames_of(data: bytes, seed: int = SEED) -> list[Frame]:
    return [found for found in scan(data, 0, seed) if isinstance(found, Frame)]


def damage_of(data: bytes) -> list[Damage]:
    return [found for found in scan(data, 0, SEED) if isinstance(found, Damage)]


@given(
    st.lists(st.tuples(st.sampled_from([k for k in Kind if k != Kind.ERASED]), records), max_size=5)
)
def test_records_survive_packing_framing_and_reading(written: list[tuple[Kind, Any]]) -> None:
    data = b"".join(encode_frame(kind, pack(record), SEED) for kind, record in written)
    found = [(each.kind, decode_record(each.payload)) for each in frames_of(data)]
    assert found == written
    assert damage_of(data) == []


@given(st.lists(payloads, max_size=6), st.integers(0, 1 << 40))
def test_offsets_are_those_of_the_file(written: list[bytes], at: int) -> None:
    data = b"foreign" + encoded(written)
    position = at + 7
    for found, payload in zip(scan(data, 7, SEED, at=at), written, strict=True):
        assert isinstance(found, Frame)
        assert found.offset == position
        assert found.end == position + HEADER_BYTES + len(payload)
        position = found.end


@given(st.lists(payloads, min_size=1, max_size=5), st.data())
def test_an_erased_frame_is_whole_however_much_of_its_payload_is_still_there(
    written: list[bytes], draw: st.DataObject
) -> None:
    erased = draw.draw(st.integers(0, len(written) - 1))
    data, start = bytearray(encoded(written)), sum(HEADER_BYTES + len(p) for p in written[:erased])
    end = start + HEADER_BYTES + len(written[erased])
    data[start : start + HEADER_BYTES] = encode_tombstone(len(written[erased]), SEED)
    overwritten = draw.draw(st.integers(0, len(written[erased])))
    data[start + HEADER_BYTES : start + HEADER_BYTES + overwritten] = bytes(overwritten)
    found = frames_of(bytes(data))
    assert damage_of(bytes(data)) == []
    assert (found[erased].kind, found[erased].offset, found[erased].end) == (
        Kind.ERASED,
        start,
        end,
    )
    del found[erased], written[erased]
    assert [each.payload for each in found] == written


def test_the_worked_example_of_the_document_is_a_frame() -> None:
    assert frame.__doc__ is not None
    line = re.search(r"^    ([0-9a-f ]{40,})$", frame.__doc__, re.MULTILINE)
    assert line is not None
    data = bytes.fromhex(line[1])
    seed = seed_of(bytes(16))
    [found] = scan(data, 0, seed)
    assert isinstance(found, Frame)
    assert (found.kind, decode_record(found.payload)) == (Kind.WISH, ["k", 2])
    assert data == encode_frame(Kind.WISH, pack(["k", 2]), seed)


@given(
    st.lists(
        st.tuples(st.sampled_from([Kind.SPAN, Kind.METRICS, Kind.DEAD]), st.binary(max_size=60))
    )
)
def test_the_encoder_of_a_segment_gives_the_frames_that_are_made_one_by_one(
    frames: list[tuple[Kind, bytes]],
) -> None:
    encoder = FrameEncoder(SEED)
    for kind, payload in frames * 2:
        assert encoder.frame(kind, payload) == encode_frame(kind, payload, SEED)


def test_the_encoder_of_a_segment_keeps_few_heads_and_refuses_what_is_too_large() -> None:
    encoder = FrameEncoder(SEED)
    for length in range(3000):
        encoder.frame(Kind.SPAN, b"x" * length)
    assert len(encoder) <= 1024
    with pytest.raises(FrameTooLargeError):
        encoder.frame(Kind.SPAN, b"x" * (RECORD_BYTES_MAX + 1))


def test_the_table_of_the_document_is_what_is_written() -> None:
    assert frame.__doc__ is not None
    rows = re.findall(r"^\| (\d+) \| (\d+|length) \| (\w+) \|", frame.__doc__, re.MULTILINE)
    table = {name: (int(offset), length) for offset, length, name in rows}
    data = encode_frame(Kind.SPAN, b"abc", SEED)

    def field(name: str) -> bytes:
        offset, length = table[name]
        return data[offset : offset + (3 if length == "length" else int(length))]

    assert field("magic") == MAGIC
    assert field("version") == b"\x01"
    assert field("kind") == bytes([Kind.SPAN])
    assert field("reserved") == bytes(2)
    assert int.from_bytes(field("length"), "little") == 3
    covered = zlib.crc32(b"abc", zlib.crc32(data[4:12], zlib.crc32(SEGMENT_ID)))
    assert int.from_bytes(field("checksum"), "little") == covered
    assert field("payload") == b"abc"
    assert sum(int(length) for _, length in table.values() if length != "length") == HEADER_BYTES


@given(
    st.lists(payloads, min_size=1, max_size=8),
    st.lists(st.integers(0, 1 << 30), min_size=1, max_size=4),
)
def test_flipped_bits_cost_at_most_as_many_frames(written: list[bytes], bits: list[int]) -> None:
    data = bytearray(encoded(written))
    flipped = {bit % (len(data) * 8) for bit in bits}
    for bit in flipped:
        data[bit // 8] ^= 1 << bit % 8
    found = [each.payload for each in frames_of(bytes(data))]
    kept = iter(written)
    assert all(payload in kept for payload in found), "a frame that was never written, or disorder"
    assert len(found) >= len(written) - len(flipped)


@given(st.lists(payloads, min_size=1, max_size=5), st.integers(1, 1 << 30))
def test_a_cut_tail_is_incomplete_and_costs_no_other_frame(written: list[bytes], cut: int) -> None:
    data = encoded(written)
    last = HEADER_BYTES + len(written[-1])
    data = data[: len(data) - 1 - cut % last]
    found = list(scan(data, 0, SEED))
    assert [each.payload for each in found if isinstance(each, Frame)] == written[:-1]
    torn = len(data) - len(encoded(written[:-1]))
    if torn:
        assert isinstance(found[-1], Damage)
        assert found[-1].is_incomplete
        assert found[-1].offset == len(data) - torn
        assert found[-1].end == len(data)


def test_a_torn_frame_with_a_whole_one_behind_it_is_no_longer_waited_for() -> None:
    torn = encode_frame(Kind.SPAN, b"a" * 100, SEED)[:50]
    whole = encode_frame(Kind.SPAN, b"next", SEED)
    found = list(scan(torn + whole, 0, SEED))
    assert found == [
        Damage(0, 50, is_incomplete=False),
        Frame(50, 50 + len(whole), Kind.SPAN, b"next"),
    ]


def test_a_frame_within_the_payload_of_a_damaged_one_is_not_believed() -> None:
    forged = encode_frame(Kind.SPAN, b"forged", seed_of(b"id of another segment"))
    data = bytearray(encode_frame(Kind.SPAN, b"text " + forged + b" text", SEED))
    data[14] ^= 1
    following = encode_frame(Kind.SPAN, b"next", SEED)
    assert [each.payload for each in frames_of(bytes(data) + following)] == [b"next"]


def test_a_segment_copied_into_another_is_damage() -> None:
    data = encode_frame(Kind.SPAN, b"of another file", seed_of(b"another id"))
    assert list(scan(data, 0, SEED)) == [Damage(0, len(data), is_incomplete=False)]


def test_foreign_bytes_between_frames_are_one_stretch_of_damage() -> None:
    first, last = encode_frame(Kind.SPAN, b"1", SEED), encode_frame(Kind.SPAN, b"2", SEED)
    foreign = b"\0" * 1000 + MAGIC + b"log line \xf1 of somebody\n" * 40
    found = list(scan(first + foreign + last, 0, SEED))
    at = len(first)
    assert found[1] == Damage(at, at + len(foreign), is_incomplete=False)
    assert [type(each) for each in found] == [Frame, Damage, Frame]


@pytest.mark.parametrize("length", [FRAME_BYTES_MAX, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_a_length_that_cannot_be_is_not_waited_for(length: int) -> None:
    data = MAGIC + b"\1\2\0\0" + length.to_bytes(4, "little") + bytes(4) + b"payload"
    assert list(scan(data, 0, SEED)) == [Damage(0, len(data), is_incomplete=False)]


def test_a_frame_longer_than_a_mebibyte_is_none_whatever_its_checksum() -> None:
    payload = bytes(FRAME_BYTES_MAX)
    prefix = b"\x01\x02\0\0" + len(payload).to_bytes(4, "little")
    checksum = zlib.crc32(payload, zlib.crc32(prefix, SEED)).to_bytes(4, "little")
    data = MAGIC + prefix + checksum + payload
    assert list(scan(data, 0, SEED)) == [Damage(0, len(data), is_incomplete=False)]


def test_a_length_that_can_be_and_runs_past_the_end_is_waited_for() -> None:
    length = FRAME_BYTES_MAX - HEADER_BYTES
    data = MAGIC + b"\1\2\0\0" + length.to_bytes(4, "little") + bytes(4) + b"payload"
    assert list(scan(data, 0, SEED)) == [Damage(0, len(data), is_incomplete=True)]


def test_a_frame_of_another_version_is_stepped_over_whole() -> None:
    payload = b"what a later version wrote"
    prefix = b"\x07\x02\0\0" + len(payload).to_bytes(4, "little")
    checksum = zlib.crc32(payload, zlib.crc32(prefix, SEED)).to_bytes(4, "little")
    later = MAGIC + prefix + checksum + payload
    own = encode_frame(Kind.SPAN, b"own", SEED)
    found = list(scan(later + own, 0, SEED))
    assert [each.kind for each in found if isinstance(each, Frame)] == [Kind.UNKNOWN, Kind.SPAN]


def test_a_record_of_the_largest_size_fits_and_one_byte_more_does_not() -> None:
    largest = b"x" * RECORD_BYTES_MAX
    data = encode_frame(Kind.SPAN, largest, SEED)
    assert len(data) <= FRAME_BYTES_MAX
    assert frames_of(data)[0].payload == largest
    with pytest.raises(FrameTooLargeError):
        encode_frame(Kind.SPAN, largest + b"x", SEED)


def test_a_dead_letter_may_fill_the_whole_mebibyte() -> None:
    largest = b"x" * (FRAME_BYTES_MAX - HEADER_BYTES)
    data = encode_frame(Kind.DEAD, largest, SEED)
    assert len(data) == FRAME_BYTES_MAX
    assert frames_of(data)[0].payload == largest
    with pytest.raises(FrameTooLargeError):
        encode_frame(Kind.DEAD, largest + b"x", SEED)


noise = st.lists(
    st.binary(max_size=60)
    | st.just(MAGIC)
    | st.just(MAGIC + b"\1\2\0\0\xff\0\0\0")
    | st.builds(lambda payload: encode_frame(Kind.SPAN, payload, SEED), st.binary(max_size=30)),
    max_size=8,
).map(b"".join)


@given(noise)
@example(MAGIC[:1])
@example(b"\0" + MAGIC + b"\1\2\0\0\5\0\0\0")
@example(MAGIC * 3 + b"\xf1")
def test_whatever_is_scanned_comes_back_in_order_and_without_gaps(data: bytes) -> None:
    position = 0
    found = list(scan(data, 0, SEED))
    for each in found:
        assert each.offset == position
        assert each.end > each.offset
        position = each.end
    assert position == len(data)
    assert not any(isinstance(each, Damage) and each.is_incomplete for each in found[:-1])


@given(noise, st.binary(max_size=20))
def test_reading_goes_on_behind_any_damage(data: bytes, payload: bytes) -> None:
    following = encode_frame(Kind.WISH, payload, SEED)
    found = frames_of(data + following)
    assert found, "the frame behind the damage is lost"
    assert found[-1].payload == payload
    assert found[-1].kind == Kind.WISH


@given(st.binary(max_size=300))
def test_any_payload_is_a_record_or_an_error_of_ours(payload: bytes) -> None:
    with contextlib.suppress(RecordError):
        decode_record(payload)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        pack(1) + pack(2),
        pack([1, 2])[:-1],
        msgpack.packb(msgpack.ExtType(5, b"x")),
        b"\x91" * 100_000 + b"\xc0",
    ],
    ids=["empty", "two values", "cut", "extension", "nested too deeply"],
)
def test_a_payload_that_is_no_single_record_is_told(payload: bytes) -> None:
    with pytest.raises(RecordError):
        decode_record(payload)


@given(st.dictionaries(st.tuples(st.integers(), st.text()), scalars, max_size=3))
def test_a_key_of_several_values_does_not_cost_its_record(record: Any) -> None:
    try:
        payload = pack(record)
    except RecordError:
        return
    assert len(decode_record(payload)) == len(record)


def _endless() -> list[Any]:
    endless: list[Any] = []
    endless.append(endless)
    return endless


@pytest.mark.parametrize(
    "record",
    [object(), {1, 2}, 1 << 64, -(1 << 63) - 1, _endless()],
    ids=["object", "set", "too large", "too small", "cycle"],
)
def test_what_msgpack_cannot_say_is_an_error_of_ours(record: Any) -> None:
    with pytest.raises(RecordError):
        pack(record)
