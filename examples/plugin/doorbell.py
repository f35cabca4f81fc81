"""A plug-in: a doorbell on the platform bus, the table of who rang it, and a command that tells."""

from collections.abc import Iterator, Mapping
from typing import Any

from machine.fdt import Node, cells64
from machine.hw.device import Device
from machine.hw.registers import Reg
from machine.hw.virtmap import PLATFORM_BASE
from traces.queries.base import ICOUNT, PC, VALUE, A, Names, ProbeNeed, Record, State, Stretch
from workbench.output import Record as Answer
from workbench.output import Result
from workbench.plugins import device, query
from workbench.repl.context import Context
from workbench.repl.registry import command


@device("doorbell")
class Doorbell(Device):
    """Writing ``ring`` rings; ``count`` tells how often, and ``last`` what was written last."""

    ring = Reg(0x00, access="wo", stored=False, doc="writing rings")
    count = Reg(0x04, access="ro", doc="how often it was rung")
    last = Reg(0x08, access="ro", doc="what was written last")

    @ring.on_write
    def _write_ring(self, value: int) -> None:
        self.count = (self.count + 1) & 0xFFFF_FFFF
        self.last = value

    def fdt_nodes(self) -> list[Node]:
        properties = {"compatible": "example,doorbell", "reg": cells64(self.base, self.size)}
        return [Node(f"doorbell@{self.base:x}", properties)]


def _needs(limits: Mapping[str, Any]) -> list[ProbeNeed]:
    return [ProbeNeed("MMIO", PLATFORM_BASE, PLATFORM_BASE + 3)]


@query("rings", "icount pc value", _needs, per_step=1e-4)
def rings(records: Iterator[Record], state: State, names: Names) -> Stretch:
    """Who rang the doorbell, and with what."""
    return Stretch([(r[ICOUNT], r[PC], r[VALUE]) for r in records if r[A] == PLATFORM_BASE])


@command("doorbell", group="state")
def doorbell(context: Context, arguments: str) -> Result:
    """Tell how often the doorbell was rung by now.

    Example: doorbell
    """
    for each in context.session.board.devices:
        if isinstance(each, Doorbell):
            return Answer({"rung": each.count, "last": each.last})
    return Answer({"rung": 0, "last": None})
