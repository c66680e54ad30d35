"""A spool in a directory, written to and read as workers and the flusher do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fallom._host.counts import Drop
from fallom._host.files import File, open_file
from fallom._spool.frame import Kind, encode_frame, pack
from fallom._spool.reader import Piece, SpoolReader
from fallom._spool.segment import Destination, SegmentName, create_segment, seal, target_hash
from fallom._spool.writer import SpoolWriter

TARGET = target_hash("http://127.0.0.1/v1/traces")


class Segment:
    """A segment that a test writes to, frame by frame or byte by byte."""

    def __init__(
        self,
        spool: File,
        resource: Any = None,
        destination: Destination = Destination.TRACES,
    ) -> None:
        self.spool = spool
        self.name, self.file = create_segment(spool, destination)
        if resource is not None:
            self.add(resource, kind=Kind.HEADER)

    @property
    def end(self) -> int:
        return self.file.size()

    def frame(self, record: Any, kind: int = Kind.SPAN) -> bytes:
        return encode_frame(kind, pack(record), self.name.seed)

    def add(self, *records: Any, kind: int = Kind.SPAN) -> Segment:
        """Write records, a frame each."""
        for record in records:
            self.raw(self.frame(record, kind))
        return self

    def raw(self, data: bytes) -> Segment:
        """Write bytes."""
        os.write(self.file.fd, data)
        return self

    def leave(self) -> SegmentName:
        """End as a killed writer does."""
        self.file.close()
        return self.name

    def seal(self) -> SegmentName:
        """End as a writer does that may."""
        seal(self.spool, self.name)
        self.file.close()
        self.name = self.name._replace(is_sealed=True)
        return self.name

    def flip(self, offset: int) -> None:
        """Damage one byte."""
        file = open_file(self.spool, self.name.file_name(), os.O_RDWR)
        [byte] = os.pread(file.fd, 1, offset)
        os.pwrite(file.fd, bytes([byte ^ 0x10]), offset)
        file.close()


class Reading:
    """A reader with what it told."""

    def __init__(
        self, spool: File, destination: Destination = Destination.TRACES, **changes: Any
    ) -> None:
        self.damage: list[tuple[SegmentName, int, bytes]] = []
        self.errors: list[str] = []
        self.now_ns = 1
        self.reader = SpoolReader(
            spool,
            destination,
            TARGET,
            on_damage=lambda name, offset, data: self.damage.append((name, offset, data)),
            on_error=self.errors.append,
            **changes,
        )

    def pieces(self, items_max: int = 1000, bytes_max: int = 1 << 20) -> list[Piece]:
        """Look, and give the next batch."""
        self.reader.refresh(self.now_ns)
        return self.reader.next_batch(items_max, bytes_max)

    def take(self, items_max: int = 1000, bytes_max: int = 1 << 20) -> list[Any]:
        """Give the records of the next batch and accept them."""
        pieces = self.pieces(items_max, bytes_max)
        self.reader.accept(pieces)
        return records_of(pieces)

    def take_all(self) -> list[Any]:
        """Give all records that there are and accept them."""
        found: list[Any] = []
        while pieces := self.pieces():
            self.reader.accept(pieces)
            found += records_of(pieces)
        return found

    def tidy(self, after_ns: int = 0, leaving: bool = False) -> int:
        self.now_ns += after_ns
        self.reader.refresh(self.now_ns)
        return self.reader.tidy(self.now_ns, leaving)


def records_of(pieces: list[Piece]) -> list[Any]:
    """Give the records of a batch."""
    return [item.record for piece in pieces for item in piece.items]


class RecordWriter(SpoolWriter):
    """The writer of a process, with a way to write what is not packed yet."""

    def write(self, destination: Destination, kind: Kind, record: Any, now_ns: int) -> Drop | None:
        return self.write_packed(destination, kind, pack(record), now_ns)


def allocated_bytes(state_dir: Path) -> int:
    """Give the bytes that the spools below a state directory have on the disk now."""
    found = 0
    for path in state_dir.glob("v1/*/spool/*"):
        try:
            found += path.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return found
