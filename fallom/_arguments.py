"""What the public calls check of their arguments before anything else."""

from __future__ import annotations

__all__ = ["check_text"]


def check_text(**named: object) -> None:
    """See that keys and ids are text: an id of another type would be another session elsewhere.

    Raises:
        TypeError: The first that is none, by its name.
    """
    for name, value in named.items():
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a string, not {type(value).__name__}: {value!r:.50}")
