"""Calls and their returns: as a plain model pairs them, wherever the records are cut."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine.tcg.callpairs import MAX_OPEN, RETURN_WORDS, ROW_WORDS, CallPairs
from machine.tcg.probes import RECORD, ProbeKind

KERNEL = 0xFFFF_FFC6_0000_0000
_SIGN = 1 << 63
Event = tuple[int, int, int, int, int]  # kind, stack pointer, address, context, privilege

stacks = st.sampled_from([KERNEL + 0x4000 * i + 0x3000 for i in range(3)] + [0x3F_0000, 0x7F_0000])
events = st.lists(
    st.tuples(
        st.sampled_from([ProbeKind.CALL, ProbeKind.RET]),
        st.builds(lambda base, depth: base - 16 * depth, stacks, st.integers(0, 4)),
        st.integers(1, 4).map(lambda i: 0x1000 * i),
        st.integers(0, 1),
        st.integers(0, 1),
    ),
    max_size=80,
)


def record(number: int, event: Event) -> bytes:
    kind, sp, address, context, priv = event
    target, ret = (0x9000, address) if kind == ProbeKind.CALL else (address, 0)
    args = [number * 8 + i for i in range(8)]
    return RECORD.pack(
        number * 10, 0x500 + number, 0, kind, 0, 0, 0, priv, target, ret, sp, 0, context, *args
    )


def signed(value: int) -> int:
    return value - (1 << 64) if value & _SIGN else value


def model(log: Iterable[Event]) -> dict[int, tuple[int, int, int]]:
    """Return depth, position of the return and result by position of the call; -1 and 0 for none."""
    out: dict[int, tuple[int, int, int]] = {}
    open_calls: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for number, (kind, raw_sp, address, context, priv) in enumerate(log):
        sp, icount = signed(raw_sp), number * 10
        key = ((raw_sp - 1) >> 14, -1) if raw_sp & _SIGN else (context, priv)
        stack = open_calls.setdefault(key, [])
        while stack and stack[-1][0] < sp:
            stack.pop()
        if kind == ProbeKind.CALL:
            while stack and stack[-1][:2] == (sp, address):
                stack.pop()
            out[icount] = (len(stack), -1, 0)
            stack.append((sp, address, icount))
            continue
        same = [i for i, frame in enumerate(stack) if frame[:2] == (sp, address)]
        if same:
            began = stack[same[-1]][2]
            out[began] = (out[began][0], icount, number * 8)
            del stack[same[-1] :]
    return out


def paired(parts: Iterable[bytes], fresh: bool = False) -> dict[int, tuple[int, int, int]]:
    """Feed parts; with ``fresh``, each to an object of its own that goes on from the saved state."""
    out: dict[int, tuple[int, int, int]] = {}
    state: list[int] = []
    pairs = CallPairs()
    for part in parts:
        if fresh:
            pairs.close()
            pairs = CallPairs()
            pairs.load(state)
        pairs.clear()
        for i in range(0, len(part), 3 * RECORD.size):
            pairs.feed(part[i : i + 3 * RECORD.size])
        rows, returns = pairs.found()
        for i in range(0, len(rows), ROW_WORDS):
            out[rows[i]] = (rows[i + 2], rows[i + 6], rows[i + 15])
        for i in range(0, len(returns), RETURN_WORDS):
            ended, result, began = returns[i : i + RETURN_WORDS]
            out[began] = (out[began][0], ended, result)
        state = pairs.save()
    pairs.close()
    return out


@given(events, st.integers(1, 9))
def test_rows_are_those_of_the_model_however_they_are_cut(log: list[Event], size: int) -> None:
    records = [record(i, event) for i, event in enumerate(log)]
    expected = model(log)
    assert paired([b"".join(records)]) == expected
    parts = [b"".join(records[i : i + size]) for i in range(0, len(records), size)]
    assert paired(parts) == expected
    assert paired(parts, fresh=True) == expected


def test_very_many_stacks_keep_their_calls() -> None:
    count = 20_000
    calls = [(ProbeKind.CALL, KERNEL + 0x4000 * i + 0x100, 0x1000, 0, 1) for i in range(count)]
    returns = [(ProbeKind.RET, *call[1:]) for call in reversed(calls)]
    found = paired([b"".join(record(i, e) for i, e in enumerate(calls + returns))])
    assert [found[10 * i][1] for i in range(count)] == [10 * (2 * count - 1 - i) for i in range(count)]


def test_a_guest_that_never_returns_is_bounded() -> None:
    """A call in an endless descent took memory for each step of the run."""
    frame = array("q", [0, 0, 1 << 40, 0x1000, 5])
    with CallPairs() as pairs:
        pairs.load(frame * MAX_OPEN)
        pairs.feed(record(1, (ProbeKind.CALL, 1 << 39, 0x1000, 0, 0)))
        assert len(pairs.save()) == len(frame)


@pytest.mark.parametrize("state", [[1], [1, 2, 3, 4, 1 << 64], ["a"] * 5, [0] * 5 * (MAX_OPEN + 1)])
def test_a_state_that_is_none_is_refused(state: list[int]) -> None:
    with CallPairs() as pairs, pytest.raises(ValueError, match="not a state"):
        pairs.load(state)


def test_parts_of_records_are_refused() -> None:
    with CallPairs() as pairs, pytest.raises(ValueError, match="whole records"):
        pairs.feed(bytes(100))
