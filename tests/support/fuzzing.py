"""What must hold for any bytes that the readers of frames, segments, manifests and listings are given.

Each check takes bytes, from a fuzzer or from the corpus, and fails by an exception. It needs no test
runner: the fuzzer runs it in an environment of its own.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path

from fallom._core.assignment import CompiledConfig, choose
from fallom._core.errors import PayloadError
from fallom._host.files import open_directory
from fallom._snapshot.entries import Kind as EntryKind
from fallom._snapshot.entries import decode_entry
from fallom._snapshot.index import Index
from fallom._snapshot.manifest import Manifest, decode_root, encode_root
from fallom._snapshot.schema import parse_json, read_config, read_listing
from fallom._snapshot.shards import Shards
from fallom._spool.frame import (
    Damage,
    Frame,
    Kind,
    RecordError,
    decode_record,
    encode_frame,
    pack,
    scan,
    seed_of,
)
from fallom._spool.segment import HEAD_BYTES, Destination, create_segment
from tests.support.spools import Reading

__all__ = ["CHECKS", "MEMORY_FACTOR_MAX", "check_memory"]

SEED = seed_of(bytes(16))
MAGIC = b"\xf1\x0c\x4d\x7e"
MEMORY_FACTOR_MAX = 400  # bytes of Python objects a byte of input: a list of one-byte integers is 8
MEMORY_FLOOR = 4 << 20
LISTS = {
    EntryKind.CONFIG: "configs",
    EntryKind.PROMPT: "prompts",
    EntryKind.AB_TEST: "prompt_ab_tests",
}


def check_frames(data: bytes) -> None:
    """Any bytes are frames and damage, without a gap; k damaged frames cost at most k."""
    _check_covered(data, list(scan(data, 0, SEED)))
    head, rest = data[:4], data[4:]
    payloads = _parts(rest)
    written = b"".join(encode_frame(Kind.SPAN, payload, SEED) for payload in payloads)
    found = list(scan(written, 0, SEED))
    assert [each.payload for each in found if isinstance(each, Frame)] == payloads, "round trip"
    assert len(found) == len(payloads), "no damage where there is none"
    for payload in payloads:
        _check_record(payload)
    spoilt, hit = bytearray(written), set()
    for flip in head if written else b"":
        at = (flip * 7919 + len(rest) * 31) % len(written)
        spoilt[at] ^= 1 << flip % 8
        hit.add(at)
    after = list(scan(bytes(spoilt), 0, SEED))
    _check_covered(bytes(spoilt), after)
    whole = [each.payload for each in after if isinstance(each, Frame)]
    assert len(whole) >= len(payloads) - len(hit), f"{len(hit)} flips cost more frames"
    remaining = iter(payloads)
    assert all(payload in remaining for payload in whole), "a frame that nobody wrote"


def check_segment(data: bytes) -> None:
    """A segment of any bytes is read to its end without an error, and all its whole frames come out."""
    with _folder() as folder:
        spool = open_directory(str(folder))
        name, file = create_segment(spool, Destination.TRACES)
        flips, body = data[:4], data[4:]
        frames = [encode_frame(Kind.SPAN, pack(part), name.seed) for part in _parts(body)]
        content = b"".join((*frames, body, *frames))
        os.write(file.fd, content)
        file.close()
        reading = Reading(spool)
        taken = reading.take_all()
        reading.tidy(leaving=True)
        left = [entry for entry in os.listdir(spool.fd) if entry.startswith("traces")]
        reading.reader.close()
        assert len(taken) == 2 * len(frames), "a whole frame was not given"
        assert left == [], "an accepted segment without a writer stays"
        _check_spoilt_head(folder / "again", content, flips)
        spool.close()


def check_manifest(data: bytes) -> None:
    """Any bytes are a manifest, which says the same when written again, or a PayloadError."""
    for given in (data, hashlib.sha256(data).digest() + data):
        try:
            root = decode_root(given)
        except PayloadError:
            continue
        assert decode_root(encode_root(root)) == root
        assert root.over(root) == root
        root.removed()
        whole = {k: s for k, s in root.sections.items() if not isinstance(s, Shards)}
        manifest = Manifest(root.generation, root.published_unix_ns, whole)
        hashes = set(root.entries())
        assert set(manifest.having(hashes).hashes()) == hashes
        index = Index()
        for kind in root.sections:
            for key in whole.get(kind, ("a key",)):
                assert index.next_row(root, (kind, key, None)) or kind in whole


def check_listing(data: bytes) -> None:
    """Any body gives entries that workers can use, or PayloadErrors."""
    try:
        payload = parse_json(data, "the test")
    except PayloadError:
        return
    for kind, name in LISTS.items():
        for given in (payload, {name: payload}, {name: [payload]}):
            try:
                listing = read_listing(kind, given)
            except PayloadError:
                continue
            for refusal in listing.refused:
                assert str(refusal)
            for entry in listing.entries:
                assert entry.key in listing.listed
                compiled = decode_entry(entry.data)
                if isinstance(compiled, CompiledConfig):
                    choose(compiled, "session", {})
    try:
        read_config(payload, "key", 1)
    except PayloadError:
        return


CHECKS: Mapping[str, Callable[[bytes], None]] = {
    "frames": check_frames,
    "segment": check_segment,
    "manifest": check_manifest,
    "listing": check_listing,
}


def check_memory(check: Callable[[bytes], None], data: bytes) -> None:
    """Run a check, and see that it costs no more memory than its input allows."""
    tracemalloc.start()
    try:
        check(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    most = MEMORY_FLOOR + MEMORY_FACTOR_MAX * len(data)
    assert peak <= most, f"{peak} bytes for an input of {len(data)}"


def _check_covered(data: bytes, found: list[Frame | Damage]) -> None:
    """See that what was found is all of the data, in order."""
    position = 0
    for each in found:
        assert each.offset == position, "a gap"
        assert each.end > position, "no progress"
        assert not (isinstance(each, Damage) and each.is_incomplete and each is not found[-1])
        position = each.end
    assert position == len(data), "not to the end"


def _check_record(payload: bytes) -> None:
    try:
        record = decode_record(payload)
    except RecordError:
        return
    try:
        packed = pack(record)
    except RecordError:  # a mapping may have a key that was a list
        return
    assert pack(decode_record(packed)) == packed, "a record that changes when it is read"


def _check_spoilt_head(folder: Path, content: bytes, flips: bytes) -> None:
    """See that a damaged head costs no frame: at worst they are sent again, or a later version's."""
    folder.mkdir(mode=0o700)
    spool = open_directory(str(folder))
    name, file = create_segment(spool, Destination.TRACES)
    os.write(file.fd, content)
    file.close()
    with (folder / name.file_name()).open("r+b") as opened:
        for flip in flips:
            opened.seek(flip % HEAD_BYTES)
            opened.write(bytes([flip]))
    reading = Reading(spool)
    reading.take_all()
    assert not reading.errors, reading.errors
    reading.reader.close()
    spool.close()


def _parts(data: bytes) -> list[bytes]:
    """Cut data into payloads, at its zero bytes."""
    return data.split(b"\0")[:50] if data else []


class _folder:
    def __enter__(self) -> Path:
        where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self._path = Path(tempfile.mkdtemp(prefix="fallom-fuzz-", dir=where))
        return self._path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._path, ignore_errors=True)
