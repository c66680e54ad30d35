"""``file:`` URLs: a folder answers as a server would."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fallom._core.errors import ConfigurationError
from fallom._core.settings import resolve_settings
from fallom._flusher.folders import Folders
from fallom._flusher.http import NetworkError, Request
from tests.support.targets import FakeHttp


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "a folder"
    (root / "configs").mkdir(parents=True)
    (root / "configs/app.json").write_text(
        '{"versions": [{"variants": [{"model": "old", "weight": 100}]},'
        ' {"variants": [{"model": "new", "weight": 100}]}]}'
    )
    (root / "prompts").mkdir()
    (root / "prompts/p.yaml").write_text("user_template: Hi\n")
    return root


def url(folder: Path) -> str:
    given = f"file://{folder}".replace(" ", "%20")
    return resolve_settings({"configs_url": given}, {}).configs_url


def test_listings_and_pinned_versions_are_those_of_a_server(folder: Path) -> None:
    said: list[str] = []
    folders = Folders(FakeHttp(lambda _: 500), said.append)
    base = url(folder)
    (config,) = json.loads(folders.send(Request("GET", f"{base}/configs")).body)["configs"]
    assert (config["key"], config["version"]) == ("app", 2)
    pinned = folders.send(Request("GET", f"{base}/configs/app/version/1"))
    assert json.loads(pinned.body)["variants"][0]["model"] == "old"
    assert folders.send(Request("GET", f"{base}/configs/app/version/9")).status == 404
    (prompt,) = json.loads(folders.send(Request("GET", f"{base}/prompts")).body)["prompts"]
    assert prompt["key"] == "p"
    tests = folders.send(Request("GET", f"{base}/prompt-ab-tests"))
    assert json.loads(tests.body) == {"prompt_ab_tests": []}
    assert said == []


def test_what_has_not_changed_is_a_304(folder: Path) -> None:
    folders = Folders(FakeHttp(lambda _: 500), print)
    first = folders.send(Request("GET", f"{url(folder)}/configs"))
    again = {"If-None-Match": first.headers["etag"]}
    assert folders.send(Request("GET", f"{url(folder)}/configs", again)).status == 304
    (folder / "configs/more.yaml").write_text("variants: [{model: m, weight: 100}]\n")
    assert folders.send(Request("GET", f"{url(folder)}/configs", again)).status == 200


def test_a_mistake_in_a_file_is_told_with_its_line(folder: Path) -> None:
    said: list[str] = []
    folders = Folders(FakeHttp(lambda _: 500), said.append)
    (folder / "configs/bad.yaml").write_text("variants:\n  - {model: m, weight: much}\n")
    for _ in range(2):
        folders.send(Request("GET", f"{url(folder)}/configs"))
    (told,) = said
    assert told.startswith(f"{folder}/configs/bad.yaml:2:")


def test_a_folder_that_is_gone_is_no_empty_answer(folder: Path) -> None:
    folders = Folders(FakeHttp(lambda _: 500), print)
    request = Request("GET", f"{url(folder)}/configs")
    assert folders.send(request).status == 200
    shutil.move(folder, folder.with_name("moved"))
    with pytest.raises(NetworkError, match="directory"):
        folders.send(request)
    shutil.move(folder.with_name("moved"), folder)
    assert folders.send(request).status == 200


def test_other_urls_are_for_the_network() -> None:
    http = FakeHttp(lambda _: 204)
    assert Folders(http, print).send(Request("GET", "http://127.0.0.1/configs")).status == 204
    assert len(http.requests) == 1


@pytest.mark.parametrize("given", ["file://", "file:relative", "file://host/path", "file:///a?b"])
def test_a_file_url_without_an_absolute_path_here_is_told(given: str) -> None:
    with pytest.raises(ConfigurationError, match="absolute path"):
        resolve_settings({"configs_url": given}, {})


def test_traces_cannot_go_to_a_folder() -> None:
    with pytest.raises(ConfigurationError, match="http"):
        resolve_settings({"traces_url": "file:///srv"}, {})
