"""The test finisher: one register by which the guest powers off, resets, or ends with an exit code."""

from __future__ import annotations

from machine.fdt import Node, Value, cells64
from machine.hw.device import Device
from machine.hw.registers import Field, Reg
from machine.hw.virtmap import SYSCON_PHANDLE

STATUS = Field("status", 0, 16, doc="0x5555 power off, 0x7777 reset, 0x3333 end with the exit code")
CODE = Field("code", 16, 16, doc="the exit code of 0x3333")
PASS, FAIL, RESET = 0x5555, 0x3333, 0x7777


class Finisher(Device):
    """SiFive's test device, also a syscon for poweroff and reboot."""

    finish = Reg(0x0, fields=(STATUS, CODE), sizes=(2, 4), stored=False, doc="what to end the machine with")

    @finish.on_write
    def _write_finish(self, value: int) -> None:
        status = STATUS.get(value)
        if status == PASS:
            self.wires.request_stop("poweroff")
        elif status == RESET:
            self.wires.request_stop("reboot")
        elif status == FAIL:
            self.wires.request_stop("fail", CODE.get(value))
        else:
            self.guest_error(f"finish with {value:#x}: not a status")

    def fdt_nodes(self) -> list[Node]:
        def action(name: str, value: int) -> Node:
            props: dict[str, Value] = {"compatible": f"syscon-{name}", "regmap": SYSCON_PHANDLE, "offset": 0}
            return Node(name, {**props, "value": value}, parent="/")

        test = Node(
            f"test@{self.base:x}",
            {
                "compatible": ["sifive,test1", "sifive,test0", "syscon"],
                "reg": cells64(self.base, self.size),
                "phandle": SYSCON_PHANDLE,
            },
        )
        return [test, action("poweroff", PASS), action("reboot", RESET)]
