from __future__ import annotations

from typing import Any


def test_looking_is_not_counted_as_a_request_of_an_application(cloud: Any) -> None:
    for path in ("/", "/ui/sessions", "/ui/host", "/_dev/spans"):
        assert cloud.ask("GET", path).status == 200
    assert cloud.stats()["fetches"] == {}
