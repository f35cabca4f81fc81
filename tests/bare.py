"""A bare machine for tests of the engine: RAM, a byte port to print on and a word port that stops the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from machine.tcg.engine import Engine, ExitReason
from tests.rvasm import assemble

RAM = 0x8000_0000
PORT = 0x1000_0000
STOP = 0x10_0000


class Bare:
    """An engine with a program in it, in M-mode at the start of RAM.

    Attributes: ``out`` what the program printed, with the position of each byte; ``reads`` the positions of its reads.
    """

    def __init__(
        self, source: str, *, backend: str = "jit", memory: int = 8 << 20, harts: int = 1, quantum: int = 1000
    ) -> None:
        self.out: list[tuple[int, int]] = []
        self.reads: list[int] = []
        self.engine = Engine(
            ram_base=RAM, ram_size=memory, harts=harts, quantum=quantum, host=self, builtin_sbi=False
        )
        if backend == "interp":
            self.engine.translator.set_switch("jit", False)
        code, self.labels = assemble(source, RAM)
        self.engine.write_phys(RAM, code)
        for hart in range(harts):
            self.engine.reset_hart(hart, RAM)
        self.engine.dirty_pages()

    def at_once(self, off: Sequence[str] = ()) -> Self:
        """Make host code of every block that runs, with these switches of the translator off."""
        self.engine.translator.set_hot_runs(0)
        for switch in off:
            self.engine.translator.set_switch(switch, False)
        return self

    def mmio_read(self, paddr: int, size: int, hart: int) -> int | None:
        if paddr != PORT:
            return None
        self.reads.append(self.engine.icount)
        return len(self.reads)

    def mmio_write(self, paddr: int, size: int, hart: int, value: int) -> bool:
        if paddr == PORT:
            self.out.append((self.engine.icount, value))
        elif paddr == STOP:
            self.engine.request_stop()
        else:
            return False
        return True

    def sbi_call(self, hart: int) -> None:
        raise AssertionError("no SBI here")

    def run(self, steps: int = 1_000_000) -> ExitReason:
        """Run until the program stops the machine, or ``steps`` more steps."""
        return self.engine.run(self.engine.icount + steps)

    def reg(self, name: str, hart: int = 0) -> int:
        return self.engine.get_reg(hart, name)

    def ram(self, label: str, size: int = 8) -> int:
        return int.from_bytes(self.engine.read_phys(self.labels[label], size), "little")

    def state(self) -> tuple[object, ...]:
        """Return everything that a guest can see, to be compared."""
        e = self.engine
        harts = [e.save_state(h) for h in range(e.harts)]
        return e.icount, e.warp_ns, harts, e.save_sched(), bytes(e.ram), self.out, self.reads
