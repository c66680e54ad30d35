"""The only place that spells open flags, modes and locks.

Everything is opened relative to a directory descriptor that was checked, never follows a symbolic
link, never blocks on a FIFO that somebody planted, is never inherited by a program that is executed,
and is used only when ``fstat`` says: a regular file, ours, and with one link.

A descriptor is kept together with the (device, inode) that it had. A host that daemonises closes all
descriptors and may get our number for its own socket: ``File.is_intact`` tells, and ``File.close``
leaves a number alone that is no longer ours.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator

from fallom._core.errors import StateDirectoryError

__all__ = [
    "File",
    "UnsafeFileError",
    "entries_of",
    "make_directory",
    "open_directory",
    "open_file",
    "open_subdirectory",
]

_BASE_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
DIRECTORY_MODE = 0o700
FILE_MODE = 0o600


class UnsafeFileError(OSError):
    """A file in our directory that is not what we would have made; it is left untouched."""


class File:
    """An open file or directory and the identity that it had when it was opened."""

    __slots__ = ("_identity", "fd", "name")

    def __init__(self, fd: int, name: str) -> None:
        """Take over ``fd``; ``name`` is only for messages."""
        self.fd = fd
        self.name = name
        self._identity = _identity(os.fstat(fd))

    @property
    def identity(self) -> tuple[int, int]:
        """The (device, inode) that it was opened with."""
        return self._identity

    def is_intact(self) -> bool:
        """Tell whether the number is still this file and the file still has a name. One ``fstat``."""
        try:
            found = os.fstat(self.fd)
        except OSError:
            return False
        return _identity(found) == self._identity and found.st_nlink > 0

    def is_ours(self) -> bool:
        """Tell whether the number is still this file, with or without a name."""
        try:
            return _identity(os.fstat(self.fd)) == self._identity
        except OSError:
            return False

    def is_at(self, offset: int) -> bool:
        """Tell whether the number has a position and it is ``offset``; after an append, the end."""
        try:
            return os.lseek(self.fd, 0, os.SEEK_CUR) == offset
        except OSError:
            return False

    def size(self) -> int:
        """Give the size in bytes."""
        return os.fstat(self.fd).st_size

    def lock(self, deadline_s: float = 0.0) -> bool:
        """Take an exclusive ``flock``; give False when others hold it beyond ``deadline_s``.

        No POSIX record lock: those are lost when any descriptor of the file is closed.
        """
        give_up = time.monotonic() + deadline_s
        while True:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EINTR):
                    raise
                if time.monotonic() >= give_up:
                    return False
                time.sleep(0.001)
            else:
                return True

    def try_lock_process(self) -> bool:
        """Take a POSIX record lock, which no forked child inherits; False when others hold it.

        It is lost when *any* descriptor of the file is closed in this process: only for a file that
        is opened once, and never for one that decides who may write what.
        """
        try:
            fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            return False
        return True

    def unlock(self) -> None:
        """Free the lock. Only in the process that took it: a child's unlock frees its parent's."""
        fcntl.flock(self.fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the number if it is still ours; never raises."""
        fd, self.fd = self.fd, -1
        if fd < 0:
            return
        with contextlib.suppress(OSError):
            if _identity(os.fstat(fd)) == self._identity:
                os.close(fd)

    def __del__(self) -> None:
        # A place that was given up is still read by other threads, so nobody can close it by hand.
        if getattr(self, "_identity", None) is not None:
            self.close()


def open_file(directory: File, name: str, flags: int, links_max: int = 1) -> File:
    """Open a regular file of ours in a checked directory.

    Args:
        directory: The directory, open.
        name: A plain file name.
        flags: ``os.O_*``; those that make it safe are added.
        links_max: How many names the file may have.

    Raises:
        UnsafeFileError: It is a link, a FIFO, another user's, or has more names.
        OSError: Whatever the system says.
    """
    try:
        fd = _open(name, flags | _BASE_FLAGS, directory.fd)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise UnsafeFileError(error.errno, _unsafe(directory, name, "a regular file")) from None
        raise
    found = os.fstat(fd)
    problem = ""
    if not stat.S_ISREG(found.st_mode):
        problem = "a regular file"
    elif found.st_uid != os.geteuid():
        problem = "a file that this user owns"
    elif found.st_nlink > links_max:
        problem = "a file with a single name (hard links are not used)"
    if problem:
        os.close(fd)
        raise UnsafeFileError(errno.EPERM, _unsafe(directory, name, problem))
    if flags & os.O_CREAT and found.st_size == 0 and stat.S_IMODE(found.st_mode) != FILE_MODE:
        os.fchmod(fd, FILE_MODE)  # a tight umask took bits that we need
    return File(fd, name)


def make_directory(path: str) -> None:
    """Make a directory (0700) and its parents if they are missing.

    Raises:
        StateDirectoryError: Something is in the way, or the system refuses.
    """
    try:
        os.makedirs(path, DIRECTORY_MODE, exist_ok=True)
    except OSError as error:
        raise StateDirectoryError(
            f"state directory {path!r} cannot be made: {error.strerror or error}; "
            "give a directory that this user may write to by state_dir= or FALLOM_STATE_DIR.",
            "state_dir",
        ) from None


def open_directory(path: str, parent: File | None = None, follow: bool = False) -> File:
    """Open a directory that only we can write to; a symbolic link only if ``follow``.

    Raises:
        StateDirectoryError: It is no directory, another user's, or writable by others.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    flags |= 0 if follow else os.O_NOFOLLOW
    shown = f"{parent.name}/{path}" if parent is not None else path
    try:
        fd = _open(path, flags, parent.fd if parent is not None else None)
    except OSError as error:
        raise StateDirectoryError(_refusal(shown, _why(error)), "state_dir") from None
    found = os.fstat(fd)
    mode = stat.S_IMODE(found.st_mode)
    problem = ""
    if found.st_uid != os.geteuid():
        problem = f"belongs to user {found.st_uid}, and this process runs as {os.geteuid()}"
    elif mode & 0o022:
        problem = f"may be written to by other users (mode {mode:04o}); run: chmod 700 {shown}"
    if problem:
        os.close(fd)
        raise StateDirectoryError(_refusal(shown, problem), "state_dir")
    return File(fd, shown)


def open_subdirectory(parent: File, name: str) -> File:
    """Open a directory of ours within another, making it if it is missing."""
    try:
        os.mkdir(name, DIRECTORY_MODE, dir_fd=parent.fd)
    except FileExistsError:
        pass
    except OSError as error:
        refusal = _refusal(f"{parent.name}/{name}", _why(error))
        raise StateDirectoryError(refusal, "state_dir") from error
    return open_directory(name, parent)


@contextlib.contextmanager
def entries_of(directory: File) -> Iterator[Iterator[os.DirEntry[str]]]:
    """List a directory by an open file of its own.

    The position of a listing belongs to the open file, and a duplicated descriptor shares it: two
    threads, or a process and its forked child, that list by the same one miss entries.
    """
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory.fd)
    try:
        with os.scandir(fd) as entries:
            yield entries
    finally:
        os.close(fd)


def _open(path: str, flags: int, dir_fd: int | None) -> int:
    """Open by a number above those of the standard streams.

    In a process that was started without them a file of ours would become its standard output.
    """
    fd = os.open(path, flags, FILE_MODE, dir_fd=dir_fd)
    if fd > 2:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _why(error: OSError) -> str:
    if error.errno in (errno.ENOTDIR, errno.ELOOP):
        return "is not a directory (a file or a symbolic link is in its place)"
    return f"cannot be used: {error.strerror or error}"


def _refusal(path: str, problem: str) -> str:
    return (
        f"state directory {path!r} {problem}. Expected a directory that only this user can write "
        "to; mend it, or name another by state_dir= or FALLOM_STATE_DIR."
    )


def _unsafe(directory: File, name: str, expected: str) -> str:
    return f"{directory.name}/{name} is not {expected}; it is left alone. Remove it to go on."
