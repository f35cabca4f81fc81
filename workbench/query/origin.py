"""Where a value came from: back from a register or memory, step by step, through registers, loads and stores.

Each step is found by replaying backwards with probes, and what its instruction does with values is read from its IR.
The way ends at constants in the code, at devices and inputs, at the state that the trace begins with, and where
something changed the value that no instruction is: the built-in firmware, a page-table walk, a debugger.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from machine.tcg.probes import NEVER, RECORD, Probe, ProbeAction, ProbeKind
from workbench.registers import abi_name

from . import dataflow
from .dataflow import Flow

if TYPE_CHECKING:
    from .api import Trace

#: Nodes that are followed unless more are asked for.
MAX_NODES: Final = 64
MOST_NODES: Final = 10_000
_AMO, _SYSTEM = 0x2F, 0x73
_SC, _SWAP, _LR = 3, 1, 2
#: CSRs that only keep what is written to them.
_KEEPING: Final = frozenset((0x105, 0x140, 0x141, 0x180, 0x305, 0x340, 0x341))
_KIND, _HART, _SIZE, _A, _B, _VALUE = 3, 4, 5, 8, 9, 10
_SLOTS: Final = 63
_PIECES: Final = 8


@dataclass
class Source:
    """One place on the way back: what made a value, at the position of the step that did.

    Args:
        kind: ``copy``, ``load``, ``store``, ``compute``, ``csr``: the value goes on in ``sources``. The ends:
            ``immediate``, ``device``, ``input``, ``start`` (there from the trace's begin), ``state`` (a counter or the
            like), ``changed`` (by no instruction), ``seen`` (followed elsewhere), ``limit``.
        what: the register or memory that got the value. value: the value.
        icount, pc: the step, None where there is none. text: the instruction, and what is known more.
        input: the row of ``inputs`` that it came by.
    """

    kind: str
    what: str
    value: int
    icount: int | None = None
    pc: int | None = None
    text: str = ""
    input: int | None = None
    sources: list[Source] = field(default_factory=list)

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Source]]:
        """Yield this place and all behind it, each with how deep it is."""
        yield depth, self
        for source in self.sources:
            yield from source.walk(depth + 1)

    @property
    def ends(self) -> list[Source]:
        """The places where the way ends."""
        return [source for _, source in self.walk() if not source.sources]

    def record(self) -> dict[str, Any]:
        """Return it as plain data."""
        out = {k: v for k, v in vars(self).items() if k != "sources" and v not in (None, "")}
        return out | ({"sources": [s.record() for s in self.sources]} if self.sources else {})


def of_register(trace: Trace, name: str, limit: int = MAX_NODES) -> Source:
    """Return where the value of the selected hart's register at the cursor came from; ``name`` as ``x10`` or ``f0``.

    Raises:
        ValueError: no such register, or a limit that is none. Diverged, TraceError.
    """
    if name[:1] not in ("x", "f") or not name[1:].isdecimal() or int(name[1:]) > 31:
        raise ValueError(f"the origin of {name!r}: only of x0..x31 and f0..f31, and of memory")
    slot = int(name[1:]) + (32 if name[0] == "f" else 0)
    return _Slicer(trace, limit).begin(lambda s: s.register(trace.hart, slot, trace.reg(name), trace.cursor))


def of_memory(trace: Trace, paddr: int, size: int, limit: int = MAX_NODES) -> Source:
    """Return where ``size`` bytes (1 to 8) of RAM at the cursor came from. Raises as ``of_register``."""
    if not 1 <= size <= 8:
        raise ValueError(f"the origin of {size} bytes: of 1 to 8")
    data = trace.read_phys(paddr, size)

    def begin(slicer: _Slicer) -> Source:
        sources = slicer.memory(paddr, data, trace.cursor)
        if len(sources) == 1:
            return sources[0]
        return Source("load", _place(paddr, size), int.from_bytes(data, "little"), sources=sources)

    return _Slicer(trace, limit).begin(begin)


class _Slicer:
    def __init__(self, trace: Trace, limit: int) -> None:
        if not 1 <= limit <= MOST_NODES:
            raise ValueError(f"a limit of {limit} places: 1 to {MOST_NODES}")
        self.trace = trace
        self.left = limit
        self.seen: set[tuple[Any, ...]] = set()

    def begin(self, follow: Any) -> Source:
        cursor = self.trace.cursor
        try:
            source: Source = follow(self)
            return source
        finally:
            self.trace.goto(cursor)

    # registers

    def register(self, hart: int, slot: int, value: int, at: int) -> Source:
        """Return where the value of a register before step ``at`` came from."""
        name = abi_name(f"x{slot}" if slot < 32 else f"f{slot - 32}")
        if slot == 0:
            return Source("immediate", name, 0, text="always 0")
        if (end := self._give_up(name, value)) is not None:
            return end
        step = self._writer(hart, slot, at)
        if step is None:
            return Source("start", name, value, text="held since the trace's begin")
        if ("r", hart, slot, step) in self.seen:
            return Source("seen", name, value, step, text="followed above")
        self.seen.add(("r", hart, slot, step))
        records, after = self._step(step, lambda: self._reg(hart, slot))
        if after != value:
            text = f"{after:#x} after the last instruction that wrote it, at {step}; changed since by the firmware"
            return Source("changed", name, value, text=text)
        node = self._node("compute", name, value, step, hart)
        flow = dataflow.of_register(dataflow.parse(self._ir(hart)), slot)
        self._fill(node, flow, hart, records)
        return node

    def _writer(self, hart: int, slot: int, at: int) -> int | None:
        high = at
        while (step := self._last([Probe(ProbeKind.REG, ProbeAction.LAST, slot, slot)], high)) is not None:
            records, _ = self._step(step, lambda: 0)
            if any(r[_KIND] == ProbeKind.REG and r[_HART] == hart and r[_A] == slot for r in records):
                return step
            high = step
        return None

    def _reg(self, hart: int, slot: int) -> int:
        name = f"x{slot}" if slot < 32 else f"f{slot - 32}"
        return int(self.trace.board.engine.get_reg(hart, name))

    # memory

    def memory(self, paddr: int, data: bytes, at: int) -> list[Source]:
        """Return where bytes of RAM before step ``at`` came from; those that several steps wrote are several."""
        out: list[Source] = []
        missing = [(paddr, paddr + len(data))]
        high = at
        while missing:
            piece = missing[0][0]
            size = missing[0][1] - piece
            held = data[piece - paddr : piece - paddr + size]
            if (end := self._give_up(_place(piece, size), int.from_bytes(held, "little"))) is not None:
                return [*out, end]
            probes = [Probe(ProbeKind.WRITE, ProbeAction.LAST, a, b - 1, physical=True) for a, b in missing]
            step = self._last(probes, high) if len(out) < _PIECES else None
            device = self._device_write(missing, high)
            if device is not None and (step is None or device[0] > step):
                low, top = device[2], device[2] + device[3]
                out += [self._of_device(device, part, data, paddr) for part in _common(missing, low, top)]
                high = device[0]
            elif step is not None:
                spans = self._stored(step)
                for low, top in spans:
                    out += [self._store(step, part, data, paddr) for part in _common(missing, low, top)]
                high = step
                low, top = min(s[0] for s in spans), max(s[1] for s in spans)
            else:
                text = (
                    "there since the trace's begin"
                    if len(out) < _PIECES
                    else "of more pieces than are followed"
                )
                return [*out, *(self._end("start", part, data, paddr, text) for part in missing)]
            missing = [
                part for a, b in missing for part in ((a, min(b, low)), (max(a, top), b)) if part[0] < part[1]
            ]
        return out

    def _stored(self, step: int) -> list[tuple[int, int]]:
        records, _ = self._step(step, lambda: 0)
        return [(r[_B], r[_B] + r[_SIZE]) for r in records if r[_KIND] == ProbeKind.WRITE]

    def _store(self, step: int, part: tuple[int, int], data: bytes, base: int) -> Source:
        low, high = part
        held = data[low - base : high - base]
        what, value = _place(low, high - low), int.from_bytes(held, "little")
        if ("m", low, high, step) in self.seen:
            return Source("seen", what, value, step, text="followed above")
        self.seen.add(("m", low, high, step))
        records, after = self._step(step, lambda: bytes(self.trace.read_phys(low, high - low)))
        if after != held:
            text = f"another value after the last store, at {step}; changed since by a page-table walk or a debugger"
            return Source("changed", what, value, text=text)
        hart = next(r[_HART] for r in records if r[_KIND] == ProbeKind.WRITE)
        node = self._node("store", what, value, step, hart)
        flow = dataflow.of_store(dataflow.parse(self._ir(hart)))
        if flow is None:
            flow = self._atomic(hart)
        self._fill(node, flow, hart, records)
        if node.kind in ("copy", "compute"):
            node.kind = "store"
        return node

    def _atomic(self, hart: int) -> Flow:
        """Return what an atomic stores: its register, and what was there, but where it only exchanges."""
        code = self._code(hart)
        operation = code >> 27
        flow = Flow(slots=[code >> 20 & 31], copied=operation in (_SC, _SWAP))
        flow.loads = code & 0x7F == _AMO and operation not in (_SC, _SWAP)
        return flow

    def _device_write(self, missing: list[tuple[int, int]], before: int) -> tuple[int, str, int, int] | None:
        found = None
        for low, high in missing:
            rows = self.trace.dma.where("paddr < ? AND paddr + size > ?", high, low).between(0, before + 1)
            row = rows.last()
            if row is not None and (found is None or row.icount > found[0]):
                found = (row.icount, row.device, row.paddr, row.size)
        return found

    def _of_device(
        self, row: tuple[int, str, int, int], part: tuple[int, int], data: bytes, base: int
    ) -> Source:
        icount, device, _, size = row
        node = self._end("device", part, data, base, f"{device} wrote {size} bytes to memory (DMA)")
        node.icount = icount
        held = data[part[0] - base : part[1] - base]
        self._name_input(node, device, icount, held)
        return node

    def _end(self, kind: str, part: tuple[int, int], data: bytes, base: int, text: str) -> Source:
        held = data[part[0] - base : part[1] - base]
        return Source(kind, _place(part[0], len(held)), int.from_bytes(held, "little"), text=text)

    # one step

    def _fill(self, node: Source, flow: Flow, hart: int, records: list[tuple[int, ...]]) -> None:
        """Say what a step's value is made of, and follow it."""
        assert node.icount is not None
        step, code = node.icount, self._code(hart)
        values = {slot: self._reg(hart, slot) for slot in flow.slots}
        mmio = next((r for r in records if r[_KIND] == ProbeKind.MMIO), None)
        reads = [r for r in records if r[_KIND] == ProbeKind.READ]
        if flow.calls and code & 0x7F == _SYSTEM:
            self._csr(node, hart, code >> 20 & 0xFFF)
            return
        if flow.calls and code & 0x7F == _AMO:
            if code >> 27 == _SC:
                node.kind, node.text = "state", f"{node.text}: whether the store was done"
                return
            flow = Flow(loads=True)  # its result is what was in memory
            values = {}
        if flow.loads and mmio is not None:
            self._mmio(node, mmio)
            return
        if flow.loads and reads:
            node.kind = "load" if node.kind != "store" else node.kind
            for read in reads:
                held = (read[_VALUE] & NEVER).to_bytes(8, "little")[: read[_SIZE]]
                node.sources += self.memory(read[_B], held, step)
        elif flow.state:
            node.kind = "state"
        elif not flow.slots:
            node.kind = "immediate" if node.kind != "store" else "store"
            if node.kind == "store":
                node.sources = [Source("immediate", "constant", node.value, step, node.pc, "in the code")]
        elif flow.copied and len(flow.slots) == 1:
            node.kind = "copy"
        node.sources += [self.register(hart, slot, value, step) for slot, value in values.items()]

    def _csr(self, node: Source, hart: int, number: int) -> None:
        node.kind = "csr"
        step = node.icount
        if number not in _KEEPING or step is None:
            node.kind = "state"
            return
        writer = self._last([Probe(ProbeKind.CSR, ProbeAction.LAST, number, number)], step)
        records, _ = self._step(writer, lambda: 0) if writer is not None else ([], 0)
        record = next((r for r in records if r[_KIND] == ProbeKind.CSR and r[_HART] == hart), None)
        if writer is None or record is None or record[_VALUE] & NEVER != node.value:
            node.kind = "state"  # set by a trap, by another hart last, or never
            return
        code = self._code(hart)
        if code >> 12 & 7 != 1:
            node.sources = [self._node("compute", "CSR", node.value, writer, hart)]
            return
        slot = code >> 15 & 31
        node.sources = [self.register(hart, slot, self._reg(hart, slot), writer)]

    def _mmio(self, node: Source, record: tuple[int, ...]) -> None:
        device = next((d for d in self.trace.board.devices if d.base <= record[_A] < d.base + d.size), None)
        name = device.name if device is not None else "nothing"
        offset = record[_A] - (device.base if device is not None else 0)
        node.kind, node.text = "device", f"{node.text}: {name}+{offset:#x}"
        assert node.icount is not None
        self._name_input(node, name, node.icount, bytes([record[_VALUE] & 0xFF]))

    def _name_input(self, node: Source, device: str, at: int, held: bytes) -> None:
        """Name the last input of a device, not behind a position, that holds these bytes."""
        rows = self.trace.trace.sql(
            "SELECT max(id) FROM inputs WHERE icount <= ? AND source = ? AND instr(payload, ?) > 0",
            (at, device, held),
        )[1]
        if rows and rows[0][0] is not None:
            node.kind, node.input = "input", int(rows[0][0])
            node.text += f"; the last input before it that holds this is input:{node.input}"

    def _node(self, kind: str, what: str, value: int, step: int, hart: int) -> Source:
        engine = self.trace.board.engine
        pc = int(engine.get_reg(hart, "pc"))
        text = str(engine.disasm(self._code(hart).to_bytes(4, "little"), pc)[1])
        return Source(kind, what, value, step, pc, text)

    def _code(self, hart: int) -> int:
        """Return the instruction that a hart is about to run; of a compressed one, with what follows it."""
        engine = self.trace.board.engine
        pc = int(engine.get_reg(hart, "pc"))
        out = b""
        for at in (pc, pc + 2):
            paddr = engine.translate(hart, at, "x")
            out += bytes(engine.read_phys(paddr, 2)) if paddr is not None else b"\0\0"
        return int.from_bytes(out, "little")

    def _ir(self, hart: int) -> str:
        return str(self.trace.board.engine.translator.dump_insn_ir(hart))

    def _step(self, step: int, look: Any) -> tuple[list[tuple[int, ...]], Any]:
        """Stand before a step; return what it will do to registers and memory, and what is seen right behind it."""
        trace = self.trace
        trace.goto(step)
        kinds = (ProbeKind.READ, ProbeKind.WRITE, ProbeKind.MMIO, ProbeKind.CSR, ProbeKind.REG)
        playback = trace.playback
        node, engine = playback.keep(), playback.board.engine
        ranges = {ProbeKind.REG: _SLOTS}
        engine.set_probes([Probe(k, ProbeAction.RECORD, 0, ranges.get(k, NEVER)) for k in kinds])
        try:
            playback.run_to(step + 1)
            records = [r for r in RECORD.iter_unpack(engine.take_records()) if r[0] == step]
            seen = look()
        finally:
            engine.set_probes(())
            playback.restore(node)
        return records, seen

    def _last(self, probes: list[Probe], before: int) -> int | None:
        return self.trace.timeline.last_step(probes, self.trace.start, before)

    def _give_up(self, what: str, value: int) -> Source | None:
        if self.left <= 0:
            return Source("limit", what, value, text="no more places are followed; give a larger limit")
        self.left -= 1
        return None


def _place(paddr: int, size: int) -> str:
    return f"{size} bytes of RAM at {paddr:#x}"


def _common(parts: list[tuple[int, int]], low: int, high: int) -> list[tuple[int, int]]:
    return [(max(a, low), min(b, high)) for a, b in parts if max(a, low) < min(b, high)]
