"""The corpus of the fuzzer: inputs that reached new code, or once found a fault. ``scripts/soak`` adds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fuzzing import CHECKS, check_memory

CORPUS = Path(__file__).parent / "corpus"
INPUTS = sorted(path for path in CORPUS.glob("*/*") if path.is_file())


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_must_hold_for_any_bytes_holds(path: Path) -> None:
    check_memory(CHECKS[path.parent.name], path.read_bytes())


def test_each_reader_has_a_corpus_and_it_is_small() -> None:
    assert {path.parent.name for path in INPUTS} == set(CHECKS)
    assert sum(path.stat().st_size for path in INPUTS) < 64 << 10
    assert len(INPUTS) < 200
