"""A session over a hand-made run, for tests of the tools that need no machine.

The run is a loop of six instructions at 0x80000000 with a call; the state at a position is a pure function
of it, so motions in both directions are exact.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from machine.config import MachineConfig
from workbench.dwarf.program import Program
from workbench.errors import CommandError
from workbench.lines import Lines
from workbench.registers import CSRS, canonical
from workbench.replay.settings import changed_config
from workbench.symbols import Symbol, Symbols

BASE = 0x8000_0000
RAM_BYTES = 0x4000
STACK = BASE + 0x3000

#: (offset, code, next offset): a loop that calls `leaf` and jumps back.
PROGRAM = (
    (0x00, struct.pack("<I", 0x00150513), 0x04),  # loop: addi a0, a0, 1
    (0x04, struct.pack("<I", 0x01C000EF), 0x20),  # jal ra, leaf
    (0x20, struct.pack("<H", 0x0505), 0x22),  # leaf: c.addi a0, 1
    (0x22, struct.pack("<H", 0x8082), 0x08),  # ret
    (0x08, struct.pack("<H", 0x0001), 0x0A),  # c.nop
    (0x0A, struct.pack("<I", 0xFF7FF06F), 0x00),  # j loop
)
END = 600


#: What the run writes: at this position of the loop, the step stores to this address.
STORE_AT, STORE_TO = 2, BASE + 0x1000


@dataclass
class FakeStopper:
    number: int
    address: int = 0
    temporary: bool = False
    enabled: bool = True
    hits: int = 0
    kind: str = "breakpoint"
    size: int = 0
    what: str = ""
    physical: bool = False
    condition: str | bytes | list[bytes] | None = ""
    arg: str = ""
    hits_ignored: int = 0

    @property
    def text(self) -> str:
        if self.kind == "catch":
            return self.what
        where = f"{'physical ' if self.physical else ''}{self.address:#x}"
        return where if self.kind == "breakpoint" else f"{self.size} bytes at {where}"

    def hits_at(self, position: int, pc: int) -> bool:
        if self.kind == "breakpoint":
            return self.address == pc
        written = self.address <= STORE_TO < self.address + self.size
        return self.kind == "watchpoint" and written and position % len(PROGRAM) == STORE_AT + 1


@dataclass(frozen=True)
class FakeStop:
    reason: str
    icount: int
    hart: int
    pc: int
    detail: str = ""
    stopper: int | None = None


@dataclass(frozen=True)
class FakeWritten:
    icount: int
    branch: Path | None = None

    def __str__(self) -> str:
        return f"branch at {self.icount}"


class FakeEngine:
    reg_names = (
        "pc",
        *(f"x{i}" for i in range(1, 32)),
        *(f"f{i}" for i in range(32)),
        "priv",
        "traps",
        *CSRS,
    )

    def __init__(self, session: FakeSession) -> None:
        self._session = session

    @property
    def current_hart(self) -> int:
        return self._session.hart

    def get_reg(self, hart: int, name: str) -> int:
        return self._session.reg(name)

    def disasm(self, code: bytes, pc: int) -> tuple[int, str]:
        return 0, ""


class FakeSession:
    """Meets the session's border over the run above."""

    start = 0
    end = END
    live = False
    harts = 2

    def __init__(self) -> None:
        self.cursor = 0
        self.hart = 0
        self._points: dict[int, FakeStopper] = {}
        self.written: list[tuple[Any, ...]] = []
        self._next = 1
        self._interrupted = threading.Event()
        self.on_cont: Callable[[], None] = lambda: None
        self.symbols = Symbols(
            [
                Symbol(BASE, 0x0E, "loop", "func"),
                Symbol(BASE + 0x20, 4, "leaf", "func"),
                Symbol(BASE + 0x1000, 16, "message", "object"),
            ]
        )
        self.board = SimpleNamespace(engine=FakeEngine(self), vtime_ns=0)
        self.trace = SimpleNamespace(
            sql=self._sql, path="fake.trace", meta={}, final_icount=END, image=lambda role: b""
        )
        self.lines = Lines()
        self.program = Program([])
        self.memory = bytearray(RAM_BYTES)
        for offset, code, _ in PROGRAM:
            self.memory[offset : offset + len(code)] = code
        self.memory[0x1000:0x100C] = b"hello\x1b[1m\xff\0\0"
        self.marks: dict[str, int] = {}
        self.closed = False

    def __enter__(self) -> FakeSession:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self.closed = True

    def _sql(self, text: str, params: Any = ()) -> tuple[list[str], list[tuple[Any, ...]]]:
        return ["one", "two"], [(1, text), (2, b"\xff")]

    def pc_at(self, position: int) -> int:
        return BASE + PROGRAM[position % len(PROGRAM)][0]

    def _stop(self, reason: str, stopper: FakeStopper | None = None) -> FakeStop:
        detail = "" if stopper is None else str(stopper.number)
        number = None if stopper is None else stopper.number
        return FakeStop(reason, self.cursor, self.hart, self.pc_at(self.cursor), detail, number)

    def parse_position(self, text: str) -> int:
        if text == "end":
            return self.end
        if text == "start":
            return 0
        if text.startswith("@"):
            return self.marks[text[1:]]
        if text.endswith("%"):
            return self.end * int(text[:-1]) // 100
        try:
            value = int(text.replace("_", ""))
        except ValueError:
            raise CommandError(f"position {text!r}: not one") from None
        value = self.cursor + value if text[0] in "+-" else value
        if not 0 <= value <= self.end:
            raise CommandError(f"position {text}: this trace has 0 to {self.end}")
        return value

    def goto(self, position: int) -> FakeStop:
        self.cursor = position
        return self._stop("goto")

    def stepi(self, n: int = 1) -> FakeStop:
        short = self.cursor + n > self.end
        self.cursor = min(self.end, self.cursor + n)
        return self._stop("end" if short else "step")

    def reverse_stepi(self, n: int = 1) -> FakeStop:
        short = self.cursor - n < 0
        self.cursor = max(0, self.cursor - n)
        return self._stop("start" if short else "step")

    def step(self, n: int = 1, by: str = "insn", into_traps: bool = False) -> FakeStop:
        return self.stepi(n)

    def reverse_step(self, n: int = 1, by: str = "insn", into_traps: bool = False) -> FakeStop:
        return self.reverse_stepi(n)

    def next(self, n: int = 1, by: str = "insn", into_traps: bool = False) -> FakeStop:
        stop = self._stop("step")
        for _ in range(n):
            if self.pc_at(self.cursor) != BASE + 4:
                stop = self.stepi(1)
                continue
            stop = self.until(BASE + 8)
            if stop.stopper is not None:
                break
        return stop

    def until(self, address: int) -> FakeStop:
        mine = self.add_breakpoint(address)
        stop = self._search(range(self.cursor + 1, self.end + 1), "end")
        del self._points[mine.number]
        return self._stop("step") if stop.stopper == mine.number else stop

    def finish(self) -> FakeStop:
        return self.until(BASE + 8)

    def cont(self) -> FakeStop:
        self.on_cont()
        return self._search(range(self.cursor + 1, self.end + 1), "end")

    def reverse_cont(self) -> FakeStop:
        return self._search(range(self.cursor - 1, -1, -1), "start")

    def _search(self, positions: range, at_end: str) -> FakeStop:
        for position in positions:
            self.cursor = position
            if self._interrupted.is_set():
                self._interrupted.clear()
                return self._stop("interrupted")
            for point in list(self._points.values()):
                if point.enabled and point.hits_at(position, self.pc_at(position)):
                    point.hits += 1
                    if point.temporary:
                        del self._points[point.number]
                    if point.kind == "watchpoint" and at_end == "start":
                        self.cursor -= 1  # backwards, the state before the store is where it ends
                    return self._stop(point.kind, point)
        return self._stop(at_end)

    @property
    def stoppers(self) -> list[FakeStopper]:
        return list(self._points.values())

    breakpoints = stoppers

    def _add(self, point: FakeStopper) -> FakeStopper:
        self._points[self._next] = point
        self._next += 1
        return point

    def add_breakpoint(self, addr: int, **more: Any) -> FakeStopper:
        return self._add(FakeStopper(self._next, addr, **more))

    def add_watchpoint(self, addr: int, size: int, access: str = "w", **more: Any) -> FakeStopper:
        return self._add(FakeStopper(self._next, addr, kind="watchpoint", size=size, what=access, **more))

    def add_catch(self, what: str, arg: Any = None, condition: str | None = None) -> FakeStopper:
        return self._add(FakeStopper(self._next, kind="catch", what=what, arg=arg, condition=condition))

    def delete_stopper(self, number: int) -> None:
        del self._points[number]

    delete_breakpoint = delete_stopper

    def enable_stopper(self, number: int, on: bool = True) -> None:
        self._points[number].enabled = on

    enable_breakpoint = enable_stopper

    def write_phys(self, address: int, data: bytes) -> FakeWritten:
        self.read_mem(address, len(data))
        self.written.append(("mem", address, bytes(data)))
        self.memory[address - BASE : address - BASE + len(data)] = data
        return FakeWritten(self.cursor)

    write_mem = write_phys

    def write_reg(self, name: str, value: int) -> FakeWritten:
        self.reg(name)
        self.written.append(("reg", self.hart, name, value))
        return FakeWritten(self.cursor)

    def inject(self, item: bytes) -> FakeWritten:
        self.written.append(("inject", item))
        return FakeWritten(self.cursor)

    def drop_input(self, number: int) -> FakeWritten:
        self.written.append(("drop", number))
        return FakeWritten(self.cursor)

    def delay_input(self, number: int, steps: int) -> FakeWritten:
        self.written.append(("delay", number, steps))
        return FakeWritten(self.cursor)

    def delay_interrupt(self, steps: int | None) -> FakeWritten:
        self.written.append(("interrupt", steps))
        return FakeWritten(self.cursor)

    def configure(self, name: str, text: str) -> FakeWritten:
        changed_config(MachineConfig(), name, text)
        self.written.append(("configure", name, text))
        return FakeWritten(self.cursor)

    def drop_source(self, source: str) -> FakeWritten:
        self.written.append(("drop", source))
        return FakeWritten(self.cursor)

    def read_phys(self, address: int, size: int) -> bytes:
        return self.read_mem(address, size)

    def reg(self, name: str) -> int:
        name = canonical(name)
        if name not in FakeEngine.reg_names:
            raise ValueError(f"no register {name}")
        loops, at = divmod(self.cursor, len(PROGRAM))
        values = {
            "pc": self.pc_at(self.cursor),
            "x1": BASE + 8,
            "x2": STACK,
            "x10": 2 * loops + (at > 0) + (at > 2),
            "priv": 3,
            "mstatus": 0xA_0000_1800,
        }
        return values.get(name, 0)

    def regs(self) -> dict[str, int]:
        return {name: self.reg(name) for name in FakeEngine.reg_names}

    def read_mem(self, address: int, size: int) -> bytes:
        at = address - BASE
        if at < 0 or at + size > RAM_BYTES:
            raise CommandError(f"{address:#x} is not mapped")
        return bytes(self.memory[at : at + size])

    def translate(self, address: int) -> int | None:
        return address if 0 <= address - BASE < RAM_BYTES else None

    def eval(self, text: str) -> int:
        total = 0
        for word in text.replace("+", " ").split():
            if word.startswith("$"):
                total += self.reg(word)
            elif word in self.symbols:
                total += self.symbols.lookup(word) or 0
            else:
                total += int(word, 0)
        return total

    def digest(self) -> str:
        return f"{self.cursor:032x}"

    def bookmark(self, name: str, icount: int | None = None) -> int:
        self.marks[name] = self.cursor if icount is None else icount
        return self.marks[name]

    def interrupt(self) -> None:
        self._interrupted.set()


@pytest.fixture
def session() -> FakeSession:
    """Return a session at the start of the hand-made run."""
    return FakeSession()


def _i(opcode: int, funct3: int, rd: int, rs1: int, imm: int) -> bytes:
    return struct.pack("<I", (imm & 0xFFF) << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | opcode)


def _s(funct3: int, rs1: int, rs2: int, imm: int) -> bytes:
    low, high = imm & 31, imm >> 5 & 127
    return struct.pack("<I", high << 25 | rs2 << 20 | rs1 << 15 | funct3 << 12 | low << 7 | 0x23)


def tiny_kernel(text: bytes = b"hello\n", spins: int = 2000) -> bytes:
    """Return an M-mode ELF that prints a text, spins and switches off.

    Symbols: ``_start``, ``spin``, ``off``.
    """
    t0, t1, t2, a0 = 5, 6, 7, 10
    code = struct.pack("<I", 0x1000_0000 | t0 << 7 | 0x37)  # lui t0, the UART
    for byte in text:
        code += _i(0x13, 0, a0, 0, byte) + _s(0, t0, a0, 0)  # li a0, byte; sb a0, 0(t0)
    code += struct.pack("<I", (spins >> 12) + (spins >> 11 & 1) << 12 | t1 << 7 | 0x37)
    code += _i(0x13, 0, t1, t1, spins)
    spin = len(code)
    code += _i(0x13, 0, t1, t1, -1)  # spin: addi t1, t1, -1
    code += struct.pack("<I", 0xFE031EE3)  # bnez t1, spin
    off = len(code)
    code += struct.pack("<I", 0x0010_0000 | t1 << 7 | 0x37)  # lui t1, the finisher
    code += struct.pack("<I", 0x0000_5000 | t2 << 7 | 0x37) + _i(0x13, 0, t2, t2, 0x555)
    code += _s(2, t1, t2, 0) + struct.pack("<I", 0x0000006F)  # sw t2, 0(t1); j .
    return elf(code, {"_start": 0, "spin": spin, "off": off})


def elf(code: bytes, symbols: dict[str, int], address: int = BASE) -> bytes:
    """Return a RISC-V executable of one segment with a symbol table."""
    names = b"\0"
    table = bytes(24)
    for name, offset in symbols.items():
        table += struct.pack("<IBBHQQ", len(names), 0x12, 0, 1, address + offset, 0)
        names += name.encode() + b"\0"
    sections = b"\0.text\0.symtab\0.strtab\0"
    at_code = 64 + 56
    at_table = at_code + len(code) + -len(code) % 8
    at_names = at_table + len(table)
    at_sections = at_names + len(names) + len(sections)
    header = b"\x7fELF\2\1\1" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, 243, 1, address, 64, at_sections, 5, 64, 56, 1, 64, 4, 3)
    segment = struct.pack("<IIQQQQQQ", 1, 5, at_code, address, address, len(code), len(code), 4096)
    body = header + segment + code + bytes(-len(code) % 8) + table + names + sections
    rows = bytes(64)
    base = len(names)
    rows += struct.pack("<IIQQQQIIQQ", base + 1, 1, 6, address, at_code, len(code), 0, 0, 4, 0)
    rows += struct.pack("<IIQQQQIIQQ", base + 7, 2, 0, 0, at_table, len(table), 3, 1, 8, 24)
    rows += struct.pack("<IIQQQQIIQQ", base + 15, 3, 0, 0, at_names, len(names) + len(sections), 0, 0, 1, 0)
    return body + rows


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """Return the file of a kernel that prints ``hello``, spins 2,000 times and switches off."""
    path = tmp_path / "tiny.elf"
    path.write_bytes(tiny_kernel())
    return path


@pytest.fixture(scope="session")
def tiny_elf() -> bytes:
    """Return the contents of that kernel's file."""
    return tiny_kernel()


@pytest.fixture(scope="session")
def long_elf() -> bytes:
    """Return a kernel that prints ``hello`` and then spins for billions of steps."""
    return tiny_kernel(spins=0x7FFF_F000)


@pytest.fixture(scope="session")
def echo_elf() -> bytes:
    """Return a kernel that prints ``>`` and then whatever is typed, waiting for the UART's interrupt in WFI."""
    t0, t1, t2, a0, a1 = 5, 6, 7, 10, 11
    code = struct.pack("<I", 0x1000_0000 | t0 << 7 | 0x37)  # lui t0, the UART
    code += _i(0x13, 0, a0, 0, ord(">")) + _s(0, t0, a0, 0)
    code += _i(0x13, 0, a0, 0, 1) + _s(0, t0, a0, 1)  # its receive interrupt is on
    code += struct.pack("<I", 0x0C00_0000 | t2 << 7 | 0x37)  # lui t2, the PLIC
    code += _s(2, t2, a0, 40)  # source 10 has priority 1
    code += struct.pack("<I", 0x0C00_2000 | t1 << 7 | 0x37)
    code += _i(0x13, 0, a0, 0, 1 << 10) + _s(2, t1, a0, 0)  # and is enabled for M mode of hart 0
    code += struct.pack("<I", 0x0C20_0000 | t2 << 7 | 0x37)
    code += struct.pack("<I", 0x0000_1000 | a0 << 7 | 0x37) + _i(0x13, 5, a0, a0, 1)  # a0 = MEIE, 1 << 11
    code += struct.pack("<I", 0x304 << 20 | a0 << 15 | 1 << 12 | 0x73)  # csrw mie, a0
    wait = len(code)
    code += struct.pack("<I", 0x1050_0073) + _i(0x03, 2, a1, t2, 4)  # wait: wfi; lw a1, claim
    code += _i(0x03, 4, t1, t0, 5) + _i(0x13, 7, t1, t1, 1)  # next: lbu t1, 5(t0); andi t1, t1, 1
    code += struct.pack("<I", 0x0003_0863)  # beqz t1, done
    code += _i(0x03, 4, a0, t0, 0) + _s(0, t0, a0, 0)  # lbu a0, 0(t0); sb a0, 0(t0)
    code += struct.pack("<I", 0xFEDF_F06F)  # j next
    code += _s(2, t2, a1, 4) + struct.pack("<I", 0xFDDF_F06F)  # done: sw a1, claim; j wait
    return elf(code, {"_start": 0, "wait": wait})
