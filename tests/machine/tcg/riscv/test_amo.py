"""Atomics. SPEC: unprivileged, chapter 8 (A)."""

from __future__ import annotations

import pytest

from tests.machine.tcg.riscv.onestep import (
    A0,
    A1,
    A2,
    DATA,
    DEVICE,
    LR,
    NONE,
    SC,
    OneStep,
    S,
    Tables,
    amo,
    load,
    store,
)

BACKENDS = ["jit", "interp"]
W, D = 2, 3
OPS = {"add": 0, "swap": 1, "xor": 4, "or": 8, "and": 12, "min": 16, "max": 20, "minu": 24, "maxu": 28}


@pytest.fixture(params=BACKENDS)
def cpu(request: pytest.FixtureRequest) -> OneStep:
    return OneStep(request.param)


def signed(value: int, bits: int) -> int:
    return (value + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))


def model(op: str, old: int, value: int, bits: int) -> int:
    mask = (1 << bits) - 1
    a, b = old & mask, value & mask
    sa, sb = signed(a, bits), signed(b, bits)
    results = {"add": a + b, "swap": b, "xor": a ^ b, "or": a | b, "and": a & b}
    results |= {"min": min(sa, sb), "max": max(sa, sb), "minu": min(a, b), "maxu": max(a, b)}
    return results[op] & mask


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("size", [W, D])
def test_amo_returns_the_old_value_and_stores_the_result(cpu: OneStep, op: str, size: int) -> None:
    bits = 8 << size
    values = [0, 1, NONE, 1 << 31, (1 << 31) - 1, 0xFFFFFFFF, 1 << 63, (1 << 63) - 1, 0x1234_5678_9ABC_DEF0]
    for old in values:
        for value in values:
            cpu.put64(DATA, old)
            cpu[A1], cpu[A2] = DATA, value
            assert cpu.step(amo(OPS[op], A0, A1, A2, size)) is None
            assert cpu[A0] == signed(old, bits) & NONE
            high = old >> bits << bits
            assert cpu.get64(DATA) == high | model(op, old, value, bits), (hex(old), hex(value))


def test_amo_result_may_go_to_its_own_operands(cpu: OneStep) -> None:
    cpu.put64(DATA, 5)
    cpu[A1], cpu[A2] = DATA, 7
    assert cpu.step(amo(OPS["add"], A2, A1, A2)) is None
    assert (cpu[A2], cpu.get64(DATA)) == (5, 12)
    assert cpu.step(amo(OPS["add"], A1, A1, A2)) is None
    assert (cpu[A1], cpu.get64(DATA)) == (12, 17)


@pytest.mark.parametrize(("size", "offset"), [(W, 1), (W, 2), (W, 3), (D, 1), (D, 4)])
def test_misaligned_atomics_fault(cpu: OneStep, size: int, offset: int) -> None:
    cpu[A1] = DATA + offset
    for funct5, cause in ((LR, 4), (SC, 6), (OPS["add"], 6)):
        cpu[A0] = 0x99
        assert cpu.step(amo(funct5, A0, A1, 0, size)) == cause
        assert (cpu["mtval"], cpu[A0]) == (DATA + offset, 0x99)


@pytest.mark.parametrize("size", [W, D])
def test_atomics_on_a_device_fault_and_do_not_touch_it(cpu: OneStep, size: int) -> None:
    cpu[A1] = DEVICE
    for funct5, cause in ((LR, 5), (SC, 7), (OPS["swap"], 7)):
        assert cpu.step(amo(funct5, A0, A1, 0, size)) == cause
        assert cpu["mtval"] == DEVICE
    assert cpu.device_reads == []


@pytest.mark.parametrize("size", [W, D])
def test_lr_and_sc_pair_up_once(cpu: OneStep, size: int) -> None:
    cpu.put64(DATA, 0x8000_0000_8000_0001)
    cpu[A1], cpu[A2] = DATA, 0x4242_4242_4242
    assert cpu.step(amo(LR, A0, A1, 0, size), amo(SC, 13, A1, A2, size), amo(SC, 14, A1, A2, size)) is None
    assert cpu[A0] == (0x8000_0000_8000_0001 if size == D else 0xFFFF_FFFF_8000_0001)
    assert (cpu[13], cpu[14]) == (0, 1)
    assert cpu.get64(DATA) == (0x4242_4242_4242 if size == D else 0x8000_0000_4242_4242)


def test_sc_without_or_beside_a_reservation_fails_and_ends_it(cpu: OneStep) -> None:
    cpu[A1], cpu[A2] = DATA, DATA + 64
    cpu.put64(DATA, 1)
    cpu.put64(DATA + 64, 2)
    assert cpu.step(amo(SC, A0, A1, A2)) is None
    assert cpu[A0] == 1
    assert cpu.step(amo(LR, A0, A1), amo(SC, 13, A2, A2), amo(SC, 14, A1, A2)) is None
    assert (cpu[13], cpu[14]) == (1, 1)
    assert (cpu.get64(DATA), cpu.get64(DATA + 64)) == (1, 2)


def test_store_of_the_same_hart_keeps_the_reservation(cpu: OneStep) -> None:
    cpu[A1], cpu[A2] = DATA, 7
    assert cpu.step(amo(LR, A0, A1), store(A2, A1), amo(SC, 13, A1, 0), load(A0, A1)) is None
    assert (cpu[13], cpu[A0]) == (0, 0)


@pytest.mark.parametrize("funct5", [LR, SC, *OPS.values()])
def test_atomics_take_page_faults_of_their_kind(cpu: OneStep, funct5: int) -> None:
    tables = Tables(cpu)
    tables.map(0x8000_0000, 0x8000_0000, Tables.V | Tables.R | Tables.X | Tables.A)
    tables.map(0x4000_0000, DATA, Tables.V | Tables.R)  # not to be written
    cpu["satp"], cpu["priv"] = tables.satp, S
    cpu[A1] = 0x4000_0010 if funct5 == LR else 0x4000_0000
    slot = tables.slot(0x4000_0000)
    before = cpu.get64(slot)
    if funct5 == LR:
        assert cpu.step(amo(LR, A0, A1)) is None
        assert cpu.get64(slot) == before | Tables.A
        assert cpu["reservation"] == DATA + 0x10, "a reservation is of the physical address"
        cpu[A1] = 0x4000_1000
        assert cpu.step(amo(LR, A0, A1)) == 13
    else:
        assert cpu.step(amo(funct5, A0, A1, A2)) == 15
        assert cpu.get64(slot) == before, "a store that is not permitted sets no D"
    assert cpu["mtval"] == cpu[A1]


def test_two_names_of_one_word_share_a_reservation(cpu: OneStep) -> None:
    tables = Tables(cpu)
    flags = Tables.V | Tables.R | Tables.W
    tables.map(0x8000_0000, 0x8000_0000, flags | Tables.X | Tables.A)
    tables.map(0x4000_0000, DATA, flags)
    tables.map(0x4000_1000, DATA, flags)
    cpu["satp"], cpu["priv"] = tables.satp, S
    cpu[A1], cpu[A2] = 0x4000_0000, 0x4000_1000
    assert cpu.step(amo(LR, A0, A1), amo(SC, 13, A2, A2)) is None
    assert cpu[13] == 0
    assert cpu.get64(DATA) == 0x4000_1000


def test_failed_conditional_store_leaves_the_page_clean_but_takes_its_faults(cpu: OneStep) -> None:
    """SPEC: privileged, 4.3.1: D is set for a store that happens; unprivileged, 8.2."""
    tables = Tables(cpu)
    va = 0x4000_0000
    tables.map(0x8000_0000, 0x8000_0000, Tables.V | Tables.R | Tables.X | Tables.A | Tables.D, level=1)
    slot = tables.map(va, DATA, Tables.V | Tables.R | Tables.W | Tables.A)
    cpu["satp"] = tables.satp
    cpu["priv"] = S
    cpu[A1], cpu[A2] = va, 7
    assert cpu.step(amo(SC, A0, A1, A2)) is None
    assert (cpu[A0], cpu.get64(slot) & Tables.D) == (1, 0)
    assert cpu.step(amo(LR, A0, A1), amo(SC, A0, A1, A2)) is None
    assert (cpu[A0], cpu.get64(slot) & Tables.D) == (0, Tables.D)
    assert cpu.get64(DATA) == 7
    cpu.put64(slot, DATA >> 12 << 10 | Tables.V | Tables.R | Tables.A)
    assert cpu.step(amo(SC, A0, A1, A2)) == 15
    assert cpu["mtval"] == va
