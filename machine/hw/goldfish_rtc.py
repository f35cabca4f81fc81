"""The goldfish real-time clock: nanoseconds since 1970, and an alarm.

The wall clock is asked of the gate once, at reset; from there it advances with virtual time.
"""

from __future__ import annotations

from machine.fdt import Node, cells64
from machine.hw.device import Device, Timer
from machine.hw.registers import Field, Reg
from machine.hw.state import Int
from machine.hw.virtmap import PLIC_PHANDLE, RTC_IRQ

U64 = (1 << 64) - 1
LOW = 0xFFFF_FFFF
ENABLE = Field("enable", 0)


class GoldfishRtc(Device):
    """Reading ``time_low`` latches ``time_high``; writing ``alarm_low`` arms the alarm."""

    time_low = Reg(0x00, stored=False, doc="low half of the time, ns; reading latches the high half")
    time_high = Reg(0x04, doc="high half of the time as latched")
    alarm_low = Reg(0x08, stored=False, doc="low half of the alarm's time; writing arms it")
    alarm_high = Reg(0x0C, stored=False, doc="high half of the alarm's time")
    irq_enabled = Reg(0x10, fields=(ENABLE,), doc="interrupt enable")
    clear_alarm = Reg(0x14, access="wo", stored=False, doc="writing disarms the alarm")
    alarm_status = Reg(0x18, access="ro", doc="1 while the alarm is armed")
    clear_interrupt = Reg(0x1C, access="wo", stored=False, doc="writing withdraws the interrupt")

    offset_ns = Int(64)
    alarm_ns = Int(64)
    pending = Int(1)
    alarm = Timer()

    def started(self) -> None:
        """Ask for the wall clock: 8 bytes, nanoseconds since 1970, little endian.

        Replay: consumes an input.
        """
        self.offset_ns = int.from_bytes(self.ask("wallclock", b"")[:8], "little")

    def time_ns(self) -> int:
        """Return the clock's time in nanoseconds since 1970."""
        return (self.now() + self.offset_ns) & U64

    @time_low.on_read
    def _read_time_low(self) -> int:
        time_ns = self.time_ns()
        self.time_high = time_ns >> 32
        return time_ns & LOW

    @time_low.on_write
    def _write_time_low(self, value: int) -> None:
        self._set_time(self.time_ns() & ~LOW | value)

    @time_high.on_write
    def _write_time_high(self, value: int) -> None:
        self._set_time(value << 32 | self.time_ns() & LOW)

    def _set_time(self, time_ns: int) -> None:
        self.offset_ns = (time_ns - self.now()) & U64
        if self.alarm_status:
            self._arm()

    @alarm_low.on_read
    def _read_alarm_low(self) -> int:
        return self.alarm_ns & LOW

    @alarm_low.on_write
    def _write_alarm_low(self, value: int) -> None:
        self.alarm_ns = self.alarm_ns & ~LOW | value
        self._arm()

    @alarm_high.on_read
    def _read_alarm_high(self) -> int:
        return self.alarm_ns >> 32

    @alarm_high.on_write
    def _write_alarm_high(self, value: int) -> None:
        self.alarm_ns = value << 32 | self.alarm_ns & LOW

    @irq_enabled.on_write
    def _write_irq_enabled(self, value: int) -> None:
        self.irq_enabled = value
        self._update()

    @clear_alarm.on_write
    def _write_clear_alarm(self, value: int) -> None:
        self.cancel(GoldfishRtc.alarm)
        self.alarm_status = 0

    @clear_interrupt.on_write
    def _write_clear_interrupt(self, value: int) -> None:
        self.pending = 0
        self._update()

    @alarm.fires
    def _ring(self) -> None:
        self.alarm_status = 0
        self.pending = 1
        self._update()

    def _arm(self) -> None:
        wait_ns = self.alarm_ns - self.time_ns()
        if wait_ns <= 0:
            self.cancel(GoldfishRtc.alarm)
            self._ring()
            return
        self.alarm_status = 1
        due_ns = self.now() + wait_ns
        if due_ns < U64:
            self.schedule(GoldfishRtc.alarm, due_ns)

    def _update(self) -> None:
        self.irq.set(bool(self.pending and self.irq_enabled))

    def fdt_nodes(self) -> list[Node]:
        return [
            Node(
                f"rtc@{self.base:x}",
                {
                    "compatible": "google,goldfish-rtc",
                    "reg": cells64(self.base, self.size),
                    "interrupt-parent": PLIC_PHANDLE,
                    "interrupts": RTC_IRQ,
                },
            )
        ]
