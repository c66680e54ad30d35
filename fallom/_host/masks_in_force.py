"""``ship_masks`` of a namespace: the names of the masks that whoever ships its records has to apply.

It stands beside the spool, and not only in the settings of a flusher, because that flusher may have been
started by a process that did not know of it, before the records or the setting came. Any process writes
it, whole and aside, by what its settings say; those that say nothing leave it as it is.
"""

from __future__ import annotations

import contextlib
import os

from fallom._host.files import File, open_file

__all__ = ["read_masks", "write_masks"]

_NAME = "ship_masks"
_BYTES_MAX = 4096


def read_masks(root: File) -> str:
    """Give the names as they were set; "" if they never were.

    Raises:
        OSError: They cannot be read: it is not known what may be sent.
    """
    try:
        file = open_file(root, _NAME, os.O_RDONLY)
    except FileNotFoundError:
        return ""
    try:
        return os.pread(file.fd, _BYTES_MAX, 0).decode("utf-8", "replace").strip()
    finally:
        file.close()


def write_masks(root: File, names: str) -> None:
    """Set the names.

    Raises:
        OSError: The disk refuses; what was set stays.
    """
    with contextlib.suppress(OSError):  # what is no file of ours is replaced
        if read_masks(root) == names:
            return
    aside = f"{_NAME}.{os.getpid()}.{os.urandom(4).hex()}"
    data = f"{names}\n".encode()
    file = open_file(root, aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        if os.write(file.fd, data) != len(data):
            raise OSError(28, "no space left for the names of the masks")
        os.fdatasync(file.fd)
        os.rename(aside, _NAME, src_dir_fd=root.fd, dst_dir_fd=root.fd)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(aside, dir_fd=root.fd)
        raise
    finally:
        file.close()
