"""Programs that set the time, and harts that firmware suspends: on both back ends, with states saved between.

Spec: RISC-V SBI 2.0, chapter 9; ACLINT 1.0, chapter 2
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from machine.board import Board, Stop, StopReason
from machine.config import Images, MachineConfig
from machine.inputs import NullGate
from tests.machine.test_board import Console, elf

RAM = 0x8000_0000
Run = Callable[..., list[int]]
OFF = "li t0, 0x100000\n li t1, 0x5555\n sw t1, 0(t0)\n off: j off\n"

SET_TIME = f"""
    la t0, wake
    csrw mtvec, t0
    li s0, 0x200bff8
    li s1, 0x2004000
    li t0, 1000000
    sd t0, 0(s0)          # the time is set ahead
    csrr s2, time
    ld s3, 0(s0)
    sw zero, 4(s0)          # and back, by halves
    sw zero, 0(s0)
    csrr s4, time
    li t0, 50
    sd t0, 0(s1)          # due 50 ticks later
    li t0, 0x80
    csrw mie, t0
    li t0, 8
    csrw mstatus, t0
sleep:
    wfi
    j sleep
    .align 4
wake:
    csrr s5, time
    csrr s6, mcause
    la t0, out
    sd s2, 0(t0)
    sd s3, 8(t0)
    sd s4, 16(t0)
    sd s5, 24(t0)
    {OFF}
    .align 8
out:
    .dword 0
    .dword 0
    .dword 0
    .dword 0
"""

#: Hart 0 starts hart 1, which suspends itself twice; hart 0 asks for its state and wakes it each time.
SUSPEND = f"""
    la s0, out
    la a1, second
    li a0, 1
    li a2, 0
    call hsm
    call settle
    call status
    sd a1, 0(s0)
    call wake
    call settle
    call status
    sd a1, 8(s0)
    call wake
    call settle
    call status
    sd a1, 16(s0)
    {OFF}
hsm:
    li a7, 0x48534d
    li a6, 0
    ecall
    ret
status:
    li a7, 0x48534d
    li a6, 2
    li a0, 1
    ecall
    ret
wake:
    li a7, 0x735049
    li a6, 0
    li a0, 1
    li a1, 1
    ecall
    ret
settle:
    li t0, 3000
again:
    addi t0, t0, -1
    bnez t0, again
    ret
second:
    la s0, out
    li t0, 2
    csrw sie, t0
    li s1, 0x1234
    li a7, 0x48534d
    li a6, 3
    li a0, 0
    ecall                 # retentive: comes back here
    sd s1, 24(s0)
    sd a0, 32(s0)
    csrw sip, zero
    li a0, 1
    slli a0, a0, 31
    la a1, resumed
    li a2, 77
    li a7, 0x48534d
    li a6, 3
    ecall                 # non-retentive: comes back below
    li s1, 0x666
    sd s1, 40(s0)
resumed:
    la s0, out
    sd a0, 48(s0)
    sd a1, 56(s0)
    csrr t0, sip
    sd t0, 64(s0)
park:
    j park
    .align 8
out:
    .dword 9
    .dword 9
    .dword 9
    .dword 9
    .dword 9
    .dword 9
    .dword 9
    .dword 9
    .dword 9
"""


@pytest.fixture
def run(backend: str) -> Iterator[Run]:
    """Run a program, in pieces with the state saved and loaded between; return the words at ``out``."""

    def build(source: str, options: dict[str, object]) -> Board:
        base = RAM if options["bios"] == "none" else RAM + (2 << 20)
        config = MachineConfig(memory_bytes=16 << 20, quantum_steps=500, **options)  # type: ignore[arg-type]
        board = Board(config, Images(kernel=elf(source, base)), NullGate(), Console(), backend=backend)
        board.reset()
        return board

    def go(source: str, words: int, piece: int | None, **options: object) -> list[int]:
        board = build(source, options)
        base = RAM if options["bios"] == "none" else RAM + (2 << 20)
        first = (base - RAM) // 4096  # the page that a program fits into
        while board.run(None if piece is None else board.icount + piece) != Stop(StopReason.POWEROFF):
            assert board.icount < 100_000, "the program does not end"
            state = json.loads(json.dumps(board.save_state()))
            page = bytes(board.ram_page(first))
            board.close()
            board = build(source, options)
            board.load_state(state)
            board.load_ram_pages([first], page)
        image = elf(source, RAM)[120:]
        found = bytes(board.engine.read_phys(base + len(image) - 8 * words, 8 * words))
        ended = board.icount
        board.close()
        return [int.from_bytes(found[i : i + 8], "little") for i in range(0, len(found), 8)] + [ended]

    yield go


@pytest.mark.parametrize("piece", [None, 1, 7])
def test_time_that_a_program_sets_is_the_time_of_the_csr_and_of_the_timer(
    run: Run, piece: int | None
) -> None:
    """mtime was read-only: the timer then came at a time that was not the program's."""
    ahead, read, back, woken, _ = run(SET_TIME, 4, piece, bios="none")
    assert (ahead, read, back, woken) == (1_000_000, 1_000_000, 0, 50)


@pytest.mark.parametrize("piece", [None, 777])
def test_suspended_harts_wait_for_an_interrupt_and_say_so(run: Run, piece: int | None) -> None:
    """Suspensions came back at once, and the non-retentive kind was not supported."""
    *found, ended = run(SUSPEND, 9, piece, bios="builtin", harts=2)
    assert found == [4, 4, 0, 0x1234, 0, 9, 1, 77, 2]
    assert ended == run(SUSPEND, 9, None, bios="builtin", harts=2)[-1]
