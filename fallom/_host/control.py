"""The control page: 4 KiB that every process of a namespace maps, and what it says.

Written zeros (a hole would be SIGBUS on a full disk), made aside and linked into place: of any number
of processes that make it at once one wins, and the others use the winner's. It is never replaced and
never truncated by us. Workers map it read-only; every write is a ``pwrite``, because a store into a
map can be SIGBUS. One writer a field: the flusher (of the successor, that one), but for the drop counters,
which anyone adds to under an exclusive ``flock`` (without it four writers lost 63 % of their increments).

| offset | bytes | field | meaning, and what a wrong value costs |
| --- | --- | --- | --- |
| 0 | 8 | magic | ``fallomCP``; anything else: set aside, made anew |
| 8 | 8 | layout | 1; another layout lives in another directory |
| 16 | 8 | generation | of the last publish, 0 for never; wrong: one read of the database too many |
| 24 | 8 | heartbeat | monotonic ns, 0 for "I am leaving"; wrong: one probe of the leader lock |
| 32 | 8 | started | monotonic ns of the flusher's first beat; wrong: a start is tried later |
| 40 | 8 | pid | of the flusher; only shown |
| 48 | 8 | version | of the flusher, major << 40, minor << 20, patch; wrong: a useless hand-over |
| 56 | 8 | successor | version that waits to take over, 0 for none; wrong: a flusher leaves early |
| 64 | 8 | spool bytes | allocated, as of the last tick; only shown |
| 72 | 8 | pressure | 0 fine, 1 near the quota, 2 refuse; wrong: drops for one tick |
| 80 | 8 | paused until | wall-clock s until which a refusing target is left alone; only shown |
| 88 | 8 | synced | wall-clock s of the last sync whose answers were all good; only shown |
| 96 | 8 | wrong since | wall-clock s since when people have to mend something; wrong: a warning |
| 128 | 256 | last error | UTF-8, padded with NUL; only shown |
| 1024 | 64 x 8 | tallies | of the flusher: what was sent, accepted, retried (``Tally``); only shown |
| 2048 | 64 x 8 | drops | by reason (``Drop``), added to under the page's lock |
| 2560 | 6 x 256 | extra targets | of the flusher: what each took (``TargetBoard``); only shown |

All numbers are unsigned 64-bit, little-endian, aligned to 8, so that none is ever seen half-written.
Fields are only ever added; a reason or tally keeps its number for ever.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import sys
import time
from collections.abc import Mapping

from fallom._host.counts import Drop, Tally
from fallom._host.files import File, UnsafeFileError, entries_of, open_file

__all__ = [
    "BEAT_STALE_NS",
    "GENERATION_WORD",
    "LOCK_DEADLINE_S",
    "PRESSURE_WORD",
    "ControlPage",
    "remove_asides",
]

PAGE_BYTES = 4096
BEAT_STALE_NS = 1_500_000_000  # three beats of 0.5 s
BEAT_AHEAD_NS = 50_000_000
ASIDE_AGE_S = 60.0  # making a page takes a millisecond
LOCK_DEADLINE_S = 0.05  # to add to a counter; beyond it the count is kept by the caller for later

_NAME = "control"
_MAGIC = b"fallomCP"
_LAYOUT = 1
_GENERATION, _BEAT, _STARTED, _PID, _VERSION, _SUCCESSOR, _BYTES, _PRESSURE, _PAUSED, _SYNCED = (
    range(2, 12)
)
_WRONG_SINCE = 12
GENERATION_WORD, PRESSURE_WORD = _GENERATION, _PRESSURE
_ERROR_AT, _ERROR_BYTES = 128, 256
_TALLIES_AT, _DROPS_AT, _COUNTERS = 1024, 2048, 64
_U64 = struct.Struct("<Q")


class ControlPage:
    """The page of one namespace, mapped."""

    __slots__ = ("_bytes", "_file", "_map", "words")

    def __init__(self, file: File) -> None:
        """Map an open page; use ``ControlPage.open``."""
        self._file = file
        self._map = _map(file.fd)
        self._bytes = memoryview(self._map)
        # To be read as it is where a call a field is too dear: it takes 60 ns, the load itself 12.
        self.words = self._bytes.cast("Q")

    @classmethod
    def open(cls, directory: File) -> ControlPage:
        """Open the page of a namespace, making it if there is none.

        Raises:
            UnsafeFileError: Something is in its place that is not ours.
            OSError: The disk refuses.
        """
        for _ in range(8):  # each round lost means that somebody else made progress
            with contextlib.suppress(FileNotFoundError):
                file = open_file(directory, _NAME, os.O_RDWR, links_max=2)
                if _is_page(file):
                    return cls(file)
                try:
                    _set_aside(directory, file)
                finally:
                    file.close()
            _make(directory)
        raise UnsafeFileError(f"{directory.name}/{_NAME} cannot be made; remove it to go on")

    def is_current(self, directory: File) -> bool:
        """Tell whether the name still leads to this page. One ``stat``."""
        try:
            found = os.stat(_NAME, dir_fd=directory.fd, follow_symlinks=False)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._file.identity and self._file.is_ours()

    def __del__(self) -> None:
        # Before Python 3.13 a map keeps a descriptor of its own, and closes that number when it goes. A
        # host that daemonised has closed it and may have got it for a file of its own: then 4 KiB of
        # address space are left behind instead.
        if hasattr(self, "words") and self._file.fd >= 0 and not self._file.is_ours():
            import ctypes  # once in the life of such a process

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._map))

    def close(self) -> None:
        """Unmap; the page must not be used afterwards."""
        self.words.release()
        self._bytes.release()
        self._map.close()
        self._file.close()

    # What workers read: one load from the map each.

    def generation(self) -> int:
        """Give the generation of the last publish, 0 if nothing ever was."""
        return self.words[_GENERATION]

    def is_alive(self, monotonic_ns: int) -> bool:
        """Tell whether a flusher beat within the last 1.5 s; a beat from the future is stale.

        But for 50 ms: it may beat between the caller's look at the clock and this one at the page.
        """
        beat_ns = self.words[_BEAT]
        return beat_ns != 0 and -BEAT_AHEAD_NS <= monotonic_ns - beat_ns <= BEAT_STALE_NS

    def is_leaving(self) -> bool:
        """Tell whether there is no flusher, or one that has said that it is about to leave."""
        return self.words[_BEAT] == 0

    def started_ns(self) -> int:
        """Give the monotonic time of the last flusher's first beat."""
        return self.words[_STARTED]

    def heartbeat_ns(self) -> int:
        """Give the monotonic time of the last beat, 0 when a flusher left."""
        return self.words[_BEAT]

    def flusher_pid(self) -> int:
        """Give the flusher's process id, for people."""
        return self.words[_PID]

    def flusher_version(self) -> int:
        """Give the flusher's packed version."""
        return self.words[_VERSION]

    def successor(self) -> int:
        """Give the packed version of a candidate that waits to take over."""
        return self.words[_SUCCESSOR]

    def spool_bytes(self) -> int:
        """Give the allocated bytes of the spool, as of the flusher's last tick."""
        return self.words[_BYTES]

    def pressure(self) -> int:
        """Give 0 (fine), 1 (near the quota) or 2 (refuse)."""
        return self.words[_PRESSURE]

    def paused_until_s(self) -> int:
        """Give the wall-clock second until which the flusher leaves a refusing target alone."""
        return self.words[_PAUSED]

    def wrong_since_s(self) -> int:
        """Give the wall-clock second since when people have to mend something, 0 for nothing."""
        return self.words[_WRONG_SINCE]

    def synced_s(self) -> int:
        """Give the wall-clock second of the last sync whose answers were all good, 0 for never."""
        return self.words[_SYNCED]

    def last_error(self) -> str:
        """Give the flusher's last error, in a sentence."""
        return self.read(_ERROR_AT, _ERROR_BYTES).rstrip(b"\0").decode("utf-8", "replace")

    def tallies(self) -> dict[str, int]:
        """Give what the flusher counted, by name."""
        return {t.name.lower(): self.words[_TALLIES_AT // 8 + t] for t in Tally}

    def drops(self) -> dict[str, int]:
        """Give what was given up, by reason."""
        return {d.name.lower(): self.words[_DROPS_AT // 8 + d] for d in Drop}

    def read(self, offset: int, size: int) -> bytes:
        """Give some bytes of the page as they are."""
        return bytes(self._bytes[offset : offset + size])

    # What is written.

    def write(self, offset: int, data: bytes) -> None:
        """Write bytes to a place that has one writer, who calls this."""
        os.pwrite(self._file.fd, data, offset)

    def add_drops(
        self, directory: File, counts: Mapping[Drop, int], deadline_s: float = LOCK_DEADLINE_S
    ) -> bool:
        """Add to the drop counters under the page's lock.

        Returns:
            False if the lock was held by others for ``deadline_s``, or the page cannot be written: the
            caller keeps the counts and tries again.
        """
        try:
            # A descriptor of its own: a flock belongs to the open file, and threads share this one's.
            private = open_file(directory, _NAME, os.O_RDWR, links_max=2)
        except OSError:
            return False
        try:
            if private.identity != self._file.identity or not private.lock(deadline_s):
                return False
            for drop, count in counts.items():
                offset = _DROPS_AT + 8 * drop
                os.pwrite(private.fd, _pack(self.words[offset // 8] + count), offset)
        except OSError:
            return False
        finally:
            private.close()  # the lock goes with its open file
        return True

    def add_tallies(self, counts: Mapping[Tally, int]) -> None:
        """Add to the flusher's counters; for its main thread only."""
        for tally, count in counts.items():
            offset = _TALLIES_AT + 8 * tally
            self.write(offset, _pack(self.words[offset // 8] + count))

    def set_generation(self, generation: int) -> None:
        """Tell every process that a new snapshot can be read."""
        self.write(8 * _GENERATION, _pack(generation))

    def beat(self, monotonic_ns: int) -> None:
        """Say that the flusher lives; 0 says that it is about to leave."""
        self.write(8 * _BEAT, _pack(monotonic_ns))

    def take_over(self, monotonic_ns: int, pid: int, version: int) -> None:
        """Write down who the flusher is now; the first beat comes last."""
        self.write(8 * _PID, _pack(pid))
        self.write(8 * _VERSION, _pack(version))
        self.write(8 * _STARTED, _pack(monotonic_ns))
        self.beat(monotonic_ns)

    def set_successor(self, version: int) -> None:
        """Ask the flusher to leave in favour of a higher version; 0 takes it back."""
        self.write(8 * _SUCCESSOR, _pack(version))

    def set_spool(self, allocated_bytes: int, pressure: int) -> None:
        """Publish the spool's usage and what workers should do about it."""
        self.write(8 * _BYTES, _pack(allocated_bytes))
        self.write(8 * _PRESSURE, _pack(pressure))

    def set_paused(self, until_unix_s: int) -> None:
        """Show until when a refusing target is left alone; 0 for none."""
        self.write(8 * _PAUSED, _pack(until_unix_s))

    def set_wrong_since(self, unix_s: int) -> None:
        """Say since when people have to mend something; 0 when it is over."""
        self.write(8 * _WRONG_SINCE, _pack(unix_s))

    def set_synced(self, unix_s: int) -> None:
        """Show when configs and prompts were last fetched."""
        self.write(8 * _SYNCED, _pack(unix_s))

    def set_last_error(self, message: str) -> None:
        """Show the last error, cut to 256 bytes of UTF-8."""
        raw = message.encode("utf-8", "replace")[:_ERROR_BYTES]
        self.write(_ERROR_AT, raw.ljust(_ERROR_BYTES, b"\0"))


def remove_asides(directory: File, unix_s: float) -> None:
    """Remove what processes left behind that were killed while they made a page."""
    with contextlib.suppress(OSError), entries_of(directory) as entries:
        for entry in entries:
            prefix, _, rest = entry.name.partition(".")
            pid, dot, _ = rest.partition(".")
            if prefix == _NAME and dot and pid.isdigit():
                found = entry.stat(follow_symlinks=False)
                if unix_s - found.st_mtime > ASIDE_AGE_S:
                    os.unlink(entry.name, dir_fd=directory.fd)


def _map(fd: int) -> mmap.mmap:
    if sys.version_info >= (3, 13):
        return mmap.mmap(fd, PAGE_BYTES, mmap.MAP_SHARED, mmap.PROT_READ, trackfd=False)
    return mmap.mmap(fd, PAGE_BYTES, mmap.MAP_SHARED, mmap.PROT_READ)


def _pack(value: int) -> bytes:
    return _U64.pack(value & 0xFFFF_FFFF_FFFF_FFFF)


def _is_page(file: File) -> bool:
    return file.size() >= PAGE_BYTES and os.pread(file.fd, 16, 0) == _MAGIC + _U64.pack(_LAYOUT)


def _make(directory: File) -> None:
    """Make a page aside and link it into place; losing the race is success."""
    aside = f"{_NAME}.{os.getpid()}.{os.urandom(4).hex()}"
    file = open_file(directory, aside, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        page = (_MAGIC + _U64.pack(_LAYOUT)).ljust(PAGE_BYTES, b"\0")
        if os.write(file.fd, page) != PAGE_BYTES:
            raise OSError(28, "no space left for the control page")
        with contextlib.suppress(FileExistsError):
            os.link(aside, _NAME, src_dir_fd=directory.fd, dst_dir_fd=directory.fd)
    finally:
        with contextlib.suppress(OSError):  # then ``remove_asides`` does it
            os.unlink(aside, dir_fd=directory.fd)
        file.close()


def _set_aside(directory: File, file: File) -> None:
    """Move what is no page out of the way; it may be somebody's evidence.

    Under its lock, and only while the name leads to it: another may have put a good page there.
    """
    if not file.lock(LOCK_DEADLINE_S):
        return
    with contextlib.suppress(FileNotFoundError):
        found = os.stat(_NAME, dir_fd=directory.fd, follow_symlinks=False)
        if (found.st_dev, found.st_ino) == file.identity:
            aside = f"{_NAME}.damaged.{time.time_ns()}"
            os.rename(_NAME, aside, src_dir_fd=directory.fd, dst_dir_fd=directory.fd)


assert sys.byteorder == "little", "the page is read as native words"
