"""A worker that has recorded once and then has nothing to do, of whichever library is named."""

from __future__ import annotations

from typing import Any

from driver import Subject, serve


def idle(options: dict[str, Any]) -> Subject:
    """Open the library's span path and use it once."""
    import importlib

    return importlib.import_module(options["adapter"]).PATHS["span"](options)


if __name__ == "__main__":
    serve({"idle": idle})
