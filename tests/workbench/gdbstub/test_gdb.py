"""A stock gdb on recordings: the built-in guest's, fast; Debian's boot, slow."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from workbench.gdbstub.handlers import Handlers
from workbench.gdbstub.packets import Packet, PacketReader, encode
from workbench.repl.shell import Shell
from workbench.replay.parts import BoardStop
from workbench.session import Session

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.requires("gdb-multiarch")


def record(out: Path, kernel: Path, *options: str) -> Path:
    command = [sys.executable, "-m", "workbench", "record", "-o", str(out), "--kernel", str(kernel)]
    subprocess.run([*command, "--no-input", *options], check=True, capture_output=True, timeout=300)
    return out


def run_gdb(trace: Path, script: Sequence[str], timeout: float = 120) -> str:
    """Run gdb's commands on a trace; return all that it printed."""
    path = trace.with_suffix(".gdb")
    path.write_text("set width 0\nset confirm off\n" + "\n".join(script) + "\n")
    command = [sys.executable, "-m", "workbench", "gdb", str(trace), "-nx", "-batch", "-x", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def guest(builtin_image: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of the built-in guest that ends well."""
    folder = tmp_path_factory.mktemp("gdb")
    kernel = folder / "builtin.elf"
    kernel.write_bytes(builtin_image)
    return record(folder / "guest.trace", kernel, "--append", "safe")


def positions(text: str) -> list[str]:
    return re.findall(r"position ([\d_]+) of", text)


def test_break_continue_and_reverse_continue_by_function(guest: Path) -> None:
    text = run_gdb(guest, ["break pool_get", "continue", "when", "continue", "reverse-continue", "when"])
    first, second = positions(text)
    assert len(re.findall(r"Breakpoint 1[.\d]*, pool_get", text)) == 3, text
    assert first == second


def test_lines_are_stepped_both_ways_and_sources_are_found(guest: Path) -> None:
    script = ["break kmain", "continue", "next", "when", "next", "reverse-next", "when", "list kmain"]
    text = run_gdb(guest, script)
    assert "void kmain(" in text
    assert "No such file" not in text
    first, second = positions(text)
    assert first == second


def test_reverse_stepi_over_a_trap_goes_back_to_where_it_came_from(guest: Path) -> None:
    script = [
        "hbreak *trap_entry",
        "continue",
        'printf "from %#lx cause %#lx satp %#lx\\n", $sepc, $scause, $satp',
        "reverse-stepi",
        'printf "back at %#lx\\n", $pc',
        "stepi",
        'printf "again %d\\n", $pc == (long)&trap_entry',
    ]
    text = run_gdb(guest, script)
    found = re.search(r"from (0x[0-9a-f]+) cause (0x[0-9a-f]+) satp (0x8[0-9a-f]+)", text)
    assert found is not None, text
    assert f"back at {found[1]}" in text
    assert "again 1" in text


def test_steps_pass_over_interrupts_both_ways(guest: Path) -> None:
    script = [
        "goto 50%",
        "wb catch interrupt",
        "reverse-continue",
        "wb delete",
        "python at = int(gdb.parse_and_eval('$pc'))",
        "when",
        "stepi",
        "python print('inside', int(gdb.parse_and_eval('$pc')) == int(gdb.parse_and_eval('(long)&trap_entry')))",
        "when",
        "reverse-stepi",
        "when",
        "python print('back', int(gdb.parse_and_eval('$pc')) == at)",
        "reverse-stepi",
        "when",
    ]
    text = run_gdb(guest, script)
    assert "inside False" in text and "back True" in text
    before, behind, after, earlier = (int(p.replace("_", "")) for p in positions(text)[-4:])
    assert behind > before + 10
    assert after == behind - 1
    assert before - 1 <= earlier <= before


def test_watchpoint_and_reverse_continue_find_the_last_writer(guest: Path) -> None:
    script = [
        "goto end",
        'printf "at the end %d\\n", ticks',
        "watch ticks",
        "reverse-continue",
        'printf "before %d\\n", ticks',
        "info symbol $pc",
        "when",
        "continue",
        'printf "behind %d\\n", ticks',
        "reverse-continue",
        "when",
    ]
    text = run_gdb(guest, script)
    last = int(re.findall(r"at the end (\d+)", text)[0])
    assert last > 3
    assert f"before {last - 1}" in text and f"behind {last}" in text
    assert "trap_handle" in text or "tick" in text
    assert positions(text)[-1] == positions(text)[-2]
    assert positions(text)[-1] != "0"


def test_a_watchpoint_ends_where_the_repls_does_and_stops_steps_by_line(guest: Path) -> None:
    """gdb ended an instruction beside the store, and stepped over it by line without a word."""
    with Session.open(guest) as session:
        session.add_watchpoint(session.sym("ticks"), 8)
        session.goto("end")
        before = session.reverse_cont().icount
        session.add_watchpoint(session.sym("ticks"), 8, condition="$value == 1")
        session.goto("start")
        session.delete_stopper(1)
        behind = session.cont().icount
    script = ["goto end", "watch ticks", "reverse-continue", "when", f"goto {behind - 9}", "continue", "when"]
    text = run_gdb(guest, script)
    assert [int(at.replace("_", "")) for at in positions(text)][1:] == [before, behind - 9, behind], text
    script = [f"goto {behind - 40}", "watch ticks", *["next"] * 40]
    assert re.search(r"Old value = 0\nNew value = 1", run_gdb(guest, script))
    script = [f"goto {behind + 40}", "watch ticks", *["reverse-next"] * 40]
    assert re.search(r"Old value = 1\nNew value = 0", run_gdb(guest, script))


def test_conditions_are_evaluated_in_the_machine(guest: Path) -> None:
    script = [
        "set breakpoint condition-evaluation target",
        "set breakpoint always-inserted on",
        "break tick_record if ticks == 5",
        "continue",
        'printf "ticks %d\\n", ticks',
        "wb info breakpoints",
    ]
    text = run_gdb(guest, script)
    assert "ticks 5" in text
    assert re.search(r"breakpoint +keep +yes +1 .*tick_record.* if agent expression", text)


def test_hundred_reverse_steps_come_back_to_the_same_state(guest: Path) -> None:
    script = [
        "goto 60%",
        "wb digest",
        "python for _ in range(100): gdb.execute('reverse-stepi', False, True)",
        "python for _ in range(100): gdb.execute('stepi', False, True)",
        "wb digest",
    ]
    text = run_gdb(guest, script)
    digests = re.findall(r"^[0-9a-f]{32,}$", text, re.MULTILINE)
    assert len(digests) == 2 and digests[0] == digests[1]


def replayed_by(session: Session, packets: Sequence[bytes]) -> list[int]:
    """Return how many steps the machine runs for each of some packets of gdb."""
    handlers = Handlers(session, Shell(session).monitor, lambda data: None)
    handlers.handle(b"qSupported:swbreak+;hwbreak+")
    board = session.playback.board
    run, steps = board.run, [0]

    def counted(until: int | None = None) -> BoardStop:
        began = board.icount
        try:
            return run(until)
        finally:
            steps[-1] += board.icount - began

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(board, "run", counted)
        for packet in packets:
            assert not handlers.handle(packet).startswith(b"E")
            steps.append(0)
    return steps[:-1]


def test_hundred_reverse_steps_replay_little(guest: Path) -> None:
    """The way to a place leaves checkpoints in memory, the last one 64 steps before it; so does a step back."""
    with Session.open(guest) as session:
        session.goto("60%")
        there = session.cursor
        steps = replayed_by(session, [b"bs", b"g"] * 100)
        assert session.cursor == there - 100
    assert not any(steps[1::2])
    assert max(steps) < 1000
    assert sum(steps) < 100 * 100


def test_ends_of_history_are_told(guest: Path) -> None:
    text = run_gdb(guest, ["reverse-continue", "continue", "when", "reverse-continue", "when"])
    assert text.count("No more reverse-execution history") == 3
    last, first = positions(text)
    assert first == "0" and last != "0"


def test_options_go_to_gdb_and_its_exit_code_comes_back(guest: Path) -> None:
    command = [sys.executable, "-m", "workbench", "gdb", str(guest), "-nx", "-batch", "-ex", "quit 7"]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 7
    command[4:4] = ["--gdb", "no-such-gdb"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 6 and "apt install gdb-multiarch" in done.stderr


class Served:
    """``workbench gdbserver`` on a trace, and a client of packets."""

    def __init__(self, trace: Path) -> None:
        command = [sys.executable, "-m", "workbench", "gdbserver", str(trace), "--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        address = self.process.stderr.readline().split()[-1]
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        self.reader = PacketReader()

    def ask(self, data: bytes, interrupt_after: float = 0) -> tuple[bytes, float]:
        """Return the reply, and how long after the Ctrl-C it came."""
        self.socket.sendall(encode(data))
        began = time.monotonic()
        if interrupt_after:
            time.sleep(interrupt_after)
            began = time.monotonic()
            self.socket.sendall(b"\x03")
        while True:
            for event in self.reader.feed(self.socket.recv(65536)):
                if isinstance(event, Packet):
                    self.socket.sendall(b"+")
                    return event.data, time.monotonic() - began

    def close(self) -> None:
        self.socket.sendall(encode(b"k"))
        self.process.wait(30)
        self.socket.close()


@pytest.fixture
def served(long_elf: bytes, tmp_path: Path) -> Iterator[Served]:
    kernel = tmp_path / "long.elf"
    kernel.write_bytes(long_elf)
    served = Served(record(tmp_path / "long.trace", kernel, "--steps", "1000000000"))
    yield served
    served.close()


def test_ctrl_c_stops_motions_in_both_directions(served: Served) -> None:
    """A continue that never hits and a reverse search that never finds: both end soon after a Ctrl-C."""
    assert served.ask(b"Z2,80100000,8")[0] == b"OK"
    assert served.ask(b"vCont;c", interrupt_after=0.1)[0].startswith(b"T02")
    assert b"replaylog:end" in served.ask(b"vCont;c")[0]
    # from the end, so that all of the run lies behind
    assert served.ask(b"bc", interrupt_after=0.05)[0].startswith(b"T02")
    assert served.ask(b"g")[0]


@pytest.mark.slow
def test_linux_by_its_functions_from_the_first_step_on(debian_guest: Any, tmp_path: Path) -> None:
    """At position 0 the MMU is off: the prologue that gdb reads comes from the kernel's image."""
    options = ["--initrd", str(debian_guest.initrd), "--append", "console=ttyS0 wb.poweroff"]
    trace = record(tmp_path / "linux.trace", debian_guest.kernel, *options)
    script = [
        "break do_one_initcall",
        "continue",
        "continue",
        "when",
        "continue",
        "reverse-continue",
        "when",
        "delete",
        "hbreak *handle_exception",
        "continue",
        'printf "from %#lx satp %#lx\\n", $sepc, $satp',
        "reverse-stepi",
        'printf "back at %#lx\\n", $pc',
        "delete",
        "goto end",
        "watch *(int *)&system_state",
        "reverse-continue",
        "info symbol $pc",
        "python for _ in range(100): gdb.execute('reverse-stepi', False, True)",
        "delete",
        "continue",
        "wb digest",
        "goto end",
        "wb digest",
    ]
    text = run_gdb(trace, script, timeout=300)
    first, second = positions(text)[:2]
    assert first == second
    found = re.search(r"from (0x[0-9a-f]+) satp (0x[89a][0-9a-f]+)", text)
    assert found is not None, text
    assert f"back at {found[1]}" in text
    assert re.search(
        r"(kernel_power_off|kernel_restart|kernel_shutdown|system|reboot)\w* \+ \d+ in section", text
    )
    digests = re.findall(r"^[0-9a-f]{32,}$", text, re.MULTILINE)
    assert len(digests) == 2 and digests[0] == digests[1]


def test_live_recording_goes_back_and_on_and_takes_writes(builtin_image: bytes, tmp_path: Path) -> None:
    """gdb on a machine that is being recorded: its writes are inputs, and the trace replays with them."""
    kernel, trace = tmp_path / "builtin.elf", tmp_path / "live.trace"
    kernel.write_bytes(builtin_image)
    workbench = [sys.executable, "-m", "workbench"]
    options = [
        "-o",
        str(trace),
        "--kernel",
        str(kernel),
        "--append",
        "safe",
        "--listen",
        "127.0.0.1:0",
        "--once",
    ]
    server = subprocess.Popen(
        [*workbench, "gdbserver", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert server.stderr is not None
    address = server.stderr.readline().split()[-1]
    script = [
        f"target remote {address}",
        "break tick_record",
        "continue",
        "continue",
        "monitor when",
        "reverse-continue",
        "monitor when",
        "continue",
        "monitor when",
        "set var ticks = 1000",
        "delete",
        "continue",
        'printf "ticks %d\\n", ticks',
        "reverse-continue",
    ]
    command = [
        "gdb-multiarch",
        "-nx",
        "-batch",
        "-ex",
        "set confirm off",
        "-ex",
        "set architecture riscv:rv64",
    ]
    for line in script:
        command += ["-ex", line]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    out, _ = server.communicate(timeout=60)
    text = done.stdout + done.stderr
    second, first, again = (int(p.replace("_", "")) for p in positions(text)[:3])
    assert first < second == again, text
    assert int(re.findall(r"ticks (\d+)", text)[0]) > 1000
    assert "an input of the recording" in text
    assert "all tasks ended" in out
    assert list(tmp_path.glob("*.branch*")) == []
    verified = subprocess.run([*workbench, "replay", "--verify", str(trace)], capture_output=True, text=True)
    assert verified.returncode == 0 and "verified: " in verified.stdout
