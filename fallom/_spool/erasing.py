"""Erasing: whose records are removed from the spool, in place, beside its writers and the flusher.

Segments have readers that hold them open and offsets in their heads, so no file is replaced and no offset
moves: an erased frame keeps its place. First its header is overwritten, 11 bytes at once, with the kind
ERASED and a checksum of the header alone; from then on nobody sends it. Then its payload is overwritten
with zeros. Whoever erases again after a kill finds what was left between the two steps, whosever it was.
No lock is taken: a writer only appends, and whole frames behind its end are nobody else's to write.

What cannot be decoded (damage, a record of a later version) is taken for that person's if their id occurs
in its bytes, and overwritten as well: nobody could deliver it as it was.

A flusher that has read a record asks before it sends that again, or puts it into ``dead/``, whether it was
erased meanwhile (``Item.is_erased``).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fallom._core.span import exposure_of, metrics_of, span_of
from fallom._host.files import File
from fallom._spool.frame import (
    HEADER_BYTES,
    KIND_AT,
    Damage,
    Frame,
    Kind,
    RecordError,
    decode_record,
    encode_tombstone,
)
from fallom._spool.segment import (
    HEAD_BYTES,
    Destination,
    SegmentName,
    is_known_format,
    open_listed,
    read_accepted,
    read_furthest,
    segment_names,
)
from fallom._spool.tail import frames_of

__all__ = ["Erasure", "Person", "erase_from_spool", "person_of"]

ZEROS = bytes(64 << 10)
SENT_KINDS = (Kind.SPAN, Kind.METRICS, Kind.EXPOSURE)


@dataclass(frozen=True, slots=True)
class Person:
    """Whose records are meant: a session, or a customer with the sessions that are known of them.

    Attributes:
        session_id: "" where it is a customer.
        customer_id: "" where it is a session.
        sessions: Of the customer and of no other: exposures name the session alone.
    """

    session_id: str = ""
    customer_id: str = ""
    sessions: frozenset[str] = frozenset()

    @property
    def needles(self) -> list[bytes]:
        """What at least one of occurs in every record of theirs, unless the id was recorded as a number."""
        ids = [self.session_id or self.customer_id, *self.sessions]
        return [known.encode("utf-8", "surrogatepass") for known in ids]

    def is_named_in(self, data: bytes) -> bool:
        """Tell whether an id of theirs occurs in bytes."""
        return any(needle in data for needle in self.needles)

    def owns(self, kind: int, payload: bytes) -> bool:
        """Tell whether a packed record is theirs."""
        if self.session_id and not (_is_number(self.session_id) or self.is_named_in(payload)):
            return False  # without decoding it; to look for all sessions of a customer would take longer
        found = _whose(kind, payload)
        if found is None:
            return kind != Kind.HEADER and self.is_named_in(payload)
        session_id, customer_id = found
        if self.session_id:
            return session_id == self.session_id
        by_session = kind == Kind.EXPOSURE and session_id in self.sessions
        return by_session or customer_id == self.customer_id


@dataclass(slots=True)
class Erasure:
    """What was removed, or would be: how many records of each kind, and what could not be looked at."""

    unsent: Counter[str] = field(default_factory=Counter)
    delivered: int = 0  # the server has them; only the copy on this disk went
    unreadable: int = 0  # stretches of bytes that are no record and have the id in them
    failed: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How much it is of everything."""
        return self.unsent.total() + self.delivered + self.unreadable

    def add(self, other: Erasure) -> None:
        """Add what another pass removed; what could not be looked at is what the last one says."""
        self.unsent.update(other.unsent)
        self.delivered += other.delivered
        self.unreadable += other.unreadable
        self.failed = other.failed


def person_of(spool: File, session_id: str, customer_id: str) -> Person:
    """Give the person; of a customer, with the sessions that the spool says are theirs alone.

    Raises:
        OSError: The directory cannot be read.
    """
    if not customer_id:
        return Person(session_id)
    theirs: set[str] = set()
    others: set[str] = set()
    for name in segment_names(spool):
        file = _opened(spool, name)
        if isinstance(file, File):
            try:
                for frame in frames_of(file, name, HEAD_BYTES, file.size()):
                    found = _whose(frame.kind, frame.payload) if isinstance(frame, Frame) else None
                    if found is not None and found[1]:
                        (theirs if found[1] == customer_id else others).add(found[0])
            except OSError:
                continue  # whoever erases from it says that it cannot be read
            finally:
                file.close()
    return Person("", customer_id, frozenset(theirs - others - {""}))


def erase_from_spool(
    spool: File,
    person: Person,
    target_of: Mapping[Destination, bytes] | None,
    is_dry: bool = False,
) -> Erasure:
    """Remove a person's records from all segments, sealed or being written to.

    Args:
        spool: The spool directory.
        person: Whose.
        target_of: To tell what was delivered; None counts as delivered what any target has.
        is_dry: Only count.

    Raises:
        OSError: The directory cannot be read.
    """
    erasure = Erasure()
    # Exposures first: the other records say whose they are, also to whoever erases again after a kill.
    names = sorted(
        segment_names(spool), key=lambda name: name.destination is not Destination.EXPOSURES
    )
    for name in names:
        if name.destination is Destination.WISHES:
            continue
        file = _opened(spool, name)
        if file is None:
            continue
        if isinstance(file, str):
            erasure.failed.append(file)
            continue
        try:
            _erase(file, name, person, target_of, is_dry, erasure)
        except OSError as error:
            erasure.failed.append(f"segment {name.file_name()}: {error}")
        finally:
            file.close()
    return erasure


def _erase(
    file: File,
    name: SegmentName,
    person: Person,
    target_of: Mapping[Destination, bytes] | None,
    is_dry: bool,
    erasure: Erasure,
) -> None:
    targets = target_of and target_of[name.destination]
    accepted = read_accepted(file, name, targets) if targets else read_furthest(file, name)
    is_changed = False
    theirs = _theirs(file, name, person)
    known = {
        _span_id(each) for each in theirs if isinstance(each, Frame) and each.kind == Kind.SPAN
    }
    for found in theirs:
        if isinstance(found, Damage):
            erasure.unreadable += 1
        elif found.kind == Kind.ERASED:
            pass  # counted by whoever was killed at it
        elif found.kind == Kind.START:
            # The flusher read on, and owes a span should the process die. A sealed segment owes none.
            if not (name.is_sealed or _span_id(found) in known):
                erasure.unsent["calls in flight"] += 1
                known.add(_span_id(found))
        elif found.offset >= accepted:
            erasure.unsent[_word(found.kind)] += 1
        else:
            erasure.delivered += 1
        if not is_dry:
            is_changed = True
            _overwrite(file, found, name.seed)
    if is_changed:
        os.fdatasync(file.fd)  # or a power loss could bring it back


def _theirs(file: File, name: SegmentName, person: Person) -> list[Frame | Damage]:
    """Give the frames to erase: also the start of a call whose end is among them."""
    found: list[Frame | Damage] = []
    starts: dict[bytes, Frame] = {}
    for each in frames_of(file, name, HEAD_BYTES, file.size()):
        if isinstance(each, Damage):
            if not (each.is_incomplete and not name.is_sealed) and _mentions(file, each, person):
                found.append(each)
        elif each.kind == Kind.ERASED:
            if any(each.payload):
                found.append(each)
        elif person.owns(each.kind, each.payload):
            found.append(each)
            if each.kind == Kind.SPAN and (start := starts.get(_span_id(each))) is not None:
                found.append(start)
        elif each.kind == Kind.START:
            starts[_span_id(each)] = each
    return found


def _overwrite(file: File, found: Frame | Damage, seed: int) -> None:
    """Leave nothing of a frame, or of what is none."""
    begin = found.offset
    if isinstance(found, Frame):
        begin += HEADER_BYTES
        tombstone = encode_tombstone(found.end - begin, seed)
        os.pwrite(file.fd, tombstone[KIND_AT:], found.offset + KIND_AT)
    while begin < found.end:
        begin += os.pwrite(file.fd, ZEROS[: found.end - begin], begin)


def _mentions(file: File, damage: Damage, person: Person) -> bool:
    """Tell whether the id of a person occurs in a stretch of bytes."""
    longest = max(map(len, person.needles))
    return any(
        needle in window for window in _windows(file, damage, longest) for needle in person.needles
    )


def _windows(file: File, damage: Damage, overlap: int) -> Iterator[bytes]:
    for begin in range(damage.offset, damage.end, len(ZEROS)):
        yield os.pread(file.fd, min(len(ZEROS) + overlap, damage.end - begin), begin)


def _whose(kind: int, payload: bytes) -> tuple[str, str] | None:
    """Give the session and the customer that a record names, each "" for none; None if it is unreadable."""
    try:
        record = decode_record(payload)
        if kind == Kind.EXPOSURE:
            return exposure_of(record).session_id, ""
        if kind == Kind.METRICS:
            metrics = metrics_of(record)
            return metrics.session_id, _text(metrics.attributes, "fallom.customer_id")
        if kind in (Kind.SPAN, Kind.START):
            attributes = span_of(record).attributes
            session_id = _text(attributes, "fallom.session_id")
            return session_id, _text(attributes, "fallom.customer_id")
    except (RecordError, ValueError, TypeError):
        return None
    return None


def _span_id(frame: Frame) -> bytes:
    try:
        found = decode_record(frame.payload)[1]
    except (RecordError, TypeError, LookupError):
        return b""
    return found if isinstance(found, bytes) else b""


def _text(attributes: Mapping[str, Any], name: str) -> str:
    found = attributes.get(name, "")
    return found if isinstance(found, str) else str(found)


def _is_number(known: str) -> bool:
    """Tell whether an id may be that of a number, whose packed form is not its text."""
    try:
        float(known)
    except ValueError:
        return False
    return True


def _word(kind: int) -> str:
    return {Kind.SPAN: "spans", Kind.METRICS: "metrics", Kind.EXPOSURE: "exposures"}.get(
        Kind(kind) if kind in SENT_KINDS else Kind.UNKNOWN, "others"
    )


def _opened(spool: File, name: SegmentName) -> File | str | None:
    """Open a segment; None if it is gone, or why it cannot be looked at."""
    shown = f"segment {name.file_name()}"
    try:
        file = open_listed(spool, name)
        if file is None or is_known_format(file):
            return file
    except OSError as error:
        return f"{shown}: {error}"
    file.close()
    return f"{shown} was written by a later version of fallom"
