from __future__ import annotations

from pathlib import Path
from typing import Any


def test_page_keeps_hostile_names_inert(new_cloud: Any, folder: Path) -> None:
    (folder / "configs/<img src=x onerror=alert(1)>.yaml").write_text(
        "<script>alert(2)</script>: 1"
    )
    with new_cloud(folder) as cloud:
        cloud.ask("GET", "/configs/<script>alert(3)</script>".replace("<", "%3C"))
        answer = cloud.ask("GET", "/")
    assert answer.headers["content-type"].startswith("text/html")
    page = answer.body.decode()
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(3)" in page
    assert "&lt;img src=x" in page


def test_page_allows_no_script_by_policy(cloud: Any) -> None:
    first, second = cloud.ask("GET", "/"), cloud.ask("GET", "/")
    policy = first.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "unsafe" not in policy
    assert policy != second.headers["content-security-policy"]  # a nonce is used once


def test_page_shows_the_counts(cloud: Any, batch: Any) -> None:
    cloud.post(batch(17))
    assert "<td>spans, received</td><td>17</td>" in cloud.ask("GET", "/").body.decode()


def test_looking_is_not_counted_as_a_request_of_an_application(cloud: Any) -> None:
    cloud.ask("GET", "/")
    cloud.ask("GET", "/_dev/spans")
    assert cloud.stats()["fetches"] == {}
