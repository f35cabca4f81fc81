"""What one instruction's result is made of, by its IR: registers, constants, loads, and what the IR leaves to helpers.

The IR is the translator's own (core/ir.h), so what is said here is what the machine does. Registers that only make up
an address are not part of a value, and neither are conditions of branches.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

_CONST: Final = "#"
#: Ops without a destination; of ST the second operand is what is stored.
_NO_DEST: Final = frozenset("NOP ST STENV BRCOND GOTO GOTO_IND EXIT".split())
_KEEPS: Final = frozenset(("MOV",))


@dataclass(frozen=True, slots=True)
class Op:
    """One IR op: its name, destination and operands (``g7``, ``t0``, ``#12``, ``_``)."""

    name: str
    dest: str
    operands: tuple[str, ...]


@dataclass
class Flow:
    """What a value is made of.

    Args:
        slots: of guest registers, before the instruction. constants: in the ops that were needed.
        loads: whether memory is part of it. calls: whether a helper is: an atomic, a CSR, floating point.
        state: whether other state of the hart is. copied: nothing but moved from one place.
    """

    slots: list[int] = field(default_factory=list)
    constants: list[int] = field(default_factory=list)
    loads: bool = False
    calls: bool = False
    state: bool = False
    copied: bool = True


def parse(text: str) -> list[Op]:
    """Return the ops of an instruction's IR as ``Engine.dump_insn_ir`` prints it."""
    out = []
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].endswith(":"):
            continue
        name = words[0].partition(".")[0]
        refs = []
        for word in words[1:]:
            if not (word == "_" or (word[0] in "gt#" and word[1:].lstrip("-").isdecimal())):
                break
            refs.append(word)
        has_dest = name not in _NO_DEST and bool(refs)
        out.append(Op(name, refs[0] if has_dest else "", tuple(refs[1:] if has_dest else refs)))
    return out


def of_register(ops: list[Op], slot: int) -> Flow:
    """Return what an instruction writes to a guest register."""
    return _slice(ops, len(ops), f"g{slot}")


def of_store(ops: list[Op]) -> Flow | None:
    """Return what an instruction stores, None where no op of its own does: an atomic, or another helper."""
    for at in range(len(ops) - 1, -1, -1):
        if ops[at].name == "ST":
            return _slice(ops, at, ops[at].operands[1])
    return None


def _slice(ops: list[Op], end: int, what: str) -> Flow:
    flow = Flow()
    if what.startswith(_CONST):
        flow.constants.append(int(what[1:]))
        return flow
    wanted = {what}
    for op in reversed(ops[:end]):
        if op.dest not in wanted:
            continue
        wanted.discard(op.dest)
        if op.name == "LD":
            flow.loads = True
            continue
        if op.name == "LDENV":
            flow.state = True
            continue
        flow.calls |= op.name == "CALL"
        constants = [int(ref[1:]) for ref in op.operands if ref.startswith(_CONST)]
        if not (op.name in _KEEPS or (op.name in ("ADD", "OR") and constants == [0])):
            flow.copied = False
        if op.name != "CALL":
            flow.constants += constants
        wanted.update(ref for ref in op.operands if ref[0] in "gt")
    # x0 is a constant
    flow.slots = sorted(int(ref[1:]) for ref in wanted if ref[0] == "g" and ref != "g0")
    return flow
