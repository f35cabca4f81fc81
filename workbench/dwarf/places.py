"""Where a variable is: location expressions, evaluated over the registers of a frame.

Spec: DWARF 5, sections 2.5 and 2.6; registers by the RISC-V DWARF specification: 0 to 31 are x0 to x31.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from .errors import Unavailable
from .file import base_of

_MASK: Final = (1 << 64) - 1
_MAX_STEPS: Final = 4096


class Place(NamedTuple):
    """A variable's place: an address in memory, or its value itself."""

    in_memory: bool
    number: int


class Machine(NamedTuple):
    """What location expressions may ask of a frame.

    Args:
        register: the value of a register by its DWARF number; raises Unavailable.
        memory: a little-endian number at an address, of a size in bytes; raises Unavailable.
        frame_base: the function's frame base. cfa: the canonical frame address.
    """

    register: Callable[[int], int]
    memory: Callable[[int, int], int]
    frame_base: Callable[[], int]
    cfa: Callable[[], int]


_BINARY: Final[dict[str, Callable[[int, int], int]]] = {
    "plus": lambda a, b: a + b,
    "minus": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "shl": lambda a, b: a << b if b < 64 else 0,
    "shr": lambda a, b: a >> b if b < 64 else 0,
    "shra": lambda a, b: _signed(a) >> min(b, 63),
    "eq": lambda a, b: int(a == b),
    "ne": lambda a, b: int(a != b),
    "lt": lambda a, b: int(_signed(a) < _signed(b)),
    "le": lambda a, b: int(_signed(a) <= _signed(b)),
    "gt": lambda a, b: int(_signed(a) > _signed(b)),
    "ge": lambda a, b: int(_signed(a) >= _signed(b)),
    "div": lambda a, b: int(_signed(a) / _signed(b)) if b else 0,
    "mod": lambda a, b: a % b if b else 0,
}
_UNARY: Final[dict[str, Callable[[int], int]]] = {
    "neg": lambda a: -a,
    "not": lambda a: ~a,
    "abs": lambda a: abs(_signed(a)),
    "nop": lambda a: a,
}


def expression_at(dwarf: Any, die: Any, attribute: str, pc: int) -> bytes:
    """Return the expression of a location attribute that holds at an address. Raises Unavailable: none does."""
    from elftools.dwarf.locationlists import LocationExpr, LocationParser

    if attribute not in die.attributes:
        raise Unavailable("it is optimised out")
    parser = LocationParser(dwarf.location_lists())
    found: Any = parser.parse_from_attribute(die.attributes[attribute], die.cu["version"], die)
    if isinstance(found, LocationExpr):
        return bytes(found.loc_expr)
    base = base_of(die.cu)
    for entry in found:
        if hasattr(entry, "base_address"):
            base = entry.base_address
            continue
        if not hasattr(entry, "loc_expr"):
            continue  # a pair of location views, which say nothing of places
        more = 0 if getattr(entry, "is_absolute", False) else base
        if entry.begin_offset + more <= pc < entry.end_offset + more:
            return bytes(entry.loc_expr)
    raise Unavailable("it has no value at this instruction")


def evaluate(structs: Any, expression: bytes, machine: Machine) -> Place:
    """Return the place that an expression leads to. Raises Unavailable."""
    from elftools.dwarf.dwarf_expr import DWARFExprParser

    stack: list[int] = []
    for count, op in enumerate(DWARFExprParser(structs).parse_expr(list(expression))):
        name, args = op.op_name.removeprefix("DW_OP_"), op.args
        if count > _MAX_STEPS or len(stack) > _MAX_STEPS:
            raise Unavailable("its location is too long")
        if name == "stack_value":
            return Place(False, _top(stack))
        if name == "implicit_value":
            return Place(False, int.from_bytes(bytes(args[0])[:8], "little"))
        if name.startswith("reg") and name[3:].isdecimal():
            return Place(False, machine.register(int(name[3:])))
        if name == "regx":
            return Place(False, machine.register(args[0]))
        _step(name, args, stack, machine)
    return Place(True, _top(stack))


def _step(name: str, args: list[Any], stack: list[int], machine: Machine) -> None:
    """Do one operation that only changes the stack. Raises Unavailable."""
    if name in _BINARY:
        second, first = _pop(stack), _pop(stack)
        stack.append(_BINARY[name](first, second) & _MASK)
    elif name in _UNARY:
        if name != "nop":
            stack.append(_UNARY[name](_pop(stack)) & _MASK)
    elif name == "addr" or (name.startswith("const") and name not in ("constx", "const_type")):
        stack.append(args[0] & _MASK)
    elif name.startswith("lit") and name[3:].isdecimal():
        stack.append(int(name[3:]))
    elif name.startswith("breg") and name[4:].isdecimal():
        stack.append((machine.register(int(name[4:])) + args[0]) & _MASK)
    elif name == "bregx":
        stack.append((machine.register(args[0]) + args[1]) & _MASK)
    elif name == "fbreg":
        stack.append((machine.frame_base() + args[0]) & _MASK)
    elif name == "call_frame_cfa":
        stack.append(machine.cfa())
    elif name == "plus_uconst":
        stack.append((_pop(stack) + args[0]) & _MASK)
    elif name == "deref":
        stack.append(machine.memory(_pop(stack), 8))
    elif name == "deref_size":
        stack.append(machine.memory(_pop(stack), args[0]))
    elif name in ("dup", "over", "pick"):
        depth = {"dup": 0, "over": 1}.get(name, args[0] if args else 0)
        if depth >= len(stack):
            raise Unavailable("its location is damaged")
        stack.append(stack[-1 - depth])
    elif name == "drop":
        _pop(stack)
    elif name == "swap":
        second, first = _pop(stack), _pop(stack)
        stack += [second, first]
    else:
        raise Unavailable(
            "only its caller knew it" if "entry_value" in name else f"its location uses {op_text(name)}"
        )


def op_text(name: str) -> str:
    """Return an operation as the standard writes it."""
    return f"DW_OP_{name}"


def _pop(stack: list[int]) -> int:
    if not stack:
        raise Unavailable("its location is damaged")
    return stack.pop()


def _top(stack: list[int]) -> int:
    if not stack:
        raise Unavailable("it is optimised out")
    return stack[-1]


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
