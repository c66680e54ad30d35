"""A snapshot that an application ships with: what it holds, and until when it serves."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path

import pytest

from fallom._core.errors import ConfigurationError
from fallom._snapshot.bootstrap import bootstrap_of, read_bootstrap
from fallom._snapshot.entries import Kind
from fallom._snapshot.history import opened_history
from fallom._snapshot.payload import item_of
from fallom._snapshot.publish import Publisher
from fallom._snapshot.schema import read_listing
from tests.snapshot.builders import Page, ab_test, ab_tests, config, configs, prompt, prompts

TARGETED = {
    **config("targeted"),
    "targeting": {
        "enabled": True,
        "individualTargets": [{"field": "customerId", "value": "c", "variantIndex": 0}],
        "rules": [
            {
                "conditions": [{"field": "plan", "operator": "in", "value": ["pro", 1]}],
                "variantIndex": 0,
            }
        ],
    },
}


def exported(directory: Path, path: Path) -> Path:
    with opened_history(directory) as history:
        path.write_text(json.dumps(bootstrap_of(history)))
    return path


@pytest.mark.parametrize(
    ("kind", "item"),
    [
        (Kind.CONFIG, TARGETED),
        (Kind.CONFIG, config("a", 3)),
        (Kind.PROMPT, prompt("p", 2, "é {{x}}")),
        (Kind.PROMPT, {**prompt("p"), "messages": [{"role": "user", "content": "{{x}}"}]}),
        (Kind.AB_TEST, ab_test("t", "p", "q")),
        (Kind.CONFIG, {**TARGETED, "salt": "spring"}),
        (Kind.AB_TEST, {**ab_test("t", "p", "q"), "salt": "spring"}),
    ],
)
def test_an_entry_becomes_the_item_that_it_came_from(kind: Kind, item: dict[str, object]) -> None:
    name = {Kind.CONFIG: "configs", Kind.PROMPT: "prompts", Kind.AB_TEST: "prompt_ab_tests"}[kind]
    (entry,) = read_listing(kind, {name: [item]}).entries
    (again,) = read_listing(kind, {name: [item_of(entry.data)]}).entries
    assert again == entry


def test_an_older_version_is_not_taken_for_a_current_one_that_is_lost(
    publisher: Publisher, directory: Path
) -> None:
    publisher.publish([configs(config("a", 1), config("b", 1))])
    publisher.publish([configs(config("a", 2), config("b", 2))])
    for key, version, left in (
        ("b", 1, [("a", 1), ("a", 2), ("b", 2)]),
        ("a", 2, [("b", 2)]),
    ):
        lost = publisher.manifest().find(Kind.CONFIG, key, version)
        with contextlib.closing(sqlite3.connect(directory / "cache.db")) as database, database:
            database.execute("DELETE FROM Cache WHERE key = ?", (f"e:{lost}",))
        with opened_history(directory) as history:
            found = bootstrap_of(history)["configs"]
        assert [(item["key"], item["version"]) for item in found] == left


def test_what_was_exported_serves_where_nothing_was_published(
    publisher: Publisher, directory: Path, tmp_path: Path
) -> None:
    publisher.publish([configs(config("a", 1, "old")), prompts(prompt("p"))])
    publisher.publish([configs(config("a", 2, "new")), ab_tests(ab_test("t", "p"))])
    path = exported(directory, tmp_path / "bootstrap.json")
    reader = Page().reader(tmp_path / "nowhere")
    assert reader.is_empty()
    reader.bootstrap = read_bootstrap(str(path))
    assert not reader.is_empty()
    for version, model in ((None, "new"), (1, "old"), (2, "new")):
        found = reader.config("a", version)
        assert found is not None
        assert found.models == (model,)
    assert reader.config("a", 3) is None
    assert reader.prompt("p") is not None
    assert reader.ab_test("t") is not None


def test_a_kind_that_was_published_no_longer_comes_from_the_bootstrap(
    publisher: Publisher, directory: Path, tmp_path: Path, page: Page
) -> None:
    publisher.publish([configs(config("a")), prompts(prompt("p"))])
    bootstrap = read_bootstrap(str(exported(directory, tmp_path / "bootstrap.json")))
    other = tmp_path / "other"
    reader = page.reader(other)
    reader.bootstrap = bootstrap
    assert reader.config("a") is not None
    page.publish(Publisher(other), configs(config("b")))
    assert reader.config("b") is not None
    assert reader.config("a") is None, "the server knows better"
    assert reader.prompt("p") is not None, "of prompts nothing was said yet"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "No such file"),
        ("{", "not JSON"),
        ("{}", "fallom_bootstrap"),
        ('{"fallom_bootstrap": 1, "configs": [{"key": "a", "variants": []}]}', "variants"),
        ('{"fallom_bootstrap": 1, "configs": 3}', "configs"),
    ],
)
def test_a_bootstrap_that_cannot_be_used_is_an_error_with_its_path(
    tmp_path: Path, text: str | None, words: str
) -> None:
    path = tmp_path / "bootstrap.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigurationError, match="bootstrap") as caught:
        read_bootstrap(str(path))
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
