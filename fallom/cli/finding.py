"""A finding of ``fallom doctor``: what was looked at, how it is, and how to mend it."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

__all__ = ["Finding", "Level", "bad", "good", "warning"]


class Level(Enum):
    """How a thing is."""

    GOOD = "good"
    WARNING = "warning"  # it works, and may not do what is hoped for
    BAD = "bad"  # something is lost or does not work until it is mended


class Finding(NamedTuple):
    """One thing that was looked at."""

    subject: str
    level: Level
    what: str
    mend: str = ""


def good(subject: str, what: str) -> Finding:
    """Say that a thing is as it should be."""
    return Finding(subject, Level.GOOD, what)


def warning(subject: str, what: str, mend: str) -> Finding:
    """Say that a thing may not do what is hoped for."""
    return Finding(subject, Level.WARNING, what, mend)


def bad(subject: str, what: str, mend: str) -> Finding:
    """Say that a thing has to be mended."""
    return Finding(subject, Level.BAD, what, mend)
