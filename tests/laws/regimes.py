"""Ways to run one program that must all be the same run, and a search for the first step where two are not."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from machine.tcg.engine import Engine, ExitReason
from machine.tcg.pageset import PageSet
from machine.tcg.probes import NEVER, Probe
from tests.differential import harness
from tests.differential.generate import Generator
from tests.differential.harness import Start
from tests.differential.items import patterns
from tests.differential.machines import PATIENCE, BareHost, features
from tests.differential.starts import template

QUANTUM = 701


@dataclass(frozen=True)
class Regime:
    """What a run differs in, and no guest may notice.

    Args:
        seed: of where it stops, and of what happens there.
        longest: steps between two stops at the most; 0: it never stops.
        drops: caches are dropped at stops.
        cuts: blocks get another length at stops.
        restores: at stops the state goes to another machine, which runs on.
        off: switches of the translator that are turned off.
    """

    name: str
    backend: str = "jit"
    seed: int = 0
    longest: int = 0
    drops: bool = False
    cuts: bool = False
    restores: bool = False
    tb_max: int = 64
    hot_runs: int = 0
    cache_bytes: int = 0
    off: tuple[str, ...] = ()
    probes: tuple[Probe, ...] = ()


@dataclass(frozen=True)
class Program:
    """Random sequences, shared out among harts that all have the same memory and page tables."""

    seed: int
    harts: int = 1
    sequences: int = 12
    vlen: int = 0

    def image(self) -> bytes:
        starts: list[Start] = [
            Generator(self.seed + i, patterns(), vlen=self.vlen).sequence().assemble()
            for i in range(self.sequences * self.harts)
        ]
        return harness.image(starts, template(self.seed), PATIENCE, self.harts)


class Running:
    """A program under a regime, from its first step on."""

    def __init__(self, program: Program, regime: Regime) -> None:
        self.program, self.regime = program, regime
        self.rng = random.Random(regime.seed)
        self.ended = False
        self.engine = self._engine()
        self.engine.write_phys(harness.BASE, program.image())
        for hart in range(program.harts):
            self.engine.reset_hart(hart, harness.BASE)

    def _engine(self) -> Engine:
        host = BareHost()
        engine = Engine(
            ram_base=harness.BASE,
            ram_size=harness.RAM_BYTES,
            harts=self.program.harts,
            quantum=QUANTUM,
            host=host,
            builtin_sbi=False,
            features=features(self.program.vlen),
        )
        host.engine = engine
        regime = self.regime
        engine.translator.set_switch("jit", regime.backend == "jit")
        for name in regime.off:
            engine.translator.set_switch(name, False)
        engine.translator.set_tb_max(regime.tb_max)
        engine.translator.set_hot_runs(regime.hot_runs)
        if regime.cache_bytes:
            engine.translator.set_cache_bytes(regime.cache_bytes)
        engine.set_probes(regime.probes)
        return engine

    def run_to(self, until: int) -> None:
        """Run to a position, or to the program's end."""
        while not self.ended and self.engine.icount < until:
            target = until
            if self.regime.longest:
                target = min(until, self.engine.icount + self.rng.randint(1, self.regime.longest))
            reason = self.engine.run(target)
            if reason in (ExitReason.RECORDS, ExitReason.BREAKPOINT):
                self.engine.take_records()
                self.engine.skip_probes_at(self.engine.icount)
            assert reason is not ExitReason.ERROR
            self.ended = reason is ExitReason.STOP
            if self.regime.longest and not self.ended:
                self._stop()

    def _stop(self) -> None:
        if self.regime.drops and self.rng.random() < 0.5:
            self.engine.translator.drop_tlb()
        if self.regime.drops and self.rng.random() < 0.5:
            self.engine.translator.drop_code()
        if self.regime.cuts:
            self.engine.translator.set_tb_max(self.rng.randint(1, 64))
        if self.regime.restores and self.rng.random() < 0.1:
            self._move()

    def _move(self) -> None:
        old, new = self.engine, self._engine()
        new.write_phys(harness.BASE, bytes(old.ram))
        new.set_icount(old.icount)
        new.warp_ns = old.warp_ns
        for hart in range(self.program.harts):
            new.load_state(hart, old.save_state(hart))
        new.load_sched(old.save_sched())
        old.close()
        self.engine = new

    def state(self) -> dict[str, object]:
        """Return everything that a guest can see, by name."""
        e = self.engine
        out: dict[str, object] = {
            "icount": e.icount,
            "warp": e.warp_ns,
            "ended": self.ended,
            "sched": e.save_sched(),
        }
        for hart in range(e.harts):
            out |= {f"hart {hart} {name}": value for name, value in e.save_state(hart).items()}
        out["ram"] = e.snapshot(PageSet(e.ram_pages, range(e.ram_pages))).hash().hex()
        return out


def run(program: Program, regime: Regime, until: int = NEVER) -> dict[str, object]:
    """Run a program from the start; return its state at ``until`` or at its end."""
    running = Running(program, regime)
    try:
        running.run_to(min(until, 60_000_000))
        return running.state()
    finally:
        running.engine.close()


def different(a: dict[str, object], b: dict[str, object]) -> list[str]:
    return [f"{name}: {a[name]} != {b[name]}" for name in a if a[name] != b[name]]


def first_difference(program: Program, one: Regime, other: Regime) -> str:
    """Return where two regimes part: the step, its instruction, and what differs behind it. Empty if they do not."""
    ends = [run(program, regime) for regime in (one, other)]
    if not different(*ends):
        return ""
    low, high = 0, max(int(str(end["icount"])) for end in ends)
    while high - low > 1:
        middle = (low + high) // 2
        if different(run(program, one, middle), run(program, other, middle)):
            high = middle
        else:
            low = middle
    running = Running(program, one)
    running.run_to(low)
    hart = running.engine.current_hart
    pc = running.engine.get_reg(hart, "pc")
    paddr = running.engine.translate(hart, pc, "x") or pc
    _, text = running.engine.disasm(running.engine.read_phys(paddr, 4), pc)
    running.engine.close()
    found = different(run(program, one, high), run(program, other, high))
    lines = [f"seed {program.seed}, {program.harts} harts: {one.name} and {other.name} part at step {low}:"]
    return "\n".join([*lines, f"  hart {hart} at {pc:#x}: {text}", *(f"  {line}" for line in found)])


def check(program: Program, regimes: Sequence[Regime], reference: Regime) -> int:
    """Compare each regime with the reference. Return the program's length; raises AssertionError with the place."""
    want = run(program, reference)
    assert want["ended"], "the program does not come to its end"
    for regime in regimes:
        if different(want, run(program, regime)):
            raise AssertionError(first_difference(program, reference, regime))
    return int(str(want["icount"]))
