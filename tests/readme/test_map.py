"""The map of the documentation: every page is reachable from it and stands in the site's navigation."""

from __future__ import annotations

import importlib
import re

import pytest

from fallom._step import Step
from tests.support.scripts import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))
NAVIGATION = re.findall(r"- ([\w./-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)


def links_of(page: str) -> set[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.findall(r"\]\(([\w./-]+\.md)", text)
    here = (DOCS / page).parent
    return {str((here / link).resolve().relative_to(DOCS)) for link in found}


def test_the_navigation_has_each_page_once() -> None:
    assert sorted(NAVIGATION) == PAGES


def test_each_page_is_linked_from_the_map_or_a_page_behind_it() -> None:
    reached, new = {"index.md"}, {"index.md"}
    while new:
        new = set().union(*(links_of(page) for page in new)) - reached
        reached |= new
    apart = {page for page in PAGES if page.startswith("reference/")}
    assert set(PAGES) - reached - apart == set()


def test_the_decisions_are_numbered_without_a_gap_and_listed_with_their_titles_and_status() -> None:
    files = sorted((DOCS / "adr").glob("0*.md"))
    listed = re.findall(
        r"^\| (\d+) \| \[(.+)\]\(([\w-]+\.md)\) \| (in force|superseded by .+) \|$",
        (DOCS / "adr/index.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert [(int(number), name) for number, _, name, _ in listed] == [
        (number, path.name) for number, path in enumerate(files, 1)
    ]
    for number, title, name, _ in listed:
        assert name.startswith(f"{int(number):04}-")
        first = (DOCS / "adr" / name).read_text(encoding="utf-8").splitlines()[0]
        assert first == f"# {number}. {title}"


# The modules that docs/deprecation.md calls public.
PUBLIC = ["exceptions", "masks", "models", "opentelemetry", "prompts", "testing", "trace"]


@pytest.mark.parametrize("name", PUBLIC)
def test_the_reference_has_each_public_name(name: str) -> None:
    if name == "opentelemetry":
        pytest.importorskip("opentelemetry.sdk")
    page = (DOCS / f"reference/{name}.md").read_text(encoding="utf-8")
    (listed,) = re.findall(rf"^::: fallom\.{name}\n((?: .*\n)+)", page, re.MULTILINE)
    public = importlib.import_module(f"fallom.{name}").__all__
    assert sorted(re.findall(r"- (\w+)$", listed, re.MULTILINE)) == sorted(public)


def test_the_methods_of_a_step_are_in_the_reference() -> None:
    page = (DOCS / "reference/trace.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"^::: fallom\._step\.Step\n((?: .*\n)+)", page, re.MULTILINE)
    methods = {name for name in vars(Step) if not name.startswith("_")}
    assert set(re.findall(r"- (\w+)$", listed, re.MULTILINE)) == methods


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"])
def test_files_that_are_linked_from_outside_the_site_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([\w./-]*)(?:#([\w-]+))?\)", text)
    assert [path for path, _ in links if not (ROOT / path).exists()] == []
    dead = [(path, part) for path, part in links if part and part not in parts_of(path or name)]
    assert dead == []


def parts_of(page: str) -> set[str]:
    """Give the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


def test_the_readme_is_one_sitting() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 350
