"""The peers' environments: a virtualenv each, from a list of pinned versions, made once per change of it.

``python -m benchmarks.environments`` makes all of them. A peer that cannot be installed is named, with the
installer's last line, in the results.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

__all__ = ["PEERS", "MissingPeerError", "interpreter_of", "versions_of"]

HERE = Path(__file__).resolve().parent
ROOT = Path(os.environ.get("FALLOM_BENCH_ENVIRONMENTS") or HERE.parent / ".bench")
PEERS = sorted(path.stem for path in (HERE / "peers").glob("*.txt"))
_OURS = "fallom"


class MissingPeerError(Exception):
    """A peer that cannot be installed here."""


def interpreter_of(peer: str) -> Path:
    """Give a peer's interpreter, after making its environment if it is not there.

    Raises:
        MissingPeerError: It cannot be installed.
    """
    if peer == _OURS:
        return Path(sys.executable)
    pinned = HERE / "peers" / f"{peer}.txt"
    folder = ROOT / peer
    python, stamp = folder / "bin/python", folder / ".made-from"
    if stamp.exists() and stamp.read_text() == pinned.read_text():
        return python
    print(f"making the environment of {peer}", file=sys.stderr, flush=True)
    venv.create(folder, with_pip=True, clear=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    ran = subprocess.run(
        [*install, "--requirement", pinned], capture_output=True, text=True, check=False
    )
    if ran.returncode:
        said = ran.stderr.strip().splitlines() or ["pip said nothing"]
        raise MissingPeerError(f"{peer}: {said[-1]}")
    stamp.write_text(pinned.read_text())
    return python


def versions_of(peer: str) -> dict[str, str]:
    """Give what is pinned for a peer, by name."""
    lines = (HERE / "peers" / f"{peer}.txt").read_text().splitlines()
    return dict(line.split("==", 1) for line in lines if "==" in line)


def main() -> int:
    """Make all; name those that cannot be made."""
    missing = 0
    for peer in PEERS:
        try:
            interpreter_of(peer)
        except MissingPeerError as error:
            missing += 1
            print(f"missing: {error}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
