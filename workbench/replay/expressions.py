"""Expressions of the debugger: registers ``$pc``, symbols, numbers, memory ``*(u32 *)addr``, and C's operators.

A text becomes a tree of ``Node``, which is evaluated here or compiled (``agent.py``) to run beside translated
code. Values are of 64 bits. As in gdb, registers and numbers are signed when they are compared; addresses and
loads of unsigned types are not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .errors import EvalError

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<number>0[xX][0-9a-fA-F_]+|0[bB][01_]+|[0-9][0-9_]*)|\$(?P<register>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<symbol>[A-Za-z_.][A-Za-z0-9_.$@]*)|(?P<op>&&|\|\||==|!=|<=|>=|<<|>>|[-+*/%()<>!~&|^?:]))"
)
_MAX_TEXT: Final = 4096
_MAX_DEPTH: Final = 64
_MASK: Final = (1 << 64) - 1

#: Binary operators by how tightly they bind, loosest first. Spec: C, 6.5
LEVELS: Final = (
    ("||",),
    ("&&",),
    ("|",),
    ("^",),
    ("&",),
    ("==", "!="),
    ("<", "<=", ">", ">="),
    ("<<", ">>"),
    ("+", "-"),
    ("*", "/", "%"),
)
_SIZES: Final = {
    **{name: (size, False) for name, size in (("u8", 1), ("u16", 2), ("u32", 4), ("u64", 8))},
    **{name: (size, True) for name, size in (("s8", 1), ("s16", 2), ("s32", 4), ("s64", 8))},
    **{f"uint{8 * size}_t": (size, False) for size in (1, 2, 4, 8)},
    **{f"int{8 * size}_t": (size, True) for size in (1, 2, 4, 8)},
    "char": (1, False),
    "short": (2, True),
    "int": (4, True),
    "long": (8, True),
    "void": (8, False),
    "bool": (1, False),
    "size_t": (8, False),
}


@dataclass(frozen=True, slots=True)
class Node:
    """A part of an expression.

    Args:
        op: ``number``, ``register``, ``load``, ``cast``, ``not``, ``!``, ``~``, ``neg``, ``?`` or a binary operator.
        args: what it works on.
        value: of a number. name: of a register. size: of a load or cast, in bytes. signed: of a load or cast.
        unsigned: whether comparisons with it are unsigned.
    """

    op: str
    args: tuple[Node, ...] = ()
    value: int = 0
    name: str = ""
    size: int = 8
    signed: bool = False
    unsigned: bool = False


class _Parser:
    def __init__(self, text: str, symbol: Callable[[str], int | None]) -> None:
        if len(text) > _MAX_TEXT:
            raise EvalError("the expression is too long")
        self.text = text
        self._symbol = symbol
        self._tokens = self._scan(text)
        self._at = 0
        self._depth = 0

    def parse(self) -> Node:
        node = self._ternary()
        if self._at < len(self._tokens):
            raise EvalError(f"{self.text!r}: {self._tokens[self._at][1]!r} is not expected there")
        return node

    def _scan(self, text: str) -> list[tuple[str, str]]:
        tokens, at = [], 0
        while text[at:].strip():
            match = _TOKEN.match(text, at)
            if match is None:
                raise EvalError(f"{text!r}: {text[at:].strip()[0]!r} is not part of an expression")
            tokens.append((str(match.lastgroup), match[match.lastgroup or 0]))
            at = match.end()
        return tokens

    def _next(self, *ops: str) -> str:
        if self._at < len(self._tokens):
            kind, text = self._tokens[self._at]
            if kind == "op" and text in ops:
                self._at += 1
                return text
        return ""

    def _expect(self, op: str) -> None:
        if not self._next(op):
            raise EvalError(f"{self.text!r}: a {op!r} is missing")

    def _ternary(self) -> Node:
        test = self._binary(0)
        if not self._next("?"):
            return test
        yes = self._nested(self._ternary)
        self._expect(":")
        no = self._nested(self._ternary)
        return Node("?", (test, yes, no), unsigned=yes.unsigned or no.unsigned)

    def _binary(self, level: int) -> Node:
        if level == len(LEVELS):
            return self._unary()
        left = self._binary(level + 1)
        while op := self._next(*LEVELS[level]):
            right = self._binary(level + 1)
            unsigned = left.unsigned or (right.unsigned and op not in ("<<", ">>"))
            left = Node(op, (left, right), unsigned=unsigned and op not in ("==", "!=", "&&", "||"))
        return left

    def _nested(self, rule: Callable[[], Node]) -> Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise EvalError(f"{self.text[:40]!r}…: nested too deep")
        try:
            return rule()
        finally:
            self._depth -= 1

    def _unary(self) -> Node:
        return self._nested(self._unit)

    def _unit(self) -> Node:
        op = self._next("+", "-", "!", "~", "*", "(")
        if op == "(":
            typed = self._type()
            if typed is not None:
                size, signed, pointer = typed
                size, signed = (8, False) if pointer else (size, signed)
                return Node("cast", (self._unary(),), size=size, signed=signed, unsigned=not signed)
            node = self._nested(self._ternary)
            self._expect(")")
            return node
        if op == "*":
            return self._load()
        if op == "+":
            return self._unary()
        if op:
            inner = self._unary()
            return Node("neg" if op == "-" else op, (inner,), unsigned=inner.unsigned and op == "~")
        return self._atom()

    def _load(self) -> Node:
        """``*(type *)address``; without a type, 8 bytes."""
        size, signed = 8, False
        before = self._at
        if self._next("("):
            typed = self._type()
            if typed is None or not typed[2]:
                self._at = before
            else:
                size, signed = typed[0], typed[1]
        return Node("load", (self._unary(),), size=size, signed=signed, unsigned=not signed)

    def _type(self) -> tuple[int, bool, bool] | None:
        """Take ``type)`` or ``type *)``: (size, signed, whether it is a pointer); None if no type is there."""
        at, words = self._at, []
        while at < len(self._tokens) and self._tokens[at][0] == "symbol":
            words.append(self._tokens[at][1])
            at += 1
        known = [word for word in words if word not in ("unsigned", "signed", "const", "volatile")]
        if not words or len(known) > 2 or any(word not in _SIZES for word in known):
            return None
        stars = 0
        while at < len(self._tokens) and self._tokens[at] == ("op", "*"):
            stars, at = stars + 1, at + 1
        if at >= len(self._tokens) or self._tokens[at] != ("op", ")"):
            return None
        self._at = at + 1
        size, signed = _SIZES[known[0]] if known else (4, True)
        if "long" in known:
            size = 8
        signed = (signed or "signed" in words) and "unsigned" not in words
        return (size, signed, True) if stars == 1 else (8, False, True) if stars else (size, signed, False)

    def _atom(self) -> Node:
        if self._at >= len(self._tokens):
            raise EvalError(f"{self.text!r}: something is missing at the end")
        kind, text = self._tokens[self._at]
        self._at += 1
        if kind == "number":
            value = self._number(text)
            return Node("number", value=value, unsigned=value >> 63 != 0)
        if kind == "register":
            return Node("register", name=text, unsigned=text in ("value", "old", "addr", "paddr", "icount"))
        if kind == "symbol":
            found = self._symbol(text)
            if found is None:
                raise EvalError(f"no symbol {text!r}")
            return Node("number", value=found & _MASK, unsigned=True)
        raise EvalError(f"{self.text!r}: {text!r} is not expected there")

    def _number(self, text: str) -> int:
        try:
            return int(text, 10 if text[:2].isdecimal() or len(text) == 1 or text[1] == "_" else 0) & _MASK
        except ValueError:
            raise EvalError(f"{text!r} is not a number") from None


def parse(text: str, symbol: Callable[[str], int | None]) -> Node:
    """Return an expression's tree.

    Args:
        text: the expression.
        symbol: returns a symbol's address, or None.

    Raises:
        EvalError: it is no expression, or names a symbol that does not exist.
    """
    return _Parser(text, symbol).parse()


def signed64(value: int) -> int:
    """Return 64 bits as a signed number."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def narrow(value: int, size: int, signed: bool) -> int:
    """Return the low ``size`` bytes of a value, extended to 64 bits."""
    value &= (1 << 8 * size) - 1
    return (value - (1 << 8 * size)) & _MASK if signed and value >> (8 * size - 1) else value


class Evaluator:
    """Evaluates trees.

    Args:
        register: returns a register's value by name. memory: returns bytes at an address; both raise EvalError or
            another expected error.
    """

    def __init__(self, register: Callable[[str], int], memory: Callable[[int, int], bytes]) -> None:
        self._register = register
        self._memory = memory

    def value(self, node: Node) -> int:
        """Return the value, 0 to 2^64-1. Raises EvalError: a division by zero, or a register that is none."""
        return self._value(node) & _MASK

    def _value(self, node: Node) -> int:
        op = node.op
        if op == "number":
            return node.value
        if op == "register":
            return self._register(node.name) & _MASK
        if op == "load":
            data = self._memory(self.value(node.args[0]), node.size)
            return narrow(int.from_bytes(data, "little"), node.size, node.signed)
        if op == "?":
            return self.value(node.args[1] if self.value(node.args[0]) else node.args[2])
        if op in ("&&", "||"):
            first = self.value(node.args[0])
            return int(bool(first) if bool(first) == (op == "||") else bool(self.value(node.args[1])))
        if len(node.args) == 1:
            inner = self.value(node.args[0])
            if op == "cast":
                return narrow(inner, node.size, node.signed)
            return -inner if op == "neg" else ~inner if op == "~" else int(not inner)
        return self._binary(op, node, self.value(node.args[0]), self.value(node.args[1]))

    def _binary(self, op: str, node: Node, a: int, b: int) -> int:
        if not (node.args[0].unsigned or node.args[1].unsigned):
            a, b = signed64(a), signed64(b)
        if op in ("/", "%"):
            if b == 0:
                raise EvalError("division by zero")
            quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
            return quotient if op == "/" else a - b * quotient
        if op in ("<<", ">>"):
            count = min(b & _MASK, 64)
            shifted = a & _MASK if node.args[0].unsigned else signed64(a)  # C: the left operand's type
            return shifted << count if op == "<<" else shifted >> count
        return _COMPUTE[op](a, b)


_COMPUTE: Final[dict[str, Callable[[int, int], int]]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    "==": lambda a, b: int(a & _MASK == b & _MASK),
    "!=": lambda a, b: int(a & _MASK != b & _MASK),
    "<": lambda a, b: int(a < b),
    "<=": lambda a, b: int(a <= b),
    ">": lambda a, b: int(a > b),
    ">=": lambda a, b: int(a >= b),
}
