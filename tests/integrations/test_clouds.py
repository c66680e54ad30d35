"""Claude through Bedrock and Vertex: calls of the real clients, in each cloud's own wire form."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

import anthropic
import pytest
from fake_provider import Asked, Provider, Recording, Reply

from fallom.integrations.anthropic import wrap_anthropic

pytest.importorskip("botocore", reason="anthropic's client for Bedrock signs with botocore")
pytest.importorskip("google.auth", reason="anthropic's client for Vertex needs google-auth")

REQUEST: Any = {
    "model": "claude-at-cloud",
    "max_tokens": 64,
    "messages": [{"role": "user", "content": "Say hello"}],
}
MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-2026",
    "content": [{"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 20, "output_tokens": 9},
}
EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 9},
    },
    {"type": "message_stop"},
]
# SigV4's date and signature change with the clock; the idempotency key and the retry count are drawn.
CHANGING = {"x-amz-date", "authorization", "idempotency-key", "amz-sdk-invocation-id"}


def event_stream_frame(event: Any) -> bytes:
    """One message of Amazon's event stream encoding (application/vnd.amazon.eventstream)."""

    def header(name: str, value: str) -> bytes:
        name_bytes, value_bytes = name.encode(), value.encode()
        return b"%c%b\x07%b%b" % (
            len(name_bytes),
            name_bytes,
            struct.pack(">H", len(value_bytes)),
            value_bytes,
        )

    headers = (
        header(":event-type", "chunk")
        + header(":content-type", "application/json")
        + header(":message-type", "event")
    )
    payload = json.dumps({"bytes": base64.b64encode(json.dumps(event).encode()).decode()}).encode()
    prelude = struct.pack(">II", 12 + len(headers) + len(payload) + 4, len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + payload
    return message + struct.pack(">I", zlib.crc32(message))


def bedrock(asked: Asked) -> Reply:
    if asked.path.endswith("/invoke-with-response-stream"):
        body = b"".join(map(event_stream_frame, EVENTS))
        return Reply(body, headers={"content-type": "application/vnd.amazon.eventstream"})
    assert asked.path.endswith("/invoke"), asked.path
    return Reply(MESSAGE)


def vertex(asked: Asked) -> Reply:
    if asked.path.endswith(":streamRawPredict"):
        return Reply(events=EVENTS, named=True)
    assert asked.path.endswith(":rawPredict"), asked.path
    return Reply(MESSAGE)


class Cloud:
    """One cloud: what answers, and how its clients are made."""

    def __init__(self, name: str, answer: Callable[[Asked], Reply], **arguments: str) -> None:
        self.name = name
        self.answer = answer
        self.arguments = arguments

    def client(self, kind: str, url: str) -> Any:
        made = getattr(anthropic, f"{kind}{self.name}", None)
        if made is None:
            pytest.skip(f"this anthropic has no client for {self.name}")
        return made(base_url=url, max_retries=0, **self.arguments)


CLOUDS = {
    "aws.bedrock": Cloud(
        "Bedrock",
        bedrock,
        aws_region="eu-1",
        aws_access_key="a",
        aws_secret_key="b",
    ),
    "gcp.vertex_ai": Cloud("Vertex", vertex, region="eu-1", project_id="p", access_token="t"),
}


@pytest.fixture(params=sorted(CLOUDS))
def system(request: pytest.FixtureRequest) -> str:
    """The provider's name on the spans."""
    return str(request.param)


@pytest.fixture
def cloud(system: str, provider: Provider) -> Cloud:
    provider.always = CLOUDS[system].answer
    return CLOUDS[system]


def without_changing(asked: Asked) -> tuple[str, dict[str, str], bytes]:
    headers = {name: value for name, value in asked.headers.items() if name not in CHANGING}
    return asked.path, headers, asked.body


def check_span(tracing: Recording, system: str) -> None:
    attributes = tracing.span.attributes
    assert attributes["gen_ai.provider.name"] == system
    assert attributes["gen_ai.request.model"] == "claude-at-cloud"
    assert attributes["gen_ai.response.model"] == "claude-2026"
    assert attributes["gen_ai.usage.input_tokens"] == 20
    assert attributes["gen_ai.usage.output_tokens"] == 9
    assert attributes["gen_ai.response.finish_reasons"] == ["end_turn"]
    assert "Hello" in str(attributes["gen_ai.output.messages"])


def test_message_is_the_clients_own_and_one_span(
    cloud: Cloud, system: str, provider: Provider, tracing: Recording
) -> None:
    with cloud.client("Anthropic", provider.url) as bare:
        expected = bare.messages.create(**REQUEST)
        found = wrap_anthropic(bare, tracing).messages.create(**REQUEST)
    assert type(found) is type(expected)
    assert found == expected
    assert without_changing(provider.asked[1]) == without_changing(provider.asked[0])
    check_span(tracing, system)


def test_stream_is_the_clients_own_and_one_span(
    cloud: Cloud, system: str, provider: Provider, tracing: Recording
) -> None:
    with cloud.client("Anthropic", provider.url) as bare:
        expected = list(bare.messages.create(stream=True, **REQUEST))
        stream = wrap_anthropic(bare, tracing).messages.create(stream=True, **REQUEST)
        found = list(stream)
    assert found == expected
    assert [event.type for event in found] == [event["type"] for event in EVENTS]
    assert without_changing(provider.asked[1]) == without_changing(provider.asked[0])
    check_span(tracing, system)
    assert tracing.span.attributes["gen_ai.response.time_to_first_chunk"]


def test_helper_for_streams_gives_one_span(
    cloud: Cloud, system: str, provider: Provider, tracing: Recording
) -> None:
    with cloud.client("Anthropic", provider.url) as bare:
        client = wrap_anthropic(bare, tracing)
        with client.messages.stream(**REQUEST) as stream:
            assert "".join(stream.text_stream) == "Hello"
    check_span(tracing, system)


async def test_async_calls_give_one_span_each(
    cloud: Cloud, system: str, provider: Provider, tracing: Recording
) -> None:
    async with cloud.client("AsyncAnthropic", provider.url) as bare:
        client = wrap_anthropic(bare, tracing)
        message = await client.messages.create(**REQUEST)
        assert message.content[0].text == "Hello"
        check_span(tracing, system)
        tracing.spans.clear()
        stream = await client.messages.create(stream=True, **REQUEST)
        assert [event.type async for event in stream] == [event["type"] for event in EVENTS]
    check_span(tracing, system)


def test_refusal_raises_as_it_would_and_gives_a_span(
    cloud: Cloud, provider: Provider, tracing: Recording
) -> None:
    provider.always = Reply({"message": "slow down"}, status=429)
    with cloud.client("Anthropic", provider.url) as bare, pytest.raises(anthropic.RateLimitError):
        wrap_anthropic(bare, tracing).messages.create(**REQUEST)
    assert tracing.span.attributes["error.type"] == "RateLimitError"
