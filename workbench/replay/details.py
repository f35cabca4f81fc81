"""From what the engine's probes met to what a person is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from machine.arch.riscv64 import CSR_NUMBERS, PRIVILEGES, X_NAMES, cause_name
from machine.tcg.probes import ProbeKind
from workbench.kernel.syscalls import NAMES as SYSCALLS

from .consolesearch import Printed
from .probing import Met
from .stoppers import Detail, Stopper

_ACCESS: Final = ("r", "w", "a")
_DID: Final = {"r": "read", "w": "wrote", "a": "changed"}


@dataclass(frozen=True, slots=True)
class Found:
    """What a search forwards or backwards came to.

    Args:
        reason: ``hit`` (a stopper), ``own`` (a probe of the motion itself), ``limit`` or ``interrupted``.
        stoppers: those that were met. step: the position before the step that met them.
        records: what the engine's probes saw. own: which of the motion's own probes were met.
    """

    reason: str
    stoppers: tuple[Stopper, ...] = ()
    step: int = 0
    records: tuple[tuple[Any, ...], ...] = ()
    own: tuple[int, ...] = ()


def found_by(met: Met, stoppers: Sequence[Stopper], printed: Printed | None) -> Found:
    """Return what the engine's probes, which are those of the stoppers and then the motion's own, have met."""
    if met.reason == "limit" and printed is not None:
        return Found("hit", printed.stoppers, printed.icount)
    if met.reason != "hit":
        return Found(met.reason)
    owners = [s for s in stoppers for _ in s.probes]
    hit = dict.fromkeys(owners[i].number for i in met.probes if i < len(owners))
    own = tuple(i - len(owners) for i in met.probes if i >= len(owners))
    whose = tuple(s for s in stoppers if s.number in hit)
    return Found("hit" if whose else "own", whose, met.step, met.records, own)


def describe(stopper: Stopper, step: int, records: Sequence[tuple[Any, ...]]) -> Detail:
    """Return what a stopper met at a step."""
    kinds = {probe.kind for probe in stopper.probes}
    for row in records:
        if ProbeKind(row[3]) in kinds:
            return _of_record(stopper, row)
    return Detail(stopper.number, icount=step, text="" if stopper.kind == "breakpoint" else stopper.text)


def _of_record(stopper: Stopper, row: tuple[Any, ...]) -> Detail:
    icount, pc, _, kind, _, size, op, _, a, b, value, old = row[:12]
    common = {"number": stopper.number, "pc": pc, "icount": icount}
    kind = ProbeKind(kind)
    if kind in (ProbeKind.READ, ProbeKind.WRITE, ProbeKind.MMIO):
        access = _ACCESS[min(op, 2)]
        text = f"{size} bytes at {a:#x}: {_DID[access]} {value:#x}"
        stored = kind is ProbeKind.WRITE
        text += f", was {old:#x}" if stored else ""
        where = {"address": a, "paddr": a if kind is ProbeKind.MMIO else b, "size": size, "access": access}
        return Detail(**common, **where, value=value, old=old if stored else None, text=text)
    if kind is ProbeKind.TRAP:
        text = f"{cause_name(a)}, tval {value:#x}, {PRIVILEGES.get(old, '?')} to {PRIVILEGES.get(op, '?')}"
        return Detail(**common, cause=a, tval=value, address=b, old=old, to_priv=op, text=text)
    if kind is ProbeKind.XRET:
        text = f"return from {PRIVILEGES.get(old, '?')} to {PRIVILEGES.get(op, '?')} at {a:#x}"
        return Detail(**common, address=a, old=old, to_priv=op, text=text)
    if kind is ProbeKind.CSR:
        name = next((n for n, number in CSR_NUMBERS.items() if number == a), f"csr {a:#x}")
        return Detail(**common, address=a, value=value, old=old, text=f"{name}: {old:#x} became {value:#x}")
    if kind is ProbeKind.REG:
        name = X_NAMES[a] if a < 32 else f"f{a - 32}"
        return Detail(**common, address=a, old=old, text=f"{name}, was {old:#x}")
    return Detail(**common, address=a, text=stopper.text)


def syscall_number(name: str) -> int | None:
    """Return the number of one of Linux's system calls, or None."""
    return next((number for number, known in SYSCALLS.items() if known == name), None)
