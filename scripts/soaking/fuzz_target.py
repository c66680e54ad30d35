"""One target of the coverage-guided fuzzer: ``fuzz_target.py NAME CORPUS... [libFuzzer options]``."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

with atheris.instrument_imports(include=["fallom"]):
    from tests.support.fuzzing import CHECKS


def main() -> None:
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, CHECKS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
