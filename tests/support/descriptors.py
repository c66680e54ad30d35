"""Whether code leaves a descriptor open: new ones count; those of other tests may be closed meanwhile."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager


def _open_descriptors() -> dict[tuple[int, int, int], str]:
    """Give where each descriptor of this process leads, by its number, device and inode."""
    found = {}
    for entry in os.listdir("/proc/self/fd"):
        try:
            state = os.fstat(int(entry))
            found[int(entry), state.st_dev, state.st_ino] = os.readlink(f"/proc/self/fd/{entry}")
        except OSError:  # the one that listed them, or one that another thread has closed
            continue
    return found


@contextmanager
def nothing_left_open() -> Iterator[None]:
    """Fail if a descriptor is open at the end that was not open at the start."""
    gc.collect()
    before = _open_descriptors()
    yield
    left = {found: path for found, path in _open_descriptors().items() if found not in before}
    assert not left, f"left open: {left}"
