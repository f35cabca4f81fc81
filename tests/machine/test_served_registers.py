"""Registers that the engine answers with no call of their device: the guest and the console see no difference."""

from __future__ import annotations

from typing import Any

import pytest

from machine.board import Board
from machine.config import Images, MachineConfig
from machine.hw.uart16550 import Uart
from machine.inputs import Input, NullGate
from machine.tcg.engine import Engine
from tests.machine.test_board import POWEROFF, Console, elf
from tests.rvasm import assemble

#: What a driver does: polls the line status, sends, goes to the divisor and to the loopback in between, reads mtime in
#: every width in blocks of several instructions; 20 lines, one of them longer than what is gathered.
DRIVER = f"""
    li s0, 0x10000000; li s1, 0x200bff8; li s2, 20; li s4, 5000; la s7, kept
line:
    li s3, 60
    li t0, 7; bne s2, t0, send
    mv s3, s4
send:
    lbu t1, 5(s0); andi t1, t1, 0x20; beqz t1, send
    li t0, 65; sb t0, 0(s0)
    ld t2, 0(s1); lwu t3, 0(s1); lwu t4, 4(s1); ld t5, 0(s1)
    add s8, s8, t2; xor s8, s8, t3; add s8, s8, t4; add s8, s8, t5
    lbu t1, 5(s0); lbu t2, 0(s0); add s9, s9, t2
    addi s3, s3, -1; bnez s3, send
    li t0, 10; sb t0, 0(s0)
    li t0, 0x83; sb t0, 3(s0); li t0, 66; sb t0, 0(s0); li t0, 3; sb t0, 3(s0)
    li t0, 16; sb t0, 4(s0); li t0, 67; sb t0, 0(s0); lbu t1, 5(s0); add s9, s9, t1; lbu t1, 0(s0); add s9, s9, t1
    sb t0, 0(s0); sb t0, 0(s0); lbu t1, 5(s0); add s9, s9, t1; lbu t1, 5(s0); add s9, s9, t1; sb zero, 4(s0)
    sd s8, 0(s7); sd s9, 8(s7); addi s7, s7, 16
    addi s2, s2, -1; bnez s2, line
    li t0, 68; sb t0, 0(s0)
    {POWEROFF}
    .align 4096
kept: .dword 0
    .align 4096
end: .dword 0
"""


class Typing(NullGate):
    """Types a character every so often."""

    def __init__(self) -> None:
        self.at = [2_000, 9_001, 30_000]

    def due(self, icount: int, vtime_ns: int) -> list[Input]:
        ready = [at for at in self.at if at <= icount]
        self.at = [at for at in self.at if at > icount]
        return [Input("uart0", "rx", b"z") for _ in ready]

    def next_position(self, icount: int) -> int | None:
        return min(self.at, default=None)


def _run(backend: str, stops: int = 0) -> tuple[list[tuple[str, bytes, int]], dict[str, Any], bytes, int]:
    """Return what the console got, the state, RAM, and how many accesses came to the UART."""
    console = Console()
    config = MachineConfig(memory_bytes=16 << 20, bios="none")
    board = Board(config, Images(kernel=elf(DRIVER)), Typing(), console, backend=backend)
    calls = 0
    plain = board.bus.read

    def counted(paddr: int, size: int) -> int | None:
        nonlocal calls
        calls += 1
        return plain(paddr, size)

    board.bus.read = counted  # type: ignore[method-assign]
    board.reset()
    if stops:
        while board.icount < 3_000_000 and board.run(board.icount + stops).reason.value == "until":
            pass
    else:
        board.run(3_000_000)
    found = console.rows, board.save_state(), bytes(board.engine.ram), calls
    board.close()
    return found


def _without(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("set_steady", "set_print_register", "set_time_register"):
        monkeypatch.setattr(Engine, name, lambda self, *args: None)


def test_a_driver_sees_the_same_with_fewer_calls(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("machine.board.SLICE_CALLS", 1 << 40)  # what is gathered leaves where a slice ends
    served = _run(backend)
    _without(monkeypatch)
    called = _run(backend)
    assert served[0] == called[0], "text, pieces and positions"
    assert served[1] == called[1]
    assert served[2] == called[2]
    assert [len(text) for _, text, _ in called[0]].count(4096) == 1
    assert called[0][-1][1] == b"D" and len(called[0]) == 20 + 1 + 1 + 3
    assert served[3] < called[3] / 4


def test_stops_between_characters_lose_none_of_them(backend: str) -> None:
    whole, cut = _run(backend), _run(backend, stops=997)
    assert b"".join(text for _, text, _ in whole[0]) == b"".join(text for _, text, _ in cut[0])
    assert len(cut[0]) > len(whole[0]), "what is gathered leaves at a stop"
    assert whole[1:3] == cut[1:3]


def test_a_loaded_state_is_announced(backend: str) -> None:
    """The engine's answers belong to the state that was there before: loading one must replace them."""
    config = MachineConfig(memory_bytes=16 << 20, bios="none")
    boards = []
    for _ in range(2):
        board = Board(config, Images(kernel=elf(DRIVER)), NullGate(), Console(), backend=backend)
        board.reset()
        boards.append(board)
    first, second = boards
    uart = next(device for device in first.devices if isinstance(device, Uart))
    uart.deliver(Input("uart0", "rx", b"x"))
    second.load_state(first.save_state())
    source = "li s0, 0x10000000; lbu a0, 5(s0)\nstop: j stop\n"
    for board in boards:
        board.engine.write_phys(0x8000_0000, assemble(source, 0x8000_0000)[0])
        board.run(board.icount + 8)
        assert board.engine.get_reg(0, "x10") == 0x61
        board.close()


def test_nothing_is_at_physical_address_0(backend: str) -> None:
    """Room for a register that is not used has address 0, where nothing may answer."""
    source = "la t0, trap; csrw mtvec, t0; lbu a0, 0(zero)\nstop: j stop\n.align 4\ntrap: csrr a1, mcause; j stop\n"
    config = MachineConfig(memory_bytes=16 << 20, bios="none")
    board = Board(config, Images(kernel=elf(source)), NullGate(), Console(), backend=backend)
    board.reset()
    board.run(20)
    assert board.engine.get_reg(0, "x11") == 5
    board.close()


def test_registers_with_a_steady_value_are_few() -> None:
    engine = Engine(ram_base=0x8000_0000, ram_size=1 << 20, host=Nobody(), builtin_sbi=False)
    for i in range(4):
        engine.set_steady(0x2000_0000 + i, i)
    with pytest.raises(ValueError, match="too many"):
        engine.set_steady(0x2000_0004, 0)
    engine.set_steady(0x2000_0004, None)
    engine.set_steady(0x2000_0000, None)
    engine.set_steady(0x2000_0004, 0)
    engine.close()


class Nobody:
    """A host with nothing in it."""

    def mmio_read(self, paddr: int, size: int, hart: int) -> int | None:
        return None

    def mmio_write(self, paddr: int, size: int, hart: int, value: int) -> bool | None:
        return False

    def sbi_call(self, hart: int) -> None:
        return
