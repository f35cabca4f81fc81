"""The built-in SBI: what firmware would do for an S-mode kernel, done by the machine, in no guest time.

Calls arrive as ecalls from S-mode: a7 extension, a6 function, a0… arguments; a0 error and a1 value go back.

Spec: RISC-V SBI 2.0
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from machine.hw.device import ConsoleOut, Dma
from machine.hw.virtmap import IRQ_SEIP, IRQ_SSIP
from machine.values import valueclass

SPEC_VERSION = 2 << 24
IMPL_ID = 0x5742  # not assigned to anybody
IMPL_VERSION = 1

SUCCESS, FAILED, NOT_SUPPORTED, INVALID_PARAM, DENIED, INVALID_ADDRESS, ALREADY_AVAILABLE, ALREADY_STARTED = (
    0,
    -1,
    -2,
    -3,
    -4,
    -5,
    -6,
    -7,
)
EXT_BASE, EXT_TIME, EXT_IPI, EXT_RFENCE = 0x10, 0x54494D45, 0x735049, 0x52464E43
EXT_HSM, EXT_SRST, EXT_DBCN = 0x48534D, 0x53525354, 0x4442434E
LEGACY_LAST = 8
HSM_STARTED, HSM_STOPPED, HSM_SUSPENDED = 0, 1, 4
SUSPEND_RETENTIVE, SUSPEND_NON_RETENTIVE = 0, 0x8000_0000
U64 = (1 << 64) - 1
RESET_VENDOR, REASON_VENDOR = 0xF000_0000, 0xE000_0000  # the first of what is not reserved
SIE = 1 << 1  # in sstatus
DBCN_MAX = 1 << 16  # bytes of one call; the caller goes on with the rest


class Harts(Protocol):
    """What the SBI asks of the engine."""

    harts: int

    def get_reg(self, hart: int, reg: str) -> int: ...

    def set_reg(self, hart: int, reg: str, value: int) -> None: ...

    def irq_line(self, hart: int, line: int, level: bool) -> None: ...

    def reset_hart(self, hart: int, pc: int, arg0: int = 0, arg1: int = 0) -> None: ...

    def start_hart(self, hart: int) -> None: ...

    def stop_hart(self, hart: int) -> None: ...

    def hart_stopped(self, hart: int) -> bool: ...

    def suspend_hart(self, hart: int) -> None: ...

    def hart_suspended(self, hart: int) -> bool: ...

    def jump_hart(self, hart: int, pc: int) -> None: ...

    def translate(self, hart: int, vaddr: int, access: str = "r") -> int | None: ...


@valueclass(frozen=True, slots=True)
class Call:
    """One call's arguments."""

    hart: int
    function: int
    args: tuple[int, ...]


Result = tuple[int, int]  # error, value
HANDLED: None = None  # the call does not come back to where it was made
OK: Result = (SUCCESS, 0)


class Sbi:
    """Answers ecalls.

    Args:
        harts: the engine.
        dma: guest-physical memory, for the debug console.
        console: where the debug console prints: the same port as the first UART.
        receive: takes up to so many characters typed to that port.
        stop: asks the machine to end, with ``poweroff``, ``reboot`` or ``fail`` and an exit code.

    It has no state of its own: what a call changes is in the harts.
    """

    def __init__(
        self,
        harts: Harts,
        dma: Dma,
        console: ConsoleOut,
        receive: Callable[[int], bytes],
        stop: Callable[[str, int], None],
        guest_error: Callable[[str, str], None],
    ) -> None:
        self.harts = harts
        self.dma = dma
        self.console = console
        self.receive = receive
        self.stop = stop
        self.guest_error = guest_error
        self._extensions: dict[int, Callable[[Call], Result | None]] = {
            EXT_BASE: self._base,
            EXT_TIME: self._time,
            EXT_IPI: self._ipi,
            EXT_RFENCE: self._rfence,
            EXT_HSM: self._hsm,
            EXT_SRST: self._srst,
            EXT_DBCN: self._dbcn,
        }

    def enter(self, hart: int, pc: int, arg0: int, arg1: int) -> None:
        """Reset a hart and make it ready to run at ``pc`` in S-mode, translation off."""
        wire = self.harts.get_reg(hart, "seip_line")
        self.harts.reset_hart(hart, pc, arg0, arg1)
        self.harts.irq_line(hart, IRQ_SEIP, bool(wire))  # the interrupt controller's wire is not the hart's

    def call(self, hart: int) -> None:
        """Answer the ecall that ``hart`` is in. Replay: deterministic."""
        get = self.harts.get_reg
        args = tuple(get(hart, f"x{10 + i}") for i in range(6))
        call = Call(hart, get(hart, "x16") & 0xFFFF_FFFF, args)
        extension = get(hart, "x17") & 0xFFFF_FFFF
        if extension <= LEGACY_LAST:
            # Legacy calls return one value and keep a1.
            self.harts.set_reg(hart, "x10", self._legacy(extension, call) & U64)
            return
        handler = self._extensions.get(extension)
        result = handler(call) if handler is not None else (NOT_SUPPORTED, 0)
        if result is not None:
            self.harts.set_reg(hart, "x10", result[0] & U64)
            self.harts.set_reg(hart, "x11", result[1] & U64)

    def _base(self, call: Call) -> Result:
        probed = call.args[0] & 0xFFFF_FFFF
        values = (
            SPEC_VERSION,
            IMPL_ID,
            IMPL_VERSION,
            int(probed in self._extensions or probed <= LEGACY_LAST),
            *(self.harts.get_reg(call.hart, name) for name in ("mvendorid", "marchid", "mimpid")),
        )
        return (SUCCESS, values[call.function]) if call.function < len(values) else (NOT_SUPPORTED, 0)

    def _time(self, call: Call) -> Result:
        if call.function != 0:
            return NOT_SUPPORTED, 0
        self.harts.set_reg(call.hart, "stimecmp", call.args[0])
        return OK

    def _targets(self, mask: int, base: int) -> list[int] | None:
        """Return the harts that a mask names, or None when it names one that is not there."""
        if base == U64:
            return list(range(self.harts.harts))
        harts = [base + bit for bit in range(64) if mask >> bit & 1]
        return harts if all(h < self.harts.harts for h in harts) else None

    def _send_ipi(self, harts: list[int]) -> None:
        for hart in harts:
            self.harts.irq_line(hart, IRQ_SSIP, True)

    def _ipi(self, call: Call) -> Result:
        if call.function != 0:
            return NOT_SUPPORTED, 0
        harts = self._targets(call.args[0], call.args[1])
        if harts is None:
            return INVALID_PARAM, 0
        self._send_ipi(harts)
        return OK

    def _rfence(self, call: Call) -> Result:
        """Nothing to do: no translation outlives the page table it came from (determinism, law 4)."""
        if call.function > 2:
            return NOT_SUPPORTED, 0  # the others need the hypervisor extension
        if self._targets(call.args[0], call.args[1]) is None:
            return INVALID_PARAM, 0
        return OK

    def _hsm(self, call: Call) -> Result | None:
        functions = (self._hart_start, self._hart_stop, self._hart_status, self._hart_suspend)
        return functions[call.function](call) if call.function < len(functions) else (NOT_SUPPORTED, 0)

    def _hart_start(self, call: Call) -> Result:
        hart, pc, opaque = call.args[:3]
        if hart >= self.harts.harts:
            return INVALID_PARAM, 0
        if not self.harts.hart_stopped(hart):
            return ALREADY_AVAILABLE, 0
        if not self._runs_at(pc):
            return INVALID_ADDRESS, 0
        self.enter(hart, pc, hart, opaque)
        self.harts.start_hart(hart)
        return OK

    def _hart_stop(self, call: Call) -> None:
        self.harts.stop_hart(call.hart)
        return HANDLED

    def _hart_status(self, call: Call) -> Result:
        hart = call.args[0]
        if hart >= self.harts.harts:
            return INVALID_PARAM, 0
        if self.harts.hart_stopped(hart):
            return SUCCESS, HSM_STOPPED
        return SUCCESS, HSM_SUSPENDED if self.harts.hart_suspended(hart) else HSM_STARTED

    def _hart_suspend(self, call: Call) -> Result | None:
        """Wait for an interrupt; the non-retentive kind then goes on elsewhere. Spec: 9.4"""
        kind, pc, opaque = call.args[0] & 0xFFFF_FFFF, *call.args[1:3]
        if kind not in (SUSPEND_RETENTIVE, SUSPEND_NON_RETENTIVE):
            return NOT_SUPPORTED if self._defined(kind) else INVALID_PARAM, 0
        if kind == SUSPEND_RETENTIVE:
            self.harts.suspend_hart(call.hart)
            return OK
        if not self._runs_at(pc):
            return INVALID_ADDRESS, 0
        # What the hart resumes with is set before it waits: nobody else sees its registers meanwhile.
        self.harts.set_reg(call.hart, "satp", 0)
        self.harts.set_reg(call.hart, "sstatus", self.harts.get_reg(call.hart, "sstatus") & ~SIE)
        self.harts.set_reg(call.hart, "x10", call.hart)
        self.harts.set_reg(call.hart, "x11", opaque)
        self.harts.jump_hart(call.hart, pc)
        self.harts.suspend_hart(call.hart)
        return HANDLED

    @staticmethod
    def _defined(kind: int) -> bool:
        """Tell whether a suspend type is a default or a platform one, not a reserved one."""
        return kind & 0x7FFF_FFFF == 0 or kind & 0x7FFF_FFFF >= 0x1000_0000

    def _runs_at(self, pc: int) -> bool:
        """Tell whether a hart can be sent to a physical address."""
        return not pc & 1 and self._in_ram(pc, 2)

    def _in_ram(self, paddr: int, size: int) -> bool:
        try:
            self.dma.read(paddr, size)
        except ValueError:
            return False
        return True

    def _srst(self, call: Call) -> Result:
        kind, reason = call.args[0] & 0xFFFF_FFFF, call.args[1] & 0xFFFF_FFFF
        if call.function != 0:
            return NOT_SUPPORTED, 0
        if 2 < kind < RESET_VENDOR or 1 < reason < REASON_VENDOR:
            return INVALID_PARAM, 0
        if kind >= RESET_VENDOR:
            return NOT_SUPPORTED, 0
        if kind:
            self.stop("reboot", 0)
        elif reason == 1:
            self.stop("fail", 1)  # shutdown because of a system failure
        else:
            self.stop("poweroff", 0)
        return OK

    def _dbcn(self, call: Call) -> Result:
        if call.function == 2:
            self.console.put(bytes((call.args[0] & 0xFF,)))
            return OK
        if call.function > 2:
            return NOT_SUPPORTED, 0
        size, paddr = min(call.args[0], DBCN_MAX), call.args[1]
        if call.args[2]:
            return INVALID_PARAM, 0  # the upper half of a 128-bit address
        try:
            data = self.dma.read(paddr, size)
            if call.function == 0:
                self.console.put(data)
            else:
                data = self.receive(size)
                self.dma.write(paddr, data)
        except ValueError:
            return INVALID_PARAM, 0
        return SUCCESS, len(data)

    def _legacy(self, extension: int, call: Call) -> int:
        """Answer a legacy call. Spec: chapter 5."""
        if extension == 0:
            self.harts.set_reg(call.hart, "stimecmp", call.args[0])
        elif extension == 1:
            self.console.put(bytes((call.args[0] & 0xFF,)))
        elif extension == 2:
            data = self.receive(1)
            return data[0] if data else -1
        elif extension == 3:
            self.harts.irq_line(call.hart, IRQ_SSIP, False)
        elif extension == 4:
            harts = self._legacy_harts(call)
            if harts is None:
                return FAILED
            self._send_ipi(harts)
        elif extension == LEGACY_LAST:
            self.stop("poweroff", 0)
        return SUCCESS  # 5 to 7: remote fences, see _rfence

    def _legacy_harts(self, call: Call) -> list[int] | None:
        """Return the harts of a mask that a virtual address points to; address 0 means all."""
        if not call.args[0]:
            return list(range(self.harts.harts))
        paddr = self.harts.translate(call.hart, call.args[0])
        if paddr is None or not self._in_ram(paddr, 8):
            return None
        mask = int.from_bytes(self.dma.read(paddr, 8), "little")
        return [h for h in range(self.harts.harts) if mask >> h & 1]
