"""What programs written against the published fallom 0.2.7 import and call is there, as they call it."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# A line each: a public name, and its parameters in their order, with = where one could be left out.
LINES = (Path(__file__).parent / "surface_0_2_7.txt").read_text().splitlines()
SURFACE = {
    name: parameters.split() for name, _, parameters in (line.partition(":") for line in LINES)
}


def find(path: str) -> Any:
    """Import a name as a program does: ``from module import name``, then attributes."""
    parts = path.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        break
    for part in parts[length:]:
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("path", SURFACE)
def test_name_is_there_and_takes_what_it_took(path: str) -> None:
    parameters = list(inspect.signature(find(path)).parameters.values())
    known = SURFACE[path]
    assert [each.name for each in parameters[: len(known)]] == [name.rstrip("=") for name in known]
    for name, each in zip(known, parameters, strict=False):
        assert each.default is not each.empty or not name.endswith("="), f"{name} must be given now"
    for each in parameters[len(known) :]:
        is_optional = each.default is not each.empty or each.kind is each.VAR_KEYWORD
        assert is_optional, f"{each.name} was added and must be given"


@pytest.mark.parametrize(
    ("statement", "hint"),
    [
        ("from fallom import evals", "fallom==0.2.7"),
        ("import fallom.evals", "fallom==0.2.7"),
        ("from fallom.models import Targeting", "models.explain"),
        ("from fallom.trace.utils import generate_hex_id", "secrets.token_hex"),
        ("from fallom.trace.session import FallomSession", "from fallom"),
        ("from fallom.trace.core import get_trace_context_storage", "trace.step"),
        ("import fallom; fallom.evals.evaluate([])", "fallom==0.2.7"),
        ("import fallom; fallom.models.Targeting()", "models.explain"),
        ("import fallom; fallom.trace.utils.iso_now()", "datetime.now"),
    ],
)
def test_what_was_left_out_says_what_to_use(statement: str, hint: str) -> None:
    with pytest.raises(ImportError) as refusal:
        exec(statement)
    assert "left out in fallom 0.3" in str(refusal.value)
    assert hint in str(refusal.value)


def test_names_that_never_were_are_no_attributes() -> None:
    import fallom.trace.core

    assert not hasattr(fallom, "nothing")
    assert not hasattr(fallom.trace, "nothing")
    assert not hasattr(fallom.trace.core, "nothing")
    assert not hasattr(fallom.models, "nothing")


def test_earlier_names_cost_nothing_until_they_are_used() -> None:
    code = (
        "import sys, fallom\n"
        "found = [name for name in sys.modules if name.startswith('fallom.trace.')]\n"
        "sys.exit(repr(found) if found else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
