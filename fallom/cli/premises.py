"""The part of ``fallom doctor`` that looks at this machine: directory, space, election, versions."""

from __future__ import annotations

import os
import re
import stat
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from fallom._core.settings import Settings
from fallom._version import __version__
from fallom.cli.finding import Finding, bad, good, warning
from fallom.cli.screen import bytes_text

if TYPE_CHECKING:
    from fallom._host.place import Place

__all__ = ["look_at_directory", "look_at_election", "look_at_space", "look_at_versions"]

SPACE_MIN_BYTES: Final = 16 << 20  # some segments; below it recording is about to stop
INODES_MIN: Final = 1000
_NAME: Final = re.compile(r"([A-Za-z0-9._-]+)([^;]*)")
_CLAUSE: Final = re.compile(r"(>=|<=|==|<|>|!=|~=)\s*([0-9][0-9.]*)")


def look_at_directory(place: Place, is_explicit: bool) -> Iterator[Finding]:
    """Look where the state is kept, on what, and whether it is closed to others."""
    from fallom._host.directory import SHM_SPOOL_BYTES_MAX, filesystem_of

    directory = place.directory
    filesystem = filesystem_of(directory.base) or "unknown"
    where = f"{directory.path} on {filesystem}"
    if directory.is_shm or filesystem in ("tmpfs", "ramfs"):
        total = bytes_text(_total(directory.path))
        most = f", and takes at most {bytes_text(SHM_SPOOL_BYTES_MAX)}" if directory.is_shm else ""
        yield warning(
            "directory",
            f"{where} ({total}), which is memory: what is unsent does not outlive a restart{most}",
            "Name a directory on a disk by FALLOM_STATE_DIR.",
        )
    elif filesystem in ("overlay", "overlayfs", "aufs"):
        yield warning(
            "directory",
            f"{where}: what is unsent goes with this container",
            "Mount a volume, and name it by FALLOM_STATE_DIR.",
        )
    else:
        chosen = "FALLOM_STATE_DIR" if is_explicit else "the default"
        yield good("directory", f"{where} ({chosen})")
    yield from _permissions(directory.path)


def _permissions(path: str) -> Iterator[Finding]:
    euid, found = os.geteuid(), False
    for folder, _, names in os.walk(path):
        for name in (".", *names):
            entry = os.path.join(folder, name)
            try:
                status = os.lstat(entry)
            except OSError:
                continue  # deleted since it was listed
            shown = os.path.normpath(entry)
            if status.st_uid != euid:
                found = True
                yield bad(
                    "permissions",
                    f"{shown} belongs to user {status.st_uid}, and this process runs as {euid}",
                    f"Run as that user, or: chown -R {euid} {path}",
                )
            elif stat.S_IMODE(status.st_mode) & 0o077:
                found = True
                yield warning(
                    "permissions",
                    f"{shown} can be read by others (mode {stat.S_IMODE(status.st_mode):04o}); it "
                    "may hold prompts",
                    f"chmod {'700' if stat.S_ISDIR(status.st_mode) else '600'} {shown}",
                )
            elif not stat.S_ISDIR(status.st_mode) and not stat.S_ISREG(status.st_mode):
                found = True
                yield bad("permissions", f"{shown} is no regular file", f"rm {shown}")
    if not found:
        yield good("permissions", "only this user can read and write it")


def look_at_space(place: Place, settings: Settings) -> Iterator[Finding]:
    """Look whether the disk has room for what the settings allow."""
    directory = place.directory
    found = os.statvfs(directory.path)
    free = found.f_bavail * found.f_frsize
    limit = directory.spool_bytes_max(settings.spool_bytes_total)
    used = place.page.spool_bytes()
    shown = f"{bytes_text(free)} free; the spool may take {bytes_text(limit)}"
    if free < SPACE_MIN_BYTES:
        yield bad("space", f"{shown}. Records are about to be dropped", "Free space on that disk.")
    elif free < limit - used:
        yield warning(
            "space",
            f"{shown}, which does not fit",
            "Free space, or lower FALLOM_SPOOL_BYTES_MAX so that the oldest goes before the disk is "
            "full.",
        )
    else:
        yield good("space", shown)
    if found.f_files and found.f_favail < INODES_MIN:
        yield bad("space", f"{found.f_favail} inodes are free", "Delete files on that disk.")
    if used >= limit * 0.9:
        yield warning(
            "space",
            f"the spool is nearly full: {bytes_text(used)} of {bytes_text(limit)}",
            "See why nothing is delivered, or raise FALLOM_SPOOL_BYTES_MAX.",
        )


def look_at_election(place: Place, settings: Settings, waiting: int) -> Iterator[Finding]:
    """Look whether a flusher lives, of which version, and whether one could be started."""
    from fallom._flusher.spawn import interpreter, last_log_line
    from fallom._host.versions import pack_version, unpack_version

    page, now_ns = place.page, time.monotonic_ns()
    if page.is_alive(now_ns):
        version = unpack_version(page.flusher_version())
        found = f"alive: pid {page.flusher_pid()}, version {version}"
        if page.flusher_version() < pack_version(__version__):
            mend = (
                "Restart it with this version."
                if settings.flusher == "external"
                else "Nothing: the next call of an application of this version takes over."
            )
            yield warning("flusher", f"{found}, older than this one ({__version__})", mend)
        else:
            yield good("flusher", found)
    elif _is_held(place):
        yield warning(
            "flusher",
            "one holds the lock and does not beat: it is starting, suspended, or hangs",
            f"Look again in a minute; then see {place.directory.path}/flusher.log, and kill pid "
            f"{page.flusher_pid()} if it is one.",
        )
    elif settings.flusher == "external":
        yield bad(
            "flusher",
            "none lives, and applications start none (FALLOM_FLUSHER=external)",
            "Start `fallom flusher` under your supervisor.",
        )
    elif waiting:
        said = last_log_line(place.directory)
        yield warning(
            "flusher",
            f"none lives, and {waiting} record(s) wait"
            + (f"; its log ends: {said}" if said else ""),
            "The next call of an application starts one; `fallom flusher --once` delivers now.",
        )
    else:
        yield good("flusher", "none lives and nothing waits; the next call starts one")
    if settings.flusher == "process":
        try:
            interpreter(os.environ)
        except FileNotFoundError as error:
            yield bad("flusher", str(error), "Set FALLOM_PYTHON to a Python interpreter.")


def _is_held(place: Place) -> bool:
    """Probe the leader's lock, and leave it as it is: a worker or a candidate knows what to do about it."""
    from fallom._flusher.election import LEADER_LOCK
    from fallom._host.files import open_file

    try:
        file = open_file(place.directory.root, LEADER_LOCK, os.O_RDWR)
    except OSError:
        return False  # nobody ever led
    try:
        return not file.lock()
    finally:
        file.close()


def look_at_versions() -> Iterator[Finding]:
    """Look whether what is installed is what fallom asks for."""
    from importlib import metadata

    try:
        wanted = metadata.requires("fallom") or []
    except metadata.PackageNotFoundError:
        yield warning(
            "versions",
            f"fallom {__version__} is not installed as a package, so its floors are not known",
            "pip install fallom",
        )
        return
    wrong = False
    for requirement in wanted:
        if ";" in requirement:
            continue  # of an extra
        matched = _NAME.match(requirement)
        assert matched is not None
        name, clauses = matched[1], _CLAUSE.findall(matched[2])
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong = True
            yield bad("versions", f"{name} is not installed", f'pip install "{requirement}"')
            continue
        if not all(_fits(installed, operator, bound) for operator, bound in clauses):
            wrong = True
            yield bad(
                "versions",
                f"{name} {installed} is installed; fallom needs {requirement}",
                f'pip install "{requirement}"',
            )
    if not wrong:
        python = ".".join(map(str, sys.version_info[:3]))
        yield good("versions", f"fallom {__version__}, Python {python}, dependencies as asked for")


def _fits(installed: str, operator: str, bound: str) -> bool:
    found, wanted = _numbers(installed), _numbers(bound)
    length = max(len(found), len(wanted))
    found += (0,) * (length - len(found))
    wanted += (0,) * (length - len(wanted))
    if operator == ">=":
        return found >= wanted
    return found < wanted if operator == "<" else True


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def _total(path: str) -> int:
    found = os.statvfs(path)
    return found.f_blocks * found.f_frsize
