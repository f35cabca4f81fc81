"""What a board gives to a device, without a board: RAM, wires that remember, a clock that is set by hand."""

from __future__ import annotations

from machine.clock import Clock
from machine.hw.device import Device, Dma

RAM_BASE = 0x8000_0000


class FakeRam:
    """RAM of ``size`` bytes at RAM_BASE."""

    def __init__(self, size: int = 1 << 20) -> None:
        self.data = bytearray(size)

    def _at(self, paddr: int, size: int) -> int:
        at = paddr - RAM_BASE
        if at < 0 or at + size > len(self.data):
            raise ValueError(f"{size} bytes at {paddr:#x} are not RAM")
        return at

    def read(self, paddr: int, size: int) -> bytes:
        at = self._at(paddr, size)
        return bytes(self.data[at : at + size])

    def write(self, paddr: int, data: bytes) -> None:
        at = self._at(paddr, len(data))
        self.data[at : at + len(data)] = data


class FakePort:
    """A console port that keeps what is printed."""

    def __init__(self) -> None:
        self.text = bytearray()
        self.listens_at: int | None = None

    def put(self, data: bytes) -> None:
        self.text += data

    def listen(self, paddr: int | None) -> None:
        self.listens_at = paddr


class FakeLine:
    """An interrupt line that remembers its level."""

    def __init__(self) -> None:
        self.level = False

    def set(self, level: bool) -> None:
        self.level = level


class FakeWires:
    """Wires of a device; ``run_to`` moves virtual time."""

    def __init__(self) -> None:
        self.ram = FakeRam()
        self.vtime_ns = 0
        self.clock = Clock()
        self.ports: dict[str, FakePort] = {}
        self.errors: list[str] = []
        self.steady_reads: dict[int, int | None] = {}
        self.stops: list[tuple[str, int]] = []
        self.asked: list[tuple[str, str, bytes]] = []
        self.answer = b""
        self.faults: list[tuple[str, bytes, int]] = []
        self.failing: dict[tuple[str, bytes], int] = {}

    def dma_for(self, device: str) -> Dma:
        return self.ram

    def now(self) -> int:
        return self.vtime_ns

    def steady(self, paddr: int, value: int | None) -> None:
        self.steady_reads[paddr] = value

    def schedule(self, owner: str, name: str, vtime_ns: int) -> None:
        self.clock.schedule(owner, name, vtime_ns)

    def cancel(self, owner: str, name: str) -> None:
        self.clock.cancel(owner, name)

    def stall(self, ns: int) -> None:
        self.vtime_ns += ns

    def set_quantum(self, steps: int) -> None:
        self.quantum = steps

    def latency(self, ns: int) -> int:
        return ns

    def ask(self, source: str, kind: str, request: bytes) -> bytes:
        self.asked.append((source, kind, request))
        return self.answer

    def fault(self, source: str, request: bytes, errno: int) -> int:
        self.faults.append((source, request, errno))
        return errno or self.failing.pop((source, request), 0)

    def guest_error(self, source: str, text: str) -> None:
        self.errors.append(f"{source}: {text}")

    def port(self, name: str) -> FakePort:
        return self.ports.setdefault(name, FakePort())

    def request_stop(self, reason: str, code: int = 0) -> None:
        self.stops.append((reason, code))

    def plug(self, device: Device) -> None:
        """Give a device power."""
        self.clock.register(device.name, device.fire)
        device.reset()

    def run_to(self, vtime_ns: int) -> None:
        """Move virtual time forward, deadline by deadline."""
        while (due := self.clock.next()) is not None and due <= vtime_ns:
            self.vtime_ns = max(due, self.vtime_ns)
            self.clock.run_due(self.vtime_ns)
        self.vtime_ns = vtime_ns


class FakeHarts:
    """The engine's registers and interrupt lines, as devices and the SBI use them."""

    def __init__(self, harts: int = 1) -> None:
        self.harts = harts
        self.regs: list[dict[str, int]] = [{} for _ in range(harts)]
        self.lines: dict[tuple[int, int], bool] = {}
        self.stopped = [False] * harts
        self.suspended = [False] * harts
        self.jumps: list[tuple[int, int]] = []
        self.time_offset = 0
        self.resets: list[tuple[int, int, int, int]] = []
        self.pages: dict[int, int] = {}

    def irq_line(self, hart: int, line: int, level: bool) -> None:
        self.lines[hart, line] = level

    def get_reg(self, hart: int, reg: str) -> int:
        return self.regs[hart].get(reg, 0)

    def set_reg(self, hart: int, reg: str, value: int) -> None:
        self.regs[hart][reg] = value

    def reset_hart(self, hart: int, pc: int, arg0: int = 0, arg1: int = 0) -> None:
        self.resets.append((hart, pc, arg0, arg1))

    def start_hart(self, hart: int) -> None:
        self.stopped[hart] = False

    def stop_hart(self, hart: int) -> None:
        self.stopped[hart] = True

    def hart_stopped(self, hart: int) -> bool:
        return self.stopped[hart]

    def suspend_hart(self, hart: int) -> None:
        self.suspended[hart] = True

    def hart_suspended(self, hart: int) -> bool:
        return self.suspended[hart]

    def jump_hart(self, hart: int, pc: int) -> None:
        self.jumps.append((hart, pc))

    def set_time_register(self, paddr: int) -> None:
        self.time_register = paddr

    def set_time_offset(self, ticks: int) -> None:
        self.time_offset = ticks

    def translate(self, hart: int, vaddr: int, access: str = "r") -> int | None:
        return self.pages.get(vaddr)
