"""Masks at shipping: they hold for what is spooled, whoever ships it and whenever it was recorded."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

import fallom
from fallom import _runtime
from fallom._core.known_masks import BY_NAME
from fallom._core.parsing import MASK_NAMES
from fallom._core.span import Event, Link, SpanStatus
from fallom.dev.server import LocalCloud
from tests.support.flushers import leader_pids, wait_for
from tests.support.raw_server import RawServer, answer
from tests.support.records import make_span
from tests.support.scripts import run_script

KEY = "sk-" + "a1" * 16
MAIL = "ada@example.org"
SAYS_SO = "import fallom; fallom.init()"


def record(number: int = 1) -> None:
    """Record a span with a key and an address wherever content may be."""
    text = f"my key is {KEY}, write to {MAIL}"
    span = make_span(
        number,
        attributes={
            "fallom.session_id": MAIL,  # no content
            "gen_ai.input.messages": f'[{{"role": "user", "content": "{text}"}}]',
            "gen_ai.prompt": [text],
        },
        events=[Event(1, "exception", {"exception.message": text, "n": 1})],
        links=[Link(b"t" * 16, b"s" * 8, "", {"input.value": text})],
        status=SpanStatus.ERROR,
        status_message=f"refused: {text}",
    )
    _runtime.current().record_span(span)


def delivered(cloud: LocalCloud) -> dict[int, dict[str, Any]]:
    assert fallom.flush(60) == 0
    return {int(row["name"].split()[1]): row for row in cloud.spans()}


def test_the_names_are_those_of_the_masks() -> None:
    assert sorted(BY_NAME) == sorted(MASK_NAMES)


def test_a_setting_of_today_holds_for_what_was_recorded_before_and_for_a_flusher_that_runs(
    cloud: LocalCloud, tmp_path: Path, state_dir: Path
) -> None:
    cloud.fault("503,path=/v1/traces")
    fallom.init()
    record()
    wait_for(lambda: "503" in fallom.status()["last_error"], what="a batch that is sent again")
    before = leader_pids(state_dir)
    run_script(SAYS_SO, tmp_path, {"FALLOM_SHIP_MASKS": "api_keys,email_addresses"})
    cloud.fault()
    span = delivered(cloud)[1]
    assert leader_pids(state_dir) == before
    assert KEY not in str(span)
    assert span["status_message"] == "refused: my key is [key], write to [e-mail]"
    assert '"content": "my key is [key], write to [e-mail]"' in str(span["attributes"])
    assert "my key is [key], write to [e-mail]" in str(span["events"])
    assert span["attributes"]["fallom.session_id"] == MAIL


def test_they_hold_until_somebody_says_otherwise(cloud: LocalCloud, tmp_path: Path) -> None:
    fallom.init()
    expected = []
    for number, says in enumerate([None, "email_addresses", None, "api_keys", "none"], start=1):
        run_script(SAYS_SO, tmp_path, {"FALLOM_SHIP_MASKS": says} if says else {})
        record(number)
        message = delivered(cloud)[number]["status_message"]
        expected.append((KEY in message, MAIL in message))
    assert expected == [(True, True), (True, False), (True, False), (False, True), (True, True)]


def test_a_name_that_is_not_known_lets_no_content_pass_and_is_counted(
    cloud: LocalCloud, state_dir: Path
) -> None:
    fallom.init(ship_masks=["api_keys"])
    [path] = state_dir.glob("v1/*/ship_masks")
    path.write_text("api_keys,of_a_later_version\n")
    record()
    span = delivered(cloud)[1]
    assert KEY not in str(span)
    assert span["status_message"] == "[mask failed]"
    assert span["attributes"]["gen_ai.prompt"] in (["[mask failed]"], '["[mask failed]"]')
    wait_for(lambda: fallom.status()["dropped"].get("internal"), what="it to be counted")


def test_nothing_is_sent_while_it_cannot_be_known_what_may_be(
    cloud: LocalCloud, state_dir: Path
) -> None:
    fallom.init(ship_masks="api_keys")
    [path] = state_dir.glob("v1/*/ship_masks")
    path.unlink()
    os.mkfifo(path)
    record()
    wait_for(lambda: "ship_masks" in fallom.status()["last_error"], what="it to be said")
    assert cloud.stats()["spans"]["received"] == 0
    path.unlink()
    path.write_text("api_keys\n")
    assert KEY not in str(delivered(cloud)[1])


def test_an_extra_target_gets_it_masked_as_well(
    cloud: LocalCloud, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take(connection: socket.socket, _: bytes) -> None:
        connection.sendall(answer(200))

    other = RawServer(take)
    monkeypatch.setenv("FALLOM_TRACES_EXTRA_OTHER_URL", other.url)
    try:
        fallom.init(ship_masks="api_keys")
        record()
        assert fallom.flush(60) == 0
        [request] = wait_for(lambda: other.requests, what="the other target's batch")
        import gzip

        body = gzip.decompress(request.partition(b"\r\n\r\n")[2])
        assert MAIL.encode() in body
        assert KEY.encode() not in body
    finally:
        other.close()
