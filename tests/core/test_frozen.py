"""``Frozen``: what a frozen dataclass promises, without ``dataclasses``."""

from __future__ import annotations

import pytest

from fallom._core.frozen import Frozen


class Point(Frozen, hidden=("secret",)):
    x: int
    y: int = 2
    secret: str = "s3cret"


def test_fields_are_given_by_name_and_have_their_defaults() -> None:
    assert Point(x=1).values() == {"x": 1, "y": 2, "secret": "s3cret"}
    assert Point(x=1, y=5).y == 5


def test_a_field_that_does_not_exist_or_is_missing_is_an_error() -> None:
    with pytest.raises(TypeError, match="Point has no field 'z'"):
        Point(x=1, z=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="Point needs the field 'x'"):
        Point()  # type: ignore[call-arg]


def test_nothing_can_be_changed_or_deleted() -> None:
    point = Point(x=1)
    with pytest.raises(AttributeError, match="x of Point cannot be changed"):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(AttributeError, match="y of Point cannot be deleted"):
        del point.y
    assert point == Point(x=1)


def test_equal_fields_make_equal_values_whether_they_were_given_or_not() -> None:
    assert Point(x=1) == Point(x=1, y=2)
    assert hash(Point(x=1)) == hash(Point(x=1, y=2))
    assert Point(x=1) != Point(x=1, secret="other")
    assert Point(x=1) != (1, 2, "s3cret")


def test_a_copy_with_other_values_leaves_the_first_as_it_is() -> None:
    point = Point(x=1, y=5)
    assert point.replaced(x=3) == Point(x=3, y=5)
    assert point.x == 1


def test_a_hidden_field_is_not_in_the_repr() -> None:
    assert repr(Point(x=1)) == "Point(x=1, y=2)"
