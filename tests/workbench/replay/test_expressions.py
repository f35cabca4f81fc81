"""Expressions mean the same in the debugger and, compiled, beside translated code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine.tcg.engine import ExitReason
from machine.tcg.probes import Probe, ProbeAction, ProbeKind
from tests.bare import Bare
from workbench.replay.agent import compile_condition
from workbench.replay.errors import EvalError
from workbench.replay.expressions import Evaluator, parse

MASK = (1 << 64) - 1
REGISTERS = {"a0": 7, "a1": MASK - 2, "t0": 1 << 63}
PROGRAM = """
    li a0, 7; li a1, -3; li t0, 1; slli t0, t0, 63
    la s1, cell
spot: nop
    li t6, 0x100000; sw zero, 0(t6)
forever: j forever
.align 3
cell: .dword 0x8182838485868788
"""


@pytest.fixture(scope="module")
def bare() -> Bare:
    return Bare(PROGRAM)


def evaluate(text: str, bare: Bare) -> int:
    memory = Bare(PROGRAM).engine.read_phys
    return Evaluator(lambda name: REGISTERS[name], memory).value(parse(text, bare.labels.get))


def holds_in_engine(text: str, bare: Bare) -> bool:
    """Tell whether a condition lets a breakpoint at ``spot`` stop."""
    code = compile_condition(text, bare.labels.get)
    engine = bare.engine
    made = Bare(PROGRAM)
    made.engine.set_probes(
        [Probe(ProbeKind.EXEC, ProbeAction.STOP, made.labels["spot"], made.labels["spot"], condition=code)]
    )
    assert engine is not made.engine
    return made.run() is ExitReason.BREAKPOINT


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("-7 / 2", MASK - 2),
        ("-7 % 2", MASK),
        ("7 >> 1 << 2", 12),
        ("-8 >> 1", MASK - 3),
        ("(u64)-8 >> 1", (MASK - 7) >> 1),
        ("$a1 < 0", 1),
        ("(u64)$a1 < 0", 0),
        ("$a1 >> (u32)2", MASK),  # the left operand alone says what a shift is
        ("$a1 >> (u32)$a1", MASK),
        ("(u64)$a1 >> 2", MASK >> 2),
        ("$a1 >> (u32)2 < 0", 1),
        ("$a1 < 5 && $a0 == 7", 1),
        ("0 || 0", 0),
        ("!5", 0),
        ("~0", MASK),
        ("1 ? 2 : 3", 2),
        ("0 ? 2 : 0 ? 4 : 5", 5),
        ("0xff & 0x18 | 1", 0x19),
        ("5 ^ 1", 4),
        ("1 != 2", 1),
        ("3 >= 3", 1),
        ("*(u8 *)cell", 0x88),
        ("*(s8 *)cell", MASK - 0x77),
        ("*(u16*)(cell + 1)", 0x8687),
        ("*(unsigned int *)cell == 0x85868788", 1),
        ("*(u64 *)cell", 0x8182838485868788),
        ("*cell >> 56", 0x81),
        ("(u8)0x1ff", 0xFF),
        ("(s8)0xff", MASK),
    ],
)
def test_values(text: str, value: int, bare: Bare) -> None:
    assert evaluate(text, bare) == value
    assert holds_in_engine(f"({text}) == {value}", bare)
    assert not holds_in_engine(f"({text}) != {value}", bare)


_OPS = ("+", "-", "*", "/", "%", "&", "|", "^", "==", "!=", "<", "<=", ">", ">=", "<<", ">>", "&&", "||")


def _texts() -> st.SearchStrategy[str]:
    leaves = st.one_of(
        st.integers(0, MASK).map(hex), st.integers(0, 300).map(str), st.sampled_from(["$a0", "$a1", "$t0"])
    )

    def grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.one_of(
            st.tuples(inner, st.sampled_from(_OPS), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
            st.tuples(st.sampled_from(["-", "~", "!", "(u32)", "(s16)", "(u64)"]), inner).map("".join),
            st.tuples(inner, inner, inner).map(lambda t: f"({t[0]} ? {t[1]} : {t[2]})"),
        )

    return st.recursive(leaves, grow, max_leaves=6)


@given(_texts())
def test_compiled_and_evaluated_conditions_agree(text: str) -> None:
    bare = Bare(PROGRAM)
    try:
        value = evaluate(text, bare)
    except EvalError:
        assert not holds_in_engine(text, bare)  # a division by zero: the condition does not hold
        return
    overflow = "/" in text or "%" in text  # of the one quotient that does not fit
    assert holds_in_engine(text, bare) == bool(value) or overflow


@pytest.mark.parametrize("text", ["$nothing == 1", "$priv == 1", "1 +", "*(u8 *)", "(u8", "1 ? 2", "nobody"])
def test_what_is_no_condition_says_so(text: str, bare: Bare) -> None:
    with pytest.raises(EvalError):
        compile_condition(text, bare.labels.get)


def test_happenings_can_be_asked_for(bare: Bare) -> None:
    code = compile_condition(
        "$value == 1 && $old != $addr && $size && $paddr && $icount > 0", lambda name: None
    )
    assert code.startswith(bytes([0x26, 0x10, 0x00]))
    with pytest.raises(EvalError, match=r"longer|too long"):
        compile_condition("||".join(["$value == 0x123456789"] * 400), lambda name: None)
