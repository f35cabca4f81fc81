"""Random PMP entries and random page tables against a model of the specification's text."""

from __future__ import annotations

import random

import pytest

from tests.conformance import memorymodel as model
from tests.conformance.memorymodel import FETCH, LOAD, NAPOT, STORE, TOR, M, PmpEntry, S, U
from tests.machine.tcg.riscv.onestep import (
    A0,
    A1,
    ADUE,
    CODE,
    DATA,
    MPP,
    MPRV,
    MXR,
    NOP,
    PBMTE,
    SUM,
    TABLES,
    OneStep,
    Tables,
    load,
    store,
)  # fmt: skip

FLAG_BITS = tuple(range(8))
MARK = 0x1357_9BDF_0246_8ACE


@pytest.fixture(params=["jit", "interp"])
def cpu(request: pytest.FixtureRequest) -> OneStep:
    return OneStep(request.param)


def access(cpu: OneStep, kind: str, address: int, size: int, priv: int) -> int | None:
    """Return the exception of an access: a load or store of M-mode with MPRV for another, a fetch as that mode."""
    cpu[A1] = address
    if kind == FETCH:
        cpu["priv"] = priv
        cpu["pc"] = address
        traps = cpu["traps"]
        cpu.engine.run(cpu.engine.icount + 1)
        cause = cpu["mcause"] if cpu["traps"] > traps else None
    else:
        cpu["priv"] = M
        cpu["mstatus"] = cpu["mstatus"] & ~(MPRV | MPP) | (MPRV | priv << 11 if priv != M else 0)
        log = size.bit_length() - 1
        cause = cpu.step(load(A0, A1, log) if kind == LOAD else store(0, A1, log))
    cpu["priv"] = M
    if cause is not None:
        assert cpu["mtval"] == address & (1 << 64) - 1
    return cause


def entries_for(rng: random.Random, around: int) -> list[PmpEntry]:
    """Sixteen entries, most of them near an address."""
    out: list[PmpEntry] = []
    for _ in range(16):
        mode = rng.choice((0, TOR, TOR, 2, NAPOT, NAPOT))
        addr = (around + rng.randrange(-0x40, 0x60)) >> 2
        if mode == NAPOT:
            ones = rng.choice((0, 1, 2, 3, 9, 10, 20, 53))
            addr = addr & ~((2 << ones) - 1) & (1 << 54) - 1 | (1 << ones) - 1
        if rng.random() < 0.1:
            addr = rng.getrandbits(54)
        perms = rng.choice((0, 1, 3, 4, 5, 7, 7))
        out.append(PmpEntry(mode << 3 | perms | rng.choice((0, 0, 0x80)), addr))
    return out


def set_entries(cpu: OneStep, entries: list[PmpEntry]) -> None:
    cpu.engine.reset_hart(0, CODE)
    cpu["mtvec"] = CODE + 0x1000
    for i, entry in enumerate(entries):
        cpu[f"pmpaddr{i}"] = entry.addr
    for word in (2, 0):
        cpu[f"pmpcfg{word}"] = sum(e.cfg << 8 * i for i, e in enumerate(entries[4 * word : 4 * word + 8]))


@pytest.mark.parametrize("seed", range(40))
def test_random_entries_judge_as_the_model_does(cpu: OneStep, seed: int) -> None:
    rng = random.Random(seed)
    around = DATA + 0x800
    entries = entries_for(rng, around)
    set_entries(cpu, entries)
    for _ in range(60):
        kind, priv = rng.choice((LOAD, STORE, FETCH)), rng.choice((U, S, M))
        size = 4 if kind == FETCH else 1 << rng.randrange(4)
        paddr = around + rng.randrange(-0x48, 0x68)
        if kind == FETCH:
            # Whether both halves are one access is the machine's choice: only entries that agree on them.
            paddr &= ~3
            cpu.put32(paddr, NOP)
        elif not model.pmp_allows(entries, FETCH, CODE, 4, M):
            continue
        allowed = model.pmp_allows(entries, kind, paddr, size, priv)
        found = access(cpu, kind, paddr, size, priv)
        assert found == (None if allowed else model.ACCESS_FAULT[kind]), (
            kind,
            priv,
            hex(paddr),
            size,
            entries,
        )


def random_pte(rng: random.Random, level: int, target: int) -> int:
    """A leaf that maps a page of data, most often; or one with something wrong in it."""
    ppn = target >> 12
    if level:
        ppn = ppn >> 9 * level << 9 * level
    pte = ppn << 10 | 0b1101_1111 & ~(1 << 4) | (rng.getrandbits(1) << 4)
    for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
        pte ^= 1 << rng.choice(FLAG_BITS)
    if rng.random() < 0.1:
        pte |= 1 << rng.randrange(54, 64)
    if rng.random() < 0.15:
        pte |= rng.choice((1, 2)) << 61
    if rng.random() < 0.1:
        pte |= 1 << 63
        if rng.random() < 0.7:
            pte = pte & ~(15 << 10) | 8 << 10
    if level and rng.random() < 0.2:
        pte ^= 1 << 10 + rng.randrange(9 * level)
    return pte


@pytest.mark.parametrize("mode", [8, 9, 10])
@pytest.mark.parametrize("seed", range(12))
def test_random_page_tables_translate_as_the_model_does(cpu: OneStep, mode: int, seed: int) -> None:
    rng = random.Random(seed << 4 | mode)
    for _ in range(40):
        tables = Tables(cpu, mode)
        cpu.engine.write_phys(TABLES, bytes(0x8000))
        width = 12 + 9 * tables.levels
        level = rng.choice((0, 0, 0, 1, tables.levels - 1))
        offset = DATA & (1 << 12 + 9 * level) - 1
        high = rng.getrandbits(1)
        vaddr = rng.getrandbits(width - 13 - 9 * level) << 12 + 9 * level | offset
        if high:
            vaddr |= (1 << 64) - (1 << width - 1)
        at = tables.slot(vaddr, level)
        cpu.put64(at, random_pte(rng, level, DATA))
        if level < tables.levels - 1 and rng.random() < 0.15:
            above = tables.slot(vaddr, level + 1)
            cpu.put64(above, cpu.get64(above) ^ 1 << rng.choice((0, 2, 4, 6, 7, 54, 60, 61, 63)))
        if rng.random() < 0.1:
            vaddr ^= 1 << rng.randrange(width - 1, 64)
        regime = model.Regime(
            tables.levels, tables.root, rng.choice((U, S)), *(rng.random() < 0.5 for _ in range(4))
        )
        cpu["satp"] = tables.satp
        cpu["menvcfg"] = regime.adue * ADUE | regime.pbmte * PBMTE
        cpu["mstatus"] = regime.sum * SUM | regime.mxr * MXR
        cpu.put64(DATA, MARK)
        for kind in rng.sample((LOAD, STORE, FETCH), 3):
            check_access(cpu, regime, kind, vaddr)


def check_access(cpu: OneStep, regime: model.Regime, kind: str, vaddr: int) -> None:
    """One access: the exception, A and D, and that it reached the address that it should."""
    ram = range(CODE, CODE + (4 << 20))

    def read(at: int) -> int | None:
        return cpu.get64(at) if at in ram else None

    expected = model.translate(regime, read, kind, vaddr)
    before = {at: cpu.get64(at) for at in expected.written}
    if expected.fault is None and expected.paddr not in ram:
        expected.fault = model.ACCESS_FAULT[kind]
    inside = expected.fault is None and expected.paddr >= DATA  # not where this test has its own code
    if expected.fault is None and kind == FETCH:
        cpu.put32(expected.paddr, NOP)
    elif inside:
        cpu.put64(expected.paddr, MARK)
    cpu[A0] = 0
    found = access(cpu, kind, vaddr, 8, regime.priv)
    assert found == expected.fault, (kind, hex(vaddr), regime)
    for at, value in expected.written.items():
        assert cpu.get64(at) == (value if expected.fault is None else before[at])
    if inside and kind == LOAD:
        assert cpu[A0] == MARK
    if inside and kind == STORE:
        assert cpu.get64(expected.paddr) == 0
