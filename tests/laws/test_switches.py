"""No switch of the translator changes what a guest can see: each off alone, and all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from machine.config import Images, MachineConfig
from machine.tcg.engine import Engine
from traces.reader import TraceReader
from workbench.bench.kernels import KERNELS, kernel_path
from workbench.bench.switches import switch_names
from workbench.guests import builtin
from workbench.replay.recorder import Recorder, RecordLimits
from workbench.replay.replayer import Replayer
from workbench.runner import Runner

SWITCHES = tuple(switch_names())
STEPS = 2_000_000
#: Calls, indirect jumps, floating point, strided stores, byte work and vectors.
PROGRAMS = ("fib", "bytecode", "heapsort", "nbody", "sha256", "chacha", "mix", "atomics", "vector")


def turn_off(engine: Engine, off: tuple[str, ...]) -> None:
    for name in off:
        engine.translator.set_switch(name, False)
    engine.translator.drop_code()


def state_after(kernel: str, off: tuple[str, ...]) -> tuple[int, dict[str, int], bytes]:
    """Return position, registers and memory after the first steps of a kernel."""
    config = MachineConfig(memory_bytes=8 << 20, bios="none", cpu=KERNELS[kernel].cpu)
    runner = Runner(config, Images(kernel=kernel_path(kernel).read_bytes()))
    engine = runner.board.engine
    turn_off(engine, off)
    runner.run(steps=STEPS)
    registers = {name: engine.get_reg(0, name) for name in engine.reg_names}
    state = runner.board.icount, registers, bytes(engine.ram)
    engine.close()
    return state


@pytest.fixture(scope="module")
def states() -> dict[str, tuple[int, dict[str, int], bytes]]:
    return {kernel: state_after(kernel, ()) for kernel in PROGRAMS}


@pytest.mark.parametrize("off", [*((s,) for s in SWITCHES), SWITCHES], ids="+".join)
@pytest.mark.parametrize("kernel", PROGRAMS)
def test_a_program_ends_in_the_same_state_with_switches_off(
    states: dict[str, tuple[int, dict[str, int], bytes]], kernel: str, off: tuple[str, ...]
) -> None:
    icount, registers, memory = state_after(kernel, off)
    assert icount == STEPS
    assert (icount, registers) == states[kernel][:2]
    assert memory == states[kernel][2]


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TraceReader]:
    path = Path(tmp_path_factory.mktemp("switches") / "boot.trace")
    config = MachineConfig(memory_bytes=32 << 20, append="safe", seed=1, options={"entropy": "seed"})
    limits = RecordLimits(rolling_steps=1 << 16, checkpoint_every=4)
    recorder = Recorder(config, Images(kernel=builtin.read_image()), path, limits=limits)
    assert recorder.run(timeout_s=60).reason == "poweroff"
    recorder.board.engine.close()
    with TraceReader.open(path) as opened:
        yield opened


@pytest.mark.parametrize("off", [*((s,) for s in SWITCHES), SWITCHES], ids="+".join)
def test_the_builtin_guest_meets_every_digest_with_switches_off(
    trace: TraceReader, off: tuple[str, ...]
) -> None:
    with Replayer(trace) as replayer:
        turn_off(replayer.playback.board.engine, off)
        assert replayer.verify().digests >= len(trace.digests()) > 10
