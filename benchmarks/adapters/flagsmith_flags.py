"""Flagsmith in offline mode: local evaluation of an environment document, the fastest way that it has."""

from __future__ import annotations

import json
import tempfile
from typing import Any

from driver import SESSIONS, Subject, serve

DOCUMENT = {
    "id": 1,
    "api_key": "key",
    "name": "bench",
    "updated_at": "2026-01-01T00:00:00.000000+00:00",
    "project": {
        "id": 1,
        "name": "bench",
        "hide_disabled_flags": False,
        "organisation": {
            "id": 1,
            "name": "bench",
            "feature_analytics": False,
            "stop_serving_flags": False,
            "persist_trait_data": True,
        },
        "segments": [],
    },
    "identity_overrides": [],
    "feature_states": [
        {
            "id": 1,
            "django_id": 1,
            "enabled": True,
            "feature_state_value": "f",
            "featurestate_uuid": "40eb539d-3713-4720-bbd4-829dbef10d51",
            "feature": {"id": 1, "name": "app", "type": "MULTIVARIATE"},
            "feature_segment": None,
            "multivariate_feature_state_values": [
                {
                    "id": number,
                    "multivariate_feature_option": {"id": number, "value": value},
                    "percentage_allocation": 50.0,
                    "mv_fs_value_uuid": f"808cba14-03ca-4835-a7f7-58387f01f87{number}",
                }
                for number, value in ((1, "one"), (2, "two"))
            ],
        }
    ],
}


def _client() -> Any:
    from flagsmith import Flagsmith
    from flagsmith.offline_handlers import LocalFileHandler

    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(DOCUMENT, file)
        file.flush()
        return Flagsmith(offline_mode=True, offline_handler=LocalFileHandler(file.name))


def warm(_: dict[str, Any]) -> Subject:
    client = _client()

    def get(session: str) -> Any:
        return client.get_identity_flags(session).get_feature_value("app")

    return Subject(
        lambda number: get(SESSIONS[number & 255]),
        answers=lambda: {"models": [get(session) for session in SESSIONS]},
    )


def first(_: dict[str, Any]) -> Subject:
    client = _client()
    return Subject(
        lambda number: client.get_identity_flags(f"first-{number}").get_feature_value("app")
    )


PATHS = {"models.get": warm, "models.first": first}

if __name__ == "__main__":
    serve(PATHS)
