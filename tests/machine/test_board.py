"""The board with the real engine: bare-metal programs, inputs, stops, saved state."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from machine.board import SLICE_CALLS, Board, Stop, StopReason
from machine.config import DriveConfig, Images, MachineConfig
from machine.errors import ConfigError, ImageError
from machine.fdt import Node, parse_fdt, write_fdt
from machine.hw.uart16550 import Uart
from machine.inputs import Input, NullGate
from machine.tcg.engine import ExitReason
from tests.rvasm import assemble

if TYPE_CHECKING:
    from workbench.guests.fetch import Guest

RAM = 0x8000_0000
OPENSBI = Path("/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin")
#: Reads the PLIC's register of enabled interrupts for ever.
POLL = "li t0, 0x0c002000\n loop: lw t1, 0(t0)\n addi t2, t2, 1\n j loop\n"
POWEROFF = "li t0, 0x100000\n li t1, 0x5555\n sw t1, 0(t0)\n stop: j stop\n"


def elf(source: str, base: int = RAM) -> bytes:
    code, _ = assemble(source, base)
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 2, 243, 1, base, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return head + struct.pack("<IIQQQQQQ", 1, 7, 120, base, base, len(code), len(code), 4096) + code


class Console:
    """A sink that keeps rows."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, bytes, int]] = []

    def write(self, port: str, data: bytes, icount: int, vtime_ns: int) -> None:
        self.rows.append((port, data, icount))

    @property
    def text(self) -> bytes:
        return b"".join(data for _, data, _ in self.rows)


class ScriptGate(NullGate):
    """Delivers inputs at given positions, and notes what is asked."""

    def __init__(self, *inputs: tuple[int, Input], warp_ns: int = 0) -> None:
        self.inputs = list(inputs)
        self.warp_ns = warp_ns
        self.asked: list[tuple[str, str, int]] = []

    def due(self, icount: int, vtime_ns: int) -> list[Input]:
        ready = [item for at, item in self.inputs if at <= icount]
        self.inputs = [(at, item) for at, item in self.inputs if at > icount]
        return ready

    def ask(self, source: str, kind: str, request: bytes, icount: int, vtime_ns: int) -> bytes:
        self.asked.append((source, kind, icount))
        return (
            self.warp_ns.to_bytes(8, "little")
            if kind == "warp"
            else super().ask(source, kind, request, icount, vtime_ns)
        )

    def next_position(self, icount: int) -> int | None:
        return min((at for at, _ in self.inputs), default=None)


Make = Callable[..., Board]


@pytest.fixture
def make(backend: str, request: pytest.FixtureRequest) -> Make:
    """Build a board with a program, reset; ``gate`` and configuration by keyword."""

    def build(source: str, gate: NullGate | None = None, **options: Any) -> Board:
        options = {"memory_bytes": 16 << 20, "bios": "none", **options}
        base = RAM if options["bios"] == "none" else RAM + (2 << 20)
        console = Console()
        board = Board(
            MachineConfig(**options),
            Images(kernel=elf(source, base)),
            gate or NullGate(),
            console,
            backend=backend,
        )
        request.addfinalizer(board.close)
        board.console_rows = console  # type: ignore[attr-defined]
        board.reset()
        return board

    return build


def console_of(board: Board) -> Console:
    found = board.console_rows  # type: ignore[attr-defined]
    assert isinstance(found, Console)
    return found


HELLO = f"""
    bnez a0, park
    la s0, text
    li s1, 0x10000000
next:
    lbu t0, 0(s0)
    beqz t0, done
    sb t0, 0(s1)
    addi s0, s0, 1
    j next
done:
    {POWEROFF}
park:
    wfi
    j park
    .align 8
text:
    .dword 0x0a6968
"""


@pytest.mark.parametrize("harts", [1, 3])
def test_bare_program_prints_and_powers_off(make: Make, harts: int) -> None:
    board = make(HELLO, harts=harts)
    assert board.run(None) == Stop(StopReason.POWEROFF)
    assert console_of(board).rows[0][:2] == ("uart0", b"hi\n")
    assert not board.guest_errors


def test_stop_lasts_and_is_part_of_the_state(make: Make) -> None:
    board = make(HELLO)
    board.run(None)
    at = board.icount
    assert board.run(None) == Stop(StopReason.POWEROFF) and board.icount == at
    other = make(HELLO)
    other.load_state(json.loads(json.dumps(board.save_state())))
    assert other.run(None) == Stop(StopReason.POWEROFF) and other.icount == at


def test_exit_code_comes_back(make: Make) -> None:
    board = make("li t0, 0x100000\n li t1, 0x73333\n sw t1, 0(t0)\n spin: j spin")
    assert board.run(None) == Stop(StopReason.FAIL, 7)


def test_run_stops_exactly_where_it_is_told(make: Make) -> None:
    board = make("loop: addi s0, s0, 1\n j loop")
    for position in (1, 2, 777, 100_001):
        assert board.run(position) == Stop(StopReason.UNTIL)
        assert board.icount == position


def test_access_to_nothing_is_an_access_fault(make: Make) -> None:
    board = make(
        f"""
        la t0, trap
        csrw mtvec, t0
        li t0, 0x20000000
        lw t1, 0(t0)
    trap:
        csrr s0, mcause
        csrr s1, mtval
        {POWEROFF}
        """
    )
    board.run(1000)
    assert board.engine.get_reg(0, "mcause") == 5
    assert board.engine.get_reg(0, "x9") == 0x2000_0000


ECHO = f"""
    li s1, 0x10000000
    li t0, 1
    sb t0, 1(s1)
    li s2, 0x0c000000
    li t0, 1
    sw t0, 40(s2)
    li s3, 0x0c002000
    li t0, 0x400
    sw t0, 0(s3)
    la t0, trap
    csrw mtvec, t0
    li t0, 0x800
    csrw mie, t0
    li t0, 8
    csrs mstatus, t0
busy:
    j busy
    .align 4
trap:
    li s4, 0x0c200004
    lw s5, 0(s4)
    lbu t1, 0(s1)
    sb t1, 0(s1)
    sw s5, 0(s4)
    li t2, 0x71
    beq t1, t2, quit
    mret
quit:
    {POWEROFF}
"""


def test_typed_characters_interrupt_the_guest_at_their_position(make: Make) -> None:
    gate = ScriptGate((1000, Input("uart0", "rx", b"a")), (5000, Input("uart0", "rx", b"bq")))
    board = make(ECHO, gate)
    assert board.run(4999) == Stop(StopReason.UNTIL)
    assert console_of(board).text == b"a"
    assert board.run(10_000) == Stop(StopReason.POWEROFF)
    assert 5000 < board.icount < 5100
    assert console_of(board).text == b"abq"


def test_idle_time_is_asked_of_the_gate(make: Make) -> None:
    gate = ScriptGate(warp_ns=5_000_000)
    board = make(
        f"""
        li t0, 0x0200bff8
        ld t1, 0(t0)
        li t2, 100000
        add t1, t1, t2
        li t0, 0x02004000
        sd t1, 0(t0)
        li t0, 0x80
        csrw mie, t0
        wfi
        {POWEROFF}
        """,
        gate,
        idle="ask",
    )
    assert board.run(None) == Stop(StopReason.POWEROFF)
    warps = [(source, kind) for source, kind, _ in gate.asked if kind == "warp"]
    assert warps == [("idle", "warp")] * 2, "10 ms in steps of 5 ms"
    assert board.engine.warp_ns == 10_000_000


def test_nothing_left_to_wait_for_is_halted(make: Make) -> None:
    assert make("wfi\n spin: j spin").run(None) == Stop(StopReason.HALTED)


def test_power_button_and_interrupt(make: Make) -> None:
    board = make("loop: j loop", ScriptGate((500, Input("board", "poweroff", b""))))
    assert board.run(None) == Stop(StopReason.POWEROFF)
    assert board.icount == 500
    board = make("loop: j loop")
    board.interrupt()
    assert board.run(None) == Stop(StopReason.INTERRUPTED)
    assert board.run(10) == Stop(StopReason.UNTIL)


BUILTIN = f"""
    beqz s11, boot
    j other
boot:
    mv s0, a0
    li a7, 0x4442434e
    li a6, 2
    li a0, 0x41
    ecall
    li a7, 0x48534d
    li a6, 0
    li a0, 1
    la a1, other
    li a2, 0x42
    ecall
    mv s1, a0
wait:
    la t0, flag
    ld t1, 0(t0)
    beqz t1, wait
    {POWEROFF}
other:
    mv s2, a1
    mv a0, a1
    li a7, 0x4442434e
    li a6, 2
    ecall
    la t0, flag
    li t1, 1
    sd t1, 0(t0)
park:
    wfi
    j park
    .align 8
flag:
    .dword 0
"""


def test_builtin_sbi_prints_and_starts_a_hart(make: Make) -> None:
    board = make(BUILTIN, bios="builtin", harts=2, quantum_steps=1000)
    assert board.engine.hart_stopped(1)
    assert board.run(1_000_000) == Stop(StopReason.POWEROFF)
    assert console_of(board).text == b"AB"
    assert {port for port, _, _ in console_of(board).rows} == {"uart0"}
    assert not board.engine.hart_stopped(1)


def test_reset_gives_the_first_state_again(make: Make) -> None:
    board = make(HELLO)
    first, ram = board.save_state(), bytes(board.engine.ram)
    board.run(None)
    board.engine.write_phys(RAM + 0x90_0000, b"left over")
    board.reset()
    assert board.save_state() == first
    assert bytes(board.engine.ram) == ram


WORK = f"""
    li s0, 300
    la s1, buffer
    li s2, 0x10000000
again:
    sd s0, 0(s1)
    addi s1, s1, 8
    andi t0, s0, 63
    bnez t0, skip
    li t1, 46
    sb t1, 0(s2)
    li t0, 0x101000
    lw t2, 0(t0)
    sd t2, 0(s1)
skip:
    addi s0, s0, -1
    bnez s0, again
    {POWEROFF}
    .align 8
buffer:
    .dword 0
"""


@pytest.mark.parametrize("position", [1, 20, 333, 1500])
def test_run_from_a_saved_state_ends_in_the_same_state(make: Make, position: int) -> None:
    straight = make(WORK)
    straight.run(None)
    first = make(WORK)
    first.run(position)
    state = json.loads(json.dumps(first.save_state()))
    second = make(WORK)
    second.run(777)
    for index in set(first.engine.dirty_pages(clear=False)) | set(second.engine.dirty_pages(clear=False)):
        second.load_ram_pages([index], bytes(first.ram_page(index)))
    second.load_state(state)
    assert second.icount == position and second.save_state() == state
    second.run(None)
    assert second.save_state() == straight.save_state()
    assert bytes(second.engine.ram) == bytes(straight.engine.ram)


def test_slices_do_not_change_the_run(make: Make) -> None:
    whole, sliced = make(WORK), make(WORK)
    whole.run(None)
    sliced.run(None, slice_steps=7)
    assert whole.save_state() == sliced.save_state()


def test_a_slice_of_a_guest_that_polls_a_device_ends_soon(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a key, a signal and a commit would wait for millions of accesses."""
    board = make(POLL)
    ran: list[tuple[int, int]] = []
    run = board.engine.run

    def counted(until: int) -> ExitReason:
        before = board.icount
        reason = run(until)
        ran.append((board.icount - before, until - before))
        return reason

    monkeypatch.setattr(board.engine, "run", counted)
    board.run(50_000)
    assert board.icount == 50_000
    assert [steps for steps, _ in ran[1:-1]] == [3 * SLICE_CALLS] * (len(ran) - 2)
    assert len(ran) > 10


def test_foreign_states_are_refused(make: Make) -> None:
    board = make(HELLO)
    good = board.save_state()
    for bad in (
        None,
        {},
        {**good, "version": 99},
        {**good, "harts": []},
        {**good, "harts": [{}]},
        {**good, "icount": -1},
        {**good, "sched": [1]},
        {**good, "devices": {}},
        {**good, "clock": [["nobody", "x", 1]]},
        {**good, "drives": {"x": {}}},
        {**good, "stop": ["explode", 0]},
    ):
        with pytest.raises(ValueError, match=r"."):
            board.load_state(bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="page"):
        board.load_ram_pages([1 << 40], bytes(4096))
    with pytest.raises(ValueError, match="page"):
        board.load_ram_pages([0, 1 << 40], bytes(8192))
    with pytest.raises(ValueError, match="page"):
        board.ram_page(-1)


def test_failing_device_names_itself(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Uart, offset: int, size: int) -> int:
        raise RuntimeError("bug")

    monkeypatch.setattr(Uart, "read", broken)
    board = make("li t0, 0x10000007\n lbu t1, 0(t0)")
    with pytest.raises(RuntimeError) as caught:
        board.run(100)
    assert caught.value.__notes__ == ["in device uart0: read of 1 bytes at offset 0x7"]


def test_guest_misbehaviour_is_logged_not_raised(make: Make) -> None:
    board = make(f"li t0, 0x10001000\n ld t1, 0(t0)\n li t0, 0x100000\n sw zero, 0(t0)\n {POWEROFF}")
    assert board.run(None) == Stop(StopReason.POWEROFF)
    assert [(e.source, e.icount > 0) for e in board.guest_errors] == [
        ("virtio-mmio0", True),
        ("finisher", True),
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"harts": 0},
        {"harts": 17},
        {"memory_bytes": 1000},
        {"memory_bytes": 1 << 50},
        {"idle": "sleep"},
        {"quantum_steps": 0},
        {"guest": "m68k"},
        {"drives": (DriveConfig("x", format="vhd"),)},
        {"drives": (DriveConfig("x", interface="ide"),)},
    ],
)
def test_impossible_machine_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        Board(replace(MachineConfig(), **options), Images(), NullGate(), Console())
    assert caught.value.exit_code == 2


def test_drives_are_opened_counted_and_named(tmp_path: Path) -> None:
    path = tmp_path / "d.img"
    path.write_bytes(bytes(1024))
    with pytest.raises(ImageError, match="does not exist"):
        Board(MachineConfig(drives=(DriveConfig(str(tmp_path / "no.img")),)), Images(), NullGate(), Console())
    with pytest.raises(ConfigError, match="room for 6"):
        Board(MachineConfig(drives=(DriveConfig(str(path)),) * 7), Images(), NullGate(), Console())
    with pytest.raises(ConfigError, match="same name"):
        Board(MachineConfig(drives=(DriveConfig(str(path), id="rng0"),)), Images(), NullGate(), Console())
    board = Board(
        MachineConfig(drives=(DriveConfig(str(path)), DriveConfig(str(path), id="data"))),
        Images(),
        NullGate(),
        Console(),
    )
    assert [(d.name, d.base) for d in board.devices if d.name in board.drives] == [
        ("data", 0x1000_7000),
        ("drive0", 0x1000_8000),
    ]
    board.close()


def test_drive_goes_where_its_bus_says_and_others_around_it(tmp_path: Path) -> None:
    """Teaching kernels look for their disk in the first slot and nowhere else, at a vendor that is QEMU."""
    path = tmp_path / "d.img"
    path.write_bytes(bytes(1024))
    first, last = DriveConfig(str(path), id="first", slot=0), DriveConfig(str(path), id="last", slot=7)
    other = DriveConfig(str(path), id="other")
    board = Board(MachineConfig(drives=(other, first, last)), Images(), NullGate(), Console())
    places = {d.name: (d.base - 0x1000_1000) // 0x1000 for d in board.devices}
    assert {n: places[n] for n in ("first", "last", "other", "rng0", "console0")} == {
        "first": 0,
        "last": 7,
        "other": 6,
        "rng0": 5,
        "console0": 4,
    }
    assert board.mmio_read(0x1000_1008, 4, 0) == 2
    assert board.mmio_read(0x1000_100C, 4, 0) == int.from_bytes(b"QEMU", "little")
    board.close()
    with pytest.raises(ConfigError, match=r"another on virtio-mmio-bus\.0"):
        Board(MachineConfig(drives=(first, replace(first, id="again"))), Images(), NullGate(), Console())
    with pytest.raises(ConfigError, match=r"expected virtio-mmio-bus\.0 to 7"):
        Board(MachineConfig(drives=(replace(first, slot=8),)), Images(), NullGate(), Console())


def test_device_tree_of_the_user_is_used(backend: str) -> None:
    mine = write_fdt(Node("", {"model": "mine"}))
    config = MachineConfig(memory_bytes=16 << 20, append="hello")
    board = Board(
        config, Images(kernel=elf("wfi", RAM + (2 << 20)), dtb=mine), NullGate(), Console(), backend=backend
    )
    board.reset()
    at = board.engine.get_reg(0, "x11")
    root, _ = parse_fdt(board.engine.read_phys(at, len(board.dtb)))
    assert root.props["model"] == b"mine\0"
    chosen = root.find("/chosen")
    assert chosen is not None and chosen.props["bootargs"] == b"hello\0"
    board.close()


@pytest.mark.skipif(not OPENSBI.exists(), reason="OpenSBI is not installed")
def test_opensbi_reaches_the_next_stage(backend: str) -> None:
    kernel = elf("li a7, 8\n ecall\n spin: j spin", RAM + (2 << 20))
    console = Console()
    config = MachineConfig(memory_bytes=64 << 20, bios="file", harts=2)
    board = Board(
        config, Images(kernel=kernel, bios=OPENSBI.read_bytes()), NullGate(), console, backend=backend
    )
    board.reset()
    stop = board.run(20_000_000)
    text = console.text.decode()
    assert "OpenSBI v" in text and "Platform HART Count       : 2" in text
    assert "Domain0 Next Address      : 0x0000000080200000" in text
    assert stop == Stop(StopReason.POWEROFF), "the kernel's legacy shutdown went through the firmware"
    assert not board.guest_errors
    board.close()


@pytest.mark.slow
def test_linux_reads_and_writes_a_disk(debian_guest: Guest, tmp_path: Path, backend: str) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(range(256)) * 4096)
    script = (
        "wb.modules=all wb.sh=hexdump -n 4 -s 65536 /dev/vda; echo marker > /dev/vda; sync; "
        "head -c 6 /dev/vda; dd if=/dev/hwrng bs=8 count=1 | hexdump; echo on-hvc > /dev/hvc0"
    )
    config = MachineConfig(
        memory_bytes=512 << 20,
        harts=2,
        append=f"console=ttyS0 quiet {script}",
        drives=(DriveConfig(str(path)),),
    )
    console = Console()
    images = Images(kernel=debian_guest.kernel.read_bytes(), initrd=debian_guest.initrd.read_bytes())
    board = Board(config, images, NullGate(), console, backend=backend)
    board.reset()
    assert board.run(20_000_000_000) == Stop(StopReason.POWEROFF)
    serial = b"".join(data for port, data, _ in console.rows if port == "uart0")
    assert b"0010000 0100 0302" in serial and b"\nmarker" in serial
    assert any(port == "console0" and b"on-hvc" in data for port, data, _ in console.rows)
    assert path.read_bytes() == bytes(range(256)) * 4096
    assert board.drives["drive0"].pread(0, 6) == b"marker"
    assert not board.guest_errors
    board.close()


@pytest.mark.parametrize(
    "wrong", [{"harts": "2"}, {"harts": True}, {"seed": None}, {"options": []}, {"drives": [{"file": 1}]}]
)
def test_a_configuration_of_other_types_is_none(wrong: dict[str, Any]) -> None:
    """A trace whose config had been written by hand was called a bug of ours when it was replayed."""
    with pytest.raises((TypeError, ValueError)):
        MachineConfig.from_json({**MachineConfig().to_json(), **wrong})
