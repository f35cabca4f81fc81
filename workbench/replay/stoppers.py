"""What stops a motion: breakpoints, watchpoints and catches, under one numbering, and the probes that they are.

A stopper happens at a *step*. An execution breakpoint is met at the position before its instruction, in both
directions. Everything else happens while a step is taken: forwards a motion stops behind it, backwards before
it, so that the instruction that did it is the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from machine.arch.riscv64 import CSR_NUMBERS, EXCEPTIONS, INTERRUPTS
from machine.tcg.probes import NEVER, Probe, ProbeAction, ProbeKind
from workbench.registers import canonical

from .agent import compile_condition, compile_tree
from .errors import EvalError
from .expressions import Node, parse

#: What ``Session.add_catch`` takes.
CATCHES: Final = ("trap", "interrupt", "syscall", "priv", "satp", "csr", "reg", "console", "mmio")
INTERRUPT_BIT: Final = 1 << 63
_ECALL_U: Final = 8
_ACCESS: Final = {"r": (ProbeKind.READ,), "w": (ProbeKind.WRITE,), "a": (ProbeKind.READ, ProbeKind.WRITE)}

#: A condition as it is given: an expression, gdb's byte code, or several of them of which one must hold.
Condition = str | bytes | Sequence[bytes] | None


@dataclass(slots=True)
class Stopper:
    """Something that stops motions.

    Args:
        number: shared by all kinds.
        kind: ``breakpoint``, ``watchpoint`` or ``catch``.
        what: of a catch, what it catches; of a watchpoint ``r``, ``w`` or ``a``.
        address: of a breakpoint or watchpoint; of a catch the lowest cause, number, slot or address.
        size: bytes of a watchpoint. physical: the address is a physical one.
        condition: the text of the condition, or ``agent expression``, or empty.
        temporary: deleted when it stops a motion. enabled: whether it stops any.
        hits: how often it has been met. hits_ignored: how many of the next hits don't stop.
        text: what a person reads: ``satp``, ``console "panic"``.
        probes: what the engine looks for; empty for console text.
        console: the text that is looked for on the console.
    """

    number: int
    kind: str
    what: str = ""
    address: int = 0
    size: int = 0
    physical: bool = False
    condition: str = ""
    temporary: bool = False
    enabled: bool = True
    hits: int = 0
    hits_ignored: int = 0
    text: str = ""
    probes: tuple[Probe, ...] = ()
    console: bytes = b""


#: The name that breakpoints had before there were other stoppers.
Breakpoint = Stopper


@dataclass(frozen=True, slots=True)
class Detail:
    """What a stopper met.

    Args:
        number: the stopper's.
        pc: address of the instruction that did it. icount: the position before its step.
        address: of the access: a virtual one, or of MMIO a physical one. paddr: the physical one. size: in bytes.
        access: ``r``, ``w`` or ``a`` (atomic).
        value: what was loaded or stored, or a register's or CSR's new value. old: what was there before.
        cause: of a trap. tval: of a trap. to_priv: privilege after a trap or its return.
        text: all this for a person; of a breakpoint its number.
    """

    number: int
    pc: int = 0
    icount: int = 0
    address: int = 0
    paddr: int = 0
    size: int = 0
    access: str = ""
    value: int | None = None
    old: int | None = None
    cause: int | None = None
    tval: int = 0
    to_priv: int | None = None
    text: str = ""

    def __str__(self) -> str:
        return self.text or str(self.number)


@dataclass(frozen=True, slots=True)
class Names:
    """What names mean: symbols, devices' address ranges and system calls' numbers."""

    symbol: Callable[[str], int | None] = lambda name: None
    device: Callable[[str], tuple[int, int] | None] = lambda name: None
    syscall: Callable[[str], int | None] = lambda name: None


@dataclass(slots=True)
class Stoppers:
    """The stoppers of a session, by number."""

    names: Names = field(default_factory=Names)
    _all: dict[int, Stopper] = field(default_factory=dict)
    _next: int = 1

    def __iter__(self) -> Any:
        return iter(list(self._all.values()))

    def __len__(self) -> int:
        return len(self._all)

    def get(self, number: int) -> Stopper:
        """Return a stopper. Raises KeyError: there is none of this number."""
        return self._all[number]

    def delete(self, number: int) -> None:
        """Delete a stopper. Raises KeyError: there is none of this number."""
        del self._all[number]

    def enabled(self) -> list[Stopper]:
        """Return those that stop motions, by number."""
        return [s for s in self._all.values() if s.enabled]

    def breakpoint(self, address: int, physical: bool, condition: Condition, **more: Any) -> Stopper:
        """Add an execution breakpoint. Raises EvalError: a condition that can't be compiled."""
        address &= NEVER
        codes, shown = self._codes(condition)
        probes = tuple(stop_probe(ProbeKind.EXEC, address, address, code, physical) for code in codes)
        text = f"{'physical ' if physical else ''}{address:#x}"
        return self._add("breakpoint", probes, shown, text, address=address, physical=physical, **more)

    def watchpoint(
        self, address: int, size: int, access: str, physical: bool, condition: Condition, **more: Any
    ) -> Stopper:
        """Add a watchpoint. Raises EvalError: its condition, access or size is none."""
        address &= NEVER
        if access not in _ACCESS:
            raise EvalError(f"access {access!r}: expected r, w or a")
        if size < 1 or address + size - 1 > NEVER:
            raise EvalError(f"{size} bytes at {address:#x} can't be watched")
        codes, shown = self._codes(condition)
        probes = tuple(
            stop_probe(kind, address, address + size - 1, code, physical)
            for kind in _ACCESS[access]
            for code in codes
        )
        text = f"{size} bytes at {'physical ' if physical else ''}{address:#x}"
        more |= {"address": address, "size": size, "physical": physical, "what": access}
        return self._add("watchpoint", probes, shown, text, **more)

    def catch(self, what: str, arg: Any, condition: Condition, **more: Any) -> Stopper:
        """Add a catch. Raises EvalError: there is no such catch, or its argument or condition means nothing."""
        if what not in CATCHES:
            raise EvalError(f"can't catch {what!r}: expected one of {', '.join(CATCHES)}")
        if what == "console":
            if not isinstance(arg, str) or not arg:
                raise EvalError("catch console: expected the text to look for")
            if condition is not None:
                raise EvalError("catch console: takes no condition")
            return self._add("catch", (), "", f'console "{arg}"', what=what, console=arg.encode(), **more)
        ranges, own, text = _CATCH[what](self, arg)
        probes, shown = [], ""
        for kind, lo, hi in ranges:
            codes, shown = self._codes(condition, _PRIV_CHANGES[kind] if what == "priv" else own)
            probes += [stop_probe(kind, lo, hi, code) for code in codes]
        return self._add("catch", tuple(probes), shown, text, what=what, address=ranges[0][1], **more)

    def _add(self, kind: str, probes: tuple[Probe, ...], condition: str, text: str, **more: Any) -> Stopper:
        made = Stopper(self._next, kind, probes=probes, condition=condition, text=text, **more)
        self._next += 1
        self._all[made.number] = made
        return made

    def _codes(self, condition: Condition, own: str = "") -> tuple[list[bytes], str]:
        """Return a condition's byte codes, any of which may hold, and its text. ``own`` must hold besides."""
        if condition is None or condition == "" or condition == b"":
            return [compile_condition(own, self.names.symbol) if own else b""], ""
        if isinstance(condition, str):
            tree = parse(condition, self.names.symbol)
            if own:
                tree = Node("&&", (parse(own, self.names.symbol), tree))
            return [compile_tree(tree)], condition
        codes = [condition] if isinstance(condition, bytes) else list(condition)
        if own:
            raise EvalError("this catch takes conditions as expressions only")
        return codes or [b""], "agent expression"

    # what a catch looks for: (ranges, a condition of its own, its text)

    def _trap(self, arg: Any) -> _Look:
        if arg is None:
            return [(ProbeKind.TRAP, 0, INTERRUPT_BIT - 1)], "", "trap"
        cause = self._number(arg, {name: n for n, name in EXCEPTIONS.items()}, "trap")
        return (
            [(ProbeKind.TRAP, cause, cause)],
            "",
            f"trap {cause & ~INTERRUPT_BIT} {EXCEPTIONS.get(cause, '')}".strip(),
        )

    def _interrupt(self, arg: Any) -> _Look:
        if arg is None:
            return [(ProbeKind.TRAP, INTERRUPT_BIT, NEVER)], "", "interrupt"
        cause = self._number(arg, {name: n for n, name in INTERRUPTS.items()}, "interrupt") | INTERRUPT_BIT
        name = INTERRUPTS.get(cause & ~INTERRUPT_BIT, "")
        return [(ProbeKind.TRAP, cause, cause)], "", f"interrupt {cause & ~INTERRUPT_BIT} {name}".strip()

    def _syscall(self, arg: Any) -> _Look:
        ranges = [(ProbeKind.TRAP, _ECALL_U, _ECALL_U)]
        if arg is None:
            return ranges, "", "syscall"
        number = self.names.syscall(arg) if isinstance(arg, str) else None
        if number is None:
            number = self._number(arg, {}, "syscall")
        return ranges, f"$a7 == {number}", f"syscall {arg}"

    def _priv(self, arg: Any) -> _Look:
        if arg is not None:
            raise EvalError("catch priv: takes no argument")
        ranges = [(ProbeKind.TRAP, 0, NEVER), (ProbeKind.XRET, 0, NEVER)]
        return ranges, "", "privilege change"

    def _satp(self, arg: Any) -> _Look:
        number = CSR_NUMBERS["satp"]
        if arg is None:
            return [(ProbeKind.CSR, number, number)], "$value != $old", "satp"
        return [(ProbeKind.CSR, number, number)], f"$value == {self._number(arg, {}, 'satp')}", f"satp {arg}"

    def _csr(self, arg: Any) -> _Look:
        number = self._number(arg, CSR_NUMBERS, "csr")
        return [(ProbeKind.CSR, number, number)], "", f"csr {arg}"

    def _reg(self, arg: Any) -> _Look:
        name = canonical(str(arg))
        if (
            name[:1] not in ("x", "f")
            or not name[1:].isdecimal()
            or not 0 < int(name[1:]) + (name[0] == "f") < 33
        ):
            raise EvalError(f"catch reg: {arg!r} is none of the general and floating-point registers")
        slot = int(name[1:]) + (32 if name[0] == "f" else 0)
        return [(ProbeKind.REG, slot, slot)], "", f"register {arg}"

    def _mmio(self, arg: Any) -> _Look:
        if arg is None:
            return [(ProbeKind.MMIO, 0, NEVER)], "", "mmio"
        if isinstance(arg, tuple):
            low, high = arg
        else:
            found = self.names.device(arg) if isinstance(arg, str) else None
            low = self._number(arg, {}, "mmio") if found is None else found[0]
            high = low if found is None else found[1]
        if not 0 <= low <= high <= NEVER:
            raise EvalError(f"catch mmio: {arg!r} is no range")
        return [(ProbeKind.MMIO, low, high)], "", f"mmio {arg}"

    def _number(self, arg: Any, names: Mapping[str, int], what: str) -> int:
        if isinstance(arg, str):
            if arg in names:
                return names[arg]
            try:
                arg = int(arg, 0)
            except ValueError:
                raise EvalError(f"catch {what}: {arg!r} is not known") from None
        if not isinstance(arg, int) or not 0 <= arg <= NEVER:
            raise EvalError(f"catch {what}: {arg!r} is no number of one")
        return arg


_Look = tuple[list[tuple[ProbeKind, int, int]], str, str]
#: A trap from S-mode goes to M-mode unless it is delegated; M-mode's own stay there. A return's value is where it goes.
_TRAP_CHANGES: Final = (
    "$old == 0 || ($old == 1 && !(((($addr >> 63) ? $mideleg : $medeleg) >> ($addr & 63)) & 1))"
)
_PRIV_CHANGES: Final = {ProbeKind.TRAP: _TRAP_CHANGES, ProbeKind.XRET: "$value != $old"}
_CATCH: Final[dict[str, Callable[[Stoppers, Any], _Look]]] = {
    "trap": Stoppers._trap,
    "interrupt": Stoppers._interrupt,
    "syscall": Stoppers._syscall,
    "priv": Stoppers._priv,
    "satp": Stoppers._satp,
    "csr": Stoppers._csr,
    "reg": Stoppers._reg,
    "mmio": Stoppers._mmio,
}


def stop_probe(kind: ProbeKind, lo: int, hi: int, code: bytes = b"", physical: bool = False) -> Probe:
    """Return a probe that stops."""
    return Probe(kind, ProbeAction.STOP, lo, hi, physical, condition=code)
