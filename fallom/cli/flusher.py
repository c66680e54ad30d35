"""``fallom flusher``: the flusher as a process that somebody else supervises. Core only, no click."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from fallom._core.errors import ConfigurationError
from fallom._core.settings import resolve_settings
from fallom._host.files import UnsafeFileError

__all__ = ["FLUSHER_SUMMARY", "run_flusher"]

FLUSHER_SUMMARY = "Deliver what was recorded, under systemd or as a sidecar."

_EPILOG = """\
The applications are started with FALLOM_FLUSHER=external. Settings come from the environment, as
for the applications, and must be the same: above all FALLOM_API_KEY, the URLs and FALLOM_STATE_DIR.
The API key is never an argument, because every user of a machine can read those.

exit codes:
  0  done, or told to stop (SIGTERM, Ctrl-C)
  1  with --once: something is left; or a file is in the way of one of its own
  2  the command line or a setting cannot be used
  3  another flusher leads and does not leave
  130  interrupted twice
"""


def run_flusher(arguments: Sequence[str]) -> int:
    """Run the flusher in this process; give its exit code."""
    parser = argparse.ArgumentParser(
        prog="fallom flusher",
        description=FLUSHER_SUMMARY,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--once", action="store_true", help="deliver what is there, then exit")
    parser.add_argument(
        "--foreground",
        action="store_true",
        help="stay in the foreground; it always does, this says so in a unit file",
    )
    parser.add_argument("--state-dir", metavar="PATH", help="instead of FALLOM_STATE_DIR")
    given = parser.parse_args(arguments)
    try:
        settings = resolve_settings({"state_dir": given.state_dir}, os.environ)
        # only here: it loads requests, protobuf and diskcache, and --help needs none of them
        from fallom._flusher.main import run_external

        code: int = run_external(settings, once=given.once)
    except ConfigurationError as error:
        print(f"fallom flusher: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except UnsafeFileError as error:
        print(f"fallom flusher: {error.strerror}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130
    return code
