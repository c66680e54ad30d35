"""Content: which attributes hold it, and that a mask sees all of its texts."""

from __future__ import annotations

import pytest

from fallom._core.content import is_body, is_content, mask_content


@pytest.mark.parametrize(
    ("name", "holds_a_body", "holds_content"),
    [
        ("gen_ai.prompt.0.content", True, True),
        ("fallom.input", True, True),
        ("fallom.raw.request", True, True),
        ("traceloop.prompt.template_variables.name", True, True),
        ("reranker.input_documents.0.document.content", True, True),
        ("reranker.query", True, True),
        ("reranker.top_k", False, False),
        ("exception.message", False, True),
        ("gen_ai.prompt.version", False, False),
        ("gen_ai.request.model", False, False),
    ],
)
def test_text_of_an_error_is_content_and_no_body(
    name: str, holds_a_body: bool, holds_content: bool
) -> None:
    assert (is_body(name), is_content(name)) == (holds_a_body, holds_content)


def test_a_mask_sees_the_names_within_content_as_well_and_none_stays_none() -> None:
    content = {"a@b.c": ["x", None, 1], "nested": {"d@e.f": "y"}}
    masked = mask_content(lambda text: text.upper(), {"fallom.input": content, "kept": content})
    assert masked == {
        "fallom.input": {"A@B.C": ["X", None, 1], "NESTED": {"D@E.F": "Y"}},
        "kept": content,
    }
