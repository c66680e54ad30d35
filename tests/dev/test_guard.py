from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "LOCALHOST:80", "[::1]:4499", "127.0.0.1:1"]
)
def test_names_of_loopback_are_answered(cloud: Any, host: str) -> None:
    assert cloud.ask("GET", "/configs", host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:4499",
        "127.0.0.1.evil.example",
        "192.168.0.1",
        "",
        "[",
        "localhost.",
    ],
)
def test_name_that_was_rebound_to_loopback_is_refused(cloud: Any, host: str) -> None:
    for path in ("/configs", "/_dev/spans", "/", "/v1/models"):
        answer = cloud.ask("GET", path, host=host)
        assert answer.status == 403
        assert "Host header" in answer.json()["error"]


def test_pages_of_another_origin_are_refused(cloud: Any) -> None:
    own = f"http://127.0.0.1:{cloud.port}"
    for origin in (
        "http://evil.example",
        "null",
        "http://127.0.0.1:1",
        own.replace("http", "https"),
    ):
        assert cloud.ask("DELETE", "/_dev/data", origin=origin).status == 403
    assert cloud.ask("DELETE", "/_dev/data", origin=own).status == 204


def test_refused_request_changes_nothing(cloud: Any, batch: Any) -> None:
    cloud.post(batch(2))
    cloud.ask("DELETE", "/_dev/data", origin="http://evil.example")
    cloud.ask("PUT", "/_dev/fault", b'["503"]', host="evil.example")
    assert cloud.stats()["spans"]["received"] == 2
    assert cloud.ask("GET", "/configs").status == 200


def test_further_names_are_answered_when_asked_for(new_cloud: Any) -> None:
    with new_cloud(arguments=("--allow-host", "Cloud.test")) as cloud:
        assert cloud.ask("GET", "/configs", host="cloud.test:4499").status == 200
        assert cloud.ask("GET", "/configs", host="other.test").status == 403


def test_server_on_all_interfaces_warns_and_takes_addresses_but_no_names(new_cloud: Any) -> None:
    with new_cloud(arguments=("--host", "0.0.0.0")) as cloud:
        assert cloud.ask("GET", "/configs", host="192.0.2.7:4499").status == 200
        assert cloud.ask("GET", "/configs", host="evil.example").status == 403
        assert "WARNING" in cloud.log()


def test_default_listens_on_loopback_only(cloud: Any) -> None:
    local = f"{int.from_bytes(socket.inet_aton('127.0.0.1'), 'little'):08X}:{cloud.port:04X}"
    table = Path("/proc/net/tcp").read_text().splitlines()
    listening = [line.split()[1] for line in table if " 0A " in line]
    assert local in listening
    assert f"00000000:{cloud.port:04X}" not in listening
