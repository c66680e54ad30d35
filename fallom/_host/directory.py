"""The state directory: where everything that outlives a call is, and how the place is chosen.

The first of these that can be made safe: what the user said; systemd's ``$STATE_DIRECTORY``; the
user's state directory; ``/var/tmp/fallom-<uid>``, which survives a reboot; the temp directory;
``/dev/shm``, whose room is small. An explicit choice that cannot be used is an error, a default is
passed over. Network file systems are never used: their locks and maps do not hold what we need.

Inside, one directory a layout version and namespace (``Settings.namespace``): applications with
different accounts never mix, and the account cannot be read from the name.

    <base>/v1/<namespace>/ control  leader.lock  leader.alive  spawn.lock  flusher.log  ship_masks
                           snapshot/  spool/  dead/
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Mapping

from fallom._core.errors import StateDirectoryError
from fallom._host.files import File, make_directory, open_directory, open_subdirectory

__all__ = [
    "StateDirectory",
    "filesystem_of",
    "find_state_directory",
    "namespaces_of",
    "state_bases",
]

_LAYOUT = "v1"
SHM_SPOOL_BYTES_MAX = 16 << 20  # /dev/shm is 64 MiB in a container by default

_NAMESPACE = re.compile(r"[0-9a-f]{16}")
_MOUNTS = "/proc/self/mountinfo"
_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")  # how that table writes spaces and the like

# From statfs(2) and the kernels' mount tables: locks or shared maps of these are not to be trusted.
_NETWORK_FILESYSTEMS = frozenset(
    "nfs nfs4 cifs smb3 smbfs smb2 9p afs ceph glusterfs lustre ncpfs gfs gfs2 ocfs2 beegfs pvfs2 "
    "fuse.sshfs fuse.glusterfs fuse.ceph fuse.s3fs fuse.rclone fuse.gcsfuse fuse.davfs davfs "
    "acfs orangefs".split()
)


class StateDirectory:
    """The namespace's directory, open, with the uid that it was made for."""

    __slots__ = ("base", "dead", "euid", "is_shm", "path", "root", "snapshot_path", "spool")

    def __init__(self, base: str, namespace: str, follow: bool = True) -> None:
        """Open everything below ``base``, making what is missing.

        Raises:
            StateDirectoryError: It cannot be made safe.
        """
        self.base = base
        self.euid = os.geteuid()
        self.is_shm = base.startswith("/dev/shm/")
        with contextlib.ExitStack() as opened:
            top = _closing(opened, open_directory(base, follow=follow))
            layout = _closing(opened, open_subdirectory(top, _LAYOUT))
            root = open_subdirectory(layout, namespace)
        with contextlib.ExitStack() as opened:
            self.root = _closing(opened, root)
            self.spool = _closing(opened, open_subdirectory(root, "spool"))
            self.dead = _closing(opened, open_subdirectory(root, "dead"))
            open_subdirectory(root, "snapshot").close()
            opened.pop_all()
        self.path = f"{base}/{_LAYOUT}/{namespace}"
        self.snapshot_path = f"{self.path}/snapshot"

    @classmethod
    def adopt(cls, path: str, spool: str = "spool") -> StateDirectory:
        """Open a namespace's directory that stands anywhere: one that was copied from another machine.

        Args:
            path: The directory that holds the spool.
            spool: Its name in there; "." for a spool that was copied alone.

        Raises:
            StateDirectoryError: It cannot be used safely.
        """
        self = cls.__new__(cls)
        self.base = self.path = path
        self.euid = os.geteuid()
        self.is_shm = False  # what is there is there; nothing more will come
        _refuse_network(path)
        with contextlib.ExitStack() as opened:
            self.root = _closing(opened, open_directory(path, follow=True))
            self.spool = _closing(opened, open_directory(spool, self.root))
            self.dead = _closing(opened, open_subdirectory(self.root, "dead"))
            opened.pop_all()
        self.snapshot_path = f"{path}/snapshot"
        return self

    def is_intact(self) -> bool:
        """Tell whether our descriptors are still the directories and the name leads to them."""
        if not all(part.is_intact() for part in (self.root, self.spool, self.dead)):
            return False
        try:
            found = os.stat(self.path, follow_symlinks=False)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self.root.identity

    def spool_bytes_max(self, wanted: int) -> int:
        """Give how much the spool may take here: /dev/shm is memory, and others need it too."""
        return min(wanted, SHM_SPOOL_BYTES_MAX) if self.is_shm else wanted

    def close(self) -> None:
        """Close the descriptors; never raises."""
        for directory in (self.spool, self.dead, self.root):
            directory.close()


def find_state_directory(
    explicit: str | None, namespace: str, environ: Mapping[str, str]
) -> StateDirectory:
    """Open the first state directory that can be made safe.

    Args:
        explicit: What the user said, as an absolute path, or None.
        namespace: ``Settings.namespace``.
        environ: The environment.

    Raises:
        StateDirectoryError: The explicit one, or none at all, can be used.
    """
    if explicit is not None:
        return _open(explicit, namespace, follow=True)
    problems: list[str] = []
    for base in _defaults(environ, os.geteuid()):
        try:
            return _open(base, namespace, follow=False)
        except OSError as error:
            problems.append(str(error))
    raise StateDirectoryError(
        "no state directory can be used, so nothing can be recorded; name one that this user can "
        f"write to by state_dir= or FALLOM_STATE_DIR. Tried: {' '.join(problems)}",
        "state_dir",
    )


def state_bases(explicit: str | None, environ: Mapping[str, str]) -> list[str]:
    """List where a state directory is looked for, the first choice first; nothing is made."""
    return [explicit] if explicit is not None else list(_defaults(environ, os.geteuid()))


def namespaces_of(base: str) -> list[str]:
    """List the namespaces below a base, without opening or making anything."""
    try:
        names = os.listdir(f"{base}/{_LAYOUT}")
    except OSError:
        return []
    return sorted(name for name in names if _NAMESPACE.fullmatch(name))


def _open(base: str, namespace: str, follow: bool) -> StateDirectory:
    """Open the one below ``base``; a link in its place is only followed if the user named it."""
    _refuse_network(base)
    make_directory(base)
    return StateDirectory(base, namespace, follow)


def _refuse_network(base: str) -> None:
    filesystem = filesystem_of(base)
    if filesystem in _NETWORK_FILESYSTEMS:
        raise StateDirectoryError(
            f"state directory {base!r} is on a network file system ({filesystem}), where locks and "
            "shared maps cannot be relied on; name a directory on a local disk by state_dir= or "
            "FALLOM_STATE_DIR.",
            "state_dir",
        )


def _defaults(environ: Mapping[str, str], euid: int) -> Iterator[str]:
    systemd = environ.get("STATE_DIRECTORY", "").split(":")[0]
    if os.path.isabs(systemd):
        yield os.path.join(systemd, "fallom")
    yield from _user_state(environ, euid)
    yield f"/var/tmp/fallom-{euid}"
    with contextlib.suppress(OSError):  # no usable temp directory at all
        import tempfile  # seldom reached, and it loads shutil and random

        yield os.path.join(tempfile.gettempdir(), f"fallom-{euid}")
    yield f"/dev/shm/fallom-{euid}"


def _user_state(environ: Mapping[str, str], euid: int) -> Iterator[str]:
    """Give the user's state directory, unless HOME is missing, relative, or somebody else's.

    Under sudo, or when a server drops its user, HOME is often that of another user; and a user
    without a passwd entry has none. What XDG_STATE_HOME names is made if it is missing: as soon as
    somebody else made it, we would keep our state at two places, and deliver from one.
    """
    named = environ.get("XDG_STATE_HOME")
    home = there = named or os.path.expanduser("~")
    while named and os.path.isabs(there) and not os.path.lexists(there):
        there = os.path.dirname(there)
    try:
        is_ours = os.path.isabs(home) and os.stat(there).st_uid == euid
    except OSError:
        is_ours = False
    if is_ours and sys.platform == "darwin":
        import platformdirs  # it loads ``tempfile`` and all that: 4 ms, 1.2 MiB

        yield platformdirs.user_state_dir("fallom", appauthor=False)
    elif is_ours:  # the XDG Base Directory Specification
        yield os.path.join(named or os.path.join(home, ".local", "state"), "fallom")


def filesystem_of(path: str) -> str:
    """Give the type of the file system that holds ``path``, "" where the system does not tell."""
    try:
        with open(_MOUNTS, "rb") as table:
            lines = table.read().splitlines()
    except OSError:
        return ""
    real = os.fsencode(os.path.realpath(path))
    best, found = -1, b""
    for line in lines:
        fields, _, rest = line.partition(b" - ")
        if len(fields.split()) < 5 or not rest:
            continue
        point = _OCTAL.sub(lambda code: bytes([int(code[1], 8)]), fields.split()[4])
        within = real == point or real.startswith(point.rstrip(b"/") + b"/")
        if within and len(point) >= best:  # the later of two mounts on one point is the visible one
            best, found = len(point), rest.split()[0]
    return os.fsdecode(found)


def _closing(stack: contextlib.ExitStack, directory: File) -> File:
    stack.callback(directory.close)
    return directory
