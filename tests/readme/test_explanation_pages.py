"""The explanations: the rule of assignment, its vectors and the files named are the real ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import fallom
from fallom._core import assignment
from fallom._core.assignment import compile_thresholds
from fallom._folder.folder import Folder
from fallom.dev.server import LocalCloud
from tests.support.scripts import ROOT

DOCS = ROOT / "docs"
EXPERIMENTS = (DOCS / "how-it-works/experiments.md").read_text(encoding="utf-8")
VECTOR = r"^\| (\S+|\(none\)) \| (\S+) \| ([0-9a-f]{8}) \| (\d+) \|$"


def rule() -> dict[str, object]:
    (code,) = re.findall(r"```python\n(.*?)```", EXPERIMENTS, flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    return names


def test_the_vectors_are_those_of_the_module_that_owns_the_rule() -> None:
    told = re.findall(VECTOR, EXPERIMENTS, re.MULTILINE)
    assert told == re.findall(VECTOR, assignment.__doc__ or "", re.MULTILINE)
    assert len(told) == 5


def test_the_printed_rule_gives_what_the_package_gives() -> None:
    bucket, variant = rule()["bucket"], rule()["variant"]
    assert callable(bucket)
    assert callable(variant)
    for salt in ("", "s"):
        for number in range(500):
            session_id = f"session-{number}"
            ours = assignment.bucket_of(session_id, assignment.compile_salt(salt))
            assert bucket(session_id, salt) == ours
            weights = [33.3, 33.3, 33.3]
            thresholds = compile_thresholds(weights)
            expected = next(index for index, edge in enumerate(thresholds) if ours < edge)
            assert variant(weights, ours) == expected


def test_the_printed_test_with_a_salt_is_served_with_it(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n# cloud/(.*?)```", EXPERIMENTS, flags=re.DOTALL)
    name, _, told = text.partition("\n")
    prompt = (ROOT / "examples/cloud/prompts/greeting.yaml").read_text(encoding="utf-8")
    for path, content in ((name, told), ("prompts/greeting.yaml", prompt)):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_text(content)
    catalogue = Folder(tmp_path).catalogue()
    assert list(catalogue.problems) == []
    (served,) = catalogue.all_versions("prompt_ab_tests")
    assert served["salt"] == "greeting-2026"


def test_the_state_directory_has_what_the_page_tells_of(
    state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (DOCS / "how-it-works/state-directory.md").read_text(encoding="utf-8")
    with LocalCloud(db=tmp_path / "cloud.db") as cloud:
        for name, value in cloud.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("FALLOM_LINGER", "1")
        monkeypatch.setenv("FALLOM_SHIP_MASKS", "api_keys")
        fallom.init()
        assert fallom.wait_until_ready(60)
        fallom.models.get("my-app", "s")
        fallom.trace.span({"a": 1}, "my-app", "s")
        (namespace,) = (state_dir / "v1").iterdir()
        found = [path for path in namespace.rglob("*") if path.is_file()]
    assert any(path.parent.name == "spool" for path in found)
    assert namespace / "snapshot/cache.db" in found
    for path in found:
        name = path.name if path.parent == namespace else f"{path.parent.name}/{path.name}"
        if path.parent.name == "spool":
            destination, _, kind = re.split(r"[-.]([0-9a-f]+)\.", path.name)
            assert f"`{destination}`" in page, name
            assert f"`spool/*.{kind}`" in page, name
        elif not name.endswith("-journal"):  # of SQLite, for the moment of a commit
            assert name in page, name


@pytest.mark.parametrize("page", sorted((DOCS / "how-it-works").glob("*.md")), ids=lambda p: p.stem)
def test_each_file_of_the_package_that_is_named_exists(page: Path) -> None:
    named = re.findall(r"`(fallom/[\w/]+(?:\.py)?)`", page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []
