"""Changing a run: writes to the past open a branch, writes to now become inputs of the recording."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from machine.config import MachineConfig
from machine.inputs import Input
from traces.reader import TraceReader
from workbench.errors import CommandError
from workbench.registers import canonical

from .branches import branch_path, open_branch
from .errors import EvalError, MemoryAccessError
from .interventions import Script, Scripted, apply_write, ram_write, reg_write
from .live import Live
from .playback import Playback
from .settings import changed_config, taken_over
from .stopping import Stopping

_PAGE = 4096
_MACHINE_TIMER, _SUPERVISOR_TIMER = 7, 5
_NEVER = (1 << 64) - 1
#: Steps of ``mtime``: the clock has 10 MHz.
_NS_PER_TICK = 100


@dataclass(frozen=True, slots=True)
class Written:
    """What a change did.

    Args:
        icount: the position. branch: the new trace that the session is on now, None if the run stayed the same one.
        text: this for a person.
    """

    icount: int
    branch: Path | None
    text: str

    def __str__(self) -> str:
        return self.text


class Changing(Stopping):
    """Writes, inputs and branches. A part of ``Session``."""

    trace: TraceReader
    playback: Playback

    def write_reg(self, name: str, value: int, hart: int | None = None) -> Written:
        """Write a register of the selected hart.

        Raises:
            EvalError: there is none of this name, or it can't hold the value.
        """
        which = self.hart if hart is None else hart
        return self._write([reg_write(which, canonical(name), value)])

    def write_phys(self, paddr: int, data: bytes) -> Written:
        """Write RAM at a physical address. Raises MemoryAccessError: not all of it is RAM."""
        self.read_phys(paddr, len(data))
        return self._write([ram_write(paddr, data)])

    def write_mem(self, vaddr: int, data: bytes) -> Written:
        """Write memory as the selected hart sees it, whatever its page tables forbid.

        Raises:
            MemoryAccessError: not mapped, or not RAM.
        """
        items = []
        at = 0
        while at < len(data):
            here = (vaddr + at) & _NEVER
            paddr = self.translate(here)
            if paddr is None:
                raise MemoryAccessError(f"cannot access memory at address {here:#x}")
            size = min(len(data) - at, _PAGE - here % _PAGE)
            self.read_phys(paddr, size)
            items.append(ram_write(paddr, data[at : at + size]))
            at += size
        return self._write(items)

    def inject(self, item: Input | bytes) -> Written:
        """Give the machine an input here; bytes are typed on the console."""
        given = item if isinstance(item, Input) else Input("uart0", "rx", item)
        if self._live is not None and self.cursor == self.end:
            self._live.write(given)
            return self._unbranched("input before the next step")
        script = self._script()
        script.given.insert(0, Scripted(self.cursor, self.board.vtime_ns, given))
        return self._branch(script, [], f"{given.source} {given.kind}")

    def drop_input(self, input_id: int) -> Written:
        """Branch before an input of the trace, without it. Raises CommandError: no such input was delivered."""
        script, found = self._before_input(input_id)
        script.given.remove(found)
        return self._branch(script, [], f"without input {input_id}")

    def delay_input(self, input_id: int, steps: int) -> Written:
        """Branch before an input of the trace that comes so many steps later. Raises CommandError."""
        script, found = self._before_input(input_id)
        late = replace(
            found,
            icount=found.icount + steps,
            vtime_ns=found.vtime_ns + steps * self.playback.config.ns_per_step,
        )
        script.given[script.given.index(found)] = late
        script.given.sort(key=lambda s: s.icount)
        return self._branch(script, [], f"input {input_id} {steps} steps later")

    def delay_interrupt(self, steps: int | None) -> Written:
        """Branch where the hart is about to take its timer's interrupt, which comes later, or never if None.

        The cursor is before the trap entry, as a catch of interrupts leaves it after a reverse motion.

        Raises:
            CommandError: the next step here is not the entry of a timer's interrupt.
        """
        hart, cause = self._interrupt_here()
        if cause not in (_MACHINE_TIMER, _SUPERVISOR_TIMER):
            raise CommandError(f"interrupt {cause} is not a timer's; drop or delay the input that causes it")
        name = "mtimecmp" if cause == _MACHINE_TIMER or not self.reg("menvcfg", hart) >> 63 else "stimecmp"
        value = _NEVER
        if steps is not None:
            ticks = -(-steps * self.playback.config.ns_per_step // _NS_PER_TICK)
            value = self.board.vtime_ns // _NS_PER_TICK + ticks
        changes = [reg_write(hart, name, value)]
        if name == "mtimecmp" and cause == _SUPERVISOR_TIMER:
            changes.append(reg_write(hart, "mip", self.reg("mip", hart) & ~(1 << _SUPERVISOR_TIMER)))
        what = "without" if steps is None else f"{steps} steps later:"
        return self._branch(self._script(), changes, f"{what} interrupt {cause} of hart {hart}")

    def configure(self, name: str, text: str) -> Written:
        """Branch with another value of a setting, from here on: ``workbench.replay.settings`` has the table.

        Raises:
            CommandError: there is no such setting or value, or a live recording is at its end, whose machine stays
                what it is.
        """
        config = changed_config(self.playback.config, name, text)
        if self._live is not None and self.cursor == self.end:
            raise CommandError("a recording's machine stays as it is; go back by a step to branch from there")

        def change(board: Any) -> None:
            if config.quantum_steps != self.playback.config.quantum_steps:
                board.set_quantum(config.quantum_steps)

        script = self._script()
        script.asked = taken_over(script.asked, name)
        return self._branch(script, [], f"{name} = {text}", change, config)

    def drop_source(self, source: str) -> Written:
        """Branch here, and let a device have none of the inputs that it was given from here on.

        Raises:
            CommandError: it was given none.
        """
        script = self._script()
        left = [item for item in script.given if item.input.source != source]
        if len(left) == len(script.given):
            known = sorted({item.input.source for item in script.given})
            raise CommandError(
                f"{source[:40]!r} is given nothing from here on; {', '.join(known) or 'no device'} is"
            )
        dropped = len(script.given) - len(left)
        script.given = left
        return self._branch(script, [], f"without {dropped} inputs of {source}")

    # how

    def _write(self, items: list[Input]) -> Written:
        if self._live is not None and self.cursor == self.end:
            for item in items:
                self.playback.touch(item)
                self._live.write(item)
            return self._unbranched("the write is an input of the recording")
        self._check_writes(items)
        return self._branch(self._script(), items, "")

    def _unbranched(self, text: str) -> Written:
        return Written(self.cursor, None, f"{text} (position {self.cursor})")

    def _check_writes(self, items: list[Input]) -> None:
        """Refuse what can't be written, before there is a branch for it."""
        try:
            for item in items:
                self.playback.touch(item)
        finally:
            self.timeline.goto(self.cursor)

    def _script(self) -> Script:
        """Return what a branch at the cursor takes over: the answers at reset, and all inputs from here on."""
        reset = self.playback.tree.root.next_input
        here = self.playback.gate.next_id
        rows = [row for row in self.trace.inputs() if row.id < reset or row.id >= here]
        return Script.of(rows)

    def _before_input(self, input_id: int) -> tuple[Script, Scripted]:
        row = next((r for r in self.trace.inputs(input_id, 1) if r.id == input_id), None)
        if row is None or row.asked:
            raise CommandError(f"input {input_id} was not delivered to a device; 'trace inputs' lists them")
        self.goto(row.icount)
        script = self._script()
        return script, next(s for s in script.given if s.id == input_id)

    def _interrupt_here(self) -> tuple[int, int]:
        """Return hart and number of the interrupt that is taken next. Raises CommandError: none is."""
        here, hart = self.cursor, self.board.engine.current_hart
        if here >= self.end:
            raise CommandError("no step is known here")
        traps = self.reg("traps", hart)
        self.timeline.goto(here + 1)
        taken = self.reg("traps", hart) != traps
        cause = self.reg("mcause" if self.reg("priv", hart) == 3 else "scause", hart)
        self.timeline.goto(here)
        if not taken or not cause >> 63:
            raise CommandError(
                "the next step here is not the entry of an interrupt; 'catch interrupt' finds one"
            )
        return hart, cause & 0xFF

    def _branch(
        self,
        script: Script,
        items: list[Input],
        why: str,
        more: Callable[[Any], None] = lambda board: None,
        config: MachineConfig | None = None,
    ) -> Written:
        """Go on in a new trace that leaves this run at the cursor."""

        def change(board: Any) -> None:
            for item in items:
                apply_write(board, item)
            more(board)

        at, parent = self.cursor, self.trace.path
        note = why or ", ".join(_what(item) for item in items)
        path = branch_path(parent)
        if script.given and script.given[0].icount < at:
            raise EvalError("an input of the past can't be given")
        recorder = open_branch(self.playback, path, script, change, note, config)
        self._change_over(Live(recorder, owned=True))
        return Written(at, path, f"branch {path} at position {at}: {note}")

    def _change_over(self, live: Live) -> None:
        """Make a branch's trace this session's."""
        raise NotImplementedError


def _what(item: Input) -> str:
    if item.kind == "reg":
        name, _, value = item.payload.partition(b"\0")
        return f"{name.decode()} = {int.from_bytes(value, 'little'):#x}"
    return f"{len(item.payload) - 8} bytes at physical {int.from_bytes(item.payload[:8], 'little'):#x}"
