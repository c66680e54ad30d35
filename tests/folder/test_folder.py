from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from fallom._core.errors import ConfigurationError
from fallom._folder.folder import Folder
from fallom.dev.run import sample_folder
from tests.support.scripts import run_script

EXAMPLE = Path(__file__).parents[2] / "examples" / "cloud"


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)


def served(folder: Path, kind: str = "configs") -> list[dict[str, Any]]:
    return Folder(folder).catalogue().all_versions(kind)


def only_problem(folder: Path) -> str:
    (problem,) = Folder(folder).catalogue().problems
    return str(problem)


def test_file_name_is_the_default_key_and_1_the_default_version(folder: Path) -> None:
    (config,) = served(folder)
    assert (config["key"], config["version"], config["targeting"]) == ("greeter", 1, None)


def test_highest_version_is_current_whatever_the_order(folder: Path) -> None:
    item = "- {{version: {0}, variants: [{{model: m{0}, weight: 100}}]}}\n"
    write(folder, "configs/greeter.yaml", item.format(10) + item.format(9) + item.format(2))
    catalogue = Folder(folder).catalogue()
    assert [c["version"] for c in catalogue.all_versions("configs")] == [2, 9, 10]
    assert [c["version"] for c in catalogue.current("configs")] == [10]
    assert catalogue.version("configs", "greeter", 9)["variants"][0]["model"] == "m9"
    assert catalogue.version("configs", "greeter", 3) is None


def test_versions_share_what_stands_beside_them_and_count_from_1(folder: Path) -> None:
    write(
        folder,
        "prompts/hello.yaml",
        "key: other\nsystem_prompt: shared\nversions:\n- user_template: a\n- user_template: b\n",
    )
    assert served(folder, "prompts") == [
        {"key": "other", "version": 1, "system_prompt": "shared", "user_template": "a"},
        {"key": "other", "version": 2, "system_prompt": "shared", "user_template": "b"},
    ]


def test_whole_payload_of_a_server_can_be_put_into_the_folder(folder: Path) -> None:
    payload = {
        "configs": [{"key": "k", "version": 7, "variants": {"a": {"model": "m", "weight": "100"}}}]
    }
    write(folder, "configs/all.json", json.dumps(payload))
    prompt = {"key": "p", "version": 1, "system_prompt": None, "user_template": "hi"}
    write(folder, "prompts/all.json", json.dumps({"prompts": [{**prompt, "messages": None}]}))
    catalogue = Folder(folder).catalogue()
    assert catalogue.version("configs", "k", 7)["variants"] == [{"model": "m", "weight": 100}]
    assert catalogue.version("prompts", "p", 1) == {**prompt, "system_prompt": ""}


def test_both_names_of_the_test_directory_are_read(folder: Path) -> None:
    write(folder, "prompts/p.yaml", "user_template: hi\n")
    (folder / "prompt-ab-tests").mkdir()
    text = "variants: [{prompt_key: p, weight: 100}]\n"
    write(folder, "ab-tests/one.yaml", text)
    write(folder, "prompt-ab-tests/two.yaml", text)
    catalogue = Folder(folder).catalogue()
    assert [test["key"] for test in catalogue.current("prompt_ab_tests")] == ["one", "two"]
    assert catalogue.problems == ()


@pytest.mark.parametrize("root", [sample_folder(), EXAMPLE], ids=["sample", "example"])
def test_folders_that_come_along_are_without_problems(root: Path) -> None:
    folder = Folder(root)
    assert folder.catalogue().all_versions("prompt_ab_tests")
    assert folder.catalogue().problems == ()
    assert folder.notes == ()


def test_unchanged_folder_gives_the_same_object(folder: Path) -> None:
    path = folder / "configs" / "greeter.yaml"
    os.utime(path, ns=(1, 1))
    reader = Folder(folder)
    assert reader.catalogue() is reader.catalogue()


def test_edit_is_seen_at_once_even_with_same_size_and_time(folder: Path) -> None:
    path = folder / "configs" / "greeter.yaml"
    reader = Folder(folder)
    reader.catalogue()
    before = path.stat()
    path.write_text(path.read_text().replace("mini", "maxi"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert reader.catalogue().current("configs")[0]["variants"][1]["model"] == "maxi"


def test_removed_file_is_no_longer_served(folder: Path) -> None:
    reader = Folder(folder)
    reader.catalogue()
    (folder / "configs" / "greeter.yaml").unlink()
    assert reader.catalogue().current("configs") == []


def test_broken_file_keeps_its_last_good_content_and_others_are_served(folder: Path) -> None:
    reader = Folder(folder)
    good = reader.catalogue().current("configs")
    write(folder, "configs/greeter.yaml", "variants:\n  - {model: gpt-4o, weight: 60\n")
    write(folder, "configs/later.yaml", "variants: [{model: m, weight: 100}]\n")
    catalogue = reader.catalogue()
    assert [c["key"] for c in catalogue.current("configs")] == ["greeter", "later"]
    assert catalogue.current("configs")[0] == good[0]
    assert [p.file for p in catalogue.problems] == ["configs/greeter.yaml"]
    write(folder, "configs/greeter.yaml", "variants: [{model: new, weight: 100}]\n")
    catalogue = reader.catalogue()
    assert catalogue.problems == ()
    assert catalogue.current("configs")[0]["variants"] == [{"model": "new", "weight": 100}]


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("variants:\n\t- model: a\n", "2:1", "tabs"),
        ("variants: [\n", "2:1", "not YAML"),
        ("a: b: c\n", "1:5", "quote"),
        ("variants:\n  - model: a\n    wieght: 5\n", "3:5", "did you mean 'weight'"),
        ("variants:\n  - model: a\n", "2:5", "has no 'weight'"),
        ("variants:\n  - model: 4\n    weight: 5\n", "2:12", "quotes"),
        ("variants:\n  - model: on\n    weight: 5\n", "2:12", "expected text"),
        ("variants:\n  - {model: a, weight: 101}\n", "2:24", "percentage"),
        ("variants:\n  - {model: a, weight: .nan}\n", "2:24", "percentage"),
        ("variants:\n  - {model: a, weight: true}\n", "2:24", "percentage"),
        ("variants:\n  - {model: a, model: b, weight: 100}\n", "2:16", "twice"),
        ("version: '2'\nvariants: [{model: a, weight: 100}]\n", "1:10", "whole number"),
        ("variants: []\n", "1:11", "at least one variant"),
        ("just text\n", "1:1", "expected a mapping"),
        ("", "", "is empty"),
        ("variants: !!python/object/apply:os.system [x]\n", "1:11", "not YAML"),
        ("variants: [{model: a, weight: 100}]\ntargeting:\n  rules: 5\n", "3:10", "a list"),
        (
            "variants: [{model: a, weight: 100}]\n"
            "targeting:\n  individualTargets:\n    - {field: x, value: 1, variantIndex: 1}\n",
            "4:42",
            "from 0 to 0",
        ),
        (
            "variants: [{model: a, weight: 100}]\n"
            "targeting:\n  individualTargets:\n    - {field: x, value: 2024-01-01, variantIndex: 0}\n",
            "4:25",
            "dates in quotes",
        ),
        (
            "variants: [{model: a, weight: 100}]\n"
            "targeting:\n  rules:\n    - variantIndex: 0\n      conditions:\n"
            "        - {field: x, operator: equals, value: 1}\n",
            "6:32",
            "expected eq, neq",
        ),
        (
            "variants: [{model: a, weight: 100}]\n"
            "targeting:\n  rules:\n    - variantIndex: 0\n      conditions:\n"
            "        - {field: x, operator: in, value: 1}\n",
            "6:43",
            "expected a list",
        ),
        ("[" * 100_000, "", "too deeply"),
        ("&a [*a]\n", "", "expected a mapping"),
        ("x: 2024-13-45\n", "", "looks like a date"),
        ("x: \x07\n", "", "not YAML"),
        ("x: !!bool maybe\n", "", "a tag"),
        ("x: !!timestamp soon\n", "", "a tag"),
        ("x: !!int ''\n", "", "a tag"),
        (
            f"variants: [{{model: a, weight: {'1' * 400}}}]\n",
            "1:31",
            "beyond 64 bits; expected a perc",
        ),
        (f"variants: [{{model: a, weight: 0x{'f' * 5000}}}]\n", "1:31", "beyond 64 bits"),
        (f"variants:\n  ? 0x{'f' * 5000}\n  : {{model: a}}\n", "", "digits"),
        (
            "variants: [{model: a, weight: 100}]\n"
            "targeting:\n  individualTargets:\n"
            f"    - {{field: x, value: 0x{'f' * 5000}, variantIndex: 0}}\n",
            "4:25",
            "beyond 64 bits",
        ),
    ],
)
def test_mistake_is_told_with_place_and_remedy(
    folder: Path, text: str, place: str, words: str
) -> None:
    write(folder, "configs/greeter.yaml", text)
    problem = only_problem(folder)
    assert problem.startswith(f"configs/greeter.yaml:{place}" if place else "configs/greeter.yaml")
    assert words in problem


def test_mistake_in_json_is_told_with_its_line(folder: Path) -> None:
    write(folder, "configs/greeter.json", '{\n "variants": [\n  {"model": "a"}\n ]\n}')
    (folder / "configs/greeter.yaml").unlink()
    assert only_problem(folder).startswith("configs/greeter.json:3:3: variants[0] has no 'weight'")
    write(folder, "configs/greeter.json", '{\n "variants": [,]\n}')
    assert only_problem(folder).startswith("configs/greeter.json:2:15: not JSON")
    write(folder, "configs/greeter.json", f'{{"version": {"1" * 5000}}}')
    assert only_problem(folder).startswith("configs/greeter.json: has a number of thousands")


def test_file_that_is_no_text_or_cannot_be_read_is_told(folder: Path) -> None:
    (folder / "configs/greeter.yaml").write_bytes(b"\xff\xfe")
    assert "UTF-8" in only_problem(folder)
    (folder / "configs/greeter.yaml").unlink()
    (folder / "configs/greeter.yaml").mkdir()
    assert "cannot be read" in only_problem(folder)
    (folder / "configs/greeter.yaml").rmdir()
    os.mkfifo(folder / "configs/greeter.yaml")
    assert "cannot be read: it is not a regular file" in only_problem(folder)


def test_weights_that_do_not_fill_100_percent_are_served_with_a_warning(folder: Path) -> None:
    write(
        folder,
        "configs/greeter.yaml",
        "variants: [{model: a, weight: 0.5}, {model: b, weight: 0.5}]",
    )
    catalogue = Folder(folder).catalogue()
    assert len(catalogue.current("configs")) == 1
    (problem,) = catalogue.problems
    assert not problem.is_error
    assert "add up to 1," in problem.message


def test_thirds_are_not_warned_about(folder: Path) -> None:
    third = "{model: a, weight: 33.33}"
    write(folder, "configs/greeter.yaml", f"variants: [{third}, {third}, {third}]")
    assert Folder(folder).catalogue().problems == ()


def test_same_version_in_two_files_names_both_and_serves_the_first(folder: Path) -> None:
    write(folder, "configs/other.yaml", "key: greeter\nvariants: [{model: z, weight: 100}]\n")
    catalogue = Folder(folder).catalogue()
    assert catalogue.current("configs")[0]["variants"][0]["model"] == "gpt-4o"
    (problem,) = catalogue.problems
    assert problem.file == "configs/other.yaml"
    assert "configs/greeter.yaml:1" in problem.message


def test_test_of_an_unknown_prompt_is_warned_about(folder: Path) -> None:
    write(folder, "prompts/p.yaml", "user_template: hi\n")
    write(
        folder,
        "ab-tests/t.yaml",
        "variants:\n- {prompt_key: p, prompt_version: 9, weight: 50}\n- {prompt_key: q, weight: 50}\n",
    )
    catalogue = Folder(folder).catalogue()
    assert len(catalogue.current("prompt_ab_tests")) == 1
    assert ["p version 9" in p.message or "'q'" in p.message for p in catalogue.problems] == [
        True
    ] * 2


def test_aliases_that_multiply_do_not_reach_the_wire(folder: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    lines += ["variants: [{model: a, weight: 100, extra: *a9}]", ""]
    write(folder, "configs/greeter.yaml", "\n".join(lines))
    (config,) = served(folder)
    assert config["variants"] == [{"model": "a", "weight": 100}]
    lines[-2] = "variants: *a9"
    write(folder, "configs/greeter.yaml", "\n".join(lines))
    assert "variants[0] is a list; expected a mapping" in only_problem(folder)


def test_missing_folder_is_an_error_that_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere.*expected a directory"):
        Folder(tmp_path / "nowhere")


def test_misspelt_directory_is_noted(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    notes = " ".join(Folder(tmp_path).notes)
    assert "did you mean configs/" in notes
    assert "nothing is served" in notes


def test_reader_never_sees_half_an_edit(folder: Path) -> None:
    path = folder / "configs" / "greeter.yaml"
    reader = Folder(folder)
    reader.catalogue()
    done = threading.Event()

    def edit() -> None:
        for number in range(300):
            models = "".join(f"  - {{model: m{number}, weight: 1}}\n" for _ in range(100))
            path.write_text(f"variants:\n{models}")
        done.set()

    editor = threading.Thread(target=edit)
    editor.start()
    mixed = 0
    while not done.is_set():
        for config in reader.catalogue().current("configs"):
            names = {variant["model"] for variant in config["variants"]}
            mixed += len(names) > 1 and names != {"gpt-4o", "mini"}
    editor.join()
    assert mixed == 0
    assert reader.catalogue().current("configs")[0]["variants"][0]["model"] == "m299"


def test_without_pyyaml_json_is_served_and_yaml_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/a.json").write_text('{"variants": [{"model": "m", "weight": 100}]}')
    (tmp_path / "configs/b.yaml").write_text("variants: [{model: m, weight: 100}]")
    (tmp_path / "configs/c.json").write_text('{"variants": []}')
    code = f"""
import sys
sys.modules["yaml"] = None
from pathlib import Path
from fallom._folder.folder import Folder
found = Folder(Path({str(tmp_path)!r})).catalogue()
print(list(found.entries["configs"]), *found.problems, sep="\\n")
"""
    lines = run_script(code, tmp_path).splitlines()
    assert lines[0] == "['a']"
    assert 'b.yaml: is YAML, which needs PyYAML: pip install "fallom[files]"' in lines[1]
    assert lines[2].startswith("configs/c.json: variants")


def test_messages_of_a_prompt_are_served_as_they_are(folder: Path) -> None:
    write(
        folder,
        "prompts/chat.yaml",
        'messages:\n- {role: system, content: "Be brief."}\n- {role: user, content: "{{q}}"}\n',
    )
    assert served(folder, "prompts") == [
        {
            "key": "chat",
            "version": 1,
            "system_prompt": "",
            "user_template": "",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "{{q}}"},
            ],
        }
    ]


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("messages: [{role: user, contents: x}]\n", "1:25", "did you mean 'content'"),
        ("messages: [{role: user}]\n", "1:12", "has no 'content'"),
        ("messages: [{role: usr, content: x}]\n", "1:19", "did you mean 'user'"),
        ("messages: [{role: 5, content: x}]\n", "1:19", "expected system, developer, user"),
        ("messages: [{role: user, content: [x]}]\n", "1:34", "expected text"),
        ("messages: []\n", "1:1", "nor 'messages'"),
        ("messages: text\n", "1:11", "expected a list"),
        ("mesages: []\n", "1:1", "did you mean 'messages'"),
    ],
)
def test_mistake_in_a_message_is_told_with_place_and_remedy(
    folder: Path, text: str, place: str, words: str
) -> None:
    write(folder, "prompts/chat.yaml", text)
    problem = only_problem(folder)
    assert problem.startswith(f"prompts/chat.yaml:{place}: ")
    assert words in problem
