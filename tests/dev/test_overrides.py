from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fallom._folder.folder import Folder
from fallom.dev.overrides import OverrideError, Overrides


def weights(catalogue: Any) -> list[float]:
    (config,) = catalogue.current("configs")
    return [variant["weight"] for variant in config["variants"]]


def test_changed_weights_are_a_new_version_above_the_files(folder: Path) -> None:
    catalogue, overrides = Folder(folder).catalogue(), Overrides()
    overrides.set_weights(catalogue, "configs", "greeter", ["10", "90"])
    served = overrides.applied(catalogue)
    assert weights(served) == [10, 90]
    assert list(served.entries["configs"]["greeter"]) == [1, 2]
    assert weights(catalogue) == [60, 40]  # the files' own is as it was


def test_each_change_has_a_version_of_its_own_even_after_a_way_back(folder: Path) -> None:
    catalogue, overrides = Folder(folder).catalogue(), Overrides()
    for wanted in (2, 3):
        entry = overrides.set_weights(catalogue, "configs", "greeter", ["10", "90"])
        assert entry["version"] == wanted
    overrides.drop("configs", "greeter")
    assert weights(overrides.applied(catalogue)) == [60, 40]
    assert overrides.set_weights(catalogue, "configs", "greeter", ["5", "95"])["version"] == 4


def test_an_edited_file_takes_its_entry_back(folder: Path) -> None:
    files, overrides = Folder(folder), Overrides()
    overrides.set_weights(files.catalogue(), "configs", "greeter", ["10", "90"])
    (folder / "configs" / "greeter.yaml").write_text(
        "variants:\n  - {model: gpt-4o, weight: 55}\n  - {model: mini, weight: 45}\n"
    )
    assert weights(overrides.applied(files.catalogue())) == [55, 45]
    assert overrides.keys() == set()


@pytest.mark.parametrize(
    ("key", "given", "said"),
    [
        ("greeter", ["50", "60"], "add up to 110"),
        ("greeter", ["-1", "101"], "percentage"),
        ("greeter", ["x", "50"], "percentage"),
        ("greeter", ["nan", "50"], "percentage"),
        ("greeter", ["100"], "as many"),
        ("nobody", ["50", "50"], "not served"),
    ],
)
def test_weights_that_cannot_be_served_are_refused(
    folder: Path, key: str, given: list[str], said: str
) -> None:
    with pytest.raises(OverrideError, match=said):
        Overrides().set_weights(Folder(folder).catalogue(), "configs", key, given)
