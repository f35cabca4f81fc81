"""Page-table walks and PMP. SPEC: privileged 1.12, 3.7 and 4.3 to 4.5; Svadu."""

from __future__ import annotations

import itertools

import pytest

from tests.machine.tcg.riscv.onestep import (
    A0,
    A1,
    A2,
    ADUE,
    CODE,
    DATA,
    MPRV,
    MXR,
    NONE,
    NOP,
    OPEN,
    PBMTE,
    RAM,
    RS,
    SIZE,
    SUM,
    M,
    OneStep,
    S,
    Tables,
    U,
    csr,
    load,
    store,
)

BACKENDS = ["jit", "interp"]
V, R, W, X, UU, A, D = Tables.V, Tables.R, Tables.W, Tables.X, Tables.U, Tables.A, Tables.D
SV39, SV48, SV57 = 8, 9, 10
VA = 0x4000_0000
FETCH_PAGE, LOAD_PAGE, STORE_PAGE = 12, 13, 15
FETCH_ACCESS, LOAD_ACCESS, STORE_ACCESS = 1, 5, 7


@pytest.fixture(params=BACKENDS)
def cpu(request: pytest.FixtureRequest) -> OneStep:
    return OneStep(request.param)


class Space:
    """A translated address space, with pages of code for S-mode and U-mode."""

    def __init__(self, cpu: OneStep, mode: int = SV39) -> None:
        self.cpu = cpu
        self.tables = Tables(cpu, mode)
        self.tables.map(CODE, CODE, V | R | X | A)
        self.tables.map(CODE + 0x20_0000, CODE + 0x3000, V | R | X | UU | A)
        cpu["satp"] = self.tables.satp

    def access(self, kind: str, vaddr: int, priv: int = S) -> int | None:
        """Load, store or fetch at vaddr; return the exception, with its address checked."""
        cpu = self.cpu
        cpu["priv"] = priv
        cpu[A1], cpu[A0] = vaddr, 0x77
        if kind == "x":
            cpu["pc"] = vaddr
            traps = cpu["traps"]
            cpu.engine.run(cpu.engine.icount + 1)
            cause = cpu["mcause"] if cpu["traps"] > traps else None
        else:
            pc = CODE if priv != U else CODE + 0x20_0000
            cpu.put32(CODE if priv != U else CODE + 0x3000, load(A0, A1) if kind == "r" else store(A0, A1))
            cpu["pc"] = pc
            traps = cpu["traps"]
            cpu.engine.run(cpu.engine.icount + 1)
            cause = cpu["mcause"] if cpu["traps"] > traps else None
        if cause is not None:
            assert cpu["mtval"] == vaddr & NONE
            assert cpu["priv"] == M
        return cause


PAGE = {"x": FETCH_PAGE, "r": LOAD_PAGE, "w": STORE_PAGE}
ACCESS = {"x": FETCH_ACCESS, "r": LOAD_ACCESS, "w": STORE_ACCESS}


@pytest.mark.parametrize("mode", [SV39, SV48, SV57])
@pytest.mark.parametrize("high", [False, True])
def test_walk_translates_at_every_level(cpu: OneStep, mode: int, high: bool) -> None:
    space = Space(cpu, mode)
    top = (1 << 64) - (1 << {SV39: 38, SV48: 47, SV57: 56}[mode]) if high else 0
    for level in range(space.tables.levels):
        vaddr = top + ((level + 3) << (12 + 9 * level) if level < 3 else 3 << 39)
        base = DATA if level == 0 else RAM + (2 << 20) if level == 1 else RAM
        if level >= 3:
            continue  # such a page would begin at address 0
        space.tables.map(vaddr, base, V | R | W | A | D, level)
        at = 0x123450 & ((1 << (12 + 9 * level)) - 1)
        cpu.put64(base + at, 0xABC0 + level)
        assert space.access("r", vaddr + at) is None
        assert cpu[A0] == 0xABC0 + level


@pytest.mark.parametrize(("mode", "bits"), [(SV39, 39), (SV48, 48), (SV57, 57)])
def test_addresses_that_are_not_sign_extended_fault(cpu: OneStep, mode: int, bits: int) -> None:
    space = Space(cpu, mode)
    for vaddr in (1 << (bits - 1), 1 << bits, (1 << 64) - (1 << bits), CODE | 1 << 63):
        for kind in "rwx":
            assert space.access(kind, vaddr) == PAGE[kind]


@pytest.mark.parametrize("flags", range(16))
def test_permissions_of_a_leaf(cpu: OneStep, flags: int) -> None:
    space = Space(cpu)
    pte = flags << 1 | V | A | D
    slot = space.tables.map(VA, DATA, pte)
    valid = bool(pte & (R | X)) and not (pte & W and not pte & R)
    for priv, kind, extra in itertools.product((U, S), "rwx", (0, SUM, MXR)):
        cpu["mstatus"] = extra
        cpu.put32(DATA, NOP)
        allowed = {"r": pte & R or (extra & MXR and pte & X), "w": pte & W, "x": pte & X}[kind]
        reach = pte & UU if priv == U else not pte & UU or (extra & SUM and kind != "x")
        want = None if valid and allowed and reach else PAGE[kind]
        assert space.access(kind, VA, priv) == want, (priv, kind, extra)
    assert cpu.get64(slot) == DATA >> 12 << 10 | pte


@pytest.mark.parametrize("bit", [*range(54, 64)])  # N asks for a PPN that this one is not
def test_reserved_bits_of_a_pte_fault(cpu: OneStep, bit: int) -> None:
    space = Space(cpu)
    slot = space.tables.map(VA, DATA + 0x1000, V | R | W | X | A | D)
    cpu.put64(slot, cpu.get64(slot) | 1 << bit)
    for kind in "rwx":
        assert space.access(kind, VA) == PAGE[kind]


@pytest.mark.parametrize("bit", [UU, A, D, 1 << 54, 1 << 61, 1 << 62, 1 << 63])
def test_reserved_bits_of_a_pointer_fault(cpu: OneStep, bit: int) -> None:
    space = Space(cpu)
    space.tables.map(VA, DATA, V | R | A)
    slot = space.tables.slot(VA, 1)
    cpu.put64(slot, cpu.get64(slot) | bit)
    assert space.access("r", VA) == LOAD_PAGE


def test_pointer_at_the_last_level_and_invalid_pte_fault(cpu: OneStep) -> None:
    space = Space(cpu)
    for flags in (V, 0, R | W | X | A | D):
        space.tables.map(VA, DATA, flags)
        assert space.access("r", VA) == LOAD_PAGE


@pytest.mark.parametrize("level", [1, 2])
def test_misaligned_superpage_faults(cpu: OneStep, level: int) -> None:
    space = Space(cpu)
    space.tables.map(VA, RAM + 4096, V | R | W | X | A | D, level)
    for kind in "rwx":
        assert space.access(kind, VA) == PAGE[kind]


def test_accessed_and_dirty_are_set_by_the_access_that_needs_them(cpu: OneStep) -> None:
    space = Space(cpu)
    pte = DATA >> 12 << 10 | V | R | W | X
    slot = space.tables.map(VA, DATA, V | R | W | X)
    cpu.put32(DATA, NOP)
    for kind, sets in (("r", A), ("x", A), ("w", A | D)):
        cpu.put64(slot, pte)
        assert space.access(kind, VA) is None
        assert cpu.get64(slot) == pte | sets
    cpu.put64(slot, pte)
    assert space.access("r", VA) is None
    assert space.access("w", VA) is None
    assert cpu.get64(slot) == pte | A | D, "a page that was read first still notes its first store"


def test_failed_access_sets_nothing(cpu: OneStep) -> None:
    space = Space(cpu)
    slot = space.tables.map(VA, DATA, V | R)
    before = cpu.get64(slot)
    assert space.access("w", VA) == STORE_PAGE
    assert space.access("x", VA) == FETCH_PAGE
    assert space.access("r", VA, U) == LOAD_PAGE
    cpu["pmpcfg0"], cpu["pmpaddr0"] = 0x18 | 0x1F << 8, DATA >> 2 | 0x1FF
    cpu["pmpaddr1"] = NONE
    assert space.access("r", VA) == LOAD_ACCESS
    assert cpu.get64(slot) == before


@pytest.mark.parametrize("kind", ["r", "w", "x"])
def test_without_adue_software_sets_the_bits(cpu: OneStep, kind: str) -> None:
    space = Space(cpu)
    cpu["menvcfg"] = 0
    for flags in (0, A, D, A | D):
        slot = space.tables.map(VA, DATA, V | R | W | X | flags)
        cpu.put32(DATA, NOP)
        before = cpu.get64(slot)
        enough = flags & A and (kind != "w" or flags & D)
        assert space.access(kind, VA) == (None if enough else PAGE[kind])
        assert cpu.get64(slot) == before


def test_store_to_a_pte_holds_for_the_next_access_without_a_fence(cpu: OneStep) -> None:
    space = Space(cpu)
    slot = space.tables.map(VA, DATA, V | R | A)
    cpu.put64(DATA, 1)
    cpu.put64(DATA + 0x1000, 2)
    table = VA + 0x20_0000
    space.tables.map(table, slot & ~0xFFF, V | R | W | A | D)
    assert space.access("r", VA) is None
    assert cpu[A0] == 1
    cpu["priv"] = S
    cpu[A1], cpu[A2] = table + (slot & 0xFFF), (DATA + 0x1000) >> 12 << 10 | V | R | A
    cpu[13] = VA
    cpu["priv"] = S
    cpu.step(load(A0, 13), store(A2, A1), load(14, 13))
    assert (cpu[A0], cpu[14]) == (1, 2)


def test_table_outside_ram_is_an_access_fault(cpu: OneStep) -> None:
    space = Space(cpu)
    cpu.put64(space.tables.slot(VA, 2), (RAM + SIZE) >> 12 << 10 | V)
    for kind in "rwx":
        assert space.access(kind, VA) == ACCESS[kind]
    cpu["satp"] = SV39 << 60 | 0x1000_0000 >> 12
    assert space.access("x", VA) == FETCH_ACCESS


def test_mprv_gives_loads_and_stores_the_privilege_of_mpp(cpu: OneStep) -> None:
    space = Space(cpu)
    cpu["satp"] = space.tables.satp
    space.tables.map(VA, DATA, V | R | UU | A)
    cpu.put64(DATA, 99)
    for mpp, status, want in ((U, MPRV, None), (S, MPRV, 13), (S, MPRV | SUM, None), (M, MPRV, 5), (U, 0, 5)):
        cpu["priv"] = M
        cpu["mstatus"] = status | mpp << 11
        cpu[A1], cpu[A0] = VA, 0
        assert cpu.step(load(A0, A1)) == want
        assert cpu[A0] == (99 if want is None else 0)


def test_sum_switched_inside_a_block_holds_for_the_next_instruction(cpu: OneStep) -> None:
    space = Space(cpu)
    space.tables.map(VA, DATA, V | R | UU | A)
    cpu.put64(DATA, 5)
    cpu["priv"] = S
    cpu[A1], cpu[A2] = VA, SUM
    cpu.step(csr(RS, 0x100, 0, A2), load(A0, A1), csr(3, 0x100, 0, A2))
    assert cpu[A0] == 5
    assert cpu.step(load(A0, A1)) == LOAD_PAGE


def test_bare_mode_and_machine_mode_do_not_translate(cpu: OneStep) -> None:
    space = Space(cpu)
    cpu.put64(DATA, 8)
    cpu["priv"], cpu[A1] = M, DATA
    assert cpu.step(load(A0, A1)) is None
    assert cpu[A0] == 8
    cpu["satp"] = 0
    assert space.access("r", DATA) is None
    assert cpu[A0] == 8


# ---- PMP ----


class Pmp:
    def __init__(self, cpu: OneStep) -> None:
        self.cpu = cpu
        cpu["pmpcfg0"] = 0
        self.cfgs = [0] * 16

    def set(self, entry: int, cfg: int, addr: int) -> None:
        self.cpu[f"pmpaddr{entry}"] = addr
        self.cfgs[entry] = cfg
        for word in (0, 2):
            cfgs = self.cfgs[word * 4 : word * 4 + 8]
            self.cpu[f"pmpcfg{word}"] = sum(c << 8 * i for i, c in enumerate(cfgs))

    def access(self, kind: str, paddr: int, priv: int = S, size: int = 3) -> int | None:
        cpu = self.cpu
        cpu["priv"] = priv
        cpu[A1] = paddr
        traps = cpu["traps"]
        if kind == "x":
            cpu["pc"] = paddr
        else:
            cpu.put32(CODE, load(A0, A1, size) if kind == "r" else store(0, A1, size))
            cpu["pc"] = CODE
        cpu.engine.run(cpu.engine.icount + 1)
        return cpu["mcause"] if cpu["traps"] > traps else None


def napot(base: int, size: int) -> int:
    return (base | (size // 2 - 1)) >> 2


TOR, NA4, NAPOT, LOCK = 0x08, 0x10, 0x18, 0x80


def test_no_match_lets_machine_mode_through_and_nobody_else(cpu: OneStep) -> None:
    pmp = Pmp(cpu)
    for kind in "rwx":
        cpu.put32(DATA, NOP)
        assert pmp.access(kind, DATA, M) is None
    for priv in (U, S):
        assert pmp.access("x", DATA, priv) == FETCH_ACCESS
    pmp.set(0, NAPOT | 7, napot(CODE, 4096))
    for priv, kind in itertools.product((U, S), "rw"):
        assert pmp.access(kind, DATA, priv) == ACCESS[kind]


@pytest.mark.parametrize("perms", [0, 1, 3, 4, 5, 7])
def test_entry_gives_what_it_says_and_locks_machine_mode_only_when_locked(cpu: OneStep, perms: int) -> None:
    for lock in (0, LOCK):
        cpu.engine.reset_hart(0, CODE)
        cpu["mtvec"] = MTVEC_HERE
        pmp = Pmp(cpu)
        cpu.put32(DATA, NOP)
        pmp.set(1, NAPOT | 7, NONE)
        pmp.set(0, NAPOT | perms | lock, napot(DATA, 4096))
        for priv, (kind, bit) in itertools.product((U, S, M), (("r", 1), ("w", 2), ("x", 4))):
            allowed = perms & bit or (priv == M and not lock)
            cpu.put32(DATA, NOP)
            assert pmp.access(kind, DATA, priv) == (None if allowed else ACCESS[kind]), (priv, kind)


MTVEC_HERE = RAM + 0x1000


@pytest.mark.parametrize(
    ("cfg", "before", "addr", "first", "end"),
    [
        (NA4, 0, (DATA + 8) >> 2, DATA + 8, DATA + 12),
        (NAPOT, 0, napot(DATA + 8, 8), DATA + 8, DATA + 16),
        (NAPOT, 0, napot(DATA, 64), DATA, DATA + 64),
        (NAPOT, 0, napot(DATA, 8192), DATA, DATA + 8192),
        (TOR, (DATA + 4) >> 2, (DATA + 20) >> 2, DATA + 4, DATA + 20),
        (TOR, (DATA + 20) >> 2, (DATA + 4) >> 2, 0, 0),
        (TOR, DATA >> 2, DATA >> 2, 0, 0),
    ],
)
def test_ranges_have_exact_ends(cpu: OneStep, cfg: int, before: int, addr: int, first: int, end: int) -> None:
    pmp = Pmp(cpu)
    cpu["pmpaddr0"] = before
    pmp.set(1, cfg | 1, addr)
    pmp.set(2, NAPOT | 7, napot(CODE, 4096))
    for paddr in (
        DATA - 4,
        DATA,
        DATA + 4,
        DATA + 8,
        DATA + 12,
        DATA + 16,
        DATA + 20,
        DATA + 60,
        DATA + 64,
        DATA + 8188,
    ):
        inside = first <= paddr < end
        assert pmp.access("r", paddr, S, size=2) == (None if inside else LOAD_ACCESS), hex(paddr)


def test_lowest_entry_decides(cpu: OneStep) -> None:
    pmp = Pmp(cpu)
    pmp.set(3, NAPOT | 7, NONE)
    pmp.set(2, NAPOT | 1, napot(DATA, 64))
    assert pmp.access("w", DATA) == STORE_ACCESS
    assert pmp.access("r", DATA) is None
    assert pmp.access("w", DATA + 64) is None
    pmp.set(1, NAPOT, napot(DATA, 32))
    assert pmp.access("r", DATA) == LOAD_ACCESS
    assert pmp.access("r", DATA + 32) is None


def test_lock_holds_entry_and_the_bottom_of_a_range(cpu: OneStep) -> None:
    pmp = Pmp(cpu)
    cpu["pmpaddr0"] = 0x1111
    pmp.set(1, TOR | LOCK | 7, 0x2222)
    assert cpu.write(0x3B0, 5) == 0x1111
    assert cpu.write(0x3B1, 5) == 0x2222
    assert cpu.write(0x3A0, 0) == (TOR | LOCK | 7) << 8
    assert cpu.write(0x3B2, 5) == 5


def test_page_tables_are_read_under_the_pmp(cpu: OneStep) -> None:
    space = Space(cpu)
    slot = space.tables.map(VA, DATA, V | R)
    cpu["pmpaddr1"] = NONE
    cpu["pmpaddr0"] = napot(slot & ~0xFFF, 4096)
    cpu["pmpcfg0"] = OPEN << 8 | NAPOT | 1
    assert space.access("r", VA) == LOAD_ACCESS, "A would have to be set, and the table can't be written"
    assert not cpu.get64(slot) & A
    cpu.put64(slot, cpu.get64(slot) | A)
    assert space.access("r", VA) is None
    cpu["pmpcfg0"] = OPEN << 8 | NAPOT
    assert space.access("r", VA) == LOAD_ACCESS


@pytest.mark.parametrize("priv", [S, M])
@pytest.mark.parametrize(("kind", "fault"), [("r", LOAD_ACCESS), ("w", STORE_ACCESS)])
def test_entry_must_have_every_byte_of_an_access(cpu: OneStep, kind: str, fault: int, priv: int) -> None:
    """Also M-mode, which the entry does not bind, is refused an access that is partly in it."""
    pmp = Pmp(cpu)
    pmp.set(0, NA4 | 7, (DATA + 0x100) >> 2)
    pmp.set(1, NAPOT | 7, NONE)
    for offset, size, ok in [
        (0x100, 2, True),
        (0x100, 3, False),
        (0xFC, 2, True),
        (0xFC, 3, False),
        (0xF8, 3, True),
    ]:
        assert pmp.access(kind, DATA + offset, priv, size) == (None if ok else fault), hex(offset)
    for offset, size, ok in [
        (0xFD, 2, False),
        (0xFE, 1, True),
        (0xFF, 1, False),
        (0x103, 1, False),
        (0x102, 1, True),
    ]:
        assert pmp.access(kind, DATA + offset, priv, size) == (None if ok else fault), hex(offset)


def test_second_half_of_an_instruction_is_judged_too(cpu: OneStep) -> None:
    pmp = Pmp(cpu)
    pmp.set(0, TOR, (DATA + 0x100) >> 2)
    pmp.set(1, NA4 | 7, (DATA + 0x100) >> 2)
    pmp.set(2, NAPOT, NONE)
    cpu.put32(DATA + 0x100, NOP, NOP)
    assert pmp.access("x", DATA + 0x100) is None
    cpu.put32(DATA + 0x100, 0x0013_0001)  # c.nop, and the first half of a NOP
    assert pmp.access("x", DATA + 0x100) is None
    assert pmp.access("x", DATA + 0x102) == FETCH_ACCESS
    assert (cpu["mepc"], cpu["mtval"]) == (DATA + 0x102, DATA + 0x104)


@pytest.mark.parametrize("kind", ["r", "w", "x"])
def test_napot_page_is_64_kib_of_one_pte(cpu: OneStep, kind: str) -> None:
    """SPEC: Svnapot. Bits 15:12 of the address go through."""
    space = Space(cpu)
    base = DATA & ~0xFFFF
    slot = space.tables.map(VA + 0x3000, base + 0x8000, V | R | W | X | A | D)
    cpu.put64(slot, cpu.get64(slot) | 1 << 63)
    cpu.put32(base + 0x3000, NOP)
    cpu.put64(base + 0x3010, 0x5A5A)
    assert space.access(kind, VA + 0x3010 if kind != "x" else VA + 0x3000) is None
    if kind == "r":
        assert cpu[A0] == 0x5A5A
    for ppn in (0x9000, 0x4000, 0x0, 0xC000):
        cpu.put64(slot, (base + ppn) >> 12 << 10 | 1 << 63 | V | R | W | X | A | D)
        assert space.access(kind, VA + 0x3000) == PAGE[kind], hex(ppn)


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_memory_types_are_reserved_without_pbmte(cpu: OneStep, bits: int) -> None:
    """SPEC: Svpbmt. Type 3 stays reserved."""
    space = Space(cpu)
    slot = space.tables.map(VA, DATA, V | R | W | X | A | D)
    cpu.put64(slot, cpu.get64(slot) | bits << 61)
    assert space.access("r", VA) == LOAD_PAGE
    cpu["menvcfg"] = ADUE | PBMTE
    assert space.access("r", VA) == (LOAD_PAGE if bits == 3 else None)
    cpu["menvcfg"] = ADUE
    assert space.access("w", VA) == STORE_PAGE


def test_change_in_one_half_of_a_root_leaves_the_other_translated(cpu: OneStep) -> None:
    """Both halves in use are no reason to drop everything when one table changes; each still sees its own change."""
    space = Space(cpu)
    low, high = VA, NONE << 38 & NONE | VA
    slots = [space.tables.map(va, DATA + i * 0x1000, V | R | W | A | D) for i, va in enumerate((low, high))]
    cpu.put64(DATA + 0x2000, 0x33)
    for i, va in enumerate((low, high)):
        assert space.access("r", va) is None
        root = space.tables.slot(va, 2)
        pte = cpu.get64(root)
        walks = cpu.engine.translator.stat("walks")
        cpu.put64(root, 0)
        assert space.access("r", va) == LOAD_PAGE
        cpu.put64(root, pte)
        cpu.put64(slots[i], (DATA + 0x2000) >> 12 << 10 | V | R | W | A | D)
        assert (space.access("r", va), cpu[A0]) == (None, 0x33)
        assert cpu.engine.translator.stat("walks") - walks < 6
