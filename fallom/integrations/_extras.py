"""What is said where a library is missing that an extra of fallom brings."""

from __future__ import annotations

__all__ = ["without_extra"]


def without_extra(error: ModuleNotFoundError, extra: str) -> ModuleNotFoundError:
    """Give the error to raise in the place of one that names the missing module alone."""
    if (error.name or "").startswith("fallom"):
        return error  # of ours: that is no question of what is installed
    return ModuleNotFoundError(
        f"this needs the module {error.name!r}, which is not installed; install it by: "
        f'pip install "fallom[{extra}]"',
        name=error.name,
        path=error.path,
    )
