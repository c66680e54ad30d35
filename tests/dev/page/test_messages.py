from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallom.dev.page.details import detail_of
from fallom.dev.page.facts import facts_of
from fallom.dev.page.messages import messages_of, text_of

CALL = {"type": "tool_call", "id": "c1", "name": "look", "arguments": {"id": 5}}


def test_the_parts_of_the_conventions_are_read() -> None:
    value = json.dumps(
        [
            {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
            {"role": "user", "parts": [{"type": "uri", "modality": "image", "uri": "http://x/y"}]},
            {"role": "assistant", "parts": [CALL], "finish_reason": "tool_call"},
            {
                "role": "tool",
                "parts": [{"type": "tool_call_response", "id": "c1", "response": "ok"}],
            },
            {"role": "assistant", "parts": [{"type": "reasoning", "content": "hm"}]},
        ]
    )
    found = messages_of(value)
    assert [message.role for message in found] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert [message.parts[0].kind for message in found] == [
        "text",
        "media",
        "tool_call",
        "tool_response",
        "reasoning",
    ]
    assert (found[2].parts[0].name, found[2].parts[0].is_json) == ("look", True)
    assert found[2].finish == "tool_call"


def test_the_messages_of_the_chat_api_are_read() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": '{"id": 5}'}}
    found = messages_of(
        [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "found"},
            {"role": "user", "content": [{"type": "text", "text": "and this"}]},
        ]
    )
    assert text_of(found[0]) == "Hi"
    assert (found[1].parts[0].kind, found[1].parts[0].name) == ("tool_call", "look")
    assert (found[2].parts[0].kind, found[2].parts[0].id) == ("tool_response", "c")
    assert text_of(found[3]) == "and this"


def test_what_is_no_message_is_shown_as_it_came() -> None:
    assert messages_of("just text")[0].parts[0].text == "just text"
    assert messages_of('[{"role": "user", "parts": [{"type": "te')[0].parts[0].kind == "text"
    assert messages_of(None) == []
    assert messages_of("") == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                "role parts content type text name id arguments tool_calls function response x".split()
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_nothing_that_json_can_hold_breaks_the_reading(value: Any) -> None:
    messages_of(value)
    messages_of(json.dumps(value))


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "gen_ai.input.messages",
                "gen_ai.output.messages",
                "gen_ai.system_instructions",
                "gen_ai.tool.definitions",
                "gen_ai.response.time_to_first_chunk",
                "gen_ai.usage.input_tokens",
                "fallom.tags",
                "fallom.metadata.plan",
                "fallom.config_version",
                "fallom.retries",
                "fallom.kind",
                "error.type",
                "gen_ai.request.model",
            ]
        ),
        JSON,
    )
)
def test_no_attribute_of_another_type_breaks_a_span(attributes: dict[str, Any]) -> None:
    row = {
        "trace_id": "t",
        "span_id": "s",
        "parent_span_id": "",
        "name": "n",
        "status": 0,
        "status_message": "",
        "config_key": None,
        "session_id": None,
        "start_unix_ns": 5,
        "end_unix_ns": 1,
        "attributes": json.dumps(attributes),
        "resource": "{}",
        "events": "[]",
    }
    facts_of(row)
    detail_of(row)


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ({"fallom.kind": "tool"}, "tool"),
        ({"gen_ai.operation.name": "chat"}, "llm"),
        ({"gen_ai.operation.name": "execute_tool"}, "tool"),
        ({"gen_ai.request.model": "m"}, "llm"),
        ({"http.method": "GET"}, "other"),
    ],
)
def test_what_sort_of_step_it_is_comes_from_attributes(
    row: Any, attributes: dict[str, Any], kind: str
) -> None:
    assert facts_of(row(attributes=attributes)).kind == kind
