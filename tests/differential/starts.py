"""States that random sequences start from: registers, mode, page tables, and what memory holds."""

from __future__ import annotations

import random
import struct

from tests.differential import harness
from tests.differential.harness import ARENA, MASK64, Start
from tests.differential.items import BASES
from tests.differential.values import FLOATS32, FLOATS64, INTEGERS

#: A register, and its value where there are page tables: accesses cross into another page.
PAGED_BASE = (12, ARENA + 0x2FFA)
#: The peer always sets A and D itself; ours does with this bit of menvcfg.
ADUE = 1 << 61
#: It takes memory types from PTEs without being asked to.
PBMTE = 1 << 62
MODES = (8, 9, 10)
#: All but calls, and breakpoints: stval is the address of one, or 0 (privileged, 4.1.9).
DELEGABLE = 0xB0F7
#: Registers that hold strides, and lengths, in sequences with vectors.
STRIDES = {14: 8, 15: (1 << 64) - 4, 16: 1, 17: 24}
VS = 3 << 9
MPP_SHIFT, TVM = 11, 1 << 20
#: The page of a sequence's own by which it reaches the level 0 of its page tables.
TABLE_PAGE = 7


class Starts:
    """Draws states, and tells what the last one lets its sequence do.

    Args:
        rng: what is drawn from.
        vlen: bits of the machine's vector registers, or 0.
    """

    def __init__(self, rng: random.Random, vlen: int) -> None:
        self.rng = rng
        self.vlen = vlen
        self.supervisor = False
        #: In M-mode, which the PMP does not bind: it accesses memory by addresses made on the spot alone.
        self.machine = False
        #: The page tables can be written, and TVM does not keep SFENCE.VMA from it.
        self.retabling = False

    def integer(self) -> int:
        rng = self.rng
        kind = rng.random()
        if kind < 0.45:
            return rng.choice(INTEGERS)
        if kind < 0.6:
            return rng.choice(FLOATS64)
        if kind < 0.7:
            return (rng.getrandbits(32) ^ (1 << 31)) - (1 << 31) & MASK64
        return rng.getrandbits(rng.randint(1, 64))

    def floating(self) -> int:
        rng = self.rng
        kind = rng.random()
        if kind < 0.35:
            return rng.choice(FLOATS64)
        if kind < 0.7:
            return rng.choice(FLOATS32) | 0xFFFF_FFFF << 32
        if kind < 0.8:
            return rng.choice(FLOATS32) | rng.getrandbits(32) << 32
        if kind < 0.9:
            return rng.getrandbits(32) | 0xFFFF_FFFF << 32
        return rng.getrandbits(64)

    def draw(self, vectors: bool) -> Start:
        """Draw a state for a sequence, with vector instructions or without."""
        rng = self.rng
        self.machine = rng.random() < 0.12 and not vectors
        self.supervisor = not self.machine and rng.random() < 0.5
        x = [self.integer() for _ in range(32)]
        for reg, value in BASES.items():
            x[reg] = value
        for reg, value in STRIDES.items() if vectors else ():
            x[reg] = value
        # Off or Dirty: what an FP instruction makes of the two between is not the same on both machines, and may be
        # more than it wrote. SPEC: privileged, 3.1.6.6
        fs = rng.choice((0, 3, 3, 3, 3, 3))
        mstatus = fs << 13 | rng.getrandbits(2) << 18 | 1 << 21 | rng.choice((0, 0, 1)) << 22
        if vectors and rng.random() < 0.95:
            mstatus |= VS
        mstatus |= (3 if self.machine else 1 if self.supervisor else 0) << MPP_SHIFT | rng.choice((0, 0, TVM))
        mstatus |= rng.getrandbits(1) << 8 | rng.getrandbits(1) << 5
        mstatus |= 1 << 7 if self.machine else 0  # so that the watchdog is heard
        fcsr = rng.choice((0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 7)) << 5 | rng.choice((0, 0, rng.getrandbits(5)))
        satp, ptes, leaf = 0, [0] * harness.N_PTES, (0, 0)
        self.retabling = False
        if rng.random() < 0.4:
            mode = rng.choice(MODES)
            satp = mode << 60 | (harness.TABLES + 0x1000 * {8: 2, 9: 3, 10: 4}[mode]) >> 12
            ptes = [self.pte(i) for i in range(harness.N_PTES)]
            if rng.random() < 0.2:
                leaf = self._superpage({8: 2, 9: 3, 10: 4}[mode])
            else:
                # Not under a superpage: what it crosses into is not the arena's.
                x[PAGED_BASE[0]] = PAGED_BASE[1]
            if not leaf[0] and self.supervisor and not mstatus & TVM and rng.random() < 0.5:
                self.retabling = True
                ptes[TABLE_PAGE] = harness.TABLES >> 12 << 10 | 0xC7
        menvcfg = rng.choice((0, 0, 0xF1, rng.choice((0x10, 0x30, 0x40, 0x80)))) | ADUE | PBMTE
        # A user's code page is none to the supervisor's handler. Calls are not delegated: one ends the sequence.
        delegates = (
            rng.random() < 0.4 and not (satp and not self.supervisor) and not self.machine and not vectors
        )
        medeleg = rng.getrandbits(16) & DELEGABLE if delegates else 0
        if mstatus >> 22 & 1:
            medeleg &= ~(1 << 2)  # the handler's SRET would trap to the handler
        f = [self.floating() for _ in range(32)]
        return Start(b"", x, f, fcsr, mstatus, satp, menvcfg, medeleg, ptes, self.vlen, *leaf)

    def _superpage(self, levels: int) -> tuple[int, int]:
        """A leaf on a level above the last that maps the arena, if it is aligned; where it is, and itself."""
        rng = self.rng
        level = rng.randint(1, levels)
        base = harness.ARENA >> (12 + 9 * level) << 9 * level
        if rng.random() < 0.15:
            base |= 1 << rng.randrange(9 * level)
        # D is set, and A here or by the first fetch: the peer sets them before the PMP refuses an access.
        flags = 0xCF | (0 if self.supervisor else 0x10)
        flags ^= rng.choice((0, 0, 0, 0 if self.machine else 0x40, 0x08, 0x04, 0x06, 0x10))
        at = harness.TABLES + 0x1000 * level + 8 * (harness.ARENA >> (12 + 9 * level) & 511)
        return at, base << 10 | flags

    def pte(self, index: int) -> int:
        """Draw a PTE for one of the sequence's own pages."""
        rng = self.rng
        # Not the arena's last page: the peer holds an access that goes on in another page against the PMP as if it
        # went on behind this one.
        page = ARENA + 0x1000 * (index if index < 2 else rng.randrange(2))
        flags = 0xCF | (0 if self.supervisor else 0x10)  # D A (U) X W R V
        if index < 2:
            flags &= ~rng.choice((0, 0, 0, 0x80, 0x40, 0xC0, 0x04, 0x06))
        else:
            flags = flags ^ rng.choice((0, 0, 1 << rng.randint(0, 7), rng.getrandbits(8)))
            if rng.random() < 0.2 and index == 4:  # the one page that no access crosses into
                page, flags = (
                    rng.choice((harness.CTX, 0x1000_0000, 0x5000_0000)),
                    flags | 0xC0,
                )
            if rng.random() < 0.1:
                flags |= 1 << rng.choice((61, 62) if index == 2 else (61, 62, 63))
            if rng.random() < 0.1 and index != 2:
                page = ARENA & ~0xFFFF | 0x8000  # what N = 1 asks of the PPN: 64 KiB
                flags |= 1 << 63
            if flags >> 63:
                flags |= 0xC0  # the peer sets A before it looks at the PPN and at the PMP, which is allowed
        return page >> 12 << 10 | flags


def template(seed: int) -> bytes:
    """What the arena holds at the start of each sequence."""
    rng = random.Random(seed)
    words = [
        rng.choice((rng.choice(INTEGERS), rng.choice(FLOATS64), rng.getrandbits(64)))
        for _ in range(harness.ARENA_BYTES // 8)
    ]
    return struct.pack(f"<{len(words)}Q", *words)
