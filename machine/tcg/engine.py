"""The translator as Python sees it: a typed wrapper over ``cdef.h``.

Nothing here decides anything about the guest; it converts, checks and forwards. One Engine is one machine; a
process may hold several, each used by one thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum

from machine.tcg._core import ffi, lib
from machine.tcg.callbacks import Callbacks, Host
from machine.tcg.pageset import PageSet, as_numbers
from machine.tcg.probes import COUNT, NEVER, RECORD, Probe, as_specs
from machine.tcg.registers import Registers
from machine.tcg.snapshot import PageSnapshot
from machine.tcg.translator import Translator

PAGE_SIZE = 4096
_ACCESS = {"r": 0, "w": 1, "x": 2}


class ExitReason(IntEnum):
    """Why ``Engine.run`` returned (machine.h, WB_EXITS)."""

    UNTIL = 0
    DEADLINE = 1
    IDLE = 2
    HALTED = 3
    BREAKPOINT = 4
    STOP = 5
    ERROR = 6
    RECORDS = 7


class Engine:
    """A machine's harts, RAM and virtual time.

    Args:
        ram_base: guest-physical address of RAM, a multiple of 4 KiB.
        ram_size: bytes of RAM, a multiple of 4 KiB.
        harts: 1 to 16.
        ns_per_step: virtual nanoseconds that a step takes.
        quantum: steps of a hart's turn.
        host: takes MMIO and SBI calls, during ``run``, in the calling thread.
        builtin_sbi: an ecall from S-mode goes to ``host.sbi_call`` instead of trapping to M-mode.
        features: of the processor, by name; those that are not named are as the guest has them by itself.
        entropy: gives 16 bits for a hart's read of the seed CSR, during ``run``; None: the source is dead.

    Raises:
        ValueError: a size, count or guest that the engine does not have.
        MemoryError: the host has too little memory for the guest's RAM.

    Replay: deterministic; what it computes is a function of its state alone.
    """

    def __init__(
        self,
        *,
        ram_base: int,
        ram_size: int,
        harts: int = 1,
        ns_per_step: int = 1,
        quantum: int = 100_000,
        guest: str = "riscv64",
        host: Host,
        builtin_sbi: bool,
        features: Mapping[str, int] | None = None,
        entropy: Callable[[int], int] | None = None,
    ) -> None:
        if not 1 <= harts <= 16 or ram_size <= 0 or (ram_base | ram_size) % PAGE_SIZE or guest != "riscv64":
            raise ValueError(
                f"no such machine: guest {guest}, {harts} harts, {ram_size} bytes at {ram_base:#x}"
            )
        if ns_per_step < 1 or quantum < 1:
            raise ValueError(f"ns_per_step {ns_per_step} and quantum {quantum} must be at least 1")
        #: Called by ``close`` while all is still there.
        self.on_close: Callable[[], None] | None = None
        self._m = lib.wb_create(ram_base, ram_size, harts, ns_per_step, quantum, guest.encode())
        if self._m == ffi.NULL:
            raise MemoryError(f"no memory for a guest with {ram_size >> 20} MiB of RAM")
        for name, value in (features or {}).items():
            if lib.wb_feature_set(self._m, name.encode(), value):
                lib.wb_destroy(self._m)
                raise ValueError(f"no processor with the feature {name} = {value}")
        self._callbacks = Callbacks(host, entropy)
        self._callbacks.connect(self._m, builtin_sbi)
        self.harts = harts
        self.ram_base = ram_base
        self.ram_size = ram_size
        self.ram_pages = ram_size // PAGE_SIZE
        #: The whole RAM, to read; stores go through ``write_phys``.
        self.ram: memoryview = memoryview(ffi.buffer(lib.wb_ram(self._m), ram_size)).toreadonly()
        self._registers = Registers(self._m)
        self.reg_names: tuple[str, ...] = self._registers.names
        self.translator = Translator(self._m, self._check_hart)
        self._printed = ffi.new("uint8_t[4096]")
        self._printed_at = ffi.new("uint64_t[2]")

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the machine's memory back; the engine can't be used afterwards."""
        if self._m != ffi.NULL:
            if self.on_close is not None:
                self.on_close()
            self.ram.release()
            lib.wb_destroy(self._m)
            self._m = ffi.NULL
            del self._registers, self.translator

    # -- running

    def reset_hart(self, hart: int, pc: int, arg0: int = 0, arg1: int = 0) -> None:
        """Put a hart into its reset state, about to run at ``pc`` with a0 and a1 set."""
        lib.wb_reset_hart(self._m, self._check_hart(hart), pc, arg0, arg1)

    def stop_hart(self, hart: int) -> None:
        """Take a hart out of the turn (HSM stop, or not yet started)."""
        lib.wb_hart_stop(self._m, self._check_hart(hart))

    def start_hart(self, hart: int) -> None:
        """Let a stopped hart take turns again."""
        lib.wb_hart_start(self._m, self._check_hart(hart))

    def hart_stopped(self, hart: int) -> bool:
        return bool(lib.wb_hart_stopped(self._m, self._check_hart(hart)))

    def suspend_hart(self, hart: int) -> None:
        """Let a hart wait as in WFI, unless an interrupt that it has enabled is there (HSM suspend)."""
        lib.wb_hart_suspend(self._m, self._check_hart(hart))

    def hart_suspended(self, hart: int) -> bool:
        """Tell whether a hart waits since ``suspend_hart``."""
        return bool(lib.wb_hart_suspended(self._m, self._check_hart(hart)))

    def jump_hart(self, hart: int, pc: int) -> None:
        """Let the hart whose SBI call this is go on at ``pc`` instead of behind its ecall."""
        lib.wb_hart_jump(self._m, self._check_hart(hart), pc)

    def run(self, until: int) -> ExitReason:
        """Run to icount ``until`` or to what comes first.

        Raises:
            Exception: whatever a Host callback raised; the machine stands after that instruction.
        """
        reason = ExitReason(lib.wb_run(self._m, until))
        self._callbacks.check()
        return reason

    @property
    def icount(self) -> int:
        """The position: exact, also inside a Host callback."""
        return int(lib.wb_icount(self._m))

    def set_icount(self, icount: int) -> None:
        """Set the position; only for restoring a state."""
        lib.wb_set_icount(self._m, icount)

    @property
    def warp_ns(self) -> int:
        """Idle virtual time jumped over so far."""
        return int(lib.wb_warp_ns(self._m))

    @warp_ns.setter
    def warp_ns(self, value: int) -> None:
        lib.wb_set_warp_ns(self._m, value)

    @property
    def vtime_ns(self) -> int:
        return int(lib.wb_vtime_ns(self._m))

    @property
    def current_hart(self) -> int:
        """The hart whose turn it is."""
        return int(lib.wb_cur_hart(self._m))

    def set_device_deadline(self, vtime_ns: int | None) -> None:
        """Make ``run`` return DEADLINE at the first position with at least this virtual time."""
        lib.wb_set_device_deadline(self._m, NEVER if vtime_ns is None else vtime_ns)

    def set_steady(self, paddr: int, value: int | None) -> None:
        """Answer reads of a device's register by ``value``, of which they take the low bytes; None: ask the host.

        Raises:
            ValueError: more registers than there is room for.
        """
        if lib.wb_io_steady(self._m, paddr, value or 0, value is not None):
            raise ValueError(f"register at {paddr:#x}: too many have a steady value; ask the host for some")

    def set_time_register(self, paddr: int) -> None:
        """Answer reads of 4 and 8 bytes at ``paddr``, and of 4 behind it, by mtime."""
        lib.wb_io_time(self._m, paddr)

    def set_print_register(self, paddr: int | None) -> None:
        """Print what is written at ``paddr`` with no callback, but for newlines; None: call for every byte."""
        lib.wb_io_print(self._m, paddr or 0)

    def set_print_room(self, room: int) -> None:
        """Call the host for the byte that makes ``room`` bytes printed, at most 4,096."""
        lib.wb_io_print_room(self._m, room)

    def take_printed(self) -> tuple[bytes, int, int]:
        """Take what was printed with no callback: the bytes, and (icount, vtime_ns) of the last one."""
        n = lib.wb_io_printed(self._m, self._printed, self._printed_at, self._printed_at + 1)
        return bytes(ffi.buffer(self._printed, n)), self._printed_at[0], self._printed_at[1]

    def set_time_offset(self, ticks: int) -> None:
        """Set what ``time`` is ahead of virtual time, modulo 2**64; its owner keeps it, no saved state has it."""
        lib.wb_set_time_offset(self._m, ticks)

    def next_deadline(self) -> int | None:
        """Return the earliest virtual time at which a timer or device is due, or None."""
        value = int(lib.wb_next_deadline(self._m))
        return None if value == NEVER else value

    def set_quantum(self, steps: int) -> None:
        """Set how many steps a hart's turn has, from the next turn on; part of the scheduler's state."""
        lib.wb_set_quantum(self._m, steps)

    def set_idle_asks(self, asks: bool) -> None:
        """Choose what idle does: return IDLE, or jump to the next deadline."""
        lib.wb_set_idle_asks(self._m, asks)

    def request_stop(self) -> None:
        """Make ``run`` return STOP after the present instruction; from a Host callback."""
        lib.wb_request_stop(self._m)

    # -- memory

    def read_phys(self, paddr: int, size: int) -> bytes:
        """Return ``size`` bytes of RAM. Raises ValueError where the range is not all RAM."""
        offset = self._ram_offset(paddr, size)
        return bytes(self.ram[offset : offset + size])

    def write_phys(self, paddr: int, data: bytes | bytearray | memoryview) -> None:
        """Write RAM with all that hangs on it (translated code, page tables, dirty pages).

        Raises ValueError where the range is not all RAM; nothing is written then.
        """
        self._ram_offset(paddr, len(data))
        lib.wb_phys_write(self._m, paddr, ffi.from_buffer(data), len(data))

    def clear_ram(self) -> None:
        """Make RAM all zeros and clean, as before the first reset."""
        lib.wb_ram_clear(self._m)

    def restore_pages(self, pages: Sequence[int], contents: bytes) -> list[int]:
        """Set pages of RAM when a checkpoint is loaded.

        Args:
            pages: indexes. contents: of all of them, one behind the other.

        Returns:
            those that held something else.

        Raises:
            ValueError: a bad index or size; nothing is written then.
        """
        n = len(pages)
        if len(contents) != n * PAGE_SIZE or (n and not 0 <= min(pages) <= max(pages) < self.ram_pages):
            raise ValueError(
                f"{n} pages of {len(contents)} bytes: expected 4096 bytes each, indexes below {self.ram_pages}"
            )
        changed = ffi.new("uint32_t[]", n)
        found = lib.wb_ram_restore(self._m, as_numbers(pages), n, ffi.from_buffer(contents), changed)
        return list(changed[0:found])

    def _ram_offset(self, paddr: int, size: int) -> int:
        offset = paddr - self.ram_base
        if size < 0 or offset < 0 or offset + size > self.ram_size:
            raise ValueError(f"{size} bytes at {paddr:#x} are not all in RAM")
        return offset

    def translate(self, hart: int, vaddr: int, access: str = "r") -> int | None:
        """Return the paddr that a hart's access (``r``, ``w`` or ``x``) would reach, or None for a fault.

        Replay: outside of it; changes nothing, not even an accessed bit.
        """
        out = ffi.new("uint64_t *")
        bad = lib.wb_translate(self._m, self._check_hart(hart), vaddr & NEVER, _ACCESS[access], out)
        return None if bad else int(out[0])

    def dirty_pages(self, clear: bool = True) -> PageSet:
        """Return the pages of RAM written since the last call with ``clear``."""
        dirty = PageSet(self.ram_pages)
        lib.wb_dirty_pages(self._m, dirty.words, clear)
        return dirty

    def prepare_ram(self, first: int, pages: int) -> None:
        """Make the host's memory of some pages ready ahead of whoever fills them; the guest sees nothing of it."""
        if 0 <= first < self.ram_pages:
            lib.wb_ram_prepare(self._m, first, min(pages, self.ram_pages - first))

    def snapshot(self, pages: PageSet) -> PageSnapshot:
        """Return pages of RAM as they are now, to be read by another thread. Raises MemoryError."""
        return PageSnapshot(self._m, pages)

    # -- registers and state

    def _check_hart(self, hart: int) -> int:
        if not 0 <= hart < self.harts:
            raise ValueError(f"no hart {hart}: there are {self.harts}")
        return hart

    def reg_number(self, name: str) -> int:
        """Return a register's number. Raises ValueError for an unknown name."""
        return self._registers.number(name)

    def reg_bits(self, reg: int) -> int:
        return self._registers.bits(reg)

    def get_reg(self, hart: int, reg: str | int) -> int:
        return self._registers.get(self._check_hart(hart), reg)

    def set_reg(self, hart: int, reg: str | int, value: int) -> None:
        """Write a register. Raises ValueError when it is read-only or refuses the value."""
        self._registers.set(self._check_hart(hart), reg, value)

    def save_state(self, hart: int) -> dict[str, int]:
        """Return a hart's whole state by register name."""
        return self._registers.save(self._check_hart(hart))

    def load_state(self, hart: int, state: Mapping[str, int]) -> None:
        """Set a hart's whole state. Raises ValueError unless ``state`` has exactly its registers."""
        self._registers.load(self._check_hart(hart), state)

    def save_sched(self) -> list[int]:
        """Return the scheduler's state: whose turn, until when, and what each hart waits for."""
        out = ffi.new("uint64_t[]", 4 + 3 * self.harts)
        lib.wb_sched_get(self._m, out)
        return list(out)

    def load_sched(self, values: Sequence[int]) -> None:
        """Set what ``save_sched`` returned. Raises ValueError for another shape."""
        if len(values) != 4 + 3 * self.harts or not all(
            isinstance(v, int) and 0 <= v <= NEVER for v in values
        ):
            raise ValueError(f"not a scheduler state of a machine with {self.harts} harts")
        lib.wb_sched_set(self._m, ffi.new("uint64_t[]", list(values)))

    def irq_line(self, hart: int, line: int, level: bool | int) -> None:
        """Drive an interrupt wire of a hart: the bit of mip (3 MSIP, 7 MTIP, 9 SEIP, 11 MEIP)."""
        lib.wb_irq_line(self._m, self._check_hart(hart), line, bool(level))

    # -- probes

    def set_probes(self, probes: Sequence[Probe]) -> None:
        """Replace all probes; their counters and records start anew.

        The same probes again, with other actions too, keep translated code: a search sets them once for each interval.

        Raises:
            ValueError: more than 256 probes or 4096 bytes of conditions, a range that is none, or a stop at a TURN.

        Replay: a probe changes nothing that a guest can see.
        """
        specs, code = as_specs(probes)
        if lib.wb_probes_set(self._m, specs, len(probes), code, len(code)):
            raise ValueError("too many probes or conditions, an empty range, or a stop where none can be")

    def skip_probes_at(self, icount: int | None) -> None:
        """Ignore EXEC hits at this position: the one stood on."""
        lib.wb_probe_skip(self._m, NEVER if icount is None else icount)

    def probe_stopped(self) -> int | None:
        """Return the index of the probe that ended the last ``run`` with BREAKPOINT, or None."""
        index = int(lib.wb_probe_stopped(self._m))
        return None if index < 0 else index

    def probe_hits(self, index: int) -> int:
        return int(lib.wb_probe_hits(self._m, index))

    def probe_last(self, index: int) -> int | None:
        """Return the position of a probe's last hit (EXEC: before the instruction, else after the step), or None."""
        value = int(lib.wb_probe_last(self._m, index))
        return None if value == NEVER else value

    def take_records(self) -> bytes:
        """Return the records made since the last call, of ``RECORD.size`` bytes each; see probe.h for their words.

        ``run`` returns RECORDS when there is no room for more: take them and run on.
        """
        return bytes(self.view_records())

    def view_records(self) -> memoryview:
        """Return what ``take_records`` returns where it lies: valid until the next run."""
        n = ffi.new("uint32_t *")
        records = lib.wb_probe_records(self._m, n)
        return memoryview(ffi.buffer(records, n[0] * RECORD.size) if n[0] else b"")

    def take_counts(self) -> dict[int, int]:
        """Return how often each pc was met by probes that count, since ``set_probes``.

        Raises:
            MemoryError: the host had no memory for all of them.
        """
        return dict(COUNT.iter_unpack(self.view_counts()))

    def view_counts(self) -> memoryview:
        """Return what ``take_counts`` does as entries of ``COUNT.size`` bytes by pc: valid until it is called again.

        Raises:
            MemoryError: the host had no memory for all of them.
        """
        n, lost = ffi.new("uint32_t *"), ffi.new("uint64_t *")
        counts = lib.wb_probe_counts(self._m, n, lost)
        if lost[0]:
            raise MemoryError(f"{lost[0]} instructions were not counted: no memory")
        return memoryview(ffi.buffer(counts, n[0] * COUNT.size) if n[0] else b"")

    # -- text

    def disasm(self, code: bytes, pc: int) -> tuple[int, str]:
        """Return length in bytes and assembly of the first instruction; length 0 when it is none."""
        out = ffi.new("char[128]")
        n = lib.wb_disasm(self._m, ffi.from_buffer(code), len(code), pc, out, 128)
        return int(n), ffi.string(out).decode(errors="replace")
