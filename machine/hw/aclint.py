"""The core-local interruptor: software interrupts between harts, and the machine timer.

The compare registers live in the harts, where the engine watches them; mtime is virtual time in 100 ns ticks, and
what a guest that writes it sets it ahead.
"""

from __future__ import annotations

from typing import Protocol

from machine.fdt import Node, cells64
from machine.hw.device import Device, Wires
from machine.hw.registers import Field, Reg, RegBank
from machine.hw.state import Int
from machine.hw.virtmap import IRQ_MSIP, IRQ_MTIP, NS_PER_TICK, intc_phandle

U64 = (1 << 64) - 1
MTIME = 0xBFF8
PENDING = Field("pending", 0)


class Harts(Protocol):
    """What interrupt controllers ask of the engine."""

    def irq_line(self, hart: int, line: int, level: bool) -> None: ...

    def get_reg(self, hart: int, reg: str) -> int: ...

    def set_reg(self, hart: int, reg: str, value: int) -> None: ...

    def set_time_offset(self, ticks: int) -> None: ...

    def set_time_register(self, paddr: int) -> None: ...


class Aclint(Device):
    """One MSWI and one MTIMER device in SiFive's CLINT layout.

    Spec: RISC-V ACLINT 1.0, chapters 2 and 3.
    """

    size = 0x1_0000

    msip = RegBank(0x0000, count=16, fields=(PENDING,), doc="software interrupt of hart i")
    mtimecmp = RegBank(0x4000, count=16, size=8, stored=False, doc="timer compare of hart i, ticks")
    mtime = Reg(MTIME, size=8, stored=False, doc="time in ticks of 100 ns")

    offset = Int(64)  # ticks that mtime is ahead of virtual time, modulo 2**64

    def __init__(self, wires: Wires, name: str, base: int, harts: Harts, n_harts: int) -> None:
        super().__init__(wires, name, base)
        self.harts = harts
        self.n_harts = n_harts
        harts.set_time_register(base + MTIME)

    def reset(self) -> None:
        super().reset()
        self.harts.set_time_offset(0)

    def state_loaded(self) -> None:
        self.harts.set_time_offset(self.offset)

    def _exists(self, hart: int) -> bool:
        if hart >= self.n_harts:
            self.guest_error(f"access to a register of hart {hart}: there are {self.n_harts}")
        return hart < self.n_harts

    @msip.on_write
    def _write_msip(self, hart: int, value: int) -> None:
        if self._exists(hart):
            self.msip[hart] = value
            self.harts.irq_line(hart, IRQ_MSIP, bool(value))

    @mtimecmp.on_read
    def _read_mtimecmp(self, hart: int) -> int:
        return self.harts.get_reg(hart, "mtimecmp") if self._exists(hart) else 0

    @mtimecmp.on_write
    def _write_mtimecmp(self, hart: int, value: int) -> None:
        if self._exists(hart):
            self.harts.set_reg(hart, "mtimecmp", value)

    @mtime.on_read
    def _read_mtime(self) -> int:
        return self.now() // NS_PER_TICK + self.offset & U64

    @mtime.on_write
    def _write_mtime(self, value: int) -> None:
        self.offset = value - self.now() // NS_PER_TICK & U64
        self.harts.set_time_offset(self.offset)

    def fdt_nodes(self) -> list[Node]:
        lines = [
            c for h in range(self.n_harts) for c in (intc_phandle(h), IRQ_MSIP, intc_phandle(h), IRQ_MTIP)
        ]
        return [
            Node(
                f"clint@{self.base:x}",
                {
                    "compatible": ["sifive,clint0", "riscv,clint0"],
                    "reg": cells64(self.base, self.size),
                    "interrupts-extended": lines,
                },
            )
        ]
