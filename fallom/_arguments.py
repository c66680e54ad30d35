"""What the public calls check of their arguments before anything else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["check_text", "metadata_of", "seconds_of", "tags_of", "version_of"]


def check_text(**named: object) -> None:
    """See that keys and ids are text: an id of another type would be another session elsewhere.

    Raises:
        TypeError: The first that is none, by its name.
    """
    for name, value in named.items():
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a string, not {type(value).__name__}: {_shown(value)}")


def seconds_of(name: str, value: Any) -> float:
    """Give a number of seconds.

    Raises:
        TypeError: It is none.
    """
    if not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    return float(value)


def version_of(version: Any) -> Any:
    """Give a version as it is looked for; text of what cannot be a key, and so was never published."""
    try:
        hash(version)
    except Exception:  # noqa: BLE001 - of any type, and its methods are the application's code
        return _shown(version)
    return version


def metadata_of(metadata: Any) -> Mapping[str, Any] | None:
    """Give a session's metadata; what is no mapping gets the name ``value``. Never raises."""
    if metadata is None or type(metadata) is dict or isinstance(metadata, Mapping):
        return metadata
    return {"value": metadata}


def tags_of(tags: Any) -> tuple[Any, ...]:
    """Give a session's tags; a text is one tag, as is what cannot be gone through. Never raises."""
    if tags is None or type(tags) is tuple:
        return tags or ()
    if isinstance(tags, (str, bytes)):
        return (tags,) if tags else ()
    try:
        return tuple(tags)
    except Exception:  # noqa: BLE001 - of any type, and its methods are the application's code
        return (_shown(tags),)


def _shown(value: object) -> str:
    try:
        return f"{value!r:.50}"
    except Exception:  # noqa: BLE001 - __repr__ is the application's code
        return f"<{type(value).__name__}>"
