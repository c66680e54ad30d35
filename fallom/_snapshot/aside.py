"""Where a broken database goes: renamed into ``aside/``, never followed, never opened again.

It may be somebody's evidence, so it is kept; it may be planted or huge, so only the last few are.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from pathlib import Path

from fallom._snapshot.database import DATABASE_NAME, SIDE_FILES

__all__ = ["ASIDE_NAME", "remove_entirely", "set_aside"]

ASIDE_NAME = "aside"
KEPT_MAX = 3  # guess: the first tells what happened, the last whether it still does


def set_aside(directory: Path) -> Path | None:
    """Move the database and its side files out of the way; give where to, None if it was not possible.

    The database goes first: side files without a database are harmless, and the next database is not
    put in place before they are gone; a database without its journal could be read half-committed.

    Raises:
        OSError: It can neither be moved nor removed.
    """
    try:
        place = _new_place(directory / ASIDE_NAME)
    except OSError:  # a full disk has no room for a directory; renames and unlinks still work there
        place = None
    for suffix in ("", *SIDE_FILES):
        name = f"{DATABASE_NAME}{suffix}"
        with contextlib.suppress(FileNotFoundError):
            if place is None:
                remove_entirely(directory / name)
            else:
                os.rename(directory / name, place / name)
    return place


def remove_entirely(path: Path) -> None:
    """Remove a file, link, FIFO or whole directory; links are not followed."""
    if stat.S_ISDIR(os.lstat(path).st_mode):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _new_place(parent: Path) -> Path:
    with contextlib.suppress(FileExistsError):
        os.mkdir(parent, 0o700)
    if not stat.S_ISDIR(os.lstat(parent).st_mode):  # a link would lead elsewhere
        os.unlink(parent)
        os.mkdir(parent, 0o700)
    earlier = sorted(os.listdir(parent))
    for name in earlier[: max(0, len(earlier) - KEPT_MAX + 1)]:
        with contextlib.suppress(OSError):
            remove_entirely(parent / name)
    place = parent / f"{time.time_ns():020d}"
    os.mkdir(place, 0o700)
    return place
