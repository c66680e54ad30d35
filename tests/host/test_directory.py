"""The state directory: the first place that is safe, or an error that says how to mend it."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import platformdirs
import pytest

from fallom._core.errors import StateDirectoryError
from fallom._host import directory as directory_module
from fallom._host.directory import StateDirectory, filesystem_of, find_state_directory
from tests.support.descriptors import nothing_left_open
from tests.support.processes import in_child

NAMESPACE = "0123456789abcdef"
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def find(explicit: Path | None, environ: dict[str, str] | None = None) -> StateDirectory:
    return find_state_directory(
        None if explicit is None else str(explicit), NAMESPACE, environ or {}
    )


@pytest.fixture
def defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Let the places that are not below HOME be below this test's directory."""
    places = {name: tmp_path / name for name in ("systemd", "home", "var", "temp", "shm")}
    places["home"].mkdir()
    places["temp"].mkdir()
    real = directory_module._open

    def elsewhere(base: str, namespace: str, follow: bool) -> StateDirectory:
        euid = os.geteuid()
        base = base.replace("/var/tmp/", f"{places['var']}/").replace(
            "/dev/shm/", f"{places['shm']}/"
        )
        assert base.startswith(str(tmp_path)) or f"-{euid}" in base, base
        return real(base, namespace, follow)

    monkeypatch.setattr(directory_module, "_open", elsewhere)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(places["temp"]))
    monkeypatch.setenv("HOME", str(places["home"]))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    return places


@pytest.mark.skipif(sys.platform != "linux", reason="the place is another on other systems")
@pytest.mark.parametrize("named", [None, "own/state", "own/state/"])
@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.usefixtures("defaults")
def test_the_users_state_directory_is_that_of_the_xdg_specification(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str | None, is_there: bool
) -> None:
    environ = {}
    if named is not None:
        if is_there:
            (tmp_path / named).mkdir(parents=True)
        environ["XDG_STATE_HOME"] = str(tmp_path / named)
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / named))
    found = find(None, environ)
    assert os.path.normpath(found.base) == platformdirs.user_state_dir("fallom", appauthor=False)
    found.close()


def test_a_namespace_has_its_own_private_directories(tmp_path: Path) -> None:
    found = find(tmp_path / "state")
    root = tmp_path / "state" / "v1" / NAMESPACE
    assert found.path == str(root)
    assert sorted(path.name for path in root.iterdir()) == ["dead", "snapshot", "spool"]
    for path in (tmp_path / "state", root.parent, root, *root.iterdir()):
        assert path.stat().st_mode & 0o777 == 0o700
    assert found.is_intact()
    found.close()


def test_finding_it_again_changes_nothing(tmp_path: Path) -> None:
    first, second = find(tmp_path / "state"), find(tmp_path / "state")
    assert first.root.identity == second.root.identity
    first.close()
    second.close()


@pytest.mark.parametrize("part", ["", "v1", f"v1/{NAMESPACE}", f"v1/{NAMESPACE}/spool"])
@pytest.mark.parametrize("wrong", ["file", "writable by a group", "foreign"])
def test_an_unsafe_part_of_an_explicit_choice_is_told_with_its_cure(
    tmp_path: Path, part: str, wrong: str
) -> None:
    base = tmp_path / "state"
    place = base / part
    if wrong == "foreign" and os.geteuid() != 0:
        pytest.skip("only root can give files away")
    place.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    for parent in (base, base / "v1", base / "v1" / NAMESPACE):
        if parent.exists():
            parent.chmod(0o700)
    if wrong == "file":
        place.touch()
    else:
        place.mkdir(exist_ok=True)
        place.chmod(0o770 if wrong == "writable by a group" else 0o700)
    if wrong == "foreign":
        os.chown(place, NOBODY, NOBODY)
    with nothing_left_open(), pytest.raises(StateDirectoryError) as caught:
        find(base)
    assert str(place) in str(caught.value)
    assert "FALLOM_STATE_DIR" in str(caught.value)
    assert caught.value.name == "state_dir"


def test_a_link_that_the_user_named_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    find(tmp_path / "link").close()
    assert (tmp_path / "real" / "v1").is_dir()


@pytest.mark.parametrize("filesystem", ["nfs4", "cifs", "fuse.sshfs"])
def test_a_network_file_system_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filesystem: str
) -> None:
    mounts(tmp_path, monkeypatch, ("/", "ext4"), (str(tmp_path / "mnt"), filesystem))
    with pytest.raises(StateDirectoryError, match=filesystem):
        find(tmp_path / "mnt" / "state")
    assert not (tmp_path / "mnt").exists()
    find(tmp_path / "mnt2").close()


def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *rows: tuple[str, str]) -> None:
    table = tmp_path / "mountinfo"
    lines = []
    for point, filesystem in rows:
        escaped = os.fsencode(point).replace(b" ", b"\\040")
        lines.append(b"36 35 98:0 / %b rw - %b dev rw" % (escaped, filesystem.encode()))
    table.write_bytes(b"\n".join(lines))
    monkeypatch.setattr(directory_module, "_MOUNTS", str(table))


@pytest.mark.parametrize(
    ("path", "filesystem"),
    [
        ("/", "ext4"),
        ("/data", "nfs"),
        ("/data/deep/er", "nfs"),
        ("/database", "ext4"),
        ("/data/local/x", "xfs"),
        ("/with space/x", "cifs"),
        ("/größe/x", "9p"),
        ("/\udcff/x", "afs"),
        ("/twice/x", "tmpfs"),
    ],
)
def test_the_innermost_and_latest_mount_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, filesystem: str
) -> None:
    mounts(
        tmp_path,
        monkeypatch,
        ("/", "ext4"),
        ("/data", "nfs"),
        ("/data/local", "xfs"),
        ("/with space", "cifs"),
        ("/größe", "9p"),
        ("/\udcff", "afs"),
        ("/twice", "nfs"),
        ("/twice", "tmpfs"),
    )
    assert filesystem_of(path) == filesystem


def test_a_system_that_does_not_tell_its_mounts_has_no_network_file_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_module, "_MOUNTS", str(tmp_path / "missing"))
    assert filesystem_of("/") == ""
    (tmp_path / "odd").write_text("\n \nx - y\n1 2 3 4 / rw -\n")
    monkeypatch.setattr(directory_module, "_MOUNTS", str(tmp_path / "odd"))
    assert filesystem_of("/") == ""


def test_the_real_table_of_mounts_is_understood(tmp_path: Path) -> None:
    if not os.path.exists("/proc/self/mountinfo"):
        pytest.skip("this system has no table of mounts")
    assert filesystem_of("/proc") == "proc"


# Defaults.


def test_systemds_directory_comes_first(defaults: dict[str, Path]) -> None:
    defaults["systemd"].mkdir()
    found = find(None, {"STATE_DIRECTORY": f"{defaults['systemd']}:/other"})
    assert found.base == f"{defaults['systemd']}/fallom"
    found.close()


def test_then_the_users_state_directory(defaults: dict[str, Path]) -> None:
    found = find(None, {"STATE_DIRECTORY": "relative"})
    assert found.base.startswith(str(defaults["home"]))
    assert found.base.endswith("/fallom")
    found.close()


@pytest.mark.parametrize("home", ["missing", "relative", "foreign", "a file", "unwritable"])
def test_an_unusable_home_is_passed_over(
    defaults: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    place = defaults["home"]
    if home == "missing":
        monkeypatch.setenv("HOME", "/nonexistent")
    elif home == "relative":
        monkeypatch.setenv("HOME", "relative")
    elif home == "foreign":
        if os.geteuid() != 0:
            pytest.skip("only root can give files away")
        os.chown(place, NOBODY, NOBODY)
    elif home == "a file":
        place.rmdir()
        place.touch()
    else:
        (place / ".local").touch()
    found = find(None)
    assert found.base == f"{defaults['var']}/fallom-{os.geteuid()}"
    found.close()


def test_then_the_temp_directory_and_then_memory(defaults: dict[str, Path]) -> None:
    euid = os.geteuid()
    (defaults["home"] / ".local").touch()
    defaults["var"].touch()
    found = find(None)
    assert found.base == f"{defaults['temp']}/fallom-{euid}"
    found.close()
    (defaults["temp"] / f"fallom-{euid}" / "v1" / NAMESPACE).chmod(0o777)
    found = find(None)
    assert found.base == f"{defaults['shm']}/fallom-{euid}"
    found.close()


def test_with_no_place_at_all_every_refusal_is_told(defaults: dict[str, Path]) -> None:
    (defaults["home"] / ".local").touch()
    for name in ("var", "shm"):
        defaults[name].touch()
    defaults["temp"].rmdir()
    defaults["temp"].touch()
    with pytest.raises(StateDirectoryError) as caught:
        find(None)
    for name in ("home", "var", "temp", "shm"):
        assert str(defaults[name]) in str(caught.value)


def test_a_link_planted_in_a_shared_place_is_not_followed(
    defaults: dict[str, Path], tmp_path: Path
) -> None:
    (defaults["home"] / ".local").touch()
    defaults["var"].mkdir()
    (tmp_path / "theirs").mkdir(mode=0o700)
    (defaults["var"] / f"fallom-{os.geteuid()}").symlink_to(tmp_path / "theirs")
    found = find(None)
    assert found.base.startswith(str(defaults["temp"]))
    assert list((tmp_path / "theirs").iterdir()) == []
    found.close()


@pytest.mark.parametrize(("place", "room"), [(None, 1 << 30), ("/dev/shm", 16 << 20)])
def test_the_room_in_memory_is_small(tmp_path: Path, place: str | None, room: int) -> None:
    if place is not None and not os.access(place, os.W_OK):
        pytest.skip(f"{place} is not there")
    with tempfile.TemporaryDirectory(dir=place or tmp_path) as base:
        found = find(Path(base) / "state")
        assert found.spool_bytes_max(1 << 30) == room
        assert found.spool_bytes_max(1 << 20) == 1 << 20
        found.close()


# What becomes of it.


@pytest.mark.parametrize("part", ["", "spool", "dead"])
def test_a_directory_that_was_removed_or_replaced_is_not_intact(tmp_path: Path, part: str) -> None:
    found = find(tmp_path / "state")
    place = Path(found.path) / part
    place.rename(tmp_path / "aside")
    if part:
        assert found.is_intact(), "the same directory by another name is still written to"
    else:
        assert not found.is_intact()
    for path in sorted((tmp_path / "aside").iterdir()):
        path.rmdir()
    (tmp_path / "aside").rmdir()
    assert not found.is_intact()
    found.close()


def test_a_process_that_changed_its_user_is_told(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can change its user")
    from fallom._host.place import Place

    place = Place.find(str(tmp_path / "state"), NAMESPACE, {})

    def change() -> bool:
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
        return place.is_good()

    assert place.is_good()
    assert in_child(change) is False
