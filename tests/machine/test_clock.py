"""Deadlines: order, names, saved state."""

from __future__ import annotations

import pytest

from machine.clock import Clock


class Rig:
    """A clock of two owners that remembers what fired."""

    def __init__(self) -> None:
        self.fired: list[tuple[str, str]] = []
        self.told: list[int | None] = []
        self.clock = Clock(self.told.append)
        for owner in ("first", "second"):
            self.clock.register(owner, lambda name, owner=owner: self.fired.append((owner, name)))  # type: ignore[misc]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_ties_go_by_owner_then_name(rig: Rig) -> None:
    for owner, name in (("second", "a"), ("first", "z"), ("first", "b")):
        rig.clock.schedule(owner, name, 10)
    rig.clock.schedule("second", "early", 9)
    assert rig.clock.run_due(9) == 1
    assert rig.clock.run_due(100) == 3
    assert rig.fired == [("second", "early"), ("first", "b"), ("first", "z"), ("second", "a")]


def test_rescheduling_replaces_and_cancelling_forgets(rig: Rig) -> None:
    rig.clock.schedule("first", "a", 10)
    rig.clock.schedule("first", "a", 20)
    rig.clock.schedule("second", "b", 30)
    rig.clock.cancel("second", "b")
    rig.clock.cancel("second", "never")
    assert (rig.clock.next(), rig.told[-1]) == (20, 20)
    rig.clock.run_due(15)
    assert rig.fired == []


def test_deadline_set_while_firing_fires_when_due() -> None:
    clock = Clock()
    fired: list[int] = []

    def fire(name: str) -> None:
        fired.append(1)
        if len(fired) < 3:
            clock.schedule("self", name, 5)

    clock.register("self", fire)
    clock.schedule("self", "tick", 1)
    assert clock.run_due(5) == 3
    assert clock.next() is None


def test_state_comes_back_in_firing_order(rig: Rig) -> None:
    rig.clock.schedule("second", "b", 7)
    rig.clock.schedule("first", "a", 7)
    state = rig.clock.save_state()
    assert state == [["first", "a", 7], ["second", "b", 7]]
    other = Rig()
    other.clock.load_state(state)
    assert other.told == [7]
    assert other.clock.save_state() == state


@pytest.mark.parametrize(
    "bad", [None, [1], [["first", "a"]], [["nobody", "a", 1]], [["first", 1, 1]], [["first", "a", -1]]]
)
def test_foreign_state_is_refused(rig: Rig, bad: object) -> None:
    with pytest.raises(ValueError, match="state clock"):
        rig.clock.load_state(bad)


def test_unknown_or_double_owner_is_our_bug(rig: Rig) -> None:
    with pytest.raises(ValueError, match="no owner"):
        rig.clock.schedule("nobody", "a", 1)
    with pytest.raises(ValueError, match="two owners"):
        rig.clock.register("first", lambda _name: None)
