"""Random instruction sequences from the decode tables: whatever is added to them is tested from then on."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

from machine.tcg.decodetree import Pattern
from tests.differential import harness
from tests.differential.harness import ARENA, CODE
from tests.differential.items import (
    BASES,
    FENCE_I,
    MRET,
    NOP,
    SFENCE,
    SRET,
    Item,
    Sequence_,
    address_of,
    constant,
    dest,
    fixed,
    pack,
    parser,
    put,
    scratch,
    set_mstatus,
)
from tests.differential.starts import MPP_SHIFT, TABLE_PAGE, Starts
from tests.differential.vectors import VECTOR, Vectors

LOADS = frozenset("lb lh lw ld lbu lhu lwu flw fld flh c_lbu c_lhu c_lh".split())
STORES = frozenset("sb sh sw sd fsw fsd fsh".split())
BRANCHES = frozenset("beq bne blt bge bltu bgeu".split())
ALIGNED_BASES = (2, 8, 9)
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
MPRV = 1 << 17
#: Those that M-mode may touch and leave the harness whole.
MACHINE_CSRS = [(n, True) for n in (1, 2, 3, 0x140, 0x142, 0x143, 0x342)] * 2 + [
    (n, False) for n in (0x100, 0x141, 0x300, 0x304, 0x305, 0x341, 0x3A0, 0x3B0, 0x3BF, 0xF14, 0xF15, 0x3A1)
]


class Generator:
    """Makes sequences from a seed.

    Args:
        pool: instructions that may occur on their own.
        length: items in a sequence.
        vlen: bits of its vector registers; most of the instructions are theirs then. 0: it has none.
    """

    def __init__(self, seed: int, pool: Sequence[Pattern], length: int = 48, *, vlen: int = 0) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.vectors = Vectors(self.rng, pool if vlen else [])
        self.state = Starts(self.rng, vlen)
        pool = [p for p in pool if p.extension != VECTOR]
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
        self.paged = self.wide = False
        self.untied_groups = [
            untied for group in groups.values() if (untied := [p for p in group if not _touches_memory(p)])
        ]
        #: In S-mode from start to end, with TVM clear: the peer lets U-mode execute SFENCE.W.INVAL and
        #: SFENCE.INVAL.IR, and gives no encoding in mtval for SINVAL.VMA. SPEC: privileged, Svinval and 3.1.16
        self.svinval = False

    def sequence(self) -> Sequence_:
        """Draw a state to start from and as many items as there is room for."""
        self.vectors.begin()
        start = self.state.draw(bool(self.vectors.chosen))
        self.paged, self.wide = start.satp != 0, start.medeleg != 0
        self.svinval = self.state.supervisor and not start.mstatus >> 20 & 1 and self.rng.random() < 0.3
        items: list[Item] = []
        size = 0
        while len(items) < self.length:
            item = self._item()
            size += item.size
            if size > harness.SUPERVISOR_HANDLER - CODE - 8:
                break
            items.append(item)
        return Sequence_(self.seed, tuple(items), start)

    def _item(self) -> Item:
        rng = self.rng
        if self.vectors.chosen and rng.random() < 0.7:
            return self.vectors.item()
        kind = rng.random()
        if kind < 0.015 and not self.paged:
            return self._reservation()
        if kind < 0.03:
            return self._rewrite()
        if kind < 0.045:
            return self._far_jump()
        if kind < 0.055:
            return self._status()
        if kind < 0.06 and (self.state.supervisor or self.state.machine) and not self.svinval:
            return self._return()
        if kind < 0.12 and self.state.machine:
            return self._as_lower_mode()
        if kind < 0.12 and self.state.retabling:
            return self._retable()
        groups = (
            self.wide_groups if self.wide else self.untied_groups if self.state.machine else self.all_groups
        )
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

    def word(self, p: Pattern) -> int:
        """A random encoding of ``p``, with arguments that make sense often enough."""
        rng = self.rng
        word = p.match | rng.getrandbits(p.width) & ~p.mask
        kinds = p.args.kinds
        if "rd" in kinds and kinds["rd"] == "x":
            word = put(p, word, "rd", self._compressed_or(p, "rd", dest(self.rng)))
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
            number, writable = rng.choice(MACHINE_CSRS if self.state.machine else CSRS)
            word = put(p, word, "csr", number)
            if not writable:
                word = word & ~(31 << 15 | 3 << 12) | 2 << 12  # csrrs rd, csr, zero
        return word

    def _compressed_or(self, p: Pattern, name: str, reg: int) -> int:
        """The register, or one that the field of a compressed instruction can name."""
        source = p.values[name]
        if isinstance(source, int) or not parser().fields[source].add:
            return reg
        return reg if 8 <= reg < 16 else self.rng.choice((8, 9, 10, 11, 14, 15))

    def _one(self, p: Pattern) -> Item:
        code = pack(p, self.word(p))
        return Item(p.mnemonic, len(code), lambda pc, to: code)

    def _branch(self, p: Pattern) -> Item:
        word = self.word(p)
        return Item(
            p.mnemonic,
            p.width // 8,
            lambda pc, to: pack(p, put(p, word, "imm", to - pc)),
            self.rng.randint(0, 5),
        )

    def _far_jump(self) -> Item:
        """auipc, then an indirect jump by a register: with and without link, plain and compressed."""
        rng = self.rng
        t, link = scratch(self.rng), rng.choice((0, 1, 5, dest(self.rng)))
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
        value, rd, ok, base = self._register(), scratch(self.rng), scratch(self.rng), scratch(self.rng)
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
        t, v = scratch(self.rng), scratch(self.rng)
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
        t = scratch(self.rng)
        bits = self.rng.choice((0x6, 0x6, 0x40, 0x80, 0xC0))
        word = 0x100 << 20 | t << 15 | self.rng.choice((2, 2, 2, 3)) << 12 | dest(self.rng) << 7 | 0x73
        return fixed("csrrs", bits << 12 | t << 7 | 0x37, word)

    def _return(self) -> Item:
        """SRET, or in M-mode MRET, to an instruction further on."""
        t = scratch(self.rng)
        epc, xret = (0x341, MRET) if self.state.machine else (0x141, SRET)

        def code(pc: int, to: int) -> bytes:
            add = (to - pc & 0xFFF) << 20 | t << 15 | t << 7 | 0x13
            return struct.pack("<4I", t << 7 | 0x17, add, epc << 20 | t << 15 | 1 << 12 | 0x73, xret)

        return Item("mret" if self.state.machine else "sret", 16, code, self.rng.randint(0, 3), 4)

    def _as_lower_mode(self) -> Item:
        """In M-mode: a load and a store with MPRV, as S-mode or U-mode would do them."""
        rng = self.rng
        m, t = rng.sample([r for r in range(1, 32) if r not in BASES], 2)
        # The peer takes the pages of the code for M-mode's own once it has fetched from them.
        page = rng.randrange(2, 6 if self.paged else 3)
        address = ARENA + 0x1000 * page + rng.randrange(0, 0xFF8)
        mode = rng.choice((0, 1))
        load = rng.choice((0, 1, 2, 3, 4, 5, 6)) << 12 | scratch(self.rng) << 7 | t << 15 | 0x03
        store = rng.randrange(4) << 12 | self._register() << 20 | t << 15 | 0x23

        def code(pc: int, to: int) -> bytes:
            words = set_mstatus(m, 3 << MPP_SHIFT, False)
            words += set_mstatus(m, MPRV | mode << MPP_SHIFT, True)
            words += [*address_of(t, address, pc + 4 * len(words)), load, store, *set_mstatus(m, MPRV, False)]
            return struct.pack(f"<{len(words)}I", *words)

        return Item("csrrs", len(code(CODE, CODE)), code, count=len(code(CODE, CODE)) // 4)

    def _retable(self) -> Item:
        """Write a PTE of a page of data, and SFENCE.VMA; the address of the tables does not stay in a register."""
        t, v = self.rng.sample([r for r in range(1, 32) if r not in BASES], 2)
        index = self.rng.choice((2, 3, 4))
        pte = self.state.pte(index) & 0x3FFF_FFFF
        address = ARENA + 0x1000 * TABLE_PAGE + 8 * (harness.FIRST_PTE + index)

        def code(pc: int, to: int) -> bytes:
            words = [*constant(v, pte), *address_of(t, address, pc + 8)]
            words += [v << 20 | t << 15 | 3 << 12 | 0x23, SFENCE, t << 7 | 0x13]
            return struct.pack(f"<{len(words)}I", *words)

        return Item("sd", len(code(CODE, CODE)), code, count=7)


def _touches_memory(p: Pattern) -> bool:
    """May it reach anything by a random register? The peer executes what it reads where there is no memory."""
    if p.trans == "jalr" or p.mnemonic in ("c.mv", "c.add"):  # with rs2 = 0 these are c.jr and c.jalr
        return True
    compressed = ("c_l", "c_s", "lw", "ld", "sw", "sd", "flw", "fld", "fsw", "fsd")
    return p.trans in LOADS | STORES or p.args.name in ("amo", "lr", "cbo") or p.trans.startswith(compressed)
