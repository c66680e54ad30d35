"""Files: only what is ours is opened, and only what is ours is closed."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from pathlib import Path

import pytest

from fallom._core.errors import StateDirectoryError
from fallom._host.files import (
    File,
    UnsafeFileError,
    entries_of,
    make_directory,
    open_directory,
    open_file,
    open_subdirectory,
)
from tests.support.descriptors import nothing_left_open
from tests.support.processes import Child, in_child

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def test_a_new_file_is_private_and_not_inherited(directory: File, folder: Path) -> None:
    umask = os.umask(0o777)
    try:
        file = open_file(directory, "new", os.O_RDWR | os.O_CREAT)
    finally:
        os.umask(umask)
    assert stat.S_IMODE((folder / "new").stat().st_mode) == 0o600
    assert fcntl.fcntl(file.fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_CREAT])
@pytest.mark.parametrize("thing", ["symlink", "dangling symlink", "fifo", "directory", "socket"])
def test_what_is_no_regular_file_is_refused_at_once_and_left_alone(
    directory: File, folder: Path, monkeypatch: pytest.MonkeyPatch, flags: int, thing: str
) -> None:
    place = folder / "thing"
    (folder / "precious").write_bytes(b"precious")
    if thing == "symlink":
        place.symlink_to("precious")
    elif thing == "dangling symlink":
        place.symlink_to("nowhere")
    elif thing == "fifo":
        os.mkfifo(place)
    elif thing == "directory":
        place.mkdir()
    else:
        monkeypatch.chdir(folder)  # the name of a socket may not be long
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("thing")
    before = place.lstat()
    with pytest.raises(UnsafeFileError, match="Remove it to go on"):
        open_file(directory, "thing", flags)
    assert place.lstat().st_ino == before.st_ino
    assert not (folder / "nowhere").exists()


def test_a_file_with_a_second_name_is_refused(directory: File, folder: Path) -> None:
    (folder / "precious").write_bytes(b"precious")
    (folder / "file").hardlink_to(folder / "precious")
    with pytest.raises(UnsafeFileError, match="single name"):
        open_file(directory, "file", os.O_RDWR)
    open_file(directory, "file", os.O_RDWR, links_max=2)


@as_root
def test_the_file_of_another_user_is_refused(directory: File, folder: Path) -> None:
    (folder / "file").write_bytes(b"")
    os.chown(folder / "file", NOBODY, NOBODY)
    with pytest.raises(UnsafeFileError, match="this user owns"):
        open_file(directory, "file", os.O_RDWR)


def test_no_descriptor_is_left_open_by_a_refusal(directory: File, folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    with nothing_left_open():
        for _ in range(5):
            with pytest.raises(UnsafeFileError):
                open_file(directory, "fifo", os.O_RDWR)


def test_a_file_of_ours_never_becomes_a_standard_stream(directory: File) -> None:
    def open_without_streams() -> list[int]:
        for number in (0, 1, 2):
            os.close(number)
        files = [open_file(directory, f"{n}", os.O_RDWR | os.O_CREAT) for n in range(4)]
        inner = open_subdirectory(directory, "inner")
        return [*(file.fd for file in files), inner.fd]

    assert min(in_child(open_without_streams)) > 2


def test_the_identity_tells_a_number_that_was_reused(directory: File) -> None:
    file = open_file(directory, "file", os.O_RDWR | os.O_CREAT)
    assert file.is_intact()
    assert file.is_ours()
    ours, theirs = socket.socketpair()
    os.dup2(ours.fileno(), file.fd)
    number = file.fd
    assert not file.is_intact()
    assert not file.is_ours()
    file.close()
    os.fstat(number)
    for each in (ours, theirs):
        each.close()
    os.close(number)


def test_a_file_without_a_name_is_ours_and_not_intact(directory: File, folder: Path) -> None:
    file = open_file(directory, "file", os.O_RDWR | os.O_CREAT)
    (folder / "file").unlink()
    assert file.is_ours()
    assert not file.is_intact()


def test_closing_twice_closes_once(directory: File) -> None:
    file = open_file(directory, "file", os.O_RDWR | os.O_CREAT)
    number = file.fd
    file.close()
    read_end, write_end = os.pipe()
    assert number in (read_end, write_end)
    file.close()
    os.close(read_end)
    os.close(write_end)


def test_a_file_that_nobody_knows_any_more_is_closed(directory: File) -> None:
    number = open_file(directory, "file", os.O_RDWR | os.O_CREAT).fd
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_a_lock_is_held_by_one_open_file_and_goes_with_it(directory: File) -> None:
    first = open_file(directory, "file", os.O_RDWR | os.O_CREAT)
    second = open_file(directory, "file", os.O_RDWR)
    assert first.lock()
    assert not second.lock()
    assert not second.lock(deadline_s=0.01)
    first.close()
    assert second.lock()
    second.unlock()
    third = open_file(directory, "file", os.O_RDWR)
    assert third.lock()


def test_a_lock_is_waited_for_until_its_deadline(directory: File) -> None:
    held = open_file(directory, "file", os.O_RDWR | os.O_CREAT)
    held.lock()
    other = open_file(directory, "file", os.O_RDWR)
    read_end, write_end = os.pipe()

    def hold() -> None:
        os.read(read_end, 1)

    child = Child(hold)  # has the lock as well, until it ends
    held.close()
    os.write(write_end, b".")
    assert other.lock(deadline_s=20.0)
    child.result()
    os.close(read_end)
    os.close(write_end)


def test_listing_gives_names_and_leaves_nothing_open(directory: File, folder: Path) -> None:
    for name in "abc":
        (folder / name).touch()
    with nothing_left_open():
        for _ in range(3):
            with entries_of(directory) as entries:
                assert sorted(entry.name for entry in entries) == ["a", "b", "c"]


# Directories.


def test_a_directory_is_made_private_with_its_parents(tmp_path: Path) -> None:
    make_directory(str(tmp_path / "a" / "b"))
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    make_directory(str(tmp_path / "a" / "b"))


def test_a_file_in_place_of_a_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StateDirectoryError, match="FALLOM_STATE_DIR"):
            make_directory(str(path))
    with pytest.raises(StateDirectoryError, match="is not a directory"):
        open_directory(str(tmp_path / "file"))


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777])
def test_a_directory_that_others_may_write_to_is_refused_with_the_cure(
    folder: Path, mode: int
) -> None:
    folder.chmod(mode)
    with pytest.raises(StateDirectoryError, match=f"chmod 700 {folder}"):
        open_directory(str(folder))


@as_root
def test_the_directory_of_another_user_is_refused(folder: Path) -> None:
    os.chown(folder, NOBODY, NOBODY)
    with pytest.raises(StateDirectoryError, match=f"belongs to user {NOBODY}"):
        open_directory(str(folder))


def test_a_link_to_a_directory_is_only_followed_if_that_was_asked_for(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(StateDirectoryError, match="symbolic link"):
        open_directory(str(tmp_path / "link"))
    open_directory(str(tmp_path / "link"), follow=True)


@pytest.mark.parametrize("thing", ["file", "symlink", "writable"])
def test_a_planted_subdirectory_is_refused(
    directory: File, folder: Path, tmp_path: Path, thing: str
) -> None:
    place = folder / "spool"
    if thing == "file":
        place.touch()
    elif thing == "symlink":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        place.symlink_to(tmp_path / "elsewhere")
    else:
        place.mkdir()
        place.chmod(0o777)
    with pytest.raises(StateDirectoryError):
        open_subdirectory(directory, "spool")


def test_a_subdirectory_of_a_removed_directory_is_an_error_of_ours(
    directory: File, folder: Path
) -> None:
    folder.rmdir()
    with pytest.raises(StateDirectoryError) as caught:
        open_subdirectory(directory, "spool")
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOENT


@as_root
def test_what_cannot_be_written_to_is_told(folder: Path, tmp_path: Path) -> None:
    """As another user, since root may write anywhere."""
    tmp_path.chmod(0o755)
    for parent in [*tmp_path.parents][:3]:
        if parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o055)
    os.chown(folder, NOBODY, NOBODY)
    folder.chmod(0o500)

    def make() -> str:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        try:
            make_directory(str(folder / "below"))
        except StateDirectoryError as error:
            return str(error)
        return ""

    assert "Permission denied" in in_child(make)
