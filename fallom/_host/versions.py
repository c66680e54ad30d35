"""A version of the package as a number that the control page can hold."""

from __future__ import annotations

__all__ = ["pack_version", "unpack_version"]


def pack_version(version: str) -> int:
    """Give a number that orders versions: ``1.2.3`` and ``1.2.3rc1`` alike as 1, 2, 3."""
    numbers: list[int] = []
    for part in version.split(".")[:3]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        numbers.append(min(int(digits or 0), (1 << 20) - 1))
    numbers += [0, 0, 0]
    major, minor, patch = numbers[:3]
    return major << 40 | minor << 20 | patch


def unpack_version(packed: int) -> str:
    """Give the text of a packed version, for people."""
    return f"{packed >> 40}.{packed >> 20 & 0xFFFFF}.{packed & 0xFFFFF}"
