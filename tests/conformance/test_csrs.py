"""Every CSR: existence, privilege, gates, and what each value written leaves, here and on the peer."""

from __future__ import annotations

import pytest

from machine.tcg.engine import Engine, ExitReason
from tests.conformance import csrprogram
from tests.conformance.csrs import ALL, DEVIATIONS, ROWS, SEED
from tests.differential import machines
from tests.machine.tcg.riscv.onestep import A1, FS, RC, RS, RSI, RW, RWI, M, OneStep, S, U, csr

ILLEGAL = 2


@pytest.fixture(params=["jit", "interp"])
def cpu(request: pytest.FixtureRequest) -> OneStep:
    return OneStep(request.param)


def open_gates(cpu: OneStep) -> None:
    cpu["mstatus"], cpu["menvcfg"] = FS, ALL
    for name in ("mcounteren", "scounteren", "mstateen0", "mstateen1", "mstateen2", "mstateen3", "mseccfg"):
        cpu[name] = ALL


def run_ours(backend: str) -> bytes:
    host = machines.BareHost()
    with Engine(
        ram_base=csrprogram.BASE, ram_size=csrprogram.RAM_BYTES, host=host, builtin_sbi=False
    ) as engine:
        host.engine = engine
        engine.translator.set_switch("jit", backend == "jit")
        engine.write_phys(csrprogram.BASE, csrprogram.image())
        engine.reset_hart(0, csrprogram.BASE)
        assert engine.run(5_000_000) is ExitReason.STOP
        return bytes(engine.ram)


def wrong(got: dict[int, list[int]], want: dict[int, list[int]]) -> dict[str, str]:
    """Return the first place of each CSR where two differ."""
    out = {}
    values = csrprogram.values()
    for number, reads in want.items():
        for i, (a, b) in enumerate(zip(got[number], reads, strict=True)):
            if a != b:
                how = (
                    "at first"
                    if not i
                    else f"{'write set clear'.split()[(i - 1) % 3]} {values[(i - 1) // 3]:#x}"
                )
                out[ROWS[number].name] = f"{how}: reads {a:#x}, expected {b:#x}"
                break
    return out


@pytest.mark.parametrize("backend", ["jit", "interp"])
def test_writes_sets_and_clears_leave_what_the_table_says(backend: str) -> None:
    assert not wrong(csrprogram.reads(run_ours(backend)), csrprogram.expected())


@pytest.mark.requires(machines.QEMU)
def test_the_peer_reads_the_same_but_for_known_deviations() -> None:
    """A deviation that has gone fails too: the list is of what there is."""
    ram = machines.qemu_ram(csrprogram.image(by_peer=True), csrprogram.RAM_BYTES)
    assert set(wrong(csrprogram.reads(ram, by_peer=True), csrprogram.expected(by_peer=True))) == set(
        DEVIATIONS
    )


def test_the_table_has_every_csr_and_no_other(cpu: OneStep) -> None:
    open_gates(cpu)
    there = {
        n
        for n in range(4096)
        if cpu.step(csr(RWI, n, rd=0, rs1=0) if n == SEED else csr(RS, n, rs1=0)) is None
    }
    assert there == set(ROWS) | {SEED}
    for number, row in ROWS.items():
        _, text = cpu.engine.disasm(csr(RS, number, rs1=0).to_bytes(4, "little"), 0)
        assert text.split(", ")[1] == row.name


@pytest.mark.parametrize("op", [RW, RS, RC, RWI, RSI])
def test_numbers_alone_decide_on_privilege_and_writes(cpu: OneStep, op: int) -> None:
    """With every gate open. SPEC: 2.1"""
    for number in ROWS:
        for priv in (U, S, M):
            open_gates(cpu)
            cpu["priv"], cpu[A1] = priv, 0
            allowed = priv >= number >> 8 & 3 and number >> 10 != 3
            assert (cpu.step(csr(op, number)) == ILLEGAL) == (not allowed), (hex(number), priv)
            cpu["satp"] = cpu["mie"] = 0
            cpu["mtvec"], cpu["medeleg"], cpu["pmpaddr0"], cpu["pmpcfg0"] = 0x8000_1000, 0, ALL, 0x1F


@pytest.mark.parametrize("number", [n for n, row in ROWS.items() if row.gate])
def test_a_gate_is_asked_below_machine_mode(cpu: OneStep, number: int) -> None:
    gate = ROWS[number].gate
    assert gate is not None
    for priv in (S, M):
        for open_ in (False, True):
            open_gates(cpu)
            name = ROWS[gate[0]].name
            cpu[name] = cpu[name] & ~(1 << gate[1]) | open_ << gate[1]
            cpu["priv"] = priv
            assert (cpu.step(csr(RS, number, rs1=0)) is None) == (open_ or priv == M), (priv, open_)
