"""Damage to files at rest: what may happen to a file, drawn from a seed, so that it can be repeated."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = ["DAMAGES", "FLIPS"]

FLIPS = 8

Damage = Callable[[Path, random.Random], None]


def flip_bits(path: Path, chance: random.Random) -> None:
    """Flip some bits anywhere."""
    data = bytearray(path.read_bytes())
    for _ in range(FLIPS if data else 0):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    _overwrite(path, bytes(data))


def flip_bits_at_the_start(path: Path, chance: random.Random) -> None:
    """Flip some bits where heads and magic numbers are."""
    data = bytearray(path.read_bytes())
    for _ in range(FLIPS if data else 0):
        data[chance.randrange(min(128, len(data)))] ^= 1 << chance.randrange(8)
    _overwrite(path, bytes(data))


def cut_short(path: Path, chance: random.Random) -> None:
    """Cut a file off somewhere."""
    os.truncate(path, chance.randrange(path.stat().st_size + 1))


def empty(path: Path, chance: random.Random) -> None:
    """Leave nothing, as a power loss does to a file that was never synchronised."""
    del chance
    os.truncate(path, 0)


def fill_with_zeros(path: Path, chance: random.Random) -> None:
    """Keep the length and nothing else."""
    del chance
    _overwrite(path, bytes(path.stat().st_size))


def fill_with_noise(path: Path, chance: random.Random) -> None:
    """Put something else in its place."""
    _overwrite(path, chance.randbytes(max(100, path.stat().st_size)))


DAMAGES: Mapping[str, Damage] = {
    damage.__name__: damage
    for damage in (
        flip_bits,
        flip_bits_at_the_start,
        cut_short,
        empty,
        fill_with_zeros,
        fill_with_noise,
    )
}


def _overwrite(path: Path, data: bytes) -> None:
    with path.open("r+b") as file:  # the same inode, as damage has it
        file.write(data)
