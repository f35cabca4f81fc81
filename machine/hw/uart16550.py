"""The serial port: an NS16550A whose line has no speed: a character is sent in the step that writes it.

Characters from outside wait in ``rx``; the first 16 of them (1 without FIFO) are what the chip holds, the
others are still on their way, so that nothing typed is lost. The receive time-out is immediate.

Spec: National Semiconductor PC16550D, section 8.
"""

from __future__ import annotations

from machine.fdt import Node, cells64
from machine.hw.device import Device, IrqLine, Wires
from machine.hw.registers import Field, Reg
from machine.hw.state import ByteString, Int
from machine.hw.virtmap import PLIC_PHANDLE, UART_IRQ
from machine.inputs import Input

CLOCK_HZ = 3_686_400
FIFO_BYTES = 16
RX_MAX = 1 << 16
LSR_OFFSET = 5
TRIGGERS = (1, 4, 8, 14)

IER_RX = Field("rx", 0)
IER_THRE = Field("thre", 1)
IER_LINE = Field("line", 2)
IER_MODEM = Field("modem", 3)
FCR_ENABLE = Field("enable", 0)
FCR_RX_RESET = Field("rx_reset", 1)
FCR_TX_RESET = Field("tx_reset", 2)
FCR_DMA = Field("dma", 3)
FCR_SPARE = Field("spare", 4, 2)
FCR_TRIGGER = Field("trigger", 6, 2)
LCR_DLAB = Field("dlab", 7)
MCR_DTR = Field("dtr", 0)
MCR_RTS = Field("rts", 1)
MCR_OUT1 = Field("out1", 2)
MCR_OUT2 = Field("out2", 3)
MCR_LOOP = Field("loop", 4)
MCR_SPARE = Field("spare", 5, 3, access="ro")
LSR_DATA, LSR_OVERRUN, LSR_BREAK, LSR_THRE, LSR_IDLE = 0x01, 0x02, 0x10, 0x20, 0x40
MSR_CTS, MSR_DSR, MSR_RI, MSR_DCD = 0x10, 0x20, 0x40, 0x80
IIR_NONE, IIR_LINE, IIR_RX, IIR_TIMEOUT, IIR_THRE, IIR_MODEM = 0x01, 0x06, 0x04, 0x0C, 0x02, 0x00


class Uart(Device):
    """One port. Inputs: ``rx`` (characters), ``break`` (no payload)."""

    size = 0x100
    any_width = True  # as on QEMU's board: guests use words for registers of a byte

    rbr = Reg(0, size=1, access="ro", stored=False, doc="received character; DLAB: divisor low")
    thr = Reg(0, size=1, access="wo", stored=False, doc="character to send; DLAB: divisor low")
    ier = Reg(1, size=1, doc="interrupt enables; DLAB: divisor high")
    iir = Reg(2, size=1, access="ro", stored=False, doc="interrupt identification")
    fcr_write = Reg(
        2,
        size=1,
        access="wo",
        stored=False,
        fields=(FCR_ENABLE, FCR_RX_RESET, FCR_TX_RESET, FCR_DMA, FCR_SPARE, FCR_TRIGGER),
        doc="FIFO control",
    )
    lcr = Reg(3, size=1, doc="line control")
    mcr = Reg(
        4, size=1, fields=(MCR_DTR, MCR_RTS, MCR_OUT1, MCR_OUT2, MCR_LOOP, MCR_SPARE), doc="modem control"
    )
    lsr = Reg(LSR_OFFSET, size=1, stored=False, doc="line status")
    msr = Reg(6, size=1, stored=False, doc="modem status")
    scr = Reg(7, size=1, doc="scratch")

    divisor = Int(16, reset=12)
    fcr = Int(8)
    rx = ByteString(RX_MAX)
    line_errors = Int(8)
    modem_delta = Int(4)
    thre_pending = Int(1)

    def __init__(self, wires: Wires, name: str, base: int, irq: IrqLine | None = None) -> None:
        super().__init__(wires, name, base, irq)
        self.console = wires.port(name)

    def _held(self) -> int:
        """Return how many characters the chip holds."""
        return min(len(self.rx), FIFO_BYTES if self.fcr & FCR_ENABLE.mask else 1)

    def _identify(self) -> int:
        held = self._held()
        if self.ier & IER_LINE.mask and self.line_errors:
            return IIR_LINE
        if self.ier & IER_RX.mask and held:
            fifo = self.fcr & FCR_ENABLE.mask
            return IIR_TIMEOUT if fifo and held < TRIGGERS[FCR_TRIGGER.get(self.fcr)] else IIR_RX
        if self.ier & IER_THRE.mask and self.thre_pending:
            return IIR_THRE
        if self.ier & IER_MODEM.mask and self.modem_delta:
            return IIR_MODEM
        return IIR_NONE

    def _update(self) -> None:
        self.irq.set(self._identify() != IIR_NONE)
        self._announce()

    def _announce(self) -> None:
        """Tell what the guest may do without a call of this device: to poll the line status, and to send again."""
        self.wires.steady(self.base + LSR_OFFSET, None if self.line_errors else self._line_status())
        plain = self.thre_pending and not self.lcr & LCR_DLAB.mask and not self.mcr & MCR_LOOP.mask
        self.console.listen(self.base if plain else None)

    def reset(self) -> None:
        super().reset()
        self._announce()

    def state_loaded(self) -> None:
        self._announce()

    def _line_status(self) -> int:
        return LSR_THRE | LSR_IDLE | self.line_errors | (LSR_DATA if self.rx else 0)

    def deliver(self, item: Input) -> None:
        if item.kind == "rx":
            data = item.payload
        elif item.kind == "break":
            self.line_errors |= LSR_BREAK
            data = b"\0"
        else:
            super().deliver(item)
            return
        self.rx += data[: RX_MAX - len(self.rx)]
        self._update()

    def take(self, size: int) -> bytes:
        """Take up to ``size`` received characters past the registers, for the SBI."""
        data = bytes(self.rx[:size])
        del self.rx[:size]
        self._update()
        return data

    @rbr.on_read
    def _read_rbr(self) -> int:
        if self.lcr & LCR_DLAB.mask:
            return self.divisor & 0xFF
        if not self.rx:
            return 0
        value = self.rx.pop(0)
        self._update()
        return value

    @thr.on_write
    def _write_thr(self, value: int) -> None:
        if self.lcr & LCR_DLAB.mask:
            self.divisor = self.divisor & 0xFF00 | value
            return
        if self.mcr & MCR_LOOP.mask:
            self._loop(value)
        else:
            self.console.put(bytes((value,)))
        self.thre_pending = 1
        self._update()

    def _loop(self, value: int) -> None:
        """Receive what was sent. The chip's FIFO overruns here: nothing waits outside of it."""
        if len(self.rx) >= (FIFO_BYTES if self.fcr & FCR_ENABLE.mask else 1):
            self.line_errors |= LSR_OVERRUN
        else:
            self.rx.append(value)

    @ier.on_read
    def _read_ier(self) -> int:
        return self.divisor >> 8 if self.lcr & LCR_DLAB.mask else self.ier

    @ier.on_write
    def _write_ier(self, value: int) -> None:
        if self.lcr & LCR_DLAB.mask:
            self.divisor = value << 8 | self.divisor & 0xFF
            return
        changed = (self.ier ^ value) & 0x0F
        self.ier = value & 0x0F
        if changed & IER_THRE.mask:
            # The transmitter is always empty: enabling its interrupt raises it.
            self.thre_pending = IER_THRE.get(value)
        self._update()

    @iir.on_read
    def _read_iir(self) -> int:
        value = self._identify()
        if value == IIR_THRE:
            self.thre_pending = 0
            self._update()
        return value | (0xC0 if self.fcr & FCR_ENABLE.mask else 0)

    @fcr_write.on_write
    def _write_fcr(self, value: int) -> None:
        toggled = (self.fcr ^ value) & FCR_ENABLE.mask
        if toggled or value & FCR_RX_RESET.mask:
            del self.rx[: self._held()]
        if toggled or value & FCR_TX_RESET.mask:
            self.thre_pending = 1
        self.fcr = value & (FCR_ENABLE.mask | FCR_TRIGGER.mask) if value & FCR_ENABLE.mask else 0
        self._update()

    @lcr.on_write
    def _write_lcr(self, value: int) -> None:
        self.lcr = value
        self._announce()

    @mcr.on_write
    def _write_mcr(self, value: int) -> None:
        before = self._modem_lines()
        self.mcr = value
        after = self._modem_lines()
        changed = before ^ after
        if changed & MSR_RI and after & MSR_RI:
            changed ^= MSR_RI  # only the end of a ring counts
        self.modem_delta |= changed >> 4
        self._update()

    def _modem_lines(self) -> int:
        if not self.mcr & MCR_LOOP.mask:
            return MSR_DCD | MSR_DSR | MSR_CTS
        pairs = ((MCR_RTS, MSR_CTS), (MCR_DTR, MSR_DSR), (MCR_OUT1, MSR_RI), (MCR_OUT2, MSR_DCD))
        return sum(bit for field, bit in pairs if self.mcr & field.mask)

    @lsr.on_read
    def _read_lsr(self) -> int:
        value = self._line_status()
        if self.line_errors:
            self.line_errors = 0
            self._update()
        return value

    @lsr.on_write
    def _write_lsr(self, value: int) -> None:
        self.guest_error("write to the line status register")

    @msr.on_read
    def _read_msr(self) -> int:
        value = self._modem_lines() | self.modem_delta
        if self.modem_delta:
            self.modem_delta = 0
            self._update()
        return value

    @msr.on_write
    def _write_msr(self, value: int) -> None:
        return  # factory test; has no effect

    def fdt_nodes(self) -> list[Node]:
        return [
            Node(
                f"serial@{self.base:x}",
                {
                    "compatible": "ns16550a",
                    "reg": cells64(self.base, self.size),
                    "clock-frequency": CLOCK_HZ,
                    "interrupt-parent": PLIC_PHANDLE,
                    "interrupts": UART_IRQ,
                },
            )
        ]
