"""Steps by stack: as a plain model of the stacks counts them, wherever the records are cut; guests without end."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine.tcg.probes import RECORD, ProbeKind
from machine.tcg.stacktree import DEEPER, KERNEL, MAX_DEPTH, MAX_NODES, MORE, ROOTS, USER, StackTree

AREA = 0xFFFF_FFC6_0000_0000
_SIGN = 1 << 63
Stack = tuple[int, ...]
CALL, RET, TRAP, XRET, TURN = (ProbeKind[name] for name in ("CALL", "RET", "TRAP", "XRET", "TURN"))


#: Where words of a record are, and how many records are made at once.
WORDS = {"icount": 0, "a": 3, "value": 5}
CHUNK = 1 << 15


class Event(NamedTuple):
    kind: ProbeKind
    sp: int
    address: int
    context: int = 0
    priv: int = 1
    after: int = 1  # TRAP, XRET: the mode then
    hart: int = 0
    steps: int = 1  # since the event before


sps = st.builds(
    lambda base, depth: base - 16 * depth,
    st.sampled_from([AREA + 0x4000 * i + 0x3000 for i in range(3)] + [0x3F_0000, 0x7F_0000]),
    st.integers(0, 4),
)
events = st.lists(
    st.builds(
        Event,
        st.sampled_from([CALL, CALL, RET, RET, TRAP, XRET, TURN]),
        sps,
        st.integers(1, 4).map(lambda i: 0x1000 * i),
        st.integers(0, 1),
        st.sampled_from([0, 1]),
        st.sampled_from([0, 1]),
        st.integers(0, 2),
        st.integers(0, 3),
    ),
    max_size=80,
)


def positions(log: Sequence[Event]) -> list[int]:
    out, at = [], 100
    for event in log:
        at += event.steps
        out.append(at)
    return out


def pack(log: Sequence[Event]) -> list[bytes]:
    out = []
    for at, e in zip(positions(log), log, strict=True):
        a, b, value = e.address, 0, e.sp
        if e.kind is CALL:
            a, b = e.address + 0x10_0000, e.address
        elif e.kind is XRET:
            b, value = e.sp, e.after
        out.append(
            RECORD.pack(
                at, 0x500, 0, e.kind, e.hart, 0, e.after, e.priv, a, b, value, e.priv, e.context, *[0] * 8
            )
        )
    return out


def repeated(event: Event, **words: list[int]) -> memoryview:
    """Return records like an event's but for some words, each given for every record."""
    (count,) = {len(values) for values in words.values()}
    out = array("Q", pack([event])[0] * count)
    for name, values in words.items():
        out[WORDS[name] :: RECORD.size // 8] = array("Q", values)
    return memoryview(out).cast("B")


def signed(value: int) -> int:
    return value - (1 << 64) if value & _SIGN else value


def model(log: Sequence[Event], end: int) -> Counter[tuple[int, Stack]]:
    """Return steps by (root, targets)."""
    stacks: dict[tuple[int, int], list[tuple[int, int, tuple[int, Stack]]]] = {}
    running: dict[int, tuple[int, Stack]] = {}
    out: Counter[tuple[int, Stack]] = Counter()
    at, hart = 100, 0

    def root(mode: int) -> tuple[int, Stack]:
        return (USER if mode == 0 else KERNEL), ()

    def count(until: int) -> None:
        nonlocal at
        if until > at:
            out[running.get(hart, root(1))] += until - at
            at = until

    def settled(sp: int, context: int, mode: int) -> list[tuple[int, int, tuple[int, Stack]]]:
        stack = stacks.setdefault(((sp - 1) >> 14, -1) if sp & _SIGN else (context, mode), [])
        while stack and stack[-1][0] < signed(sp):
            stack.pop()
        return stack

    for where, e in zip(positions(log), log, strict=True):
        count(where + (e.kind is not TURN))
        hart = e.hart
        if e.kind is CALL:
            stack = settled(e.sp, e.context, e.priv)
            while stack and stack[-1][:2] == (signed(e.sp), e.address):
                stack.pop()
            below = stack[-1][2] if stack else root(e.priv)
            running[hart] = below[0], (*below[1], e.address + 0x10_0000)
            stack.append((signed(e.sp), e.address, running[hart]))
        elif e.kind is RET:
            stack = settled(e.sp, e.context, e.priv)
            same = [i for i, frame in enumerate(stack) if frame[:2] == (signed(e.sp), e.address)]
            if same:
                del stack[same[-1] :]
            running[hart] = stack[-1][2] if stack else root(e.priv)
        elif e.kind is TRAP and e.after != e.priv:
            running[hart] = root(e.after)
        elif e.kind is XRET:
            stack = settled(e.sp, e.context, e.after)
            running[hart] = stack[-1][2] if stack else root(e.after)
    count(end)
    return out


def counted(parts: Iterable[bytes], end: int) -> Counter[tuple[int, Stack]]:
    with StackTree(100) as tree:
        for part in parts:
            tree.feed(part)
        nodes = tree.nodes(end)
    stacks: list[tuple[int, Stack]] = [(root, ()) for root in range(ROOTS)]
    for target, under in list(zip(nodes.targets, nodes.below, strict=True))[ROOTS:]:
        root, below = stacks[under]
        stacks.append((root, (*below, target)))
    assert len(set(stacks)) == len(stacks)
    return Counter({stack: steps for stack, steps in zip(stacks, nodes.steps, strict=True) if steps})


@given(events, st.integers(1, 9))
def test_steps_are_those_of_the_model_however_they_are_cut(log: list[Event], size: int) -> None:
    records, end = pack(log), (positions(log) or [100])[-1] + 5
    expected = model(log, end)
    assert expected.total() == end - 100
    assert counted([b"".join(records)], end) == expected
    assert counted([b"".join(records[i : i + size]) for i in range(0, len(records), size)], end) == expected


def test_an_interrupt_on_another_stack_goes_on_where_it_came_from() -> None:
    task, irq = AREA + 0x3F00, AREA + 0x4000 + 0x3F00
    log = [
        Event(CALL, task, 0x1000, steps=10),
        Event(TRAP, 0, 0x8000, steps=10),  # the mode stays
        Event(CALL, task - 512, 0x2000, steps=10),
        Event(CALL, irq, 0x3000, steps=10),
        Event(XRET, task - 16, 0x9000, steps=10),  # out of both without their returns
    ]
    main = KERNEL, (0x10_1000,)
    handler = KERNEL, (0x10_1000, 0x10_2000)
    assert counted(pack(log), 200) == {
        (KERNEL, ()): 11,
        main: 20 + 200 - 151,
        handler: 10,
        (KERNEL, (0x10_3000,)): 10,
    }


def test_threads_of_one_program_keep_their_stacks_over_system_calls() -> None:
    log = [
        Event(CALL, 0x3F_0000, 0x1000, context=1, priv=0, steps=5),
        Event(TRAP, 0, 8, context=1, priv=0, after=1, steps=5),
        Event(XRET, 0x3E_0000, 0x5000, context=2, priv=1, after=0, steps=5),  # another thread
        Event(CALL, 0x3E_0000, 0x2000, context=2, priv=0, steps=5),
        Event(TRAP, 0, 8, context=2, priv=0, after=1, steps=5),
        Event(XRET, 0x3E_FF00, 0x5000, context=1, priv=1, after=0, steps=5),
    ]
    assert counted(pack(log), 140) == {
        (KERNEL, ()): 6 + 5 + 5,
        (USER, (0x10_1000,)): 5 + 140 - 131,
        (USER, ()): 5,
        (USER, (0x10_2000,)): 5,
    }


def test_a_guest_that_calls_without_end_is_bounded_and_returns_exactly() -> None:
    """Deeper calls are one node; the stack is followed all the same, so what runs behind the returns is right."""
    deep = MAX_DEPTH + 1000
    calls = [Event(CALL, 0x7F_0000 - 16 * i, 0x1000 + 4 * i, priv=0) for i in range(deep)]
    returns = [Event(RET, *e[1:]) for e in reversed(calls)]
    with StackTree(100) as tree:
        tree.feed(b"".join(pack(calls + returns)))
        nodes = tree.nodes(100 + 2 * deep + 50)
    assert len(nodes.targets) == ROOTS + MAX_DEPTH + 1
    assert nodes.targets[-1] == DEEPER
    assert nodes.steps[-1] == 2 * (deep - MAX_DEPTH) - 1
    assert nodes.steps[USER] == 50 - 1
    assert sum(nodes.steps) == 2 * deep + 50


@pytest.mark.slow
def test_more_stacks_than_there_is_room_for_are_one() -> None:
    call = Event(CALL, 0x7F_0000, 0x1000, priv=0)
    count = MAX_NODES - ROOTS + 10
    with StackTree(100, user=True) as tree:
        for first in range(0, count, CHUNK):
            many = range(first, min(first + CHUNK, count))
            tree.feed(repeated(call, icount=[100 + i for i in many], a=[2 * i for i in many]))
        nodes = tree.nodes(100 + count + 1)
    assert len(nodes.targets) == MAX_NODES
    assert nodes.steps[MORE] == 10


def test_open_calls_that_are_forgotten_are_told() -> None:
    call = Event(CALL, 0, 0x1000, priv=0)
    with StackTree(100) as tree:
        for first in range(0, (1 << 20) + 1, CHUNK):
            many = range(first, min(first + CHUNK, (1 << 20) + 1))
            tree.feed(repeated(call, value=[(1 << 62) - 16 * i for i in many]))
        tree.nodes(200)
        assert tree.forgotten == 1 << 20
