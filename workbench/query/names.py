"""What a run's addresses and numbers are called, for rows: symbols, tasks, devices, system calls."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence

from traces.queries.base import NEVER
from workbench.kernel.syscalls import arg_count, syscall_name, text_args
from workbench.symbols import Symbols

from .harvest import Harvest

_CSRS = {
    0x001: "fflags", 0x002: "frm", 0x003: "fcsr", 0x100: "sstatus", 0x104: "sie", 0x105: "stvec", 0x106: "scounteren",
    0x10A: "senvcfg", 0x140: "sscratch", 0x141: "sepc", 0x142: "scause", 0x143: "stval", 0x144: "sip",
    0x14D: "stimecmp", 0x180: "satp", 0x300: "mstatus", 0x301: "misa", 0x302: "medeleg", 0x303: "mideleg",
    0x304: "mie", 0x305: "mtvec", 0x306: "mcounteren", 0x30A: "menvcfg", 0x320: "mcountinhibit", 0x340: "mscratch",
    0x341: "mepc", 0x342: "mcause", 0x343: "mtval", 0x344: "mip", 0xB00: "mcycle", 0xB02: "minstret",
    **{0x3A0 + i: f"pmpcfg{i}" for i in range(16)}, **{0x3B0 + i: f"pmpaddr{i}" for i in range(64)},
}  # fmt: skip


class RunNames:
    """The names of one run (``traces.queries.Names``); learns tasks and texts from each harvest.

    Args:
        symbols: of the run. devices: (base, size, name).
    """

    def __init__(self, symbols: Symbols, devices: Sequence[tuple[int, int, str]] = ()) -> None:
        self._symbols = symbols
        self._devices = sorted(devices)
        self._known: dict[int, str] = {}
        self._tasks: dict[int, list[tuple[int, int, str]]] = {}
        self._texts: dict[tuple[int, int], str] = {}
        self._writes: Sequence[tuple[int, str, int, int, int]] = ()

    def learn(self, harvest: Harvest) -> None:
        """Take what was noted in a stretch; what earlier stretches told is not needed any more."""
        self._tasks = {}
        for icount, address, pid, comm in harvest.tasks:
            self._tasks.setdefault(address, []).append((icount, pid, comm))
        self._texts = harvest.texts
        self._writes = harvest.dma

    def symbol(self, address: int) -> str:
        """Return ``name`` or ``name+0x12``, empty where there is none."""
        found = self._known.get(address)
        if found is None:
            found = self._known[address] = self._symbols.format(address & NEVER)
        return found

    def task(self, context: int, icount: int) -> tuple[int, str]:
        """Return a task's pid and name at a position; 0 and an empty name where it is not known."""
        events = self._tasks.get(context & NEVER)
        if not events:
            return 0, ""
        at = bisect_right(events, (icount, 1 << 62, "")) - 1
        return events[max(at, 0)][1:]

    def device(self, paddr: int) -> tuple[str, int]:
        """Return the device at a physical address, and the offset in it."""
        at = bisect_right(self._devices, (paddr, NEVER, "")) - 1
        if at >= 0:
            base, size, name = self._devices[at]
            if paddr < base + size:
                return name, paddr - base
        return "", paddr

    def device_writes(self) -> Sequence[tuple[int, str, int, int, int]]:
        """Return what devices wrote in this stretch: icount, device, paddr, size, and the first 8 bytes."""
        return self._writes

    def csr(self, number: int) -> str:
        return _CSRS.get(number, f"csr_{number:#x}")

    def syscall(self, number: int) -> str:
        return syscall_name(number)

    def syscall_args(self, icount: int, number: int, args: Sequence[int]) -> str:
        """Return the arguments as JSON: numbers, and texts where an argument points to one."""
        texts = text_args(number)
        out: list[int | str] = []
        for i, value in enumerate(args[: arg_count(number)]):
            out.append(self._texts.get((icount, i), value) if i in texts else value)
        return json.dumps(out, ensure_ascii=False)


#: Numbers of CSRs by name.
CSR_NUMBERS = {name: number for number, name in _CSRS.items()}
