"""Conditions compiled to gdb's agent expressions, the byte code that the engine evaluates beside translated code.

Spec: gdb manual, appendix "Agent Expressions"; machine/tcg/core/probe.h
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from machine.arch.riscv64 import CSR_NUMBERS
from workbench.registers import canonical

from .errors import EvalError
from .expressions import Node, parse

#: Registers of the happening itself (machine.tcg.probes.Probe).
HAPPENING: Final = {
    "value": 0x1000,
    "old": 0x1001,
    "addr": 0x1002,
    "size": 0x1003,
    "icount": 0x1004,
    "paddr": 0x1005,
}
#: The longest condition, in bytes; a jump's target has two.
MAX_CODE: Final = 4096

_ADD, _SUB, _MUL, _DIV, _UDIV, _REM, _UREM = 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08
_LSH, _RSH, _URSH, _NOT, _AND, _OR, _XOR, _INVERT = 0x09, 0x0A, 0x0B, 0x0E, 0x0F, 0x10, 0x11, 0x12
_EQUAL, _LESS, _ULESS, _EXT, _REF8, _IF_GOTO, _GOTO = 0x13, 0x14, 0x15, 0x16, 0x17, 0x20, 0x21
_CONST8, _CONST16, _CONST32, _CONST64, _REG, _END, _ZERO_EXT, _SWAP = (
    0x22,
    0x23,
    0x24,
    0x25,
    0x26,
    0x27,
    0x2A,
    0x2B,
)
_SIMPLE: Final = {"+": _ADD, "-": _SUB, "*": _MUL, "<<": _LSH, "&": _AND, "|": _OR, "^": _XOR, "==": _EQUAL}
#: By operator: byte code for signed operands, and for unsigned ones.
_SIGNED: Final = {"/": (_DIV, _UDIV), "%": (_REM, _UREM), ">>": (_RSH, _URSH), "<": (_LESS, _ULESS)}


def register_number(name: str) -> int:
    """Return the number by which conditions know a register. Raises EvalError: they can't ask for it."""
    if name in HAPPENING:
        return HAPPENING[name]
    known = canonical(name)
    if known == "pc":
        return 32
    if known[:1] in ("x", "f") and known[1:].isdecimal() and int(known[1:]) < 32:
        return int(known[1:]) + (33 if known[0] == "f" else 0)
    if known in CSR_NUMBERS:
        return 65 + CSR_NUMBERS[known]
    raise EvalError(
        f"a condition can't ask for ${name}: registers, CSRs, and {', '.join('$' + n for n in HAPPENING)}"
    )


class _Code:
    def __init__(self) -> None:
        self.bytes = bytearray()

    def op(self, code: int, operand: int = 0, size: int = 0) -> None:
        self.bytes.append(code)
        self.bytes += operand.to_bytes(size, "big")

    def jump(self, code: int) -> int:
        """Add a jump whose target is not known yet; returns where it is to be filled in."""
        self.op(code, 0, 2)
        return len(self.bytes) - 2

    def land(self, hole: int) -> None:
        if len(self.bytes) > MAX_CODE:
            raise EvalError(f"the condition is longer than {MAX_CODE} bytes of code")
        self.bytes[hole : hole + 2] = len(self.bytes).to_bytes(2, "big")

    def number(self, value: int) -> None:
        for code, size in ((_CONST8, 1), (_CONST16, 2), (_CONST32, 4), (_CONST64, 8)):
            if value < 1 << 8 * size:
                self.op(code, value, size)
                return

    def node(self, node: Node) -> None:
        """Add what leaves a node's value on the stack."""
        op = node.op
        if op == "number":
            self.number(node.value)
        elif op == "register":
            self.op(_REG, register_number(node.name), 2)
        elif op in ("&&", "||", "?"):
            self._choice(node)
        elif len(node.args) == 1:
            self._unary(node)
        else:
            self._binary(node)

    def _unary(self, node: Node) -> None:
        if node.op == "neg":
            self.number(0)
        self.node(node.args[0])
        if node.op == "neg":
            self.op(_SUB)
        elif node.op == "load":
            self.op(_REF8 + node.size.bit_length() - 1)
            if node.signed:
                self.op(_EXT, 8 * node.size, 1)
        elif node.op == "cast":
            self.op(_EXT if node.signed else _ZERO_EXT, 8 * node.size, 1)
        else:
            self.op(_NOT if node.op == "!" else _INVERT)

    def _binary(self, node: Node) -> None:
        op, (a, b) = node.op, node.args
        for each in (a, b):
            self.node(each)
        unsigned = a.unsigned or b.unsigned
        if op in _SIMPLE:
            self.op(_SIMPLE[op])
        elif op == "!=":
            self.op(_EQUAL)
            self.op(_NOT)
        elif op in ("<", ">="):
            self.op(_SIGNED["<"][unsigned])
        elif op in (">", "<="):
            self.op(_SWAP)
            self.op(_SIGNED["<"][unsigned])
        else:
            self.op(_SIGNED[op][a.unsigned if op == ">>" else unsigned])
        if op in (">=", "<="):
            self.op(_NOT)

    def _choice(self, node: Node) -> None:
        self.node(node.args[0])
        if node.op == "?":
            yes = self.jump(_IF_GOTO)
            self.node(node.args[2])
            end = self.jump(_GOTO)
            self.land(yes)
            self.node(node.args[1])
            self.land(end)
            return
        if node.op == "&&":
            self.op(_NOT)
        short = self.jump(_IF_GOTO)
        self.node(node.args[1])
        self.op(_NOT)
        self.op(_NOT)
        end = self.jump(_GOTO)
        self.land(short)
        self.number(int(node.op == "||"))
        self.land(end)


def compile_tree(node: Node) -> bytes:
    """Return a condition's byte code. Raises EvalError: it asks for what a condition can't see, or is too long."""
    code = _Code()
    code.node(node)
    code.op(_END)
    if len(code.bytes) > MAX_CODE:
        raise EvalError(f"the condition is longer than {MAX_CODE} bytes of code")
    return bytes(code.bytes)


def compile_condition(text: str, symbol: Callable[[str], int | None]) -> bytes:
    """Return the byte code of a condition's text. Raises EvalError."""
    return compile_tree(parse(text, symbol))
