"""The watch of a worker: what it tells of what the flusher says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fallom._core.settings import Settings
from fallom._host.control import ControlPage
from fallom._host.files import open_directory
from fallom._watch import FlusherWatch


@pytest.fixture
def page(tmp_path: Path) -> Iterator[ControlPage]:
    directory = open_directory(str(tmp_path))
    made = ControlPage.open(directory)
    yield made
    made.close()
    directory.close()


def test_what_people_have_to_mend_is_told_once_for_each_time_that_it_began(
    page: ControlPage,
) -> None:
    told: list[str] = []
    watch = FlusherWatch(Settings(flusher="external"), lambda _, hint: told.append(hint) or True)
    watch.tell(page)
    assert told == []
    page.set_last_error("traces: HTTP 401")
    page.set_wrong_since(1000)
    watch.tell(page)
    watch.tell(page)
    assert told == ["traces: HTTP 401"]
    page.set_wrong_since(0)
    watch.tell(page)
    page.set_wrong_since(2000)
    watch.tell(page)
    assert len(told) == 2


def test_what_was_said_too_often_to_be_logged_is_told_at_a_later_look(page: ControlPage) -> None:
    answers = [True, False]
    watch = FlusherWatch(Settings(), lambda *_: answers.pop())
    page.set_wrong_since(1000)
    for _ in range(3):
        watch.tell(page)
    assert answers == []
