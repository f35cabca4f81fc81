"""riscv64 as data: names, gdb's numbers, fields, page tables."""

from __future__ import annotations

import pytest

from machine.arch.riscv64 import (
    CANONICAL,
    CSR_FIELDS,
    CSR_NUMBERS,
    F_NAMES,
    X_NAMES,
    cause_name,
    describe_csr,
    gdb_features,
    walk,
)
from machine.tcg.engine import Engine


class NoHost:
    """A host with nothing on its bus."""

    def mmio_read(self, paddr: int, size: int, hart: int) -> int | None:
        return None

    def mmio_write(self, paddr: int, size: int, hart: int, value: int) -> bool:
        return False

    def sbi_call(self, hart: int) -> None:
        raise AssertionError("no SBI here")


def test_names_lead_to_the_engines_registers() -> None:
    assert len(X_NAMES) == len(F_NAMES) == 32
    assert [CANONICAL[n] for n in ("ra", "sp", "s0", "fp", "a0", "t6", "fa0", "ft11")] == [
        *("x1", "x2", "x8", "x8", "x10", "x31", "f10", "f31")
    ]
    everything = {"v": 1}
    with Engine(
        ram_base=1 << 31, ram_size=1 << 20, host=NoHost(), builtin_sbi=False, features=everything
    ) as engine:
        known = set(engine.reg_names) | {"x0"}
        assert set(CANONICAL.values()) <= known
        assert set(CSR_NUMBERS) <= known


def test_gdb_numbers_are_those_of_its_own_description() -> None:
    features = gdb_features(lambda name: name != "mconfigptr")
    numbers = {r.name: r.number for regs in features.values() for r in regs}
    assert (numbers["zero"], numbers["pc"], numbers["ft0"], numbers["ft11"]) == (0, 32, 33, 64)
    assert (numbers["fflags"], numbers["satp"], numbers["mhartid"]) == (66, 65 + 0x180, 65 + 0xF14)
    assert "mconfigptr" not in numbers
    assert len(set(numbers.values())) == len(numbers)


def test_causes_in_words() -> None:
    assert cause_name(13) == "load page fault"
    assert cause_name(1 << 63 | 5) == "supervisor timer interrupt"
    assert cause_name(24) == "exception 24"
    assert cause_name(1 << 63 | 13) == "interrupt 13"


def test_fields_do_not_overlap() -> None:
    for name, fields in CSR_FIELDS.items():
        masks = [((1 << f.bits) - 1) << f.lo for f in fields]
        assert sum(masks) == masks[0] | sum(masks[1:]) and sum(masks) < 1 << 64, name
        assert len({bit for m in masks for bit in range(64) if m >> bit & 1}) == sum(
            f.bits for f in fields
        ), name


def test_csr_is_described_by_its_fields() -> None:
    assert describe_csr("sstatus", 1 << 63 | 3 << 13 | 1 << 8 | 2) == "SD FS=Dirty SPP=S SIE"
    assert describe_csr("satp", 9 << 60 | 0x80200) == "MODE=Sv48 PPN=0x80200"
    assert describe_csr("stval", 5) == ""


LEAF = 0xCF  # D A X W R V


@pytest.fixture
def table() -> dict[int, int]:
    """An Sv39 table at 0x8000_0000: a 4 KiB page, a 2 MiB page, and a misaligned one."""
    return {
        0x8000_0000: 0x8000_1000 >> 2 | 1,
        0x8000_1000: 0x8000_2000 >> 2 | 1,
        0x8000_1008: 0x8060_0000 >> 2 | LEAF,
        0x8000_1010: 0x8060_1000 >> 2 | LEAF,
        0x8000_2018: 0x8123_4000 >> 2 | LEAF,
        0x8000_2020: 0x8123_4000 >> 2 | 5,
    }


@pytest.mark.parametrize(
    ("vaddr", "paddr", "levels"),
    [
        (0x3ABC, 0x8123_4ABC, 3),
        (0x20_1234, 0x8060_1234, 2),
        (0x40_0000, None, 2),
        (0x4000, None, 3),
        (0x5000, None, 3),
        (0x8000_0000, None, 1),
        (1 << 40, None, 0),
    ],
)
def test_walk_follows_the_table(table: dict[int, int], vaddr: int, paddr: int | None, levels: int) -> None:
    got, steps = walk(8 << 60 | 0x80000, vaddr, lambda at: table.get(at, 0))
    assert got == paddr
    assert len(steps) == levels


def test_walk_without_translation_and_outside_memory() -> None:
    assert walk(0, 0x1234, lambda at: at) == (0x1234, [])

    def nothing(at: int) -> int:
        raise ValueError(at)

    assert walk(9 << 60 | 5, 0, nothing) == (None, [])
