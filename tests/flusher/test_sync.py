from __future__ import annotations

import contextlib
import json
import logging
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from fallom._core.settings import Settings
from fallom._flusher.http import NetworkError, Request, Response
from fallom._flusher.sync import MISSING_S, SAID_MAX, UNREACHABLE_S, Sync
from fallom._snapshot.entries import Kind
from fallom._snapshot.publish import Publisher, PublishError
from fallom._snapshot.reader import SnapshotReader
from tests.snapshot.builders import ab_test, config, prompt, removed

CONFIGS = "https://configs.test/configs"
PROMPTS = "https://prompts.test/prompts"
TESTS = "https://prompts.test/prompt-ab-tests"


class Server:
    """Answers by URL: a document, a status, bytes, a whole response, or an error to raise."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {
            CONFIGS: {"configs": [config("a")]},
            PROMPTS: {"prompts": [prompt("p")]},
            TESTS: {"prompt_ab_tests": [ab_test("t", "p")]},
        }
        self.etags: dict[str, str] = {}
        self.requests: list[Request] = []

    def send(self, request: Request) -> Response:
        self.requests.append(request)
        answer = self.answers.get(request.url, 404)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, Response):
            return answer
        if isinstance(answer, int):
            return Response(answer, {}, b"")
        etag = self.etags.get(request.url)
        headers = {} if etag is None else {"etag": etag}
        if etag is not None and request.headers.get("If-None-Match") == etag:
            return Response(304, headers, b"")
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        return Response(200, headers, body)

    def asked(self) -> list[str]:
        urls = [request.url for request in self.requests]
        self.requests.clear()
        return urls


class World:
    """A sync with its server, publisher, announcements, and a clock that stands still."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.directory = directory
        self.now_s = 1000.0
        self.server = Server()
        self.announced: list[int] = []
        self.settings = Settings(
            api_key="key-1",
            configs_url="https://configs.test",
            prompts_url="https://prompts.test",
            **settings,
        )
        self.restart()

    def restart(self) -> None:
        self.publisher = Publisher(self.directory)
        self.sync = Sync(
            self.settings,
            self.server,
            self.publisher,
            self.announced.append,
            random.Random(1),
            monotonic=lambda: self.now_s,
            unix_s=lambda: 0.0,
        )

    def reader(self) -> SnapshotReader:
        return SnapshotReader(lambda: self.directory, lambda: 0, contextlib.nullcontext)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "snapshot")


def test_a_run_fetches_checks_publishes_and_announces(world: World) -> None:
    result = world.sync.run_once(world.now_s)
    assert world.server.asked() == [CONFIGS, PROMPTS, TESTS]
    assert result.is_changed
    assert result.errors == ()
    assert world.sync.last_error is None
    assert world.announced == [result.generation]
    reader = world.reader()
    assert reader.config("a") is not None
    assert reader.prompt("p") is not None
    assert reader.ab_test("t") is not None


def test_the_generation_is_announced_after_it_can_be_read(world: World) -> None:
    seen: list[bool] = []
    sync = Sync(
        world.settings,
        world.server,
        world.publisher,
        lambda generation: seen.append(world.reader().info().generation == generation),
    )
    sync.run_once(0.0)
    assert seen == [True]


def test_requests_say_who_asks_and_are_bounded(world: World) -> None:
    world.sync.run_once(world.now_s)
    for request in world.server.requests:
        assert request.method == "GET"
        assert request.headers["Authorization"] == "Bearer key-1"
        assert request.headers["Accept"] == "application/json"
        assert request.deadline_s == 2.0
        assert request.body_bytes_max == 64 << 20


def test_without_a_key_nobody_is_claimed_to_ask(tmp_path: Path) -> None:
    server = Server()
    settings = Settings(configs_url="https://configs.test", prompts_url="https://prompts.test")
    Sync(settings, server, Publisher(tmp_path / "s"), lambda generation: None).run_once(0.0)
    assert not any("Authorization" in request.headers for request in server.requests)


def test_what_was_answered_before_is_not_sent_again(world: World) -> None:
    world.server.etags = {CONFIGS: '"1"', PROMPTS: '"2"'}
    generation = world.sync.run_once(world.now_s).generation
    world.server.requests.clear()
    result = world.sync.run_once(world.now_s)
    matches = [request.headers.get("If-None-Match") for request in world.server.requests]
    assert matches == ['"1"', '"2"', None]
    assert (result.generation, result.is_changed, result.errors) == (generation, False, ())


def test_a_body_without_etag_that_did_not_change_is_not_parsed_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.sync.run_once(world.now_s)
    monkeypatch.setattr("fallom._flusher.sync.parse_json", lambda *_: pytest.fail("parsed"))
    assert not world.sync.run_once(world.now_s).is_changed


def test_a_304_that_nobody_asked_for_is_an_error(world: World) -> None:
    world.server.answers[CONFIGS] = 304
    assert "answered 304" in world.sync.run_once(world.now_s).errors[0]


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (401, "the API key was refused; check FALLOM_API_KEY"),
        (403, "the API key was refused; check FALLOM_API_KEY"),
        (404, "check FALLOM_PROMPTS_URL"),
        (301, "redirects are not followed; set FALLOM_PROMPTS_URL to where it leads"),
        (429, "tried again"),
        (500, "tried again"),
        (503, "tried again"),
        (418, "check FALLOM_PROMPTS_URL"),
        (b"<html>", "not JSON"),
        ({"items": []}, "expected"),
        ([], "expected"),
        (NetworkError("timeout", "no whole answer within 2 s"), "timeout"),
        (NetworkError("too_large", "longer"), "too_large"),
    ],
)
def test_one_answer_that_is_not_good_keeps_what_was_known_and_the_others_publish(
    world: World, answer: Any, hint: str
) -> None:
    world.sync.run_once(world.now_s)
    world.server.answers[PROMPTS] = answer
    world.server.answers[CONFIGS] = {"configs": [config("a", 2)]}
    result = world.sync.run_once(world.now_s)
    assert result.is_changed
    (error,) = result.errors
    assert hint in error
    assert world.sync.last_error == error
    reader = world.reader()
    found = reader.config("a")
    assert found is not None
    assert found.version == 2
    assert reader.prompt("p") is not None

    world.server.answers[PROMPTS] = {"prompts": [prompt("p", 2)]}
    assert world.sync.run_once(world.now_s).errors == ()
    assert world.sync.last_error is None


def test_a_missing_key_is_told_from_a_refused_one(tmp_path: Path) -> None:
    server = Server()
    server.answers[CONFIGS] = 401
    settings = Settings(configs_url="https://configs.test", prompts_url="https://prompts.test")
    sync = Sync(settings, server, Publisher(tmp_path / "s"), lambda generation: None)
    assert "there is no API key" in sync.run_once(0.0).errors[0]


def test_nothing_published_is_not_announced(world: World) -> None:
    world.server.answers = {}
    result = world.sync.run_once(world.now_s)
    assert result.generation == 0
    assert len(result.errors) == 3
    assert world.announced == []


def test_an_empty_answer_removes_nothing_and_is_noted(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.sync.run_once(world.now_s)
    world.server.answers[CONFIGS] = {"configs": []}
    with caplog.at_level(logging.WARNING, "fallom"):
        world.sync.run_once(world.now_s)
    assert world.reader().config("a") is not None
    assert removed(world.publisher) == []
    assert "lists nothing; the 1 known before still serve" in caplog.text


def test_after_a_restart_with_the_server_down_the_last_known_is_announced(world: World) -> None:
    generation = world.sync.run_once(world.now_s).generation
    world.announced.clear()
    world.server.answers = {}
    world.restart()
    result = world.sync.run_once(world.now_s)
    assert result.generation == generation
    assert not result.is_changed
    assert set(world.announced) == {generation}


def test_what_was_known_is_announced_before_the_network_is_asked(world: World) -> None:
    generation = world.sync.run_once(world.now_s).generation
    world.announced.clear()
    world.restart()
    known_when_asked: list[list[int]] = []
    send = world.server.send

    def spied(request: Request) -> Response:
        known_when_asked.append(list(world.announced))
        return send(request)

    world.server.send = spied  # type: ignore[method-assign]
    world.sync.run_once(world.now_s)
    assert known_when_asked[0] == [generation]


def test_refused_items_are_kept_and_logged_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.server.answers[CONFIGS] = {"configs": [config("a"), {"key": "bad"}]}
    with caplog.at_level(logging.WARNING, "fallom"):
        for version in (1, 2, 3):
            world.server.answers[PROMPTS] = {"prompts": [prompt("p", version)]}
            world.sync.run_once(world.now_s)
    (refused,) = world.sync.refused
    assert refused.startswith("configs[1] 'bad': variants is null")
    assert [record.getMessage() for record in caplog.records] == [refused]
    world.server.answers[CONFIGS] = {"configs": [config("a")]}
    world.sync.run_once(world.now_s)
    assert world.sync.refused == ()


def test_of_thousands_of_refused_items_some_are_logged_and_those_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    bad = [{"key": f"bad-{number}"} for number in range(1500)]
    world.server.answers[CONFIGS] = {"configs": [*bad, config("a")]}
    with caplog.at_level(logging.WARNING, "fallom"):
        for _ in range(3):
            world.sync.run_once(world.now_s)
    assert len(caplog.records) == SAID_MAX


def test_refusals_survive_an_unchanged_answer(world: World) -> None:
    world.server.answers[CONFIGS] = {"configs": [{"key": "bad"}]}
    world.server.etags[CONFIGS] = '"1"'
    world.sync.run_once(world.now_s)
    world.sync.run_once(world.now_s)
    assert len(world.sync.refused) == 1


def test_errors_are_logged_once_while_they_last(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.server.answers[CONFIGS] = 503
    with caplog.at_level(logging.WARNING, "fallom"):
        for _ in range(5):
            world.sync.run_once(world.now_s)
    assert len(caplog.records) == 1


def test_no_message_holds_the_key(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.server.answers = {CONFIGS: 401, PROMPTS: NetworkError("other", "x"), TESTS: b"x"}
    world.sync.run_once(world.now_s)
    assert "key-1" not in caplog.text + str(world.sync.last_error)


# When to run.


def test_the_first_run_is_due_at_once_and_the_next_after_the_interval_with_jitter(
    world: World,
) -> None:
    assert world.sync.due_s(5.0) == 5.0
    dues = set()
    for _ in range(50):
        world.sync.run_once(world.now_s)
        due = world.sync.due_s(world.now_s) - world.now_s
        assert 27.0 <= due <= 33.0
        dues.add(due)
    assert len(dues) > 10


def test_failures_back_off_to_the_interval_and_only_for_who_failed(world: World) -> None:
    world.server.answers[PROMPTS] = 503
    longest: list[float] = []
    asked_s = world.now_s
    while len(longest) < 8:
        world.sync.run_once(world.now_s)
        if PROMPTS in world.server.asked():
            longest.append(world.now_s - asked_s)
            asked_s = world.now_s
            ceiling = min(30.0, 7.5 * 2.0 ** (len(longest) - 2))
            assert len(longest) == 1 or 0.099 <= longest[-1] <= ceiling + 1e-6
        world.now_s = world.sync.due_s(world.now_s)
    assert max(longest) > 7.5
    world.now_s += 1000
    world.server.answers[PROMPTS] = {"prompts": []}
    world.sync.run_once(world.now_s)
    assert world.sync.due_s(world.now_s) - world.now_s >= 27.0


def test_where_nothing_was_ever_published_it_is_tried_again_sooner(world: World) -> None:
    for path in list(world.server.answers):
        world.server.answers[path] = 503
    for failures in range(4):
        world.sync.run_once(world.now_s)
        delay = world.sync.due_s(world.now_s) - world.now_s
        assert delay <= 2.0**failures
        world.now_s += delay


def test_while_one_backs_off_the_others_keep_their_interval(world: World) -> None:
    world.server.answers[PROMPTS] = 503
    world.sync.run_once(world.now_s)
    world.server.asked()
    world.now_s = world.sync.due_s(world.now_s)
    world.sync.run_once(world.now_s)
    assert world.server.asked() == [PROMPTS]


def test_a_server_that_says_when_to_come_back_is_obeyed_within_a_bound(world: World) -> None:
    world.server.answers = {}
    for text, low, high in (
        ("7", 7, 8),
        ("999999", 300, 330),
        ("Thu, 01 Jan 1970 00:00:07 GMT", 7, 8),
        ("Wed, 21 Oct", 0.1, 1),
        ("²", 0.1, 1),
    ):
        world.server.answers = dict.fromkeys(
            (CONFIGS, PROMPTS, TESTS), Response(503, {"retry-after": text}, b"")
        )
        world.restart()
        world.sync.run_once(world.now_s)
        assert low <= world.sync.due_s(world.now_s) - world.now_s <= high


# What is lost is fetched anew.


def test_a_database_that_broke_is_filled_again_although_the_server_has_nothing_new(
    world: World,
) -> None:
    world.server.etags = {CONFIGS: '"1"', PROMPTS: '"2"', TESTS: '"3"'}
    before = world.sync.run_once(world.now_s).generation
    (world.directory / "cache.db").write_bytes(b"garbage")
    result = world.sync.run_once(world.now_s)
    assert result.generation > before
    assert world.announced[-1] == result.generation
    reader = world.reader()
    assert reader.config("a") is not None
    assert reader.prompt("p") is not None
    assert reader.ab_test("t") is not None


def test_a_row_that_is_lost_is_fetched_again_although_the_server_has_nothing_new(
    world: World,
) -> None:
    world.server.etags[CONFIGS] = '"1"'
    world.sync.run_once(world.now_s)
    lost = world.publisher.manifest().find(Kind.CONFIG, "a", None)
    with contextlib.closing(sqlite3.connect(world.directory / "cache.db")) as database, database:
        database.execute("DELETE FROM Cache WHERE key = ?", (f"e:{lost}",))
    world.server.answers[PROMPTS] = {"prompts": [prompt("p", 2)]}
    for _ in range(2):
        world.sync.run_once(world.now_s)
    assert world.reader().config("a") is not None


def test_a_publish_that_failed_is_repeated_with_the_whole_answers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.server.etags = {CONFIGS: '"1"', PROMPTS: '"2"', TESTS: '"3"'}

    def fail(*_: object, **__: object) -> int:
        raise PublishError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(world.publisher, "publish", fail)
        result = world.sync.run_once(world.now_s)
    assert result.errors == ("the disk is full",)
    assert world.sync.due_s(world.now_s) - world.now_s <= 1.0
    assert world.sync.run_once(world.now_s).is_changed
    assert world.sync.last_error is None
    assert world.reader().config("a") is not None


def test_a_database_that_is_locked_raises_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.sync.run_once(world.now_s)
    monkeypatch.setattr("fallom._snapshot.publish._READ_TIMEOUT_S", 0.01)
    holder = sqlite3.connect(world.directory / "cache.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    world.server.answers[CONFIGS] = {"configs": [config("a", 2)]}
    assert "locked" in world.sync.run_once(world.now_s).errors[0]
    world.sync.wish("a", 7)
    holder.close()
    assert world.sync.run_once(world.now_s).is_changed


# Wishes.


def wish_url(key: str, version: int) -> str:
    return f"{CONFIGS}/{key}/version/{version}"


def test_a_wish_is_fetched_published_and_announced(world: World) -> None:
    world.server.answers[wish_url("a", 7)] = config("a", 7, "pinned")
    before = world.sync.run_once(world.now_s).generation
    world.server.asked()
    world.sync.wish("a", 7)
    assert world.server.asked() == [wish_url("a", 7)]
    assert world.announced[-1] > before
    reader = world.reader()
    pinned, current = reader.config("a", 7), reader.config("a")
    assert pinned is not None
    assert current is not None
    assert (pinned.models, current.version) == (("pinned",), 1)


def test_a_wish_for_what_is_there_asks_nobody_and_announces_it_again(world: World) -> None:
    world.sync.run_once(world.now_s)
    world.server.asked()
    world.announced.clear()
    world.sync.wish("a", 1)
    assert world.server.asked() == []
    assert len(world.announced) == 1


@pytest.mark.parametrize(
    ("answer", "until_s"),
    [
        (404, MISSING_S),
        (500, MISSING_S),
        (b"<html>", MISSING_S),
        (config("other", 7), MISSING_S),
        ({"variants": []}, MISSING_S),
        (NetworkError("timeout", "late"), UNREACHABLE_S),
    ],
)
def test_a_wish_that_is_not_fulfilled_is_not_repeated_for_a_while(
    world: World, answer: Any, until_s: float
) -> None:
    world.sync.run_once(world.now_s)
    world.server.asked()
    world.server.answers[wish_url("a", 7)] = answer
    for _ in range(3):
        world.sync.wish("a", 7)
    assert len(world.server.asked()) == 1
    world.now_s += until_s + 0.1
    world.server.answers[wish_url("a", 7)] = config("a", 7)
    world.sync.wish("a", 7)
    assert len(world.server.asked()) == 1
    assert world.publisher.manifest().find(Kind.CONFIG, "a", 7)


@pytest.mark.parametrize(
    ("key", "path"), [("a/../b", "a%2F..%2Fb"), ("é ?#%", "%C3%A9%20%3F%23%25"), ("a", "a")]
)
def test_the_key_of_a_wish_is_one_step_of_the_path(world: World, key: str, path: str) -> None:
    world.sync.run_once(world.now_s)
    world.server.asked()
    world.sync.wish(key, 7)
    assert world.server.asked() == [wish_url(path, 7)]


@pytest.mark.parametrize("key", [".", "..", "", "\ud800"])
def test_a_key_that_no_path_can_name_asks_nobody(world: World, key: str) -> None:
    world.sync.run_once(world.now_s)
    world.server.asked()
    world.sync.wish(key, 7)
    assert world.server.asked() == []


def test_a_wish_waits_for_the_first_listing(world: World) -> None:
    world.sync.wish("a", 7)
    assert world.server.asked() == []


def test_wishes_do_not_fill_the_memory(world: World) -> None:
    world.sync.run_once(world.now_s)
    for version in range(2, 1500):
        world.sync.wish("a", version)
    assert len(world.sync._missing) <= 1000
    assert len(world.sync._said) <= 1000
