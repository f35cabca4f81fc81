"""Page tables by hand, walked; and those of the built-in guest against the machine's own translation."""

from __future__ import annotations

import struct

import pytest

from workbench.kernel.errors import KernelError
from workbench.kernel.pagetable import GuestMemory

V, R, W, X, U = 1, 2, 4, 8, 16
ROOT = 0x80000


class Ram:
    """Pages by number."""

    def __init__(self) -> None:
        self.pages: dict[int, bytearray] = {}

    def put(self, paddr: int, data: bytes) -> None:
        self.pages.setdefault(paddr >> 12, bytearray(4096))[paddr & 4095 : (paddr & 4095) + len(data)] = data

    def read_phys(self, paddr: int, size: int) -> bytes:
        if paddr >> 12 not in self.pages:
            raise ValueError(paddr)
        return bytes(self.pages[paddr >> 12][paddr & 4095 : (paddr & 4095) + size])


def entry(ppn: int, flags: int) -> bytes:
    return struct.pack("<Q", ppn << 10 | flags)


@pytest.fixture
def ram() -> Ram:
    made = Ram()
    # Sv39: a 2 MiB page at 0x4020_0000, two 4 KiB pages at 0x1000, one at the very top
    made.put(ROOT << 12 | 0 * 8, entry(0x80001, V))
    made.put(ROOT << 12 | 1 * 8, entry(0x80003, V))
    made.put(ROOT << 12 | 511 * 8, entry(0x80001, V))
    made.put(0x80001 << 12, entry(0x80002, V))
    made.put(0x80001 << 12 | 511 * 8, entry(0x80002, V))
    made.put(0x80003 << 12 | 1 * 8, entry(0x90000 & ~511, V | R | X))
    made.put(0x80002 << 12 | 1 * 8, entry(0xA0000, V | R | W | U))
    made.put(0x80002 << 12 | 2 * 8, entry(0xA0001, V | R | W | U))
    made.put(0x80002 << 12 | 511 * 8, entry(0xA0005, V | R))
    made.put(0xA0000FF8, struct.pack("<Q", 0x1122334455667788))
    made.put(0xA0001000, b"text\0more")
    return made


def memory(ram: Ram) -> GuestMemory:
    return GuestMemory(ram, 8 << 60 | ROOT)


def test_walk_shows_each_level(ram: Ram) -> None:
    entries = memory(ram).walk(0x1FF8)
    assert [(e.level, e.leaf) for e in entries] == [(2, False), (1, False), (0, True)]
    assert entries[-1].flags == "VRW-U---"
    assert entries[-1].target == 0xA0000000


@pytest.mark.parametrize(
    ("vaddr", "paddr"),
    [
        (0x1FF8, 0xA0000FF8),
        (0x40212345, 0x90012345),
        (0xFFFF_FFFF_FFFF_FFF0, 0xA0005FF0),
        (0x3000, None),
        (0x8000_0000, None),
    ],
)
def test_translation(ram: Ram, vaddr: int, paddr: int | None) -> None:
    assert memory(ram).translate(vaddr) == paddr


def test_reads_go_over_page_borders(ram: Ram) -> None:
    assert memory(ram).read(0x1FF8, 12) == struct.pack("<Q", 0x1122334455667788) + b"text"
    assert memory(ram).text(0x2000) == "text"
    with pytest.raises(KernelError, match="cannot access memory at address 0x3000"):
        memory(ram).read(0x2FFF, 2)


def test_areas_join_neighbours(ram: Ram) -> None:
    low = list(memory(ram).areas(0, 1 << 38))
    assert [(a.start, a.end, a.paddr) for a in low] == [
        (0x1000, 0x3000, 0xA0000000), (0x1FF000, 0x200000, 0xA0005000),
        (0x3FE01000, 0x3FE03000, 0xA0000000), (0x3FFFF000, 0x40000000, 0xA0005000),
        (0x40200000, 0x40400000, 0x90000000),
    ]  # fmt: skip
    assert low[0].flags == "VRW-U-"
    high = list(memory(ram).areas(1 << 63))
    assert high[-1].end == 1 << 64


def test_without_page_tables_addresses_are_physical(ram: Ram) -> None:
    assert GuestMemory(ram, 0).read(0xA0001000, 4) == b"text"
