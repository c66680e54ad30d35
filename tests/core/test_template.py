from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fallom._core.prompt import compile_prompt
from fallom._core.template import compile_template

_REFERENCE = re.compile(r"\{\{(\s*\w+\s*)\}\}")


def filled(text: str, variables: Any) -> str:
    """Give a template's text as a prompt has it."""
    return compile_prompt("k", 1, text, "").render(variables)[0]


def reference(text: str, variables: dict[str, Any] | None) -> str:
    """The rule of the published SDKs, word for word."""
    if not variables:
        return text

    def replace(found: re.Match[str]) -> str:
        name = found.group(1).strip()
        return str(variables[name]) if name in variables else found.group(0)

    return _REFERENCE.sub(replace, text)


_PIECES = st.lists(
    st.sampled_from(
        [
            "{{",
            "}}",
            "{",
            "}",
            "a",
            "b",
            "é",
            "名",
            " ",
            "\n",
            "\u00a0",
            "-",
            ".",
            "_",
            "1",
            "{{a}}",
        ]
    ),
    max_size=30,
).map("".join)


@given(_PIECES, st.dictionaries(st.sampled_from(["a", "b", "é", "名", "_", "1"]), _PIECES))
@example("{{{a}}}", {"a": "x"})
@example("{{ a }}", {"a": "{{ a }}"})
def test_rendering_is_that_of_the_published_sdks(text: str, variables: dict[str, str]) -> None:
    assert filled(text, variables) == reference(text, variables)


@given(_PIECES)
def test_a_compiled_template_keeps_its_text(text: str) -> None:
    template = compile_template(text)
    assert "".join(template.pieces) == template.text == text
    assert len(template.pieces) == 2 * len(template.names) + 1


@given(_PIECES, st.text(alphabet="{} ab"))
def test_an_inserted_value_is_never_expanded(text: str, value: str) -> None:
    template = compile_template(text)
    variables = dict.fromkeys([*template.names, "a", "b"], value)
    literals = template.pieces[::2]
    assert filled(template.text, variables) == value.join(literals)


def test_unknown_names_stay_with_their_spaces() -> None:
    template = compile_template("{{ known }} {{  unknown }} {{a.b}} {{a-b}} {{}} {{ }}")
    assert filled(template.text, {"known": 1}) == "1 {{  unknown }} {{a.b}} {{a-b}} {{}} {{ }}"


@pytest.mark.parametrize("variables", [None, {}])
def test_without_variables_the_template_is_untouched(variables: dict[str, Any] | None) -> None:
    assert filled("{{ a }}", variables) == "{{ a }}"


def test_values_are_spelled_by_str() -> None:
    template = compile_template("{{a}}|{{ b }}|{{c}}|{{größe}}")
    variables = {"a": None, "b": True, "c": [1], "größe": 1.5}
    assert filled(template.text, variables) == "None|True|[1]|1.5"


class _Broken:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_a_value_that_has_no_text_leaves_its_placeholder() -> None:
    assert filled("{{ a }}{{b}}", {"a": _Broken(), "b": 2}) == "{{ a }}2"


def test_a_mapping_is_not_asked_to_invent_values() -> None:
    variables: defaultdict[str, str] = defaultdict(lambda: "invented", b="x")
    assert filled("{{a}}{{b}}", variables) == "{{a}}x"
    assert "a" not in variables


def test_variables_that_are_no_mapping_leave_the_template_as_it_is() -> None:
    assert filled("{{a}}", ["a"]) == "{{a}}"
    assert filled("{{a}}", 5) == "{{a}}"


def test_text_that_almost_is_a_placeholder_costs_linear_time() -> None:
    text = "{{" + " " * 200_000 + "a" * 200_000
    assert compile_template(text).names == ()


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError


@given(
    st.lists(st.sampled_from("{{a}} {{ b }} {{ü}} {{missing}} %(a)s %s % %% text { }}".split())),
    st.dictionaries(
        st.sampled_from("a b ü c".split()),
        st.none() | st.text() | st.integers() | st.tuples(st.text()) | st.builds(Unspeakable),
    ),
)
def test_the_step_that_fills_all_gives_what_filling_one_by_one_gives(
    words: list[str], variables: dict[str, Any]
) -> None:
    template = compile_template("".join(words))
    expected = template.render_by_pieces(variables)[0] if variables else template.text
    assert filled(template.text, variables) == expected


def test_a_mapping_that_makes_up_its_values_is_not_asked_for_more_than_it_has() -> None:
    class Inventive(dict[str, str]):
        def __missing__(self, name: str) -> str:
            raise AssertionError(name)

    assert filled("{{a}} {{b}}", Inventive(a="1")) == "1 {{b}}"
