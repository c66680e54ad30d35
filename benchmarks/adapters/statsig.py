"""Statsig's server core (Rust): a gate and an experiment, from rules served locally.

Exposure logging is on and deduplicated, as by default, and posted to loopback. A user object is made once a
session and used again, which its documentation allows.
"""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from driver import SESSIONS, Subject, serve


def _rule(name: str, percentage: float, value: Any) -> dict[str, Any]:
    return {
        "name": name,
        "groupName": name,
        "passPercentage": percentage,
        "conditions": [
            {
                "type": "public",
                "targetValue": None,
                "operator": None,
                "field": None,
                "additionalValues": {},
                "isDeviceBased": False,
                "idType": "userID",
            }
        ],
        "returnValue": value,
        "id": name,
        "salt": name,
        "isDeviceBased": False,
        "idType": "userID",
        "isExperimentGroup": True,
    }


def _bucket_rule(name: str, limit: int, value: Any) -> dict[str, Any]:
    rule = _rule(name, 100, value)
    rule["conditions"] = [
        {
            "type": "user_bucket",
            "targetValue": limit,
            "operator": "lt",
            "field": None,
            "additionalValues": {"salt": "app"},
            "isDeviceBased": False,
            "idType": "userID",
        }
    ]
    return rule


def _spec(name: str, kind: str, entity: str, rules: list[Any], default: Any) -> dict[str, Any]:
    return {
        "name": name,
        "type": kind,
        "salt": name,
        "enabled": True,
        "defaultValue": default,
        "rules": rules,
        "isDeviceBased": False,
        "idType": "userID",
        "entity": entity,
        "isActive": True,
        "hasSharedParams": False,
        "version": 1,
    }


def _specs() -> dict[str, Any]:
    gate = _spec("gate", "feature_gate", "feature_gate", [_rule("half", 50, True)], False)
    rules = [
        _bucket_rule("one", 500, {"model": "one"}),
        _bucket_rule("two", 1000, {"model": "two"}),
    ]
    experiment = _spec("app", "dynamic_config", "experiment", rules, {})
    return {
        "feature_gates": {"gate": gate},
        "dynamic_configs": {"app": experiment},
        "layer_configs": {},
        "condition_map": {},
    }


def _condition_map(specs: dict[str, Any]) -> dict[str, Any]:
    """Give the form of version 2, in which rules name their conditions."""
    for section in ("feature_gates", "dynamic_configs"):
        for spec in specs[section].values():
            for rule in spec["rules"]:
                names = []
                for condition in rule["conditions"]:
                    name = f"{spec['name']}-{rule['name']}"
                    specs["condition_map"][name] = condition
                    names.append(name)
                rule["conditions"] = names
    return {
        **specs,
        "has_updates": True,
        "time": 1,
        "company_id": "1",
        "response_format": "dcs-v2",
        "experiment_to_layer": {},
    }


class _Local(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(json.dumps(_condition_map(_specs())).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self._answer(b'{"success":true}')

    def _answer(self, body: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def _client() -> Any:
    from statsig_python_core import Statsig, StatsigOptions

    server = ThreadingHTTPServer(("127.0.0.1", 0), _Local)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    options = StatsigOptions()
    options.specs_url = f"{url}/v2/download_config_specs"
    options.log_event_url = f"{url}/v1/log_event"
    options.enable_id_lists = False
    options.wait_for_user_agent_init = False
    options.disable_country_lookup = True
    statsig = Statsig("secret-key", options)
    statsig.initialize().wait()
    return statsig


def experiment(_: dict[str, Any]) -> Subject:
    from statsig_python_core import StatsigUser

    statsig = _client()
    users = [StatsigUser(session) for session in SESSIONS]
    get = statsig.get_experiment

    def call(number: int) -> str:
        return get(users[number & 255], "app").get_string("model", "f")

    return Subject(call, answers=lambda: {"models": [call(number) for number in range(256)]})


def gate(_: dict[str, Any]) -> Subject:
    from statsig_python_core import StatsigUser

    statsig = _client()
    users = [StatsigUser(session) for session in SESSIONS]
    check = statsig.check_gate

    def answers() -> dict[str, Any]:
        return {"models": ["one" if check(user, "gate") else "two" for user in users]}

    return Subject(lambda number: check(users[number & 255], "gate"), answers=answers)


def first(_: dict[str, Any]) -> Subject:
    """An experiment for a user not seen before: an exposure is queued, in memory."""
    from statsig_python_core import StatsigUser

    get = _client().get_experiment
    return Subject(lambda n: get(StatsigUser(f"first-{n}"), "app").get_string("model", "f"))


PATHS = {"models.get": experiment, "models.gate": gate, "models.first": first}

if __name__ == "__main__":
    serve(PATHS)
