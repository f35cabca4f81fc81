"""Replaying stretches of a run with probes, and bringing home their records and what else was seen on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from machine.tcg.probes import RECORD, Probe, ProbeAction, ProbeKind
from traces.queries.base import ProbeNeed, signed
from traces.reader import TraceReader
from workbench.kernel.errors import KernelError
from workbench.kernel.linux import Kernel
from workbench.kernel.pagetable import GuestMemory
from workbench.kernel.syscalls import text_args
from workbench.replay.parts import reason_name
from workbench.replay.playback import Playback
from workbench.symbols import Symbols

from .errors import QueryRefused

#: A stretch is cut where it has made this many records, so that memory stays bounded.
MAX_RECORDS: Final = 1_000_000
_MASK: Final = (1 << 64) - 1
_ECALL_U: Final = 8
_TASK_EVENTS: Final = ("wake_up_new_task", "__set_task_comm")
_TEXT_BYTES: Final = 120


@dataclass(frozen=True)
class Job:
    """What is to be harvested; can be sent to another process.

    Args:
        path: the trace. backend: ``jit`` or ``interp``.
        needs: what is recorded. names: ``tasks`` and ``texts`` are noted where they are in it.
        addresses: of the kernel's symbols that are needed.
    """

    path: str
    backend: str
    needs: tuple[ProbeNeed, ...]
    names: frozenset[str] = frozenset()
    addresses: dict[str, int] = field(default_factory=dict)


@dataclass
class Harvest:
    """The records of a stretch, in order, and notes.

    Args:
        low, high: the positions, end exclusive. records: of ``RECORD.size`` bytes each; none where they were taken.
        tasks: (icount, task_struct, pid, comm): known at the begin, and learned on the way.
        texts: texts that arguments of system calls point to, by (icount, argument).
        dma: writes by devices: (icount, device, paddr, size, its first 8 bytes as a signed number).
    """

    low: int
    high: int
    records: bytes = b""
    tasks: list[tuple[int, int, int, str]] = field(default_factory=list)
    texts: dict[tuple[int, int], str] = field(default_factory=dict)
    dma: list[tuple[int, str, int, int, int]] = field(default_factory=list)


#: Takes records of the harvest that begins at a position, in order; a view is valid for the call alone.
Take = Callable[[int, "bytes | memoryview"], None]


class Harvester:
    """A machine of its own that replays stretches. A context manager.

    Args:
        job: what to bring home. trace: an open trace, which stays the caller's, or None to open it.
        types: the kernel's types, if they are known. take: is given the records, and the harvest has none.

    Raises:
        QueryRefused: the kernel has no such function. TraceError, Diverged: as a replay.

    Replay: consumes inputs; probes change nothing that a guest can see, and every digest passed is compared.
    """

    def __init__(self, job: Job, types: Any = None, take: Take | None = None) -> None:
        self.job = job
        self._take = take
        self._low = 0
        self._trace = TraceReader.open(job.path)
        try:
            self._playback = Playback(self._trace, job.backend)
        except BaseException:
            self._trace.close()
            raise
        self._types = types
        self._symbols = Symbols()
        self._chunks: list[bytes] = []
        self._dma: list[tuple[int, str, int, int, int]] = []
        self._count = 0
        self._fresh = True
        self._probes, self._watches = self._plan()

    def close(self) -> None:
        """Free the machine."""
        self._playback.close()
        self._trace.close()

    def __enter__(self) -> Harvester:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def devices(self) -> list[tuple[int, int, str]]:
        """Return (base, size, name) of the devices."""
        board: Any = self._playback.board
        return [(d.base, d.size, d.name) for d in board.devices]

    def _plan(self) -> tuple[list[Probe], dict[int, str]]:
        probes = []
        for need in self.job.needs:
            low, high = need.low, need.high
            if need.symbol:
                low = high = self._address(need.symbol)
            kind = ProbeKind[need.kind]
            probes.append(Probe(kind, ProbeAction.RECORD, low, high, need.physical, need.paired))
        watches: dict[int, str] = {}
        if "tasks" in self.job.names:
            for name in _TASK_EVENTS:
                if name in self.job.addresses:
                    watches[len(probes)] = name
                    at = self.job.addresses[name]
                    probes.append(Probe(ProbeKind.EXEC, ProbeAction.STOP, at, at))
        if "texts" in self.job.names:
            watches[len(probes)] = "ecall"
            probes.append(Probe(ProbeKind.TRAP, ProbeAction.STOP, _ECALL_U, _ECALL_U))
        return probes, watches

    def _address(self, symbol: str) -> int:
        if symbol not in self.job.addresses:
            raise QueryRefused(f"this table needs the kernel's function {symbol}, which no symbol names")
        return self.job.addresses[symbol]

    def begin(self, low: int) -> tuple[int, bool]:
        """Go to a position; return the hart whose turn it is there, and whether it is in user mode."""
        self._go(low)
        engine = self._playback.board.engine
        return engine.current_hart, engine.get_reg(engine.current_hart, "priv") == 0

    def harvest(self, low: int, high: int) -> Iterator[Harvest]:
        """Yield the stretches that make up ``low..high``, in order: one, or more where there are many records."""
        playback = self._playback
        engine = playback.board.engine
        self._go(low)
        if self._fresh:
            engine.set_probes(self._probes)
            self._fresh = False
        playback.board.on_records = self._drain
        playback.board.on_dma = self._note_write
        while low < high:
            out = Harvest(low, high)
            self._low = low
            self._chunks, self._count, self._dma = [], 0, out.dma
            if "tasks" in self.job.names:
                self._note_all_tasks(out)
            self._run(out, high)
            out.high = min(playback.icount, high)
            self._drain()
            out.records = b"".join(self._chunks)
            yield out
            low = out.high

    def _go(self, low: int) -> None:
        playback = self._playback
        if playback.icount == low:
            return
        playback.board.engine.set_probes(())
        playback.board.on_dma = None
        self._fresh = True
        node = playback.tree.nearest(low)
        if low < playback.icount or node.icount > playback.icount:
            playback.restore(node)
        playback.run_to(low)

    def _run(self, out: Harvest, high: int) -> None:
        playback = self._playback
        engine = playback.board.engine
        while playback.icount < high:
            stop = playback.run_to(high, breakpoints=True)
            if stop is None:
                break
            if reason_name(stop) == "interrupted":
                playback.interrupted = False
                break
            watch = self._watches.get(engine.probe_stopped())
            if watch == "ecall":
                self._note_texts(out)
            elif watch:
                self._note_task(out, watch)
                engine.skip_probes_at(engine.icount)

    def _drain(self) -> None:
        data = self._playback.board.engine.view_records()
        if not data:
            return
        if self._take is None:
            self._chunks.append(bytes(data))
        else:
            self._take(self._low, data)
        self._more(len(data) // RECORD.size)

    def _note_write(self, device: str, paddr: int, data: bytes) -> None:
        value = int.from_bytes(data[:8], "little")
        self._dma.append((self._playback.board.icount, device, paddr, len(data), signed(value)))
        self._more(1)

    def _more(self, count: int) -> None:
        self._count += count
        if self._count >= MAX_RECORDS:
            self._playback.interrupt()

    # notes

    def _kernel(self) -> Kernel:
        return Kernel(self._playback.board.engine, self._symbols, self._load_types)

    def _load_types(self, kernel: Kernel) -> Any:
        if self._types is None:
            self._types = Kernel(kernel.engine, kernel.symbols).types
        return self._types

    def _note_all_tasks(self, out: Harvest) -> None:
        if not len(self._symbols):
            from workbench.symbols import Symbol

            self._symbols = Symbols(Symbol(at, 0, name, "func") for name, at in self.job.addresses.items())
        try:
            out.tasks += [(out.low, t.address, t.pid, t.comm) for t in self._kernel().tasks()]
        except KernelError:
            return  # before the kernel has set up its list there is one task, the idle one

    def _note_task(self, out: Harvest, event: str) -> None:
        engine = self._playback.board.engine
        hart = engine.current_hart
        address, kernel = engine.get_reg(hart, "x10"), self._kernel()
        try:
            pid = kernel.field(address, "task_struct", "pid", 4)
            text = engine.get_reg(hart, "x11")
            if event == "wake_up_new_task":
                text = address + kernel.types.offset("task_struct", "comm")
            out.tasks.append((engine.icount, address, pid, kernel.memory.text(text, 16)[:15]))
        except KernelError:
            return

    def _note_texts(self, out: Harvest) -> None:
        engine = self._playback.board.engine
        hart, at = engine.current_hart, engine.icount - 1
        memory = GuestMemory(engine, engine.get_reg(hart, "satp"))
        for number in text_args(engine.get_reg(hart, "x17")):
            try:
                out.texts[at, number] = memory.text(engine.get_reg(hart, f"x{10 + number}"), _TEXT_BYTES)
            except KernelError:
                continue  # not paged in yet: the row keeps the address


def harvest_here(
    job: Job, stretches: Iterable[tuple[int, int]], types: Any = None, take: Take | None = None
) -> Iterator[Harvest]:
    """Yield the harvest of stretches from a machine in this process."""
    with Harvester(job, types, take) as harvester:
        for low, high in stretches:
            yield from harvester.harvest(low, high)


def deliver(harvests: Iterable[Harvest], take: Take) -> Iterator[Harvest]:
    """Yield harvests that were brought in elsewhere, their records taken out of them."""
    for harvest in harvests:
        if harvest.records:
            take(harvest.low, harvest.records)
            harvest.records = b""
        yield harvest
