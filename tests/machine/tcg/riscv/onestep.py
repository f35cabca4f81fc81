"""A hart that takes one step at a time, its state set from outside: for tests of single instructions."""

from __future__ import annotations

from machine.tcg.engine import Engine, ExitReason

RAM = 0x8000_0000
SIZE = 4 << 20
CODE = RAM
MTVEC = RAM + 0x1000
STVEC = RAM + 0x2000
DATA = RAM + 0x8000
TABLES = RAM + 0x10_0000
DEVICE = 0x1000_0000
U, S, M = 0, 1, 3
A0, A1, A2 = 10, 11, 12
NONE = (1 << 64) - 1
OPEN = 0x1F  # pmpcfg: NAPOT, RWX

RW, RS, RC, RWI, RSI, RCI = 1, 2, 3, 5, 6, 7
MRET, SRET, WFI, ECALL, EBREAK, SFENCE = 0x30200073, 0x10200073, 0x10500073, 0x73, 0x100073, 0x12000073
NOP, LOOP = 0x13, 0x6F

SIE, MIE, SPIE, MPIE, SPP, MPP = 1 << 1, 1 << 3, 1 << 5, 1 << 7, 1 << 8, 3 << 11
FS, MPRV, SUM, MXR, TVM, TW, TSR = 3 << 13, 1 << 17, 1 << 18, 1 << 19, 1 << 20, 1 << 21, 1 << 22
STCE, PBMTE, ADUE = 1 << 63, 1 << 62, 1 << 61


def csr(op: int, number: int, rd: int = A0, rs1: int = A1) -> int:
    return number << 20 | rs1 << 15 | op << 12 | rd << 7 | 0x73


def load(rd: int, rs1: int, size: int = 3) -> int:
    return rs1 << 15 | size << 12 | rd << 7 | 0x03


def store(rs2: int, rs1: int, size: int = 3) -> int:
    return rs2 << 20 | rs1 << 15 | size << 12 | 0x23


def amo(funct5: int, rd: int, rs1: int, rs2: int = 0, size: int = 3) -> int:
    return funct5 << 27 | rs2 << 20 | rs1 << 15 | size << 12 | rd << 7 | 0x2F


LR, SC = 2, 3


class OneStep:
    """An engine in M-mode with an open PMP and nothing delegated.

    Args:
        backend: ``jit`` compiles every block at once; ``interp`` none.
        features: of the processor.
    """

    def __init__(
        self, backend: str = "jit", *, builtin_sbi: bool = False, features: dict[str, int] | None = None
    ) -> None:
        self.calls: list[tuple[int, int]] = []
        self.device_reads: list[int] = []
        self.engine = Engine(
            ram_base=RAM,
            ram_size=SIZE,
            ns_per_step=10,
            host=self,
            builtin_sbi=builtin_sbi,
            features=features,
        )
        self.engine.translator.set_switch("jit", backend == "jit")
        self.engine.translator.set_hot_runs(0)
        self.engine.reset_hart(0, CODE)
        self["mtvec"] = MTVEC
        self["stvec"] = STVEC
        if not builtin_sbi:
            self["pmpaddr0"] = NONE
            self["pmpcfg0"] = OPEN
        for address in (MTVEC, STVEC):
            self.put32(address, LOOP)

    def mmio_read(self, paddr: int, size: int, hart: int) -> int | None:
        self.device_reads.append(paddr)
        return 0x55 if paddr == DEVICE else None

    def mmio_write(self, paddr: int, size: int, hart: int, value: int) -> bool:
        return paddr == DEVICE

    def sbi_call(self, hart: int) -> None:
        self.calls.append((self.engine.icount, self.engine.get_reg(hart, "x17")))
        self.engine.set_reg(hart, "x10", 7)

    def __getitem__(self, name: str | int) -> int:
        return self.engine.get_reg(0, f"x{name}" if isinstance(name, int) else name)

    def __setitem__(self, name: str | int, value: int) -> None:
        self.engine.set_reg(0, f"x{name}" if isinstance(name, int) else name, value & NONE)

    def put32(self, paddr: int, *words: int) -> None:
        self.engine.write_phys(paddr, b"".join(w.to_bytes(4, "little") for w in words))

    def put64(self, paddr: int, value: int) -> None:
        self.engine.write_phys(paddr, (value & NONE).to_bytes(8, "little"))

    def get64(self, paddr: int) -> int:
        return int.from_bytes(self.engine.read_phys(paddr, 8), "little")

    def step(self, *insns: int, at: int = CODE) -> int | None:
        """Run these instructions, one step each. Return the exception that the last one raised, or None."""
        self.put32(at, *insns)
        self["pc"] = at
        traps = self["traps"]
        assert self.engine.run(self.engine.icount + len(insns)) is ExitReason.UNTIL
        if self["traps"] == traps:
            return None
        return self["mcause"] if self["priv"] == M else self["scause"]

    def csr(self, op: int, number: int, value: int = 0, rd: int = A0, rs1: int = A1) -> int:
        """Run a CSR instruction that must not trap, with rs1 = value; return what it read."""
        self[A1] = value
        assert self.step(csr(op, number, rd, rs1)) is None
        return self[rd] if rd else 0

    def write(self, number: int, value: int) -> int:
        """Write a CSR and return what it reads then."""
        self.csr(RW, number, value, rd=0)
        return self.csr(RS, number, rs1=0)


class Tables:
    """Page tables in the guest's RAM, built as they are needed."""

    V, R, W, X, U, A, D = 1, 2, 4, 8, 16, 64, 128

    def __init__(self, cpu: OneStep, mode: int = 8) -> None:
        self.cpu = cpu
        self.levels = {8: 3, 9: 4, 10: 5}[mode]
        self.root = self._new = TABLES
        self._new += 4096
        self.satp = mode << 60 | self.root >> 12

    def slot(self, vaddr: int, level: int = 0) -> int:
        """The address of the PTE for vaddr at a level, with tables above it made where there are none."""
        table = self.root
        for at in range(self.levels - 1, -1, -1):
            slot = table + 8 * (vaddr >> (12 + 9 * at) & 511)
            if at == level:
                return slot
            if not self.cpu.get64(slot) & self.V:
                self.cpu.put64(slot, self._new >> 12 << 10 | self.V)
                self._new += 4096
            table = self.cpu.get64(slot) >> 10 << 12
        raise AssertionError(level)

    def map(self, vaddr: int, paddr: int, flags: int, level: int = 0) -> int:
        slot = self.slot(vaddr, level)
        self.cpu.put64(slot, paddr >> 12 << 10 | flags)
        return slot
