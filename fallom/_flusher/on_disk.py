"""``fsync="interval"``: once a second the flusher has the disk write what workers recorded.

A record is in the kernel before the recording call returns, so it survives its process. It survives the
loss of power once it is on the disk, and without this the kernel takes up to half a minute for that. It
works while a flusher lives: what is recorded while none does waits for the next one's first round.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from fallom._host.files import File, open_file
from fallom._spool.segment import SegmentName, segment_names

__all__ = ["OnDisk"]

INTERVAL_S = 1.0


class OnDisk:
    """Brings the segments of a spool to the disk; a thread of its own, for a disk may take seconds."""

    def __init__(self, spool: File, on_error: Callable[[str], None]) -> None:
        """Sync nothing yet; ``on_error`` is told, in a sentence, what the disk refused."""
        self._spool = spool
        self._on_error = on_error
        self._sizes: dict[bytes, int] = {}  # by segment: the size that is known to be on the disk

    def run(self, stop: threading.Event) -> None:
        """Sync once a second until told to stop, and once more then."""
        while not stop.wait(INTERVAL_S):
            self.sync_once()
        self.sync_once()

    def sync_once(self) -> int:
        """Have the disk write what grew since the last time; give how many segments that were."""
        try:
            names = segment_names(self._spool)
        except OSError as error:
            self._on_error(f"the spool cannot be listed to sync it: {error}")
            return 0
        self._sizes = {n.id: self._sizes[n.id] for n in names if n.id in self._sizes}
        before = set(self._sizes)
        synced = sum(self._sync(name) for name in names)
        if not before.issuperset(self._sizes):
            try:
                os.fsync(self._spool.fd)  # the names of new segments
            except OSError as error:
                self._on_error(f"the spool directory cannot be synced: {error}")
        return synced

    def _sync(self, name: SegmentName) -> bool:
        try:
            file = open_file(self._spool, name.file_name(), os.O_RDWR)
        except OSError:
            return False  # sealed or deleted since it was listed; under its new name it comes next time
        try:
            size = file.size()
            if size == self._sizes.get(name.id):
                return False
            os.fdatasync(file.fd)
            self._sizes[name.id] = size
        except OSError as error:
            self._on_error(f"segment {name.file_name()} cannot be synced: {error}")
            return False
        else:
            return True
        finally:
            file.close()
