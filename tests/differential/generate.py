"""Random instruction sequences from the decode tables: whatever is added to them is tested from then on."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from machine.tcg import decodetree
from machine.tcg.decodetree import Pattern
from tests.differential import harness
from tests.differential.harness import ARENA, CODE, MASK64, Start
from tests.differential.values import FLOATS32, FLOATS64, INTEGERS

TABLES = sorted((Path(decodetree.__file__).parent / "guest" / "riscv").glob("*.decode"))
LOADS = frozenset("lb lh lw ld lbu lhu lwu flw fld flh c_lbu c_lhu c_lh".split())
STORES = frozenset("sb sh sw sd fsw fsd fsh".split())
BRANCHES = frozenset("beq bne blt bge bltu bgeu".split())
#: Registers that hold addresses; instructions seldom write them.
BASES = {
    2: ARENA + 0x200, 8: ARENA + 0x700, 9: ARENA + 0x1900, 10: ARENA + 0x1FFC, 11: ARENA + 0x1803,
    12: ARENA + 0x2405, 13: ARENA + 0x4900,
}  # fmt: skip
ALIGNED_BASES = (2, 8, 9)
PAGED_BASE = (12, ARENA + 0x2FFA)
#: CSRs with the probability of each kind of access. satp is read only: a random root ends the sequence.
CSRS = (
    [(n, True) for n in (1, 2, 3)] * 6
    + [(n, True) for n in (0x140, 0x142, 0x143, 0x104, 0x144)]
    + [
        (n, False)
        for n in (
            0x105,
            0x106,
            0x10A,
            0x141,
            0x180,
            0x100,
            0xC00,
            0xC01,
            0xC02,
            0xC05,
            0x300,
            0x14D,
            0xF14,
            0x015,
        )
    ]
)
#: The peer always sets A and D itself; ours does with this bit of menvcfg.
ADUE = 1 << 61
#: It takes memory types from PTEs without being asked to.
PBMTE = 1 << 62
MODES = (8, 9, 10)
#: All but calls, and breakpoints: stval is the address of one, or 0 (privileged, 4.1.9).
DELEGABLE = 0xB0F7
VECTOR = "V"
VS = 3 << 9
#: CSRs of vectors, and values that are written.
VCSRS = (
    (0x008, (0,)), (0x009, (0, 1)), (0x00A, (0, 1, 2, 3)), (0x00F, tuple(range(8))),
    (0xC20, (0,)), (0xC21, (0,)), (0xC22, (0,)),
)  # fmt: skip
#: What sequences with vectors set SEW to (its code), and the floating-point instructions that they have: where one of
#: 16 bits would be asked for, the peer has it.
SEWS: tuple[tuple[tuple[int, ...], tuple[str, ...]], ...] = (
    ((0, 1, 2, 3), ()),
    ((2, 3), ("vf", "vmf")),
    ((1, 2, 3), ("vfwcvt.f.x", "vfncvt.x", "vfncvt.rtz.x")),
)
#: Instructions at which the peer keeps a vstart that is not zero.
KEEP_VSTART = frozenset({"vslideup", "vmv_x_s", "vmv_s_x", "vfmv_f_s", "vfmv_s_f"})
#: Registers that hold strides, and lengths, in sequences with vectors.
STRIDES = {14: 8, 15: (1 << 64) - 4, 16: 1, 17: 24}
NOP, ECALL, SRET, MRET, FENCE_I, SFENCE = 0x13, 0x73, 0x1020_0073, 0x3020_0073, 0x100F, 0x1200_0073
MPRV, MPP_SHIFT, TVM = 1 << 17, 11, 1 << 20
#: Those that M-mode may touch and leave the harness whole.
MACHINE_CSRS = [(n, True) for n in (1, 2, 3, 0x140, 0x142, 0x143, 0x342)] * 2 + [
    (n, False) for n in (0x100, 0x141, 0x300, 0x304, 0x305, 0x341, 0x3A0, 0x3B0, 0x3BF, 0xF14, 0xF15, 0x3A1)
]
#: The page of a sequence's own by which it reaches the level 0 of its page tables.
TABLE_PAGE = 7


@dataclass(frozen=True)
class Item:
    """One instruction, or a few that belong together.

    ``code`` gives its bytes from its address and that of the instruction it refers to, ``skip`` items further on.
    """

    name: str
    size: int
    code: Callable[[int, int], bytes]
    skip: int = 0
    count: int = 1
    rewrites: bool = False  # its last instruction, with a FENCE.I


@dataclass(frozen=True)
class Sequence_:
    """Items, and the state they start from."""

    seed: int
    items: tuple[Item, ...]
    start: Start

    def may_rewrite(self) -> int:
        """Return the 2-byte parts of the code that change as they should, as ``Outcome.rewritten``."""
        place = out = 0
        for item in self.items:
            place += item.size
            if item.rewrites:
                out |= 3 << (place - 4) // 2
        return out

    def assemble(self) -> Start:
        """Return the start with the items one behind the other, a NOP to refer to, and the ``ecall`` that ends it."""
        places = [CODE]
        for item in self.items:
            places.append(places[-1] + item.size)
        code = b""
        for i, item in enumerate(self.items):
            code += item.code(places[i], places[min(i + 1 + item.skip, len(self.items))])
        s = self.start
        return replace(s, code=code + struct.pack("<II", NOP, ECALL))


@cache
def parser() -> decodetree.Parser:
    return decodetree.parse_files(TABLES)


@cache
def patterns() -> tuple[Pattern, ...]:
    """Every instruction of the tables."""
    return tuple(p for table in parser().tables for p in table.patterns())


def put(p: Pattern, word: int, name: str, value: int) -> int:
    """Put an argument's value into an encoding; one that the pattern fixes stays."""
    source = p.values[name]
    if isinstance(source, int):
        return word
    f = parser().fields[source]
    raw = (value - f.add) >> f.shift
    for segment in reversed(f.segments):
        mask = (1 << segment.length) - 1
        word = word & ~(mask << segment.pos) | (raw & mask) << segment.pos
        raw >>= segment.length
    return word


def _is_integer(p: Pattern) -> bool:
    """Is this vector instruction one that has no floating point, and that may stand alone?"""
    return (not p.mnemonic.startswith(("vf", "vmf")) or p.mnemonic == "vfirst.m") and not p.trans.startswith(
        "vset"
    )


def _pack(p: Pattern, word: int) -> bytes:
    return struct.pack("<I" if p.width == 32 else "<H", word)


class Generator:
    """Makes sequences from a seed.

    Args:
        pool: instructions that may occur on their own.
        length: items in a sequence.
        vlen: bits of its vector registers; most of the instructions are theirs then. 0: it has none.
    """

    def __init__(self, seed: int, pool: Sequence[Pattern], length: int = 48, *, vlen: int = 0) -> None:
        self.all_vectors = [p for p in pool if p.extension == VECTOR] if vlen else []
        self.vlen = vlen
        self.vectors = self.all_vectors
        self.sews: tuple[int, ...] = ()
        pool = [p for p in pool if p.extension != VECTOR]
        self.seed = seed
        self.rng = random.Random(seed)
        self.length = length
        # Each extension has its share, so that the many forms of FP and AMOs do not crowd out the rest.
        groups: dict[str, list[Pattern]] = {}
        for p in pool:
            groups.setdefault(p.extension, []).append(p)
        self.all_groups = list(groups.values())
        # The supervisor's handler skips four bytes: what it skips to must be an instruction, and not of an extension
        # that the peer lacks.
        self.wide_groups = [
            wide for group in groups.values() if (wide := [p for p in group if p.width == 32])
        ]
        self.plain = [p for p in pool if p.extension in ("I", "M", "Zbb") and p.args.name in ("r", "i")]
        self.plain = [p for p in self.plain if p.trans not in LOADS | {"jalr"}]
        self.supervisor = self.paged = self.wide = False
        #: In M-mode, which the PMP does not bind: it accesses memory by addresses made on the spot alone.
        self.machine = False
        self.untied_groups = [
            untied for group in groups.values() if (untied := [p for p in group if not _touches_memory(p)])
        ]
        #: The page tables can be written, and TVM does not keep SFENCE.VMA from it.
        self.retabling = False
        #: In S-mode from start to end, with TVM clear: the peer lets U-mode execute SFENCE.W.INVAL and
        #: SFENCE.INVAL.IR, and gives no encoding in mtval for SINVAL.VMA. SPEC: privileged, Svinval and 3.1.16
        self.svinval = False

    def sequence(self) -> Sequence_:
        rng = self.rng
        self.sews, floating = rng.choice(SEWS)
        self.vectors = [
            p for p in self.all_vectors if _is_integer(p) or p.mnemonic.startswith(floating or "-")
        ]
        self.machine = rng.random() < 0.12 and not self.vectors
        self.supervisor = not self.machine and rng.random() < 0.5
        start = self._start()
        self.paged, self.wide = start.satp != 0, start.medeleg != 0
        self.svinval = self.supervisor and not start.mstatus >> 20 & 1 and rng.random() < 0.3
        items: list[Item] = []
        size = 0
        while len(items) < self.length:
            item = self._item()
            size += item.size
            if size > harness.SUPERVISOR_HANDLER - CODE - 8:
                break
            items.append(item)
        return Sequence_(self.seed, tuple(items), start)

    # ---- state ----

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

    def _start(self) -> Start:
        rng = self.rng
        x = [self.integer() for _ in range(32)]
        for reg, value in BASES.items():
            x[reg] = value
        for reg, value in STRIDES.items() if self.vectors else ():
            x[reg] = value
        # Off or Dirty: what an FP instruction makes of the two between is not the same on both machines, and may be
        # more than it wrote. SPEC: privileged, 3.1.6.6
        fs = rng.choice((0, 3, 3, 3, 3, 3))
        mstatus = fs << 13 | rng.getrandbits(2) << 18 | 1 << 21 | rng.choice((0, 0, 1)) << 22
        if self.vectors and rng.random() < 0.95:
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
            ptes = [self._pte(i) for i in range(harness.N_PTES)]
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
            rng.random() < 0.4
            and not (satp and not self.supervisor)
            and not self.machine
            and not self.vectors
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

    def _pte(self, index: int) -> int:
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

    # ---- instructions ----

    def _item(self) -> Item:
        rng = self.rng
        if self.vectors and rng.random() < 0.7:
            return self._vector_item()
        kind = rng.random()
        if kind < 0.015 and not self.paged:
            return self._reservation()
        if kind < 0.03:
            return self._rewrite()
        if kind < 0.045:
            return self._far_jump()
        if kind < 0.055:
            return self._status()
        if kind < 0.06 and (self.supervisor or self.machine) and not self.svinval:
            return self._return()
        if kind < 0.12 and self.machine:
            return self._as_lower_mode()
        if kind < 0.12 and self.retabling:
            return self._retable()
        groups = self.wide_groups if self.wide else self.untied_groups if self.machine else self.all_groups
        p = rng.choice(rng.choices(groups, [len(group) ** 0.5 for group in groups])[0])
        if p.extension == "Svinval" and not self.svinval:
            return self._one(self.plain[0])
        if p.trans in BRANCHES or p.trans == "jal":
            return self._branch(p)
        if p.trans == "jalr":
            return self._far_jump()
        return self._one(p)

    def _register(self) -> int:
        return self.rng.randrange(32)

    def _dest(self) -> int:
        while True:
            reg = self._register()
            if reg not in BASES or self.rng.random() < 0.02:
                return reg

    def word(self, p: Pattern) -> int:
        """A random encoding of ``p``, with arguments that make sense often enough."""
        rng = self.rng
        word = p.match | rng.getrandbits(p.width) & ~p.mask
        kinds = p.args.kinds
        if "rd" in kinds and kinds["rd"] == "x":
            word = put(p, word, "rd", self._compressed_or(p, "rd", self._dest()))
        if p.trans in LOADS | STORES or p.args.name in ("amo", "lr", "cbo"):
            if rng.random() < 0.9:
                bases = ALIGNED_BASES if p.args.name in ("amo", "lr") and rng.random() < 0.9 else tuple(BASES)
                word = put(p, word, "rs1", self._compressed_or(p, "rs1", rng.choice(bases)))
            if "imm" in kinds and rng.random() < 0.7 and p.width == 32:
                word = put(p, word, "imm", rng.randint(-16, 16) * rng.choice((1, 1, 2, 4, 8)))
        elif "rs1" in kinds and "rs2" in kinds and rng.random() < 0.1 and p.width == 32:
            word = put(p, word, "rs2", word >> 15 & 31)
        if "rm" in kinds and rng.random() < 0.9:
            word = put(p, word, "rm", rng.choice((0, 1, 2, 3, 4, 7, 7, 7)))
        if "csr" in kinds:
            number, writable = rng.choice(MACHINE_CSRS if self.machine else CSRS)
            word = put(p, word, "csr", number)
            if not writable:
                word = word & ~(31 << 15 | 3 << 12) | 2 << 12  # csrrs rd, csr, zero
        return word

    # ---- vectors ----

    def _vector_item(self) -> Item:
        """A setting of vl and vtype, one of the CSRs, or an instruction with registers that often make groups."""
        rng = self.rng
        kind = rng.random()
        if kind < 0.2:
            return self._setting()
        if kind < 0.24:
            number, values = rng.choice(VCSRS)
            return self._fixed(
                "csrrwi", number << 20 | rng.choice(values) << 15 | 5 << 12 | self._dest() << 7 | 0x73
            )
        if kind < 0.28:
            return self._resumed()
        p = rng.choice(self.vectors)
        code = struct.pack("<I", self._vector_word(p))
        if p.mnemonic.endswith("ff.v"):
            code += struct.pack("<I", FENCE_I)
        return Item(p.mnemonic, len(code), lambda pc, to: code, count=len(code) // 4)

    def _vector_word(self, p: Pattern) -> int:
        rng = self.rng
        word = p.match | rng.getrandbits(32) & ~p.mask
        step = rng.choice((1, 1, 1, 2, 2, 4, 8))
        for name in ("vd", "vs2", "rs1"):
            if p.args.kinds.get(name) == "v" and f"{{{name}}}" in p.template:
                word = put(p, word, name, rng.randrange(32) & -step)
            elif name == "vd" and "{vd:x}" in p.template:
                word = put(p, word, name, self._dest())
        if p.args.name == "vmem":
            if rng.random() < 0.9:
                word = put(p, word, "rs1", rng.choice(tuple(BASES)))
            if "{vs2:x}" in p.template and rng.random() < 0.8:
                word = put(p, word, "vs2", rng.choice((*STRIDES, 0)))
            if "{nf}" in p.template and rng.random() < 0.6:
                word = put(p, word, "nf", rng.randint(2, 4))
        if "vm" in p.args.kinds and rng.random() < 0.6:
            word = put(p, word, "vm", 1)
        return word

    def _setting(self) -> Item:
        rng = self.rng
        vtype = rng.choice((0, 0, 0, 1, 2, 3, 5, 6, 7)) | rng.randrange(4) << 6
        if rng.random() < 0.05:
            vtype = rng.getrandbits(11) & ~(7 << 3)
        vtype |= rng.choice(self.sews) << 3
        rd = rng.choice((0, self._dest()))
        kind = rng.random()
        if kind < 0.5:  # vsetivli
            return self._fixed(
                "vsetivli", 3 << 30 | vtype << 20 & 0x3FF0_0000 | rng.randrange(32) << 15 | 0x7057 | rd << 7
            )
        if kind < 0.95:  # vsetvli
            return self._fixed(
                "vsetvli", vtype << 20 | rng.choice((0, 0, rng.randrange(32))) << 15 | 0x7057 | rd << 7
            )
        t = self._scratch()  # the type by a register
        words = [
            vtype << 20 | t << 7 | 0x13,
            0x80 << 24 | t << 20 | rng.randrange(32) << 15 | 0x7057 | rd << 7,
        ]
        code = struct.pack("<2I", *words)
        return Item("vsetvl", 8, lambda pc, to: code, count=2)

    def _resumed(self) -> Item:
        """An instruction that begins behind its first elements. vstart is less than vl: else the peer leaves it.

        FENCE.I ends the peer's block, in which vstart and whether vl is VLMAX are what they were at its begin.
        """
        rng = self.rng
        pool = [
            p for p in self.vectors if p.trans not in KEEP_VSTART and not re.match(r"v[ls]\dr", p.mnemonic)
        ]
        p = rng.choice(pool)
        setting = 3 << 30 | rng.choice(self.sews) << 23 | 3 << 20 | rng.randint(4, 31) << 15 | 0x7057
        vstart = 0x008 << 20 | rng.randint(1, 3) << 15 | 5 << 12 | 0x73
        code = struct.pack("<4I", setting, vstart, self._vector_word(p), FENCE_I)
        return Item(p.mnemonic, 16, lambda pc, to: code, count=4)

    def _fixed(self, name: str, word: int) -> Item:
        code = struct.pack("<I", word)
        return Item(name, 4, lambda pc, to: code)

    def _compressed_or(self, p: Pattern, name: str, reg: int) -> int:
        """The register, or one that the field of a compressed instruction can name."""
        source = p.values[name]
        if isinstance(source, int) or not parser().fields[source].add:
            return reg
        return reg if 8 <= reg < 16 else self.rng.choice((8, 9, 10, 11, 14, 15))

    def _one(self, p: Pattern) -> Item:
        code = _pack(p, self.word(p))
        return Item(p.mnemonic, len(code), lambda pc, to: code)

    def _branch(self, p: Pattern) -> Item:
        word = self.word(p)
        return Item(
            p.mnemonic,
            p.width // 8,
            lambda pc, to: _pack(p, put(p, word, "imm", to - pc)),
            self.rng.randint(0, 5),
        )

    def _scratch(self) -> int:
        return self.rng.choice([r for r in range(1, 32) if r not in BASES])

    def _far_jump(self) -> Item:
        """auipc, then an indirect jump by a register: with and without link, plain and compressed."""
        rng = self.rng
        t, link = self._scratch(), rng.choice((0, 1, 5, self._dest()))
        compressed = rng.choice((None, 0x8002, 0x9002))

        def code(pc: int, to: int) -> bytes:
            if compressed is None:
                return struct.pack("<II", t << 7 | 0x17, (to - pc & 0xFFF) << 20 | t << 15 | link << 7 | 0x67)
            add = (to - pc & 0xFFF) << 20 | t << 15 | t << 7 | 0x13
            return struct.pack("<IIH", t << 7 | 0x17, add, compressed | t << 7)

        name = {None: "jalr", 0x8002: "c.jr", 0x9002: "c.jalr"}[compressed]
        return Item(name, 8 if compressed is None else 10, code, rng.randint(0, 5), 2)

    def _reservation(self) -> Item:
        """LR, something between, SC of the same width; or an LR alone."""
        rng = self.rng
        wide = rng.getrandbits(1)
        value, rd, ok, base = self._register(), self._scratch(), self._scratch(), self._scratch()
        lr = 2 << 27 | base << 15 | (2 + wide) << 12 | rd << 7 | 0x2F
        sc = 3 << 27 | value << 20 | base << 15 | (2 + wide) << 12 | ok << 7 | 0x2F
        plain = self.word(rng.choice(self.plain))
        words = [lr, plain, sc]
        if base == plain >> 7 & 31:
            words = [lr, sc]
        if base == rd:
            words = [lr]

        def code(pc: int, to: int) -> bytes:
            add = (CODE - 0x100 - pc & 0xFFF) << 20 | base << 15 | base << 7 | 0x13
            return struct.pack(f"<{2 + len(words)}I", base << 7 | 0x17, add, *words)

        name = ("lr" if words == [lr] else "sc") + (".d" if wide else ".w")
        return Item(name, 8 + 4 * len(words), code, count=2 + len(words))

    def _rewrite(self) -> Item:
        """Write an instruction over the next one, a NOP until then."""
        t, v = self._scratch(), self._scratch()
        if t == v:
            v = 1 if t != 1 else 3
        new = self.word(self.rng.choice(self.plain))
        low = (new & 0xFFF) - ((new & 0x800) << 1)
        high = (new - low) >> 12 & 0xFFFFF
        store = v << 20 | t << 15 | 2 << 12 | 12 << 7 | 0x23  # 12 bytes behind the auipc
        words = [high << 12 | v << 7 | 0x37, (low & 0xFFF) << 20 | v << 15 | v << 7 | 0x1B, t << 7 | 0x17]
        code = struct.pack("<6I", *words, store, FENCE_I, NOP)
        return Item("sw", len(code), lambda pc, to: code, count=6, rewrites=True)

    def _status(self) -> Item:
        """Set or clear FS, SUM and MXR in sstatus, FS as a whole."""
        t = self._scratch()
        bits = self.rng.choice((0x6, 0x6, 0x40, 0x80, 0xC0))
        word = 0x100 << 20 | t << 15 | self.rng.choice((2, 2, 2, 3)) << 12 | self._dest() << 7 | 0x73
        code = struct.pack("<II", bits << 12 | t << 7 | 0x37, word)
        return Item("csrrs", 8, lambda pc, to: code, count=2)

    def _return(self) -> Item:
        """SRET, or in M-mode MRET, to an instruction further on."""
        t = self._scratch()
        epc, xret = (0x341, MRET) if self.machine else (0x141, SRET)

        def code(pc: int, to: int) -> bytes:
            add = (to - pc & 0xFFF) << 20 | t << 15 | t << 7 | 0x13
            return struct.pack("<4I", t << 7 | 0x17, add, epc << 20 | t << 15 | 1 << 12 | 0x73, xret)

        return Item("mret" if self.machine else "sret", 16, code, self.rng.randint(0, 3), 4)

    def _as_lower_mode(self) -> Item:
        """In M-mode: a load and a store with MPRV, as S-mode or U-mode would do them."""
        rng = self.rng
        m, t = rng.sample([r for r in range(1, 32) if r not in BASES], 2)
        # The peer takes the pages of the code for M-mode's own once it has fetched from them.
        page = rng.randrange(2, 6 if self.paged else 3)
        address = ARENA + 0x1000 * page + rng.randrange(0, 0xFF8)
        mode = rng.choice((0, 1))
        load = rng.choice((0, 1, 2, 3, 4, 5, 6)) << 12 | self._scratch() << 7 | t << 15 | 0x03
        store = rng.randrange(4) << 12 | self._register() << 20 | t << 15 | 0x23

        def code(pc: int, to: int) -> bytes:
            words = _set_mstatus(m, 3 << MPP_SHIFT, False)
            words += _set_mstatus(m, MPRV | mode << MPP_SHIFT, True)
            words += [*_address(t, address, pc + 4 * len(words)), load, store, *_set_mstatus(m, MPRV, False)]
            return struct.pack(f"<{len(words)}I", *words)

        return Item("csrrs", len(code(CODE, CODE)), code, count=len(code(CODE, CODE)) // 4)

    def _retable(self) -> Item:
        """Write a PTE of a page of data, and SFENCE.VMA; the address of the tables does not stay in a register."""
        t, v = self.rng.sample([r for r in range(1, 32) if r not in BASES], 2)
        index = self.rng.choice((2, 3, 4))
        pte = self._pte(index) & 0x3FFF_FFFF
        address = ARENA + 0x1000 * TABLE_PAGE + 8 * (harness.FIRST_PTE + index)

        def code(pc: int, to: int) -> bytes:
            words = [*_constant(v, pte), *_address(t, address, pc + 8)]
            words += [v << 20 | t << 15 | 3 << 12 | 0x23, SFENCE, t << 7 | 0x13]
            return struct.pack(f"<{len(words)}I", *words)

        return Item("sd", len(code(CODE, CODE)), code, count=7)


def _touches_memory(p: Pattern) -> bool:
    """May it reach anything by a random register? The peer executes what it reads where there is no memory."""
    if p.trans == "jalr" or p.mnemonic in ("c.mv", "c.add"):  # with rs2 = 0 these are c.jr and c.jalr
        return True
    compressed = ("c_l", "c_s", "lw", "ld", "sw", "sd", "flw", "fld", "fsw", "fsd")
    return p.trans in LOADS | STORES or p.args.name in ("amo", "lr", "cbo") or p.trans.startswith(compressed)


def _constant(reg: int, value: int) -> list[int]:
    """lui and addiw: any positive value below 2^31 - 2048."""
    low = (value & 0xFFF) - ((value & 0x800) << 1)
    return [(value - low) & 0xFFFF_F000 | reg << 7 | 0x37, (low & 0xFFF) << 20 | reg << 15 | reg << 7 | 0x1B]


def _address(reg: int, address: int, pc: int) -> list[int]:
    """auipc, which is at pc, and addi."""
    away = address - pc
    low = (away & 0xFFF) - ((away & 0x800) << 1)
    return [(away - low) & 0xFFFF_F000 | reg << 7 | 0x17, (low & 0xFFF) << 20 | reg << 15 | reg << 7 | 0x13]


def _set_mstatus(reg: int, mask: int, on: bool) -> list[int]:
    return [*_constant(reg, mask), 0x300 << 20 | reg << 15 | (2 if on else 3) << 12 | 0x73]


def template(seed: int) -> bytes:
    """What the arena holds at the start of each sequence."""
    rng = random.Random(seed)
    words = [
        rng.choice((rng.choice(INTEGERS), rng.choice(FLOATS64), rng.getrandbits(64)))
        for _ in range(harness.ARENA_BYTES // 8)
    ]
    return struct.pack(f"<{len(words)}Q", *words)
