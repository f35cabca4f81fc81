"""The machines that sequences run on: ours, on both back ends, and QEMU as the independent peer."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from machine.tcg.engine import Engine, ExitReason
from tests.differential import harness
from tests.differential.harness import Outcome, Start

QEMU = "qemu-system-riscv64"
#: The peer's extensions; what our tables have beside these is held against models instead.
QEMU_CPU = (
    "rv64,h=false,sstc=true,zba=true,zbb=true,zbc=true,zbs=true,Zfhmin=true,"
    "svinval=true,svnapot=true,svpbmt=true"
)
#: VLEN of the machines there are; 0: without vectors.
VLENS = (0, 128, 256)
QEMU_VECTORS = ",v=true,vlen={},vext_spec=v1.0"
#: Ticks of 100 ns before the watchdog ends a sequence: our steps are 1 ns, the peer's time is real.
PATIENCE = 100
QEMU_PATIENCE = 100_000


class MachineFailed(Exception):
    """A machine did not come to the end of its sequences."""


class BareHost:
    """The finisher and the timer, which is all that the harness asks for."""

    def __init__(self) -> None:
        self.engine: Engine | None = None

    def mmio_read(self, paddr: int, size: int, hart: int) -> int | None:
        assert self.engine is not None
        return self.engine.vtime_ns // 100 if paddr == harness.CLINT_MTIME else None

    def mmio_write(self, paddr: int, size: int, hart: int, value: int) -> bool:
        assert self.engine is not None
        if paddr == harness.CLINT_MTIMECMP + 8 * hart:
            self.engine.set_reg(hart, "mtimecmp", value)
        elif paddr == harness.FINISHER:
            self.engine.request_stop()
        else:
            return False
        return True

    def sbi_call(self, hart: int) -> None:
        raise AssertionError("the harness runs without SBI")


def features(vlen: int) -> dict[str, int]:
    """Return what tells our engine of these vectors."""
    return {"v": 1, "vlen": vlen} if vlen else {}


def run_ours(
    starts: list[Start], template: bytes, backend: str = "jit", tb_max: int = 0, steps: int = 0
) -> list[Outcome]:
    """Run on our machine.

    Args:
        tb_max: limits the instructions of a block; 0: as many as there are.
        steps: after which the machine is given up; 0: more than it can need.

    Raises:
        MachineFailed: it has not come to the end by then.
    """
    host = BareHost()
    with Engine(
        ram_base=harness.BASE,
        ram_size=harness.RAM_BYTES,
        host=host,
        builtin_sbi=False,
        features=features(harness.vlen_of(starts)),
    ) as engine:
        host.engine = engine
        engine.translator.set_switch("jit", backend == "jit")
        engine.translator.set_hot_runs(0)
        if tb_max:
            engine.translator.set_tb_max(tb_max)
        engine.write_phys(harness.BASE, harness.image(starts, template, PATIENCE))
        engine.reset_hart(0, harness.BASE)
        reason = engine.run(steps or 40_000_000 + 200_000 * len(starts))
        if reason != ExitReason.STOP:
            raise MachineFailed(f"{backend}: {reason.name} at pc {engine.get_reg(0, 'pc'):#x}")
        return harness.outcomes(engine.read_phys(harness.RECORDS_OUT, harness.RECORD_BYTES * len(starts)))


def instructions_run(start: Start, template: bytes) -> set[bytes]:
    """Return four bytes from each instruction in the arena that a sequence executed on ours."""
    host, out = BareHost(), set()
    with Engine(
        ram_base=harness.BASE,
        ram_size=harness.RAM_BYTES,
        host=host,
        builtin_sbi=False,
        features=features(start.vlen),
    ) as engine:
        host.engine = engine
        engine.translator.set_switch("jit", False)
        engine.write_phys(harness.BASE, harness.image([start], template, PATIENCE))
        engine.reset_hart(0, harness.BASE)
        for _ in range(60_000):
            pc = engine.get_reg(0, "pc")
            paddr = engine.translate(0, pc, "x")
            if paddr is not None and harness.ARENA <= paddr < harness.ARENA + harness.ARENA_BYTES:
                out.add(engine.read_phys(paddr, 4))
            if engine.run(engine.icount + 1) is ExitReason.STOP:
                break
    return out


def run_qemu(starts: list[Start], template: bytes) -> list[Outcome]:
    """Run on QEMU. A sequence over which it aborts is found by halves, and its outcome is ``BROKEN``."""
    try:
        return _run_qemu(starts, template)
    except MachineFailed:
        if len(starts) == 1:
            return [Outcome(harness.BROKEN, {}, 0)]
    half = len(starts) // 2
    return run_qemu(starts[:half], template) + run_qemu(starts[half:], template)


def _run_qemu(starts: list[Start], template: bytes) -> list[Outcome]:
    """Run on one QEMU. Raises MachineFailed."""
    image = harness.image(starts, template, QEMU_PATIENCE)
    cpu = QEMU_CPU + (QEMU_VECTORS.format(vlen) if (vlen := harness.vlen_of(starts)) else ",v=false")
    ram = qemu_ram(image, harness.RAM_BYTES, cpu, timeout_s=120 + 0.05 * len(starts))
    return harness.outcomes(ram[harness.RECORDS_OUT - harness.BASE :][: harness.RECORD_BYTES * len(starts)])


def qemu_ram(image: bytes, ram_bytes: int, cpu: str = QEMU_CPU, timeout_s: float = 120) -> bytes:
    """Run an image from the start of RAM until it stops the machine; return RAM, which is a file: so results need no
    protocol.

    Raises:
        MachineFailed: it does not end, or ends badly.
    """
    with tempfile.TemporaryDirectory(prefix="differential-") as name:
        ram = Path(name) / "ram"
        with ram.open("wb") as file:
            file.write(image)
            file.truncate(ram_bytes)
        command = [QEMU, "-M", "virt,memory-backend=ram", "-cpu", cpu, "-m", f"{ram_bytes >> 20}M"]
        command += ["-object", f"memory-backend-file,id=ram,size={ram_bytes},mem-path={ram},share=on"]
        # With a second hart the peer executes AMOs as such, not as a load and a store with their own faults.
        command += ["-smp", "2", "-accel", "tcg,thread=multi"]
        command += ["-bios", "none", "-display", "none", "-serial", "none", "-monitor", "none", "-nodefaults"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise MachineFailed("qemu: the program does not end") from error
        if done.returncode:
            raise MachineFailed(f"qemu: {done.stderr.strip()}")
        return ram.read_bytes()
