"""What a process remembers of its assignments: it never says anything else than the long way would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fallom
from fallom import models
from fallom._assignments import Assignments
from fallom._core.assignment import CompiledConfig, bucket_of
from fallom._core.errors import PayloadError
from fallom._runtime import current
from fallom._snapshot.entries import Kind
from fallom._snapshot.publish import Publisher
from fallom._snapshot.schema import read_listing
from fallom._spool.frame import pack


@pytest.fixture(autouse=True)
def _runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("FALLOM_BASE_URL", "http://127.0.0.1:9")
    fallom.init(state_dir=tmp_path, flusher="external")
    yield
    fallom.shutdown()


def publish(version: int, model: str, targeting: Any = None) -> None:
    """Publish a config that gives everyone one model."""
    config = {"key": "app", "version": version, "targeting": targeting}
    listing = read_listing(
        Kind.CONFIG, {"configs": [{**config, "variants": [{"model": model, "weight": 100}]}]}
    )
    place = current().whereabouts.open()
    generation = Publisher(Path(place.directory.snapshot_path)).publish([listing])
    place.page.set_generation(generation)


def get_twice() -> str:
    """Ask as often as it takes: the call that reads a new snapshot does not count as of it yet."""
    assert models.get("app", "s") == models.get("app", "s")
    return models.get("app", "s")


def known() -> str | None:
    return current().known_model("app", "s")


def test_a_session_that_was_asked_about_is_answered_from_memory() -> None:
    publish(1, "one")
    assert known() is None
    assert get_twice() == "one"
    assert known() == "one"
    assert models.get("app", "s", customer_id="c", context={"plan": "free"}) == "one"
    assert current().known_model("app", "another") is None
    assert current().known_model("other", "s") is None


def test_a_new_snapshot_counts_from_the_next_call_on() -> None:
    publish(1, "one")
    for version, model in ((2, "two"), (3, "three")):
        get_twice()
        publish(version, model)
        assert known() is None
        assert get_twice() == model
        assert known() == model


def test_a_snapshot_that_cannot_be_read_yet_is_not_taken_for_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish(1, "one")
    get_twice()
    with monkeypatch.context() as patched:
        patched.setattr("fallom._snapshot.reader.decode_root", _refuse)
        publish(2, "two")
        assert get_twice() == "one"
        assert known() is None
    current().snapshot._retry_at_s = 0.0  # instead of a second's wait
    assert models.get("app", "s") == "two"


def test_a_snapshot_that_another_thread_reads_meanwhile_is_not_what_decided(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish(1, "one")
    get_twice()

    def meanwhile(*arguments: Any) -> int:
        monkeypatch.undo()
        publish(2, "two")
        assert current().snapshot.config("app") is not None
        return bucket_of(*arguments)

    monkeypatch.setattr(models, "bucket_of", meanwhile)
    assert models.get("app", "another") == "one"
    assert current().known_model("app", "another") is None
    assert models.get("app", "another") == "two"


def test_what_targeting_decides_is_not_remembered_as_the_sessions() -> None:
    target = {"field": "customerId", "value": "c", "variantIndex": 0}
    publish(1, "one", {"individualTargets": [target], "rules": []})
    for _ in range(2):
        assert models.get("app", "s", customer_id="c") == "one"
    assert known() is None


def test_a_pinned_version_is_not_remembered_as_the_sessions() -> None:
    publish(1, "one")
    publish(2, "two")
    assert models.get("app", "s", version=1) == "one"
    assert known() is None
    assert get_twice() == "two"
    assert models.get("app", "s", version=1) == "one"
    assert get_twice() == "two"


def test_what_is_no_text_has_no_model_in_memory() -> None:
    publish(1, "one")
    get_twice()
    for key, session_id in ((["app"], "s"), ("app", ["s"]), ("app", 1)):
        with pytest.raises(TypeError):
            models.get(key, session_id)  # type: ignore[arg-type]


def _refuse(data: bytes) -> Any:
    raise PayloadError("not now")


def test_configs_of_the_same_version_are_told_apart() -> None:
    assignments = Assignments()
    for key, models_of in (("app", ("one", "two")), ("other", ("three", "four"))):
        config = CompiledConfig(key, 1, models_of, (500_000, 1_000_000))
        for index in (0, 1):
            for generation in (5, 6):
                assignments.by_weight(config, f"s{index}{generation}", index, generation, True)
    found = [assignments.find((key, s)) for key in ("app", "other") for s in ("s05", "s06", "s15")]
    assert [(made.model, made.generation) for made in found if made] == [
        *(("one", 5), ("one", 6), ("two", 5)),
        *(("three", 5), ("three", 6), ("four", 5)),
    ]


def test_an_assignment_is_told_once_and_again_when_version_or_model_changed() -> None:
    assignments = Assignments()
    weights = (500_000, 1_000_000)
    first = CompiledConfig("app", 1, ("one", "two"), weights)
    again = CompiledConfig("app", 1, ("one", "two"), weights)  # of the next snapshot
    later = CompiledConfig("app", 2, ("one", "two"), weights)
    other = CompiledConfig("other", 1, ("one", "two"), weights)
    asked = [(first, 0), (first, 1), (later, 0), (other, 0)]
    for session in ("s", "t"):
        for number, (config, index) in enumerate(asked):
            assert assignments.by_weight(config, session, index, number, True), (config, index)
    for config, index in [*asked, (again, 0), (again, 1)]:
        assert not assignments.by_weight(config, "s", index, 9, True)
        assert not assignments.is_new(config, "t", index)


def test_what_is_remembered_of_a_session_is_that_of_the_last_call() -> None:
    assignments = Assignments()
    config = CompiledConfig("app", 1, ("one", "two"), (500_000, 1_000_000))
    assert assignments.is_new(config, "s", 1)
    assignments.by_targeting(config, "s", 1, "rule:0")
    found = assignments.find(("app", "s"))
    assert found is not None
    assert (found.model, found.generation) == ("two", -1)
    assert found.attributes["fallom.assignment.reason"] == "rule:0"
    assert assignments.by_weight(config, "s", 0, 5, True)
    found = assignments.find(("app", "s"))
    assert found is not None
    assert (found.model, found.generation) == ("one", 5)
    assert assignments.by_weight(config, "x" * 300, 0, 5, True)
    assert assignments.find(("app", "x" * 300)) is None


_texts = st.text(max_size=40) | st.text(min_size=250, max_size=260)


@given(_texts, st.integers(0, 2**40), _texts, _texts, st.integers(2**32, 2**63))
def test_an_exposure_that_is_packed_by_hand_is_that_of_msgpack(
    key: str, version: int, model: str, session_id: str, unix_ns: int
) -> None:
    config = CompiledConfig(key, version, (model,), (1_000_000,))
    made = Assignments().by_weight(config, session_id, 0, 5, True)
    assert made is not None
    packed = made.exposure(session_id, unix_ns)
    assert (packed is None) == (len(session_id.encode()) > 255)
    if packed is not None:
        assert packed == pack((key, version, session_id, model, unix_ns))


def test_an_exposure_of_an_odd_id_is_not_packed_by_hand() -> None:
    class Text(str):
        __slots__ = ()

    config = CompiledConfig("app", 1, ("one",), (1_000_000,))
    for session_id in ("x" * 256, "\ud800", Text("s")):
        made = Assignments().by_weight(config, session_id, 0, 5, True)
        assert made is not None
        assert made.exposure(session_id, 2**60) is None


@pytest.mark.parametrize("session_id", ["s", "é" * 20, "x" * 300, "\ud800"])
def test_an_exposure_is_recorded_whatever_its_id(session_id: str) -> None:
    publish(1, "one")
    assert models.get("app", session_id) == "one"
    assert models.get("app", session_id) == "one"
    assert fallom.status()["recorded"] == 1
