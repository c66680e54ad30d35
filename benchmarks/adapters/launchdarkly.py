"""LaunchDarkly's server SDK with its TestData source (evaluation in memory), without events.

``send_events=False`` is its faster setting; contexts are made once a session. The first call of a session
makes the context.
"""

from __future__ import annotations

from typing import Any

from driver import SESSIONS, Subject, serve


def _client() -> Any:
    from ldclient.client import LDClient
    from ldclient.config import Config
    from ldclient.integrations.test_data import TestData

    source = TestData.data_source()
    source.update(source.flag("app").variations("one", "two").variation_for_all(0))
    client = LDClient(Config("sdk-key", update_processor_class=source, send_events=False))
    flag = source._current_flags["app"]
    rollout = {
        "variations": [{"variation": 0, "weight": 50_000}, {"variation": 1, "weight": 50_000}]
    }
    data = {
        **_json_of(flag),
        "fallthrough": {"rollout": rollout},
        "version": 100,
    }
    from ldclient.impl.model import FeatureFlag
    from ldclient.versioned_data_kind import FEATURES

    client._config.feature_store.upsert(FEATURES, FeatureFlag(data))
    return client


def _json_of(flag: Any) -> dict[str, Any]:
    return flag if isinstance(flag, dict) else flag.to_json_dict()


def warm(_: dict[str, Any]) -> Subject:
    from ldclient import Context

    variation = _client().variation
    contexts = [Context.create(session) for session in SESSIONS]
    return Subject(
        lambda number: variation("app", contexts[number & 255], "f"),
        answers=lambda: {"models": [variation("app", each, "f") for each in contexts]},
    )


def first(_: dict[str, Any]) -> Subject:
    from ldclient import Context

    variation = _client().variation
    return Subject(lambda number: variation("app", Context.create(f"first-{number}"), "f"))


PATHS = {"models.get": warm, "models.first": first}

if __name__ == "__main__":
    serve(PATHS)
