"""GrowthBook 4: ``GrowthBook`` with the features given, an object a request as its documentation has it.

The object of a session is made outside of what is timed for the warm path, inside for the first call.
"""

from __future__ import annotations

from typing import Any

from driver import SESSIONS, Subject, serve

FEATURES = {
    "app": {"defaultValue": "f", "rules": [{"variations": ["one", "two"], "weights": [0.5, 0.5]}]}
}


def warm(_: dict[str, Any]) -> Subject:
    from growthbook import GrowthBook

    books = [GrowthBook(attributes={"id": each}, features=FEATURES) for each in SESSIONS]
    return Subject(
        lambda number: books[number & 255].get_feature_value("app", "f"),
        answers=lambda: {"models": [book.get_feature_value("app", "f") for book in books]},
    )


def first(_: dict[str, Any]) -> Subject:
    from growthbook import GrowthBook

    seen: list[Any] = []

    def call(number: int) -> Any:
        book = GrowthBook(
            attributes={"id": f"first-{number}"},
            features=FEATURES,
            on_experiment_viewed=lambda **viewed: seen.append(viewed),
        )
        return book.get_feature_value("app", "f")

    return Subject(call, seen.clear)


PATHS = {"models.get": warm, "models.first": first}

if __name__ == "__main__":
    serve(PATHS)
