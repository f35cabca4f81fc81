"""The `virt` board: configuration to RAM, bus, harts, devices and device tree; and the law of how it runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any

from machine import loader, snapshot, virt
from machine.bus import Bus
from machine.clock import Clock
from machine.config import Images, MachineConfig
from machine.console import ConsolePort
from machine.cpu import parse_cpu
from machine.devicetree import amend_tree, build_tree
from machine.drives import drive_name, open_drive
from machine.errors import ConfigError
from machine.fdt import write_fdt
from machine.hw import virtmap
from machine.hw.blockproto import BlockNode
from machine.hw.chaos import Chaos
from machine.hw.device import Dma
from machine.hw.sbi import Sbi
from machine.hw.uart16550 import Uart
from machine.inputs import SLICE_STEPS, ConsoleSink, Input, InputGate
from machine.tcg.engine import Engine, ExitReason
from machine.values import valueclass

PAGE = 4096
NEVER = (1 << 64) - 1
DTB_MAX = 64 << 10
RNG_SEED_BYTES = 32
SEED_BYTES = 2
GUEST_ERRORS_KEPT = 256
BACKENDS = ("jit", "interp")
#: Accesses to devices and SBI calls after which a slice ends: each takes as long as some thousand steps.
SLICE_CALLS = 1000


class StopReason(Enum):
    """Why ``Board.run`` returned."""

    UNTIL = "until"
    BREAKPOINT = "breakpoint"
    POWEROFF = "poweroff"
    REBOOT = "reboot"
    FAIL = "fail"
    HALTED = "halted"
    INTERRUPTED = "interrupted"


@valueclass(frozen=True, slots=True)
class Stop:
    """A reason, and for ``FAIL`` the exit code that the guest gave."""

    reason: StopReason
    code: int = 0


@valueclass(frozen=True, slots=True)
class GuestError:
    """Something a guest did that its hardware has no answer for."""

    icount: int
    source: str
    text: str


class _Memory:
    """RAM as one device sees it; whoever listens at the board hears of what it writes."""

    def __init__(self, board: Board, device: str) -> None:
        self._board = board
        self._engine = board.engine
        self._device = device

    def read(self, paddr: int, size: int) -> bytes:
        return self._engine.read_phys(paddr, size)

    def write(self, paddr: int, data: bytes) -> None:
        self._engine.write_phys(paddr, data)
        if self._board.on_dma is not None:
            self._board.on_dma(self._device, paddr, data)


class Board:
    """A machine.

    Args:
        config: what it is made of.
        images: what is loaded at reset.
        gate: where its inputs come from.
        console: where its output goes.
        drives: block nodes by drive name; a drive that is not among them is opened from its file.
        backend: ``jit`` or ``interp``; no guest can tell them apart.

    Raises:
        ConfigError: the configuration is not one of a machine.
        ImageError: a drive cannot be used.

    Call ``reset`` or ``load_state`` before ``run``. Not for several threads at once; ``interrupt`` is.
    """

    def __init__(
        self,
        config: MachineConfig,
        images: Images,
        gate: InputGate,
        console: ConsoleSink,
        drives: Mapping[str, BlockNode] | None = None,
        backend: str = "jit",
    ) -> None:
        virt.check_config(config)
        if backend not in BACKENDS:
            raise ConfigError(f"back end {backend!r}: expected jit or interp")
        self.config = config
        self.images = images
        self.dtb = b""
        self.guest_errors: deque[GuestError] = deque(maxlen=GUEST_ERRORS_KEPT)
        self.guest_error_count = 0
        self._gate = gate
        self._console = console
        self._ports: dict[str, ConsolePort] = {}
        self._stop: tuple[str, int] | None = None
        self._interrupted = False
        self._calls_left = 0  # of this slice
        #: Takes the engine's records when there is no room for more; probes that record need one.
        self.on_records: Callable[[], None] | None = None
        #: Hears what devices and the built-in firmware write to RAM, at the exact position: (device, paddr, data).
        self.on_dma: Callable[[str, int, bytes], None] | None = None
        self.drives = self._open_drives(drives or {})
        try:
            self.engine = Engine(
                ram_base=virtmap.RAM_BASE,
                ram_size=config.memory_bytes,
                harts=config.harts,
                ns_per_step=config.ns_per_step,
                quantum=config.quantum_steps,
                guest=config.guest,
                host=self,
                builtin_sbi=config.bios == "builtin",
                features=parse_cpu(config.cpu),
                entropy=self.seed,
            )
        except MemoryError as error:
            raise ConfigError(f"{error}; use a smaller --memory") from None
        if backend == "interp" or not self.engine.translator.has_jit:
            self.engine.translator.set_switch("jit", False)
        self.engine.set_idle_asks(config.idle == "ask")
        self._first_sched = self.engine.save_sched()
        self.clock = Clock(self.engine.set_device_deadline)
        self.bus = Bus()
        for device in virt.build_devices(self, self.engine, config, self.drives):
            self.bus.add(device)
        self.devices = sorted(self.bus.devices, key=lambda device: device.base)
        self._by_name = {device.name: device for device in self.devices}
        if len(self._by_name) != len(self.devices):
            raise ConfigError("two drives or devices have the same name; give each --drive an id of its own")
        for device in self.devices:
            self.clock.register(device.name, device.fire)
            device.reset()
        uart = self._by_name["uart0"]
        assert isinstance(uart, Uart)
        self.sbi = Sbi(
            self.engine,
            self.dma_for("sbi"),
            self.port("uart0"),
            uart.take,
            self.request_stop,
            self.guest_error,
        )

    # -- composition

    def _open_drives(self, given: Mapping[str, BlockNode]) -> dict[str, BlockNode]:
        nodes: dict[str, BlockNode] = {}
        for index, drive in enumerate(self.config.drives):
            if drive.interface != "virtio":
                raise ConfigError(
                    f"drive {drive.file}: interface {drive.interface!r} is not known; expected virtio"
                )
            name = drive_name(drive, index)
            nodes[name] = given[name] if name in given else open_drive(drive, identify=False)[1]
        return nodes

    def close(self) -> None:
        """Give memory and files back. The board cannot be used afterwards."""
        self.engine.close()
        for node in self.drives.values():
            node.close()

    # -- what devices ask (hw.device.Wires)

    def now(self) -> int:
        """Return vtime_ns."""
        return self.engine.vtime_ns

    def dma_for(self, device: str) -> Dma:
        """Return RAM as a device sees it."""
        return _Memory(self, device)

    def steady(self, paddr: int, value: int | None) -> None:
        """Answer reads of a device's register in the engine."""
        self.engine.set_steady(paddr, value)

    def schedule(self, owner: str, name: str, vtime_ns: int) -> None:
        """Set a device's deadline."""
        self.clock.schedule(owner, name, vtime_ns)

    def cancel(self, owner: str, name: str) -> None:
        """Forget a device's deadline."""
        self.clock.cancel(owner, name)

    def ask(self, source: str, kind: str, request: bytes) -> bytes:
        """Ask the gate, at this position. Replay: consumes an input."""
        return self._gate.ask(source, kind, request, self.engine.icount, self.engine.vtime_ns)

    def fault(self, source: str, request: bytes, errno: int) -> int:
        """Return with which errno the host fails a request here, 0 for none. Replay: consumes an input if it does."""
        return self._gate.fault(source, request, errno, self.engine.icount, self.engine.vtime_ns)

    def stall(self, ns: int) -> None:
        """Let virtual time pass with no step."""
        self.engine.warp_ns += ns

    def set_quantum(self, steps: int) -> None:
        """Set the length of a hart's turn; saved with the scheduler's state."""
        self.engine.set_quantum(steps)

    def latency(self, ns: int) -> int:
        """Return how long a request takes: what its device says, unless chaos has its way."""
        chaos = self._by_name.get("chaos")
        return chaos.latency(ns) if isinstance(chaos, Chaos) else ns

    def guest_error(self, source: str, text: str) -> None:
        """Note a guest's mistake: the last 256 are kept, all are counted. Not part of the state."""
        self.guest_error_count += 1
        self.guest_errors.append(GuestError(self.engine.icount, source, text))

    def port(self, name: str) -> ConsolePort:
        """Return the console port of that name."""
        if name not in self._ports:
            self._ports[name] = ConsolePort(name, self._console, self.engine)
        return self._ports[name]

    def request_stop(self, reason: str, code: int = 0) -> None:
        """End the machine after this step; the first request counts."""
        if self._stop is None:
            self._stop = (reason, code)
        self.engine.request_stop()

    # -- what the engine asks (tcg.callbacks.Host)

    def mmio_read(self, paddr: int, size: int, hart: int) -> int | None:
        """Return what a hart reads outside RAM; None: nothing is there."""
        self._called()
        try:
            return self.bus.read(paddr, size)
        except Exception as error:
            self._blame(error, "read", paddr, size)
            raise

    def mmio_write(self, paddr: int, size: int, hart: int, value: int) -> bool:
        """Take what a hart writes outside RAM; False: nothing is there."""
        self._called()
        try:
            return self.bus.write(paddr, size, value)
        except Exception as error:
            self._blame(error, "write", paddr, size)
            raise

    def sbi_call(self, hart: int) -> None:
        """Answer an ecall from S-mode."""
        self._called()
        self.sbi.call(hart)

    def _called(self) -> None:
        self._calls_left -= 1
        if not self._calls_left:
            self.engine.request_stop()

    def seed(self, hart: int) -> int:
        """Answer a hart's read of its seed CSR: 16 bits. Replay: consumes an input (``seed``, ``entropy``)."""
        return int.from_bytes(
            self.ask("seed", "entropy", SEED_BYTES.to_bytes(4, "little"))[:SEED_BYTES], "little"
        )

    def _blame(self, error: Exception, what: str, paddr: int, size: int) -> None:
        device = self.bus.find(paddr)
        if device is not None:
            error.add_note(
                f"in device {device.name}: {what} of {size} bytes at offset {paddr - device.base:#x}"
            )

    # -- life

    @property
    def icount(self) -> int:
        """The position."""
        return self.engine.icount

    @property
    def vtime_ns(self) -> int:
        """Virtual time in nanoseconds."""
        return self.engine.vtime_ns

    def reset(self) -> None:
        """Put the machine into its state at icount 0: images loaded, harts about to run.

        Raises:
            ConfigError, ImageError: there is nothing to start, or something does not fit.

        Replay: asks the gate for the wall clock and, unless ``bios`` is ``none``, for a seed of the kernel's
        random numbers.
        """
        plan = loader.plan(self.config, self.images, virtmap.RAM_BASE, max(DTB_MAX, 2 * len(self.images.dtb)))
        self._stop = None
        self._interrupted = False
        self.engine.clear_ram()
        self.engine.set_icount(0)
        self.engine.warp_ns = 0
        self.engine.load_sched(self._first_sched)
        self.clock.reset()
        for device in self.devices:
            device.reset()
        for segment in plan.segments:
            self.engine.write_phys(segment.paddr, segment.data)
        for hart in range(self.config.harts):
            self.engine.reset_hart(hart, plan.entry.pc, hart, plan.dtb_paddr)
            self.engine.set_reg(hart, "x12", plan.entry.arg2)
            if hart and not plan.entry.all_harts:
                self.engine.stop_hart(hart)
        for device in self.devices:
            device.started()
        self.dtb = self._device_tree(plan)
        self.engine.write_phys(plan.dtb_paddr, self.dtb)

    def _device_tree(self, plan: loader.Plan) -> bytes:
        seed = b""
        if self.config.bios != "none":
            seed = self.ask("board", "entropy", RNG_SEED_BYTES.to_bytes(4, "little"))[:RNG_SEED_BYTES]
        if self.images.dtb:
            root, reservations = amend_tree(self.images.dtb, self.config, plan.initrd, seed)
        else:
            root, reservations = build_tree(self.config, self.devices, plan.initrd, seed), b""
        blob = write_fdt(root, reservations=reservations)
        if len(blob) > plan.dtb_room:
            raise ConfigError(
                f"the device tree has {len(blob)} bytes, its place {plan.dtb_room}; shorten --append"
            )
        return blob

    def interrupt(self) -> None:
        """Make ``run`` return INTERRUPTED soon. From a signal handler or another thread."""
        self._interrupted = True

    def run(self, until: int | None, slice_steps: int = SLICE_STEPS) -> Stop:
        """Run to icount ``until`` (None: for ever) or to what ends the run first.

        Args:
            until: a position; nothing runs when it is reached already.
            slice_steps: the gate is looked at, and ``interrupt`` obeyed, at least this often.

        Replay: the order of inputs, deadlines and steps is the law that recording and replay share.
        """
        end = NEVER if until is None else until
        try:
            return self._run(end, slice_steps)
        finally:
            for port in self._ports.values():
                port.flush()

    def _run(self, end: int, slice_steps: int) -> Stop:
        engine, gate = self.engine, self._gate
        while True:
            icount = engine.icount
            if icount >= end:
                return Stop(StopReason.UNTIL)
            if self._interrupted:
                self._interrupted = False
                return Stop(StopReason.INTERRUPTED)
            for item in gate.due(icount, engine.vtime_ns):
                self.deliver(item)
            self.clock.run_due(engine.vtime_ns)
            if self._stop is not None:
                return Stop(StopReason(self._stop[0]), self._stop[1])
            following = gate.next_position(icount)
            target = min(end, icount + slice_steps)
            if following is not None and following > icount:
                target = min(target, following)
            self._calls_left = SLICE_CALLS
            reason = engine.run(target)
            for port in self._ports.values():
                port.flush()
            if reason is ExitReason.BREAKPOINT:
                return Stop(StopReason.BREAKPOINT)
            if reason is ExitReason.HALTED:
                return Stop(StopReason.HALTED)
            if reason is ExitReason.RECORDS:
                if self.on_records is None:
                    raise RuntimeError("probes make records, and nobody takes them: set on_records")
                self.on_records()
            if reason is ExitReason.IDLE:
                self._idle()

    def _idle(self) -> None:
        deadline = self.engine.next_deadline()
        request = (NEVER if deadline is None else deadline).to_bytes(8, "little")
        self.engine.warp_ns += int.from_bytes(self.ask("idle", "warp", request)[:8], "little")

    def deliver(self, item: Input) -> None:
        """Hand an input to its device. ``board`` itself takes ``poweroff`` and ``reset``, the buttons."""
        if item.source == "board":
            if item.kind in ("poweroff", "reset"):
                self.request_stop("poweroff" if item.kind == "poweroff" else "reboot")
            else:
                self.guest_error("board", f"an input of kind {item.kind!r} is not known")
            return
        device = self._by_name.get(item.source)
        if device is None:
            raise ConfigError(
                f"an input is for {item.source!r}, which this machine has not; is it another's?"
            )
        device.deliver(item)

    # -- state

    def save_state(self) -> dict[str, Any]:
        """Return the state without RAM, as JSON-able data (layout: ``machine.snapshot``)."""
        return snapshot.collect(self.engine, self.clock, self.devices, self.drives, self._stop)

    def load_state(self, state: dict[str, Any]) -> None:
        """Take ``save_state``'s data; RAM is loaded apart from it. Raises ValueError for data that is not."""
        self._stop = snapshot.restore(state, self.engine, self.clock, self.devices, self.drives)

    def load_ram_pages(self, pages: Sequence[int], contents: bytes) -> list[int]:
        """Set pages of RAM whose contents lie one behind the other; return those that held something else.

        Raises:
            ValueError: an index or a size that is not a page's; nothing is written then.
        """
        return self.engine.restore_pages(pages, contents)

    def ram_page(self, index: int) -> memoryview:
        """Return a page of RAM, to read. Raises ValueError for an index that is none."""
        if not 0 <= index < self.engine.ram_pages:
            raise ValueError(f"page {index}: expected less than {self.engine.ram_pages}")
        return self.engine.ram[index * PAGE : (index + 1) * PAGE]
