"""Tables of what the processor did: instructions, traps, CSR writes, device accesses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .base import (
    CONTEXT,
    HART,
    ICOUNT,
    OLD,
    OP,
    PC,
    PRIV,
    PROBE,
    SIZE,
    VALUE,
    A,
    B,
    Field,
    Names,
    ProbeNeed,
    Record,
    State,
    Stretch,
    bounds,
    query,
    record_query,
)

_CAUSE = (1 << 63) - 1
#: A record's probe is the number of its ProbeNeed.
_TRAP = 0


def _insns(limits: Mapping[str, Any]) -> list[ProbeNeed]:
    return [ProbeNeed("EXEC", *bounds(limits, "pc"))]


@record_query("insns", "icount hart pc priv", _insns, per_step=1.0)
def insns() -> Sequence[Field]:
    """Every instruction, before it ran; one that trapped too."""
    return [Field(ICOUNT), Field(HART), Field(PC), Field(PRIV)]


def _traps(limits: Mapping[str, Any]) -> list[ProbeNeed]:
    return [ProbeNeed("TRAP"), ProbeNeed("XRET")]


@query(
    "traps",
    "icount hart cause is_interrupt epc tval from_priv to_priv ret_icount",
    _traps,
    complete="UPDATE traps SET ret_icount = ? WHERE icount = ?",
    per_step=1e-4,
)
def traps(records: Iterator[Record], state: State, names: Names) -> Stretch:
    """Trap entries, with the position of the return that ended each: by task, innermost first."""
    rows: dict[int, list[Any]] = {}
    late: list[tuple[int, int]] = []
    open_traps: dict[str, list[list[int]]] = state.setdefault("open", {})
    for r in records:
        stack = open_traps.setdefault(str(r[CONTEXT]), [])
        if r[PROBE] == _TRAP:
            interrupt = int(r[A] < 0)
            rows[r[ICOUNT]] = [
                r[ICOUNT], r[HART], r[A] & _CAUSE, interrupt, r[B], r[VALUE], r[OLD], r[OP], None,
            ]  # fmt: skip
            stack.append([r[ICOUNT], r[OLD]])
            continue
        # a return to the mode that a trap came from ends it, and those within it that never returned
        while stack and stack[-1][1] > r[OP]:
            stack.pop()
        if stack and stack[-1][1] == r[OP]:
            began = stack.pop()[0]
            if began in rows:
                rows[began][-1] = r[ICOUNT]
            else:
                late.append((r[ICOUNT], began))
        if not stack:
            del open_traps[str(r[CONTEXT])]
    return Stretch([tuple(row) for row in rows.values()], late)


def _csr(limits: Mapping[str, Any]) -> list[ProbeNeed]:
    return [ProbeNeed("CSR", *bounds(limits, "number"))]


@query("csr", "icount hart pc csr old new", _csr, per_step=1e-3)
def csr(records: Iterator[Record], state: State, names: Names) -> Stretch:
    """CSR writes by instructions, with the value before and after."""
    return Stretch([(r[ICOUNT], r[HART], r[PC], names.csr(r[A]), r[OLD], r[VALUE]) for r in records])


def _mmio(limits: Mapping[str, Any]) -> list[ProbeNeed]:
    return [ProbeNeed("MMIO", *bounds(limits, "paddr"))]


@query("mmio", "icount hart pc device offset op size value", _mmio, per_step=1e-3)
def mmio(records: Iterator[Record], state: State, names: Names) -> Stretch:
    """Accesses to devices."""
    rows = [
        (r[ICOUNT], r[HART], r[PC], *names.device(r[A]), "w" if r[OP] == 1 else "r", r[SIZE], r[VALUE])
        for r in records
    ]
    return Stretch(rows)
