from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def test_configs_prompts_and_tests_have_the_shapes_of_the_contract(cloud: Any) -> None:
    configs = cloud.ask("GET", "/configs").json()["configs"]
    assert [(c["key"], c["version"]) for c in configs] == [("my-app", 1), ("summarizer-config", 2)]
    assert configs[0]["variants"][0] == {"model": "gpt-4o", "weight": 70}
    prompts = cloud.ask("GET", "/prompts").json()["prompts"]
    assert [(p["key"], p["version"]) for p in prompts] == [("onboarding", 1), ("onboarding", 2)]
    (test,) = cloud.ask("GET", "/prompt-ab-tests").json()["prompt_ab_tests"]
    assert test["variants"][1] == {"prompt_key": "onboarding", "prompt_version": None, "weight": 50}


def test_pinned_version_is_a_bare_config_and_an_unknown_one_is_404(cloud: Any) -> None:
    config = cloud.ask("GET", "/configs/summarizer-config/version/1").json()
    assert (config["key"], config["version"]) == ("summarizer-config", 1)
    answer = cloud.ask("GET", "/configs/summarizer-config/version/9")
    assert answer.status == 404
    assert "version 9" in answer.json()["error"]
    assert cloud.ask("GET", "/configs/nothing/version/1").status == 404


def test_key_with_a_slash_can_be_pinned(new_cloud: Any, folder: Path) -> None:
    (folder / "configs/greeter.yaml").write_text(
        "key: team/greeter\nvariants: [{model: a, weight: 100}]\n"
    )
    with new_cloud(folder) as cloud:
        assert cloud.ask("GET", "/configs/team%2Fgreeter/version/1").json()["key"] == "team/greeter"


def test_same_content_is_answered_by_304(cloud: Any) -> None:
    for path in ("/configs", "/prompts", "/prompt-ab-tests", "/configs/my-app/version/1"):
        etag = cloud.ask("GET", path).headers["etag"]
        assert etag.startswith('"')
        answer = cloud.ask("GET", path, if_none_match=f'"other", W/{etag}')
        assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", etag)
        assert cloud.ask("GET", path, if_none_match="*").status == 304
        assert cloud.ask("GET", path, if_none_match='"other"').status == 200


def test_edit_is_served_by_the_next_request_under_another_etag(
    new_cloud: Any, folder: Path
) -> None:
    with new_cloud(folder) as cloud:
        before = cloud.ask("GET", "/configs")
        path = folder / "configs/greeter.yaml"
        path.write_text(path.read_text().replace("mini", "maxi"))
        after = cloud.ask("GET", "/configs", if_none_match=before.headers["etag"])
        assert after.status == 200
        assert b"maxi" in after.body
        assert "served anew" in cloud.log()


def test_broken_edit_is_told_once_and_the_last_good_content_served(
    new_cloud: Any, folder: Path
) -> None:
    with new_cloud(folder) as cloud:
        before = cloud.ask("GET", "/configs")
        path = folder / "configs/greeter.yaml"
        good = path.read_text()
        path.write_text("variants:\n  - {model: a, wieght: 1}\n")
        for _ in range(3):
            assert cloud.ask("GET", "/configs", if_none_match=before.headers["etag"]).status == 304
        (error,) = cloud.stats()["errors"]
        assert error["file"] == "configs/greeter.yaml"
        assert (error["line"], error["column"]) == (2, 16)
        assert "did you mean 'weight'" in error["message"]
        assert cloud.log().count("configs/greeter.yaml:2:16: ") == 1
        path.write_text(good)
        assert cloud.stats()["errors"] == []
        assert "configs/greeter.yaml: mended" in cloud.log()


def test_file_that_is_broken_at_the_start_is_told_and_the_rest_served(
    new_cloud: Any, folder: Path
) -> None:
    (folder / "configs/bad.yaml").write_text("variants: [\n")
    with new_cloud(folder) as cloud:
        assert "configs/bad.yaml:2:1: not YAML" in cloud.log()
        assert [c["key"] for c in cloud.ask("GET", "/configs").json()["configs"]] == ["greeter"]


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_other_methods_are_refused(cloud: Any, method: str) -> None:
    assert cloud.ask(method, "/configs").status == 405
