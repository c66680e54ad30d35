"""Langfuse's SDK: cached prompts, and observations by its OpenTelemetry exporter, both against loopback.

A prompt is fetched once and then served from the SDK's cache (an hour); its attributes go as metadata, as
its documentation has it.
"""

from __future__ import annotations

from typing import Any

from driver import TEN, VARIABLES, Subject, serve


def client_for(url: str) -> Any:
    from langfuse import Langfuse

    return Langfuse(public_key="pk-lf-1", secret_key="sk-lf-1", base_url=url)


def prompts_get(options: dict[str, Any]) -> Subject:
    get = client_for(options["url"]).get_prompt

    def call(_: int) -> Any:
        return get("p", type="chat", cache_ttl_seconds=3600).compile(**VARIABLES)

    def answers() -> dict[str, str]:
        system, user = call(0)
        return {"system": system["content"], "user": user["content"]}

    return Subject(call, answers=answers)


def span(options: dict[str, Any]) -> Subject:
    client = client_for(options["url"])
    start = client.start_observation
    return Subject(
        lambda _: start(name="metrics", metadata=TEN).end(), client.flush, client.shutdown
    )


PATHS = {"prompts.get": prompts_get, "span": span}

if __name__ == "__main__":
    serve(PATHS)
