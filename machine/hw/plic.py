"""The platform-level interrupt controller: 95 sources, a machine and a supervisor context for each hart.

    0x000000  priority of source i           (4 bytes each)
    0x001000  pending bits                   (read only)
    0x002000  enable bits of context c       (0x80 bytes each)
    0x200000  threshold of context c         (0x1000 bytes each), claim/complete 4 bytes behind

Sources are level-triggered: a high wire becomes pending once; a claim takes it; on completion a wire that is
still high becomes pending again.

Spec: RISC-V PLIC 1.0.0
"""

from __future__ import annotations

from typing import Any

from machine.fdt import Node, cells64
from machine.hw.aclint import Harts
from machine.hw.device import Device, Wires
from machine.hw.registers import Field, RegBank
from machine.hw.state import Int, Ints
from machine.hw.virtmap import IRQ_MEIP, IRQ_SEIP, PLIC_PHANDLE, intc_phandle

SOURCES = 96  # ids 0 to 95; 0 means "no interrupt"
WORDS = SOURCES // 32
CONTEXTS = 32  # of 16 harts
ENABLE_WORDS = 0x80 // 4
PRIORITY = Field("priority", 0, 3)
ALL = (1 << SOURCES) - 2


class PlicLine:
    """The wire of one source."""

    def __init__(self, plic: Plic, source: int) -> None:
        self._plic = plic
        self._source = source

    def set(self, level: bool) -> None:
        self._plic.set_level(self._source, level)


class Plic(Device):
    """SiFive's PLIC. Priority 0 means never; equal priorities go by the lowest id."""

    size = 0x60_0000

    priority = RegBank(0x0000, count=SOURCES, fields=(PRIORITY,), doc="priority of source i")
    pending_bits = RegBank(0x1000, count=WORDS, access="ro", stored=False, doc="pending bits of sources 32i…")
    enable_bits = RegBank(
        0x2000, count=CONTEXTS * ENABLE_WORDS, stored=False, doc="enable bits of the contexts"
    )
    thresholds = RegBank(
        0x20_0000, count=CONTEXTS, stride=0x1000, fields=(PRIORITY,), stored=False, doc="threshold"
    )
    claims = RegBank(
        0x20_0004, count=CONTEXTS, stride=0x1000, stored=False, doc="read: claim; write: complete"
    )

    level = Int(SOURCES)
    pending = Int(SOURCES)
    in_service = Int(SOURCES)
    enabled = Ints(SOURCES, max_count=CONTEXTS)
    threshold = Ints(3, max_count=CONTEXTS)

    def __init__(self, wires: Wires, name: str, base: int, harts: Harts, n_harts: int) -> None:
        super().__init__(wires, name, base)
        self.harts = harts
        self.n_contexts = 2 * n_harts
        self._out: list[bool] = []

    def line(self, source: int) -> PlicLine:
        """Return the wire of a source, 1 to 95."""
        if not 0 < source < SOURCES:
            raise ValueError(f"the PLIC has no source {source}")
        return PlicLine(self, source)

    def reset(self) -> None:
        super().reset()
        self.enabled = [0] * self.n_contexts
        self.threshold = [0] * self.n_contexts
        self._out = [False] * self.n_contexts

    def load_state(self, state: Any, where: str = "") -> None:
        super().load_state(state, where)
        if len(self.enabled) != self.n_contexts or len(self.threshold) != self.n_contexts:
            raise ValueError(f"state {where}: expected {self.n_contexts} contexts")

    def state_loaded(self) -> None:
        # The harts' own lines are in their state; this is only what was last driven.
        self._out = [
            self._best(c, self.threshold[c]) != 0 for c in range(min(len(self.enabled), len(self.threshold)))
        ]

    def set_level(self, source: int, level: bool) -> None:
        """Take the level of a source's wire."""
        bit = 1 << source
        if bool(self.level & bit) == level:
            return
        self.level ^= bit
        if level and not (self.in_service | self.pending) & bit:
            self.pending |= bit
            self._update()

    def _best(self, context: int, above: int) -> int:
        """Return the source to take: pending, enabled, of the highest priority above ``above``; or 0."""
        found, highest = 0, above
        left = self.pending & self.enabled[context]
        while left:
            low = left & -left
            source = low.bit_length() - 1
            if self.priority[source] > highest:
                found, highest = source, self.priority[source]
            left ^= low
        return found

    def _update(self) -> None:
        for context in range(self.n_contexts):
            out = self._best(context, self.threshold[context]) != 0
            if out != self._out[context]:
                self._out[context] = out
                self.harts.irq_line(context >> 1, IRQ_SEIP if context & 1 else IRQ_MEIP, out)

    def _exists(self, context: int) -> bool:
        if context >= self.n_contexts:
            self.guest_error(f"access to context {context}: there are {self.n_contexts}")
        return context < self.n_contexts

    @priority.on_write
    def _write_priority(self, source: int, value: int) -> None:
        if source:
            self.priority[source] = value
            self._update()

    @pending_bits.on_read
    def _read_pending(self, word: int) -> int:
        return self.pending >> 32 * word & 0xFFFF_FFFF

    @enable_bits.on_read
    def _read_enable(self, index: int) -> int:
        context, word = divmod(index, ENABLE_WORDS)
        return self.enabled[context] >> 32 * word & 0xFFFF_FFFF if self._exists(context) else 0

    @enable_bits.on_write
    def _write_enable(self, index: int, value: int) -> None:
        context, word = divmod(index, ENABLE_WORDS)
        if self._exists(context):
            shift = 32 * word
            kept = self.enabled[context] & ~(0xFFFF_FFFF << shift)
            self.enabled[context] = (kept | value << shift) & ALL
            self._update()

    @thresholds.on_read
    def _read_threshold(self, context: int) -> int:
        return self.threshold[context] if self._exists(context) else 0

    @thresholds.on_write
    def _write_threshold(self, context: int, value: int) -> None:
        if self._exists(context):
            self.threshold[context] = value
            self._update()

    @claims.on_read
    def _claim(self, context: int) -> int:
        if not self._exists(context):
            return 0
        source = self._best(context, 0)  # SPEC: the threshold does not touch a claim
        if source:
            self.pending &= ~(1 << source)
            self.in_service |= 1 << source
            self._update()
        return source

    @claims.on_write
    def _complete(self, context: int, source: int) -> None:
        if not self._exists(context):
            return
        if source >= SOURCES or not self.enabled[context] >> source & 1:
            self.guest_error(f"completion of source {source}, which context {context} has not enabled")
            return
        bit = 1 << source
        self.in_service &= ~bit
        if self.level & bit:
            self.pending |= bit
        self._update()

    def fdt_nodes(self) -> list[Node]:
        lines = [
            c
            for h in range(self.n_contexts // 2)
            for c in (intc_phandle(h), IRQ_MEIP, intc_phandle(h), IRQ_SEIP)
        ]
        return [
            Node(
                f"plic@{self.base:x}",
                {
                    "compatible": ["sifive,plic-1.0.0", "riscv,plic0"],
                    "reg": cells64(self.base, self.size),
                    "#interrupt-cells": 1,
                    "#address-cells": 0,
                    "interrupt-controller": None,
                    "interrupts-extended": lines,
                    "riscv,ndev": SOURCES - 1,
                    "phandle": PLIC_PHANDLE,
                },
            )
        ]
