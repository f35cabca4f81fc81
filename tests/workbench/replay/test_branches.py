"""Branches: another run from a position on, and the parent not touched by a byte."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import pytest

from machine.config import Images, MachineConfig
from tests.rvasm import assemble
from tests.workbench.conftest import elf
from traces.reader import TraceReader
from workbench.errors import CommandError
from workbench.guests import builtin
from workbench.replay.branches import branches, trace_id
from workbench.replay.comparing import compare
from workbench.replay.errors import EvalError, MemoryAccessError
from workbench.replay.recorder import Recorder
from workbench.replay.replayer import Replayer
from workbench.session import Session

from .guest import LIMITS, recorder


def boot_with_seed(path: Path, seed: int) -> str:
    config = MachineConfig(memory_bytes=32 << 20, seed=seed, options={"entropy": "seed"})
    made = Recorder(config, Images(kernel=builtin.read_image()), path, limits=LIMITS)
    try:
        return made.run(timeout_s=10).reason
    finally:
        made.board.engine.close()


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A boot that fails by the race with the timer's interrupt."""
    path = tmp_path_factory.mktemp("bad") / "bad.trace"
    for seed in range(200):
        if boot_with_seed(path, seed) == "fail":
            return path
    pytest.fail("no boot of 200 failed")


def verified(path: Path, backend: str) -> int:
    with TraceReader.open(path) as trace, Replayer(trace, backend) as replayer:
        trace.verify()
        return replayer.verify().icount


def test_a_boot_without_the_guilty_interrupt_succeeds(bad: Path, backend: str) -> None:
    before = hashlib.sha256(bad.read_bytes()).digest()
    with Session.open(bad, backend) as session:
        session.add_catch("interrupt", 5)
        session.goto("end")
        places = []
        while (stop := session.reverse_cont()).reason == "catch":
            places.append(stop.icount)
    healed = []
    for place in places:
        with Session.open(bad, backend) as session:
            session.goto(place)
            written = session.delay_interrupt(3000)
            assert written.branch is not None and written.icount == place
            assert session.cont().reason == "end"
            if session.trace.meta["end_reason"] == "poweroff":
                healed.append(written.branch)
        assert verified(written.branch, backend) == session.end
    assert healed
    assert hashlib.sha256(bad.read_bytes()).digest() == before
    with TraceReader.open(bad) as trace:
        found = branches(trace)
        assert {row.path for row in found} == set(bad.parent.glob("bad.branch*.trace"))
        assert all("interrupt 5" in row.note for row in found)
    with Session.open(bad, backend) as one, Session.open(healed[0], backend) as two:
        found_difference = compare(one, two)
        assert found_difference.path == two.start
        assert found_difference.sides is not None
        assert "supervisor timer interrupt" in found_difference.sides[0].does
        assert "supervisor timer interrupt" not in found_difference.sides[1].does
        assert found_difference.sides[0].stack == found_difference.sides[1].stack


def test_a_good_and_a_bad_boot_part_at_an_interrupt(bad: Path, tmp_path: Path, backend: str) -> None:
    good = tmp_path / "good.trace"
    assert any(boot_with_seed(good, seed) == "poweroff" for seed in range(20))
    with Session.open(bad, backend) as one, Session.open(good, backend) as two:
        found = compare(one, two)
        assert found.traps is not None
        assert all("supervisor timer interrupt" in text for text in found.traps)
        at = found.path
        assert at is not None
        one.goto(at)
        two.goto(at)
        assert one.reg("pc") != two.reg("pc")
        one.reverse_stepi()
        two.reverse_stepi()
        assert one.reg("pc") == two.reg("pc")
        assert compare(one, one).state is None


def test_written_registers_and_memory_are_the_branch(tmp_path: Path, backend: str) -> None:
    path = tmp_path / "boot.trace"
    made = recorder(path)
    made.run(timeout_s=10)
    made.board.engine.close()
    before = path.read_bytes()
    with Session.open(path, backend) as session:
        here = session.goto("50%").icount
        digest = session.digest()
        sp = session.reg("sp")
        attempts: tuple[Callable[[], object], ...] = (
            lambda: session.write_reg("nothing", 1),
            lambda: session.write_mem(0x10, b"x"),
            lambda: session.write_phys(0x10, b"x"),
            lambda: session.delay_interrupt(5),
            lambda: session.drop_input(10_000),
        )
        for wrong in attempts:
            with pytest.raises((EvalError, MemoryAccessError, CommandError)):
                wrong()
        assert (session.cursor, session.digest(), session.live) == (here, digest, False)
        written = session.write_mem(sp - 16, b"what is to be there")
        assert written.branch is not None and session.trace.path == written.branch
        assert (session.cursor, session.start, session.end, session.live) == (here, here, here, True)
        assert session.read_mem(sp - 16, 19) == b"what is to be there"
        assert session.digest() != digest
        assert session.reverse_stepi().reason == "start"
        more = session.write_reg("s11", 0xABCD)
        assert more.branch is None
        assert session.reg("s11") == 0xABCD
        assert session.stepi(100).reason == "step"
        assert session.cursor == here + 100
        assert session.reg("s11") == 0xABCD
        assert session.reverse_stepi(99).icount == here + 1
        assert session.reg("s11") == 0xABCD
        session.goto(here)
        assert session.reg("s11") != 0xABCD  # the write is taken with the first step
        session.goto(session.end)
        assert session.cont().reason == "end"
        assert not session.live
        end = session.end
    assert path.read_bytes() == before
    assert verified(written.branch, backend) == end
    with TraceReader.open(path) as trace, TraceReader.open(written.branch) as child:
        assert child.meta["parent"] == trace_id(trace)
        assert int(child.meta["parent_icount"]) == here == child.start_icount


#: Two harts that count, each in its own word, without end.
COUNTERS = """
    csrr t0, mhartid; la t1, counts; slli t0, t0, 3; add t1, t1, t0
again: ld t2, 0(t1); addi t2, t2, 1; sd t2, 0(t1); j again
.align 8
counts: .dword 0, 0
"""


def test_a_branch_may_have_another_quantum(tmp_path: Path, backend: str) -> None:
    image = elf(assemble(COUNTERS, 0x8000_0000)[0], {})
    config = MachineConfig(memory_bytes=4 << 20, harts=2, bios="none", quantum_steps=1000)
    path = tmp_path / "turns.trace"
    made = Recorder(config, Images(kernel=image), path, backend=backend, limits=LIMITS)
    made.run(steps=20_000)
    made.board.engine.close()

    def longest_turn(session: Session, low: int) -> int:
        harts = []
        for at in range(low, low + 6000, 50):
            session.goto(at)
            harts.append(session.board.engine.current_hart)
        return max(len(list(run)) for _, run in groupby(harts)) * 50

    with Session.open(path, backend) as session:
        assert longest_turn(session, 8000) == 1000
        session.goto(8500)
        written = session.configure("quantum", "3000")
        assert written.branch is not None and "quantum = 3000" in written.text
        with pytest.raises(CommandError, match="stays as it is"):
            session.configure("quantum", "1")
        session.stepi(10_000)
        assert session.board.config.quantum_steps == 3000
        assert longest_turn(session, 9500) == 3000
        session.goto(session.start)
        with pytest.raises(CommandError, match="at least 1"):
            session.configure("quantum", "0")
    assert verified(written.branch, backend) == 18_500


def test_chaos_begins_and_ends_at_a_position(tmp_path: Path, backend: str) -> None:
    path = tmp_path / "calm.trace"
    made = recorder(path, backend=backend, append="safe")
    end = made.run().icount
    made.board.engine.close()
    ends: dict[str, tuple[list[bytes], int, str]] = {}
    for seed in ("1", "2", "1"):
        with Session.open(path, backend) as session:
            session.goto(end // 20)
            before = session.digest()
            written = session.configure("chaos", seed)
            assert session.playback.config.chaos and session.cursor == end // 20
            assert "chaos" in {device.name for device in session.board.devices}
            assert session.digest() != before  # the machine has one device more
            session.cont()
            found = [row.payload for row in session.trace.inputs() if row.kind == "strike"]
            assert len(found) > 2
            this = (found, session.end, session.digest())
            assert ends.setdefault(seed, this) == this
        assert written.branch is not None
        verified(written.branch, backend)
    assert ends["1"] != ends["2"] and written.branch is not None
    with Session.open(written.branch, backend) as session:
        strikes = [row.icount for row in session.trace.inputs() if row.kind == "strike"]
        session.goto(strikes[1] + 1)
        calm = session.configure("chaos", "off")
        assert not session.playback.config.chaos
        session.cont()
        assert not [row for row in session.trace.inputs() if row.kind == "strike"]
    assert calm.branch is not None
    verified(calm.branch, backend)


def test_a_seed_and_entropy_are_drawn_anew_from_a_position_on(tmp_path: Path, backend: str) -> None:
    path = tmp_path / "seeded.trace"
    made = recorder(path, backend=backend, append="safe", chaos=True, seed=1)
    made.run()
    made.board.engine.close()

    def strikes(trace: TraceReader, after: int = 0) -> list[bytes]:
        return [row.payload for row in trace.inputs() if row.kind == "strike" and row.icount >= after]

    with TraceReader.open(path) as trace:
        rows = [row for row in trace.inputs() if row.kind == "strike"]
        middle = rows[len(rows) // 2].icount
        theirs = strikes(trace, middle)
    with Session.open(path, backend) as session:
        session.goto(middle)
        written = session.configure("seed", "2")
        session.stepi(200_000)
        mine = strikes(session.trace)
        assert mine and mine[0] != theirs[0]
    assert written.branch is not None
    verified(written.branch, backend)
    with Session.open(path, backend) as session:
        session.goto(middle)
        written = session.configure("quantum", "777")
        session.stepi(200_000)
        assert strikes(session.trace)[0] == theirs[0]  # what is not changed goes on as it was


def test_a_device_may_be_given_nothing_more(tmp_path: Path, backend: str) -> None:
    path = tmp_path / "typed.trace"
    typist = _Typist([(b"echod: type", b"hello\n"), (b"olleh", b"exit\n")])
    made = recorder(path, append="safe echo", idle="ask", source=typist, echo=typist.echo)
    made.run(timeout_s=10)
    made.board.engine.close()
    with TraceReader.open(path) as trace:
        first, *_ = [row for row in trace.inputs() if row.kind == "rx"]
    with Session.open(path, backend) as session:
        session.goto(first.icount + 1)
        with pytest.raises(CommandError, match="'disk7' is given nothing from here on; uart0 is"):
            session.drop_source("disk7")
        written = session.drop_source("uart0")
        assert "of uart0" in written.text
        session.stepi(100_000)
        assert not [row for row in session.trace.inputs() if row.kind == "rx"]
    assert written.branch is not None
    verified(written.branch, backend)


def test_inputs_are_dropped_delayed_and_added(tmp_path: Path, backend: str) -> None:
    path = tmp_path / "echo.trace"
    typist = _Typist([(b"echod: type", b"hello\n"), (b"olleh", b"exit\n")])
    made = recorder(path, append="safe echo", idle="ask", source=typist, echo=typist.echo)
    assert made.run(timeout_s=10).reason == "poweroff"
    made.board.engine.close()
    with TraceReader.open(path) as trace:
        typed = [row for row in trace.inputs() if row.kind == "rx"]
        assert [row.payload for row in typed] == [b"hello\n", b"exit\n"]

    def console(session: Session) -> bytes:
        return b"".join(row.data for row in session.trace.console())

    with Session.open(path, backend) as session:
        assert b"olleh" in console(session)
        session.drop_input(typed[0].id)
        assert session.cont().reason == "end"
        assert b"olleh" not in console(session)
        assert session.trace.meta["end_reason"] == "poweroff"
    with Session.open(path, backend) as session:
        session.delay_input(typed[0].id, 5000)
        session.cont()
        late = next(row for row in session.trace.inputs() if row.payload == b"hello\n")
        assert late.icount >= typed[0].icount
        assert late.vtime_ns >= typed[0].vtime_ns + 5000
    with Session.open(path, backend) as session:
        session.goto(typed[0].icount)
        session.inject(b"first\n")
        session.cont()
        text = console(session)
        assert text.index(b"tsrif") < text.index(b"olleh")
        changed = session.trace.path
    assert verified(changed, backend) > typed[0].icount


class _Typist:
    """Types lines when the guest has printed what comes before them."""

    at_end = False

    def __init__(self, lines: list[tuple[bytes, bytes]]) -> None:
        self._lines = lines
        self._heard = b""

    def echo(self, data: bytes) -> None:
        self._heard += data

    def poll(self, timeout_s: float = 0.0) -> bytes:
        if self._lines and self._lines[0][0] in self._heard:
            return self._lines.pop(0)[1]
        if timeout_s:
            time.sleep(min(timeout_s, 0.002))
        return b""
