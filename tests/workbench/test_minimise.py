"""Delta debugging of chaos: what is left is needed, and what is left out is quiet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hypothesis import given
from hypothesis import strategies as st

from machine.hw.chaos import LATENCY_QUIET, pack_strike, unpack_strike
from workbench.minimise import StrikePlan, choices_of, minimise


def first_failing(fails: Callable[[frozenset[int]], bool]) -> Callable[[Sequence[Sequence[int]]], int | None]:
    return lambda sets: next((i for i, each in enumerate(sets) if fails(frozenset(each))), None)


@given(st.integers(1, 40), st.sets(st.integers(0, 39)))
def test_what_a_failure_needs_is_found_exactly(count: int, needed: set[int]) -> None:
    wanted = frozenset(n for n in needed if n < count)
    assert minimise(range(count), first_failing(wanted.issubset)) == sorted(wanted)


@given(st.integers(1, 12), st.sets(st.frozensets(st.integers(0, 11), min_size=1), min_size=1, max_size=20))
def test_no_item_that_is_left_can_be_left_out(count: int, failing: set[frozenset[int]]) -> None:
    """Whatever sets fail, and whether or not more items fail too: each one left is needed."""
    everything = frozenset(range(count))

    def fails(kept: frozenset[int]) -> bool:
        return kept == everything or kept in failing

    kept = frozenset(minimise(range(count), first_failing(fails)))
    assert fails(kept)
    assert len(kept) == 1 or not any(fails(kept - {item}) for item in kept)


def test_a_plan_keeps_the_times_of_strikes_whose_stalls_are_left_out() -> None:
    strikes = [pack_strike(1000, 50, 7, 300), pack_strike(2000, 0, 9, 200)]
    choices = choices_of(strikes, harts=2)
    assert [(c.strike, c.what, c.amount) for c in choices] == [
        (0, "stall", 50),
        (0, "turn", 7),
        (0, "latency", 300),
        (1, "turn", 9),
        (1, "latency", 200),
    ]
    chance = pack_strike(5000, 9, 9, 900)
    everything = StrikePlan(strikes, choices)
    assert [everything(chance), everything(chance)] == strikes
    nothing = StrikePlan(strikes, [])
    given_anew = [unpack_strike(nothing(chance)) for _ in range(3)]
    assert given_anew == [
        (1050, 0, 0, LATENCY_QUIET),
        (2000, 0, 0, LATENCY_QUIET),
        (5000, 0, 0, LATENCY_QUIET),
    ]
    some = StrikePlan(strikes, [choices[2]])
    assert [unpack_strike(some(chance))[3] for _ in range(2)] == [300, 300]
