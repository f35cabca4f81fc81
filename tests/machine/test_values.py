"""A value class is a dataclass, made without compiling anything."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, asdict, field, fields, is_dataclass, replace

import pytest

from machine.values import valueclass


@valueclass(frozen=True, slots=True)
class Point:
    """A place."""

    x: int
    y: int = 2
    tags: list[str] = field(default_factory=list)


@valueclass()
class Area:
    """What has a part of its own making."""

    width: int
    doubled: int = field(init=False)

    def __post_init__(self) -> None:
        self.doubled = 2 * self.width


def test_values_and_defaults_are_taken_in_order_and_by_name() -> None:
    assert (Point(1).y, Point(1, 5).y, Point(x=1, y=7).y) == (2, 5, 7)
    assert Point(1).tags is not Point(1).tags
    assert Area(4).doubled == 8


@pytest.mark.parametrize(
    "args, named", [((), {}), ((1, 2, [], 4), {}), ((1,), {"x": 1}), ((1,), {"z": 1}), ((), {"y": 1})]
)
def test_what_does_not_fit_is_a_type_error(args: tuple[object, ...], named: dict[str, object]) -> None:
    with pytest.raises(TypeError, match="Point"):
        Point(*args, **named)  # type: ignore[arg-type]


def test_the_library_takes_it_for_a_dataclass() -> None:
    assert is_dataclass(Point)
    assert [f.name for f in fields(Point)] == ["x", "y", "tags"]
    assert replace(Point(1, 2), y=3) == Point(1, 3)
    assert asdict(Point(1)) == {"x": 1, "y": 2, "tags": []}
    assert repr(Point(1)) == "Point(x=1, y=2, tags=[])"
    match Point(1, 9):
        case Point(x, y):
            assert (x, y) == (1, 9)


def test_a_frozen_one_does_not_change_and_has_a_hash() -> None:
    point = Point(1, 2, ())  # type: ignore[arg-type]
    with pytest.raises(FrozenInstanceError):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del point.x
    assert hash(point) == hash(Point(1, 2, ()))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        hash(Area(1))


def test_equality_is_by_class_and_values() -> None:
    assert Point(1) == Point(1)
    assert Point(1) != Point(2)
    assert Area(1) != Area(2)
    assert Area(1).__eq__((1, 2)) is NotImplemented


def test_copies_and_pickles_are_equal() -> None:
    for made in (Point(1, 2, ["a"]), Area(3)):
        assert copy.copy(made) == copy.deepcopy(made) == pickle.loads(pickle.dumps(made)) == made
