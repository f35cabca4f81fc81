"""Names of generated code for perf: every block by the guest's pc or symbol, where it lies, and only when asked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from machine.config import Images, MachineConfig
from machine.tcg.engine import Engine
from machine.tcg.probes import NEVER
from workbench import perfmap
from workbench.bench.kernels import kernel_path
from workbench.kernel import symbols
from workbench.runner import Runner
from workbench.symbols import Symbol

RAM = 0x8000_0000


def ran(name: str = "fib", steps: int = 100_000) -> Engine:
    config = MachineConfig(memory_bytes=8 << 20, bios="none")
    runner = Runner(config, Images(kernel=kernel_path(name).read_bytes()))
    engine: Engine = runner.board.engine
    engine.translator.set_switch("jit", True)  # whatever --backend says: it is about generated code
    runner.run(steps=steps)
    return engine


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(perfmap, "FOLDER", tmp_path)
    monkeypatch.setattr(perfmap, "_begun", set())
    monkeypatch.delenv("WORKBENCH_PERF_MAP", raising=False)
    return tmp_path


def lines(folder: Path) -> list[tuple[int, int, str]]:
    text = (folder / f"perf-{os.getpid()}.map").read_text()
    rows = [line.split(" ", 2) for line in text.splitlines()]
    return [(int(start, 16), int(size, 16), name) for start, size, name in rows]


def code_ranges() -> list[tuple[int, int, str]]:
    """Executable ranges of this process that have shared memory without a name, which is what perf wants."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        where, access, *_ = line.split()
        if access == "r-xs" and line.endswith("/dev/zero (deleted)"):
            low, high = (int(part, 16) for part in where.split("-"))
            found.append((low, high, access))
    return found


def test_blocks_lie_one_behind_the_other_in_code_that_perf_knows_as_generated() -> None:
    with ran() as engine:
        shared, *blocks = rows = engine.translator.code_map()
        assert shared[2] == NEVER and len(blocks) == engine.translator.stat("tb_compiled") > 3
        assert all(RAM <= pc < RAM + 0x10000 and size > 0 for _, size, pc in blocks)
        ends = [start + size for start, size, _ in rows]
        assert all(start >= end for (start, _, _), end in zip(blocks, ends, strict=False))
        assert all(start % 16 == 0 for start, _, _ in blocks)
        assert any(low == shared[0] and ends[-1] <= high for low, high, _ in code_ranges())


def test_dropped_blocks_stay_until_all_are_flushed() -> None:
    with ran() as engine:
        before = engine.translator.code_map()
        engine.write_phys(before[1][2], bytes(4))
        assert engine.translator.code_map() == before
        engine.translator.drop_code()
        engine.run(engine.icount + 1)
        assert len(engine.translator.code_map()) < len(before)


def test_the_interpreter_has_no_code() -> None:
    config = MachineConfig(memory_bytes=8 << 20, bios="none")
    runner = Runner(config, Images(kernel=kernel_path("fib").read_bytes()), backend="interp")
    runner.run(steps=100_000)
    assert [pc for _, _, pc in runner.board.engine.translator.code_map()] == [NEVER]
    runner.board.engine.close()


def test_nothing_is_written_unless_asked_for(folder: Path) -> None:
    ran().close()
    assert list(folder.iterdir()) == []


def test_a_closed_machine_leaves_the_names_of_its_blocks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_PERF_MAP", "1")
    (folder / f"perf-{os.getpid()}.map").write_text("of an earlier process\n")
    first, second = ran(), ran("sieve")
    one, two = first.translator.code_map(), second.translator.code_map()
    first.close()
    second.close()
    named = [(s, n, perfmap.SHARED if pc == NEVER else f"guest {pc:#x}") for s, n, pc in one + two]
    assert lines(folder) == named


def test_blocks_of_a_linux_kernel_have_its_symbols(monkeypatch: pytest.MonkeyPatch) -> None:
    with ran() as engine:
        low, *_, high = sorted(pc for _, _, pc in engine.translator.code_map() if pc != NEVER)
        known = Symbol(low - 4, high - low, "schedule", "func")
        monkeypatch.setattr(symbols, "symbols_in_memory", lambda engine: [known])
        names = [name for _, _, name in perfmap.named(engine)]
    assert "guest schedule+0x4" in names
    assert f"guest {high:#x}" in names


def test_the_process_has_its_own_name_back(folder: Path) -> None:
    before = perfmap.COMM.read_text()
    with ran() as engine:
        perfmap.write(engine)
    assert perfmap.COMM.read_text() == before
