"""What the specification says of an access to memory, written down from its text: PMP, then walks of page tables.

SPEC: privileged 1.12, 3.7.1 (PMP), 4.3.2 (walks); Svadu, Svnapot, Svpbmt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

U, S, M = 0, 1, 3
FETCH, LOAD, STORE = "x", "r", "w"
ACCESS_FAULT = {FETCH: 1, LOAD: 5, STORE: 7}
PAGE_FAULT = {FETCH: 12, LOAD: 13, STORE: 15}
PMP_BIT = {LOAD: 1, STORE: 2, FETCH: 4}
OFF, TOR, NA4, NAPOT = 0, 1, 2, 3


@dataclass(frozen=True)
class PmpEntry:
    """One entry: its configuration byte and its address register."""

    cfg: int
    addr: int

    def range(self, before: int) -> range:
        """The bytes that it matches; ``before`` is the address register of the entry before."""
        mode = self.cfg >> 3 & 3
        if mode == TOR:
            return range(before * 4, max(self.addr, before) * 4)
        if mode == NA4:
            return range(self.addr * 4, self.addr * 4 + 4)
        if mode == NAPOT:
            ones = 0
            while self.addr >> ones & 1:
                ones += 1
            base = self.addr >> (ones + 1) << (ones + 1)
            return range(base * 4, base * 4 + (8 << ones))
        return range(0)


def pmp_allows(entries: list[PmpEntry], kind: str, paddr: int, size: int, priv: int) -> bool:
    """May this mode do that? The lowest entry that matches any byte decides, and must match all of them."""
    for i, entry in enumerate(entries):
        matched = entry.range(entries[i - 1].addr if i else 0)
        inside = [byte in matched for byte in range(paddr, paddr + size)]
        if not any(inside):
            continue
        if not all(inside):
            return False
        return bool((priv == M and not entry.cfg & 0x80) or entry.cfg & PMP_BIT[kind])
    return priv == M


@dataclass(frozen=True)
class Regime:
    """What a translation hangs on beside the tables."""

    levels: int  # 3, 4, 5: Sv39, Sv48, Sv57
    root: int
    priv: int
    sum: bool = False
    mxr: bool = False
    adue: bool = False
    pbmte: bool = False


@dataclass
class Outcome:
    """The exception, or the physical address, and the PTE that the walk writes: its address and value."""

    fault: int | None = None
    paddr: int = 0
    written: dict[int, int] = field(default_factory=dict)


def translate(regime: Regime, read: Callable[[int], int | None], kind: str, vaddr: int) -> Outcome:
    """Walk as 4.3.2 says, step by step. ``read`` gives a PTE, or None where it may not be read."""
    page_fault = Outcome(PAGE_FAULT[kind])
    width = 12 + 9 * regime.levels
    if vaddr >> (width - 1) not in (0, (1 << (65 - width)) - 1):
        return page_fault
    table = regime.root
    for level in reversed(range(regime.levels)):
        at = table + 8 * (vaddr >> (12 + 9 * level) & 511)
        pte = read(at)
        if pte is None:
            return Outcome(ACCESS_FAULT[kind])
        v, r, w, x, user, _, a, d = (bool(pte >> bit & 1) for bit in range(8))
        memory_type, n = pte >> 61 & 3, bool(pte >> 63)
        if not v or (w and not r) or pte >> 54 & 0x7F:
            return page_fault
        ppn = pte >> 10 & (1 << 44) - 1
        if not (r or x):
            if a or d or user or memory_type or n:
                return page_fault
            table = ppn << 12
            continue
        if memory_type == 3 or (memory_type and not regime.pbmte):
            return page_fault
        # Step 5: is it allowed?
        if kind == FETCH and not x:
            return page_fault
        if kind == LOAD and not (r or (x and regime.mxr)):
            return page_fault
        if kind == STORE and not w:
            return page_fault
        if regime.priv == U and not user:
            return page_fault
        if regime.priv == S and user and (kind == FETCH or not regime.sum):
            return page_fault
        # Step 6: superpages, and Svnapot's pages, are aligned.
        if n:
            if level or ppn & 15 != 8:
                return page_fault
            ppn = ppn & ~15 | vaddr >> 12 & 15
        elif ppn & (1 << 9 * level) - 1:
            return page_fault
        # Step 7: A, and for a store D.
        wanted = pte | 1 << 6 | (1 << 7 if kind == STORE else 0)
        if wanted != pte and not regime.adue:
            return page_fault
        low = (1 << 12 + 9 * level) - 1
        paddr = (ppn << 12 & ~low) | vaddr & low if not n else ppn << 12 | vaddr & 0xFFF
        return Outcome(None, paddr, {at: wanted} if wanted != pte else {})
    return page_fault
