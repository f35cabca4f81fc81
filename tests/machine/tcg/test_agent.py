"""Conditions in gdb's byte code: hostile programs against a model of the stack machine, on both back ends.

SPEC: gdb manual, "Agent Expressions"
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machine.tcg.engine import ExitReason
from machine.tcg.probes import Probe, ProbeAction, ProbeKind
from tests.bare import Bare

MASK = (1 << 64) - 1
PROGRAM = """
    li a0, 5; li a1, -7; la a2, cell
spot: addi a3, a3, 1
    li t6, 0x100000; sw zero, 0(t6)
cell: .dword 0x8877665544332211
"""
#: By op: how many bytes of operand follow.
OPERANDS = {0x16: 1, 0x22: 1, 0x2A: 1, 0x32: 1, 0x20: 2, 0x21: 2, 0x23: 2, 0x26: 2, 0x24: 4, 0x25: 8}
PLAIN = [*range(0x02, 0x16), *range(0x17, 0x1B), *range(0x27, 0x2C), 0x33]
STACK, STEPS = 64, 10_000


class Failed(Exception):
    """A program that ends without an answer: it does not hold."""


def signed(value: int, bits: int = 64) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value


def divided(a: int, b: int, remainder: bool) -> int:
    """Divide as C does: towards zero."""
    if b == 0:
        raise Failed
    quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    if not remainder and not -(1 << 63) <= quotient < 1 << 64:
        raise Failed
    return a - quotient * b if remainder else quotient


def shifted(op: int, a: int, by: int) -> int:
    if op == 0x0A:
        return signed(a) >> min(by, 63)
    if by >= 64:
        return 0
    return a << by if op == 0x09 else a >> by


def binary(op: int, a: int, b: int) -> int:
    x, y = signed(a), signed(b)
    if op == 0x05 and (x, y) == (-(1 << 63), -1):
        raise Failed
    return {
        0x02: lambda: a + b,
        0x03: lambda: a - b,
        0x04: lambda: a * b,
        0x05: lambda: divided(x, y, False),
        0x06: lambda: divided(a, b, False),
        0x07: lambda: divided(x, y, True),
        0x08: lambda: divided(a, b, True),
        0x0F: lambda: a & b,
        0x10: lambda: a | b,
        0x11: lambda: a ^ b,
        0x13: lambda: int(a == b),
        0x14: lambda: int(x < y),
        0x15: lambda: int(a < b),
    }.get(op, lambda: shifted(op, a, b))()


BINARY = frozenset([*range(0x02, 0x0C), 0x0F, 0x10, 0x11, 0x13, 0x14, 0x15])


class Model:
    """The stack machine, plainly."""

    def __init__(self, bare: Bare) -> None:
        self.bare = bare
        self.stack: list[int] = []

    def pop(self) -> int:
        if not self.stack:
            raise Failed
        return self.stack.pop()

    def push(self, value: int) -> None:
        if len(self.stack) >= STACK:
            raise Failed
        self.stack.append(value & MASK)

    def holds(self, code: bytes) -> bool:
        try:
            return self._run(code)
        except Failed:
            return False

    def _run(self, code: bytes) -> bool:
        at = 0
        for _ in range(STEPS):
            if at >= len(code):
                raise Failed
            op, at = code[at], at + 1
            size = OPERANDS.get(op, 0 if op in PLAIN else -1)
            if size < 0 or at + size > len(code):
                raise Failed
            operand, at = int.from_bytes(code[at : at + size], "big"), at + size
            if op == 0x27:
                return bool(self.pop())
            if op == 0x21 or (op == 0x20 and self.pop()):
                at = operand
            elif op != 0x20:
                self._step(op, operand)
        raise Failed

    def _step(self, op: int, operand: int) -> None:
        if op in BINARY:
            b, a = self.pop(), self.pop()
            self.push(binary(op, a, b))
        elif op == 0x0E:
            self.push(int(not self.pop()))
        elif op == 0x12:
            self.push(~self.pop())
        elif op == 0x16:
            value = self.pop()
            self.push(signed(value, operand) if 0 < operand < 64 else value)
        elif op == 0x2A:
            self.push(self.pop() & ((1 << operand) - 1))
        elif 0x17 <= op <= 0x1A:
            self.push(self._load(self.pop(), 1 << op - 0x17))
        elif 0x22 <= op <= 0x25:
            self.push(operand)
        elif op == 0x26:
            self.push(self._register(operand))
        elif op == 0x28:
            value = self.pop()
            self.stack.append(value)
            self.push(value)
        elif op == 0x29:
            self.pop()
        elif op == 0x2B:
            b, a = self.pop(), self.pop()
            self.stack += [b, a]
        elif op == 0x32:
            if operand >= len(self.stack):
                raise Failed
            self.push(self.stack[-1 - operand])
        else:
            raise Failed

    def _load(self, address: int, size: int) -> int:
        try:
            return int.from_bytes(self.bare.engine.read_phys(address, size), "little")
        except ValueError:
            raise Failed from None

    def _register(self, number: int) -> int:
        return self.bare.reg(f"x{number}") if 0 < number < 32 else 0


@pytest.fixture(scope="module")
def stopped() -> Bare:
    """The machine about to run ``spot``."""
    bare = Bare(PROGRAM)
    spot = bare.labels["spot"]
    bare.engine.set_probes([Probe(ProbeKind.EXEC, ProbeAction.STOP, spot, spot)])
    assert bare.run() is ExitReason.BREAKPOINT
    return bare


def op_codes(cell: int) -> st.SearchStrategy[bytes]:
    numbers = st.sampled_from(
        [0, 1, 2, 63, 64, 255, 1 << 31, 1 << 63, MASK, cell, cell + 1, cell - (1 << 20)]
    )
    push = st.one_of(
        numbers.map(lambda n: b"\x25" + n.to_bytes(8, "big")),
        st.integers(1, 31).map(lambda n: b"\x26" + n.to_bytes(2, "big")),
        st.integers(0, 255).map(lambda n: bytes((0x22, n))),
    )
    plain = st.sampled_from([bytes((op,)) for op in PLAIN if op != 0x27])
    with_byte = st.tuples(st.sampled_from([0x16, 0x2A, 0x32]), st.integers(0, 80)).map(bytes)
    jump = st.tuples(st.sampled_from([0x20, 0x21]), st.just(0), st.integers(0, 60)).map(bytes)
    return st.one_of(push, push, plain, plain, with_byte, jump, st.just(b"\x27"))


def holds(code: bytes, backend: str) -> bool:
    bare = Bare(PROGRAM, backend=backend)
    spot = bare.labels["spot"]
    bare.engine.set_probes([Probe(ProbeKind.EXEC, ProbeAction.LAST, spot, spot, condition=code)])
    assert bare.run() is ExitReason.STOP
    assert bare.reg("x13") == 1
    return bare.engine.probe_hits(0) == 1


@settings(max_examples=300)
@given(data=st.data())
def test_programs_do_what_the_model_does(stopped: Bare, data: st.DataObject) -> None:
    parts = data.draw(st.lists(op_codes(stopped.labels["cell"]), min_size=1, max_size=40))
    code = b"".join(parts) + b"\x27"
    expected = Model(stopped).holds(code)
    assert [holds(code, "jit"), holds(code, "interp")] == [expected, expected]


@settings(max_examples=200)
@given(code=st.binary(min_size=1, max_size=80))
def test_any_bytes_do_no_harm(stopped: Bare, code: bytes) -> None:
    assert holds(code, "jit") is Model(stopped).holds(code)
