"""The table of memory accesses, and what of them is wanted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..lazy import Want
from .base import (
    HART,
    ICOUNT,
    OP,
    PC,
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
    signed,
)

_OPS = ("r", "w", "atomic")


def _mem(limits: Mapping[str, Any]) -> list[ProbeNeed]:
    kinds = {"r": ["READ"], "w": ["WRITE"]}.get(limits.get("op", ""), ["READ", "WRITE"])
    name = "paddr" if "paddr" in limits else "vaddr"
    low, high = bounds(limits, name)
    return [ProbeNeed(kind, low, high, physical=name == "paddr") for kind in kinds]


@record_query("mem", "icount hart pc op vaddr paddr size value", _mem, per_step=0.4)
def mem() -> Sequence[Field]:
    """Loads and stores of instructions. An atomic has a row for its load and one for its store."""
    op = Field(OP, _OPS)
    return [Field(ICOUNT), Field(HART), Field(PC), op, Field(A), Field(B), Field(SIZE), Field(VALUE)]


@query("dma", "icount device paddr size value", lambda limits: [], per_step=1e-5)
def dma(records: Iterator[Record], state: State, names: Names) -> Stretch:
    """Writes to memory by devices and the built-in firmware: at a step, or before it where a deadline is due."""
    return Stretch(names.device_writes())


def want_mem(
    op: str = "", *, paddr: tuple[int, int] | None = None, vaddr: tuple[int, int] | None = None
) -> Want:
    """Return what stands for the accesses of a kind to an inclusive range of addresses.

    Args:
        op: ``r`` or ``w``; empty for both. An atomic is both.
        paddr, vaddr: at most one of them; none is all of memory.
    """
    limits: list[tuple[str, Any]] = []
    where: list[str] = ["1"]
    args: list[int | str] = []
    for name, span in (("paddr", paddr), ("vaddr", vaddr)):
        if span is not None:
            limits.append((name, list(span)))
            where.append(f"{name} <= ? AND {name} + size > ?")
            args += [signed(span[1]), signed(span[0])]
    if op:
        limits.append(("op", op))
        where.append("op != ?")
        args.append("w" if op == "r" else "r")
    return Want("mem", tuple(limits), " AND ".join(where), tuple(args))
