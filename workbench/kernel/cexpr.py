"""C expressions over typed values: ``task->comm``, ``pool.free->owner == 2``, ``*(struct module *)0xffff…``.

A variable whose type is not told is written with a cast, as in ``*(struct task_struct *)&init_task``; the
kernel's commonest ones are known.

Spec: C11, 6.5
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from workbench.replay.expressions import LEVELS

from .btf import ARRAY, PTR
from .errors import KernelError
from .typed import VARIABLES, Pointer, Program, Typed

_TOKEN: Final = re.compile(
    r"\s*(->|&&|\|\||==|!=|<=|>=|<<|>>|0[xX][0-9a-fA-F]+|\d+|\$\w+|'(?:[^'\\]|\\.)'"
    r"|[A-Za-z_]\w*|[-+*/%&|^~!<>()\[\].])"
)
_NAME: Final = re.compile(r"(?<![\w.$>])[A-Za-z_]\w*")
#: Names that stand for typed values of a kernel even where nothing else says so.
KERNEL_NAMES: Final = ("task", *VARIABLES)
_MAX_TEXT: Final = 4096
_MAX_DEPTH: Final = 32
_MASK: Final = (1 << 64) - 1

Named = Callable[[str], Typed | None]
Register = Callable[[str], int]


def names_in(text: str) -> Iterator[str]:
    """Yield the names in an expression that may be variables: no members, no registers."""
    for match in _NAME.finditer(text):
        yield match[0]


def evaluate(
    program: Program,
    text: str,
    task: int = 0,
    named: Named = lambda name: None,
    register: Register | None = None,
) -> Typed:
    """Return the value of an expression.

    Args:
        program: types, memory and symbols at some position. text: the expression. task: the current task_struct.
        named: variables that are known besides the symbols. register: values of ``$registers``.

    Raises:
        KernelError: it can't be understood, or its memory can't be read.
    """
    if len(text) > _MAX_TEXT:
        raise KernelError("the expression is too long")
    parser = _Parser(program, _tokens(text), task, named, register)
    value = parser.expression(0)
    if parser.tokens:
        raise KernelError(f"{text!r}: {parser.tokens[0]!r} was not expected there")
    return value


def _tokens(text: str) -> list[str]:
    out, at = [], 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if not match or match.end() == at:
            raise KernelError(f"{text!r} can't be understood from {text[at:]!r} on")
        out.append(match[1])
        at = match.end()
    return out


class _Parser:
    """One expression, evaluated while it is read."""

    def __init__(
        self, program: Program, tokens: list[str], task: int, named: Named, register: Register | None
    ) -> None:
        self.program, self.tokens, self.task = program, tokens, task
        self._named, self._register = named, register
        self._depth = 0

    def take(self, expected: str = "") -> str:
        if not self.tokens or (expected and self.tokens[0] != expected):
            found = self.tokens[0] if self.tokens else "the end"
            raise KernelError(f"expected {expected or 'more'!r}, found {found!r}")
        return self.tokens.pop(0)

    def expression(self, level: int) -> Typed:
        if level == len(LEVELS):
            return self.unary()
        left = self.expression(level + 1)
        while self.tokens and self.tokens[0] in LEVELS[level]:
            operator = self.take()
            left = self._binary(operator, left, self.expression(level + 1))
        return left

    def _number(self, value: int) -> Typed:
        return Typed(self.program, 0, None, value)

    def _binary(self, operator: str, left: Typed, right: Typed) -> Typed:
        if operator in "+-":
            step = _step_of(left)
            if step is not None:
                return _moved(left, right.integer() * (step if operator == "+" else -step))
        a, b = left.integer(), right.integer()
        if operator in ("/", "%") and b == 0:
            raise KernelError("division by zero")
        if operator in ("<<", ">>") and not 0 <= b < 64:
            raise KernelError(f"a shift by {b}")
        return self._number(_calculate(operator, a, b))

    def unary(self) -> Typed:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise KernelError("the expression is nested too deeply")
        try:
            return self._unary()
        finally:
            self._depth -= 1

    def _unary(self) -> Typed:
        token = self.tokens[0] if self.tokens else ""
        if token == "*":
            self.take()
            return self.unary().deref()
        if token == "&":
            self.take()
            return _address_of(self.unary())
        if token in ("-", "~", "!", "+"):
            self.take()
            value = self.unary().integer()
            return self._number({"-": -value, "~": ~value, "!": int(not value), "+": value}[token])
        if token == "sizeof":
            self.take()
            return self._number(self._sizeof())
        if token == "(" and (cast := self._cast()) is not None:
            return cast
        return self.postfix(self.primary())

    def _sizeof(self) -> int:
        found = self._type_in_brackets()
        if found is None:
            value = self.unary()
            return 8 if isinstance(value, Pointer) else value.types.size(value.type)
        base, stars = found
        return 8 if stars else self.program.types.size(base)

    def _type_in_brackets(self) -> tuple[int, int] | None:
        """Take ``(TYPE *…)`` and return the type and how many stars; None where the brackets hold no type."""
        if self.tokens[:1] != ["("] or ")" not in self.tokens:
            return None
        end = self.tokens.index(")")
        stars = sum(token == "*" for token in self.tokens[1:end])
        words = [token for token in self.tokens[1:end] if token not in ("*", "const", "volatile")]
        if not words or not all(word.replace("_", "a").isalnum() and not word[0].isdigit() for word in words):
            return None
        try:
            base = 0 if words == ["void"] else self.program.types.find(" ".join(words))
        except KernelError:
            return None
        del self.tokens[: end + 1]
        return base, stars

    def _cast(self) -> Typed | None:
        found = self._type_in_brackets()
        if found is None:
            return None
        base, stars = found
        number = self.unary().integer()
        if stars:
            # a pointer to the type: what is read through it is at the number
            return Pointer(self.program, base, None, number & _MASK, None, stars)
        types = self.program.types
        bits = 8 * types.size(base) or 64
        number &= (1 << bits) - 1
        bare, kind = types.resolve(base)
        if kind == 1 and types.signed(bare) and number >> (bits - 1):
            number -= 1 << bits
        return Typed(self.program, base, None, number)

    def primary(self) -> Typed:
        token = self.take()
        if token == "(":
            value = self.expression(0)
            self.take(")")
            return value
        if token[0].isdigit():
            return self._number(int(token, 0 if token[1:2] in "xX" and len(token) > 1 else 10))
        if token[0] == "'":
            return self._number(ord(token[1:-1].encode().decode("unicode_escape")))
        if token[0] == "$":
            if self._register is None:
                raise KernelError(f"{token}: registers are not for this")
            return self._number(self._register(token[1:]))
        if not (token[0].isalpha() or token[0] == "_"):
            raise KernelError(f"{token!r} was not expected there")
        known = self._named(token)
        return self._symbol(token) if known is None else known

    def _symbol(self, token: str) -> Typed:
        types = self.program.types
        if token == "task" and self.task:
            return Pointer(self.program, types.find("struct task_struct"), None, self.task, None, 1)
        address = self.program.symbols.lookup(token)
        if address is None:
            raise KernelError(f"no symbol {token!r}")
        of = types.variable(token)
        if of is not None:
            return Typed(self.program, of, address)
        name = VARIABLES.get(token, "long unsigned int")
        base = types.find(name.rstrip(" *"))
        if name.endswith("*"):
            return Pointer(self.program, base, None, self.program.memory.word(address), None, 1)
        return Typed(self.program, base, address)

    def postfix(self, value: Typed) -> Typed:
        while self.tokens and self.tokens[0] in (".", "->", "["):
            token = self.take()
            if token == "[":
                value = value.index(self.expression(0).integer())
                self.take("]")
            elif token == "->":
                value = value.deref().member(self.take())
            else:
                value = value.member(self.take())
        return value


def _address_of(value: Typed) -> Typed:
    if value.address is None:
        raise KernelError("& needs something in memory")
    return Pointer(value.kernel, value.type, None, value.address, None, 1)


def _step_of(value: Typed) -> int | None:
    """Return by how many bytes a pointer moves for each 1 that is added; None for what is no pointer."""
    if isinstance(value, Pointer):
        return value.types.size(value.type) or 1 if value.stars == 1 else 8
    type_id, kind = value.types.resolve(value.type)
    if kind == PTR:
        return value.types.size(value.types.target(type_id)) or 1
    if kind == ARRAY:
        return value.types.size(value.types.array(type_id)[0]) or 1
    return None


def _moved(value: Typed, by: int) -> Typed:
    number = (value.integer() + by) & _MASK
    if isinstance(value, Pointer):
        return Pointer(value.kernel, value.type, None, number, None, value.stars)
    type_id, kind = value.types.resolve(value.type)
    target = value.types.target(type_id) if kind == PTR else value.types.array(type_id)[0]
    return Pointer(value.kernel, target, None, number, None, 1)


def _calculate(operator: str, a: int, b: int) -> int:
    match operator:
        case "||":
            return int(bool(a or b))
        case "&&":
            return int(bool(a and b))
        case "/" | "%":
            quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
            return quotient if operator == "/" else a - b * quotient
    operations: dict[str, Callable[[int, int], int]] = {
        "|": lambda x, y: x | y,
        "^": lambda x, y: x ^ y,
        "&": lambda x, y: x & y,
        "==": lambda x, y: int(x == y),
        "!=": lambda x, y: int(x != y),
        "<": lambda x, y: int(x < y),
        "<=": lambda x, y: int(x <= y),
        ">": lambda x, y: int(x > y),
        ">=": lambda x, y: int(x >= y),
        "<<": lambda x, y: x << y & _MASK,
        ">>": lambda x, y: (x & _MASK) >> y,
        "+": lambda x, y: x + y,
        "-": lambda x, y: x - y,
        "*": lambda x, y: x * y,
    }
    return operations[operator](a, b)
