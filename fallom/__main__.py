"""``fallom`` on the command line, and ``python -m fallom``.

``flusher`` and ``--version`` work with the core alone, because a sidecar or a systemd unit should
not need more; all else needs the extra that it names when it is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]

EXIT_USAGE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; give its exit code.

    Args:
        arguments: What stands behind the program's name; None for ``sys.argv``.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["--version"]:
        from fallom._version import __version__  # only here: a flusher starts without it

        print(f"fallom {__version__}")  # noqa: T201
        return 0
    if given[:1] == ["flusher"]:
        from fallom.cli.flusher import run_flusher  # a command loads its own imports only

        return run_flusher(given[1:])
    try:
        from fallom.cli.commands import run_commands  # needs click, which is an extra

        return run_commands(given)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("fallom"):
            raise
        extra = "dev" if given[:1] == ["dev"] else "cli"
        print(  # noqa: T201
            f"fallom: this command needs the module {error.name!r}, which is not installed.\n"
            f'Install it by: pip install "fallom[{extra}]"\n'
            "(`fallom flusher` and `fallom --version` work without it.)",
            file=sys.stderr,
        )
        return EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main())
