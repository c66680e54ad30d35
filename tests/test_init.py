"""What ``init`` refuses, and how it says so."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import fallom
from fallom import _runtime, trace
from fallom.exceptions import ConfigurationError, StateDirectoryError, UnknownParameterError
from tests.support.spans import recorded_spans

LOCAL: Any = {"traces_url": "http://127.0.0.1:9", "flusher": "external"}


def test_an_unknown_parameter_is_named_with_what_is_near() -> None:
    with pytest.raises(
        UnknownParameterError, match="no parameter 'apikey'; did you mean 'api_key'"
    ):
        fallom.init(apikey="k")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        fallom.init(nonsense=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url", ["localhost:4318", "ftp://host", "http://", "http://a b", "http://h:0", "http://h/?q=1"]
)
def test_a_malformed_url_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"traces_url .* https://traces\.example\.com"):
        fallom.init(traces_url=url)


def test_a_state_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(StateDirectoryError, match=r"file.*state_dir= or FALLOM_STATE_DIR"):
        fallom.init(state_dir=file, **LOCAL)


def test_a_state_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(StateDirectoryError, match="chmod 700"):
        fallom.init(state_dir=shared, **LOCAL)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_state_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    os.chown(foreign, 12345, 12345)
    with pytest.raises(StateDirectoryError, match="belongs to user 12345"):
        fallom.init(state_dir=foreign, **LOCAL)


@pytest.mark.parametrize(
    "wrong",
    [{"fsync": "sometimes"}, {"bootstrap": "/nowhere"}, {"state_dir": "/dev/null/x"}, {"mask": 1}],
)
def test_an_error_of_init_leaves_what_was_before(state_dir: Path, wrong: Any) -> None:
    fallom.init(**LOCAL)
    before = _runtime.current()
    with pytest.raises(ConfigurationError):
        fallom.init(**LOCAL, **wrong)
    assert _runtime.current() is before
    with trace.step("goes on"):
        pass
    (span,) = recorded_spans(state_dir)
    assert span.name == "goes on"


def test_init_without_a_key_is_legal_and_says_what_will_not_work(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fallom.init(flusher="external")
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "no API key" in warning
    assert "FALLOM_API_KEY" in warning
    assert fallom.models.get("k", "s", fallback="spare") == "spare"


def test_init_without_a_key_for_local_urls_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    here = "http://127.0.0.1:9"
    fallom.init(traces_url=here, configs_url=here, prompts_url=here, flusher="external")
    assert not caplog.records


def test_the_key_is_in_no_text_of_an_error_or_a_repr() -> None:
    with pytest.raises(ConfigurationError) as raised:
        fallom.init(api_key="sk-secret\nX-Header: 1")
    assert "sk-secret" not in str(raised.value)
    with pytest.raises(ConfigurationError) as raised:
        fallom.init(api_key="sk secret")
    assert "sk secret" not in str(raised.value)
    fallom.init(api_key="sk-secret", **LOCAL)
    assert "sk-secret" not in repr(_runtime.current().settings)


@pytest.mark.parametrize(
    ("name", "value"), [("FALLOM_FSYNC", "bogus"), ("FALLOM_BOOTSTRAP", "/nowhere")]
)
def test_no_content_is_recorded_while_the_environment_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, value: str
) -> None:
    monkeypatch.setenv("FALLOM_CAPTURE_CONTENT", "false")
    monkeypatch.setenv(name, value)
    assert not _runtime.current().settings.capture_content
    assert name.removeprefix("FALLOM_").lower() in caplog.text.lower()
    assert "no content is recorded" in caplog.text


def test_an_unusable_environment_degrades_at_the_first_call_and_raises_in_init(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FALLOM_SYNC_INTERVAL", "often")
    assert fallom.models.get("k", "s", fallback="spare") == "spare"
    with pytest.raises(ConfigurationError, match="FALLOM_SYNC_INTERVAL is 'often'"):
        fallom.init()
