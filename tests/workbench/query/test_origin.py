"""Where values came from: on small guests whose way is known, to the constant, the device or the input."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from machine.config import Images, MachineConfig
from tests.rvasm import assemble
from tests.workbench.conftest import elf
from traces.lazy import Want
from workbench import Trace
from workbench.query.fill import Filler
from workbench.query.origin import Source
from workbench.replay.errors import MemoryAccessError
from workbench.replay.recorder import Recorder

BASE = 0x8000_0000
#: A constant through registers, memory in two pieces, a CSR and an atomic; a device's register; entropy by DMA.
PROGRAM = """
    la s0, cell; li s1, 0x12345678; mv s2, s1
    sd s2, 0(s0); ld a0, 0(s0)
    li t0, 0x55; sb t0, 3(s0); ld a1, 0(s0)
    csrrw zero, mscratch, a0; li a0, 0; csrr a2, mscratch
    li t1, 7; addi t2, s0, 8; amoswap.d a3, t1, (t2); ld a4, 8(s0)
    amoadd.d zero, t1, (t2); ld a5, 8(s0)
    li t0, 0x10000000; lbu s3, 5(t0); add s4, s3, s1
    li t0, 0x10008000
    li t1, 1; sw t1, 0x70(t0); li t1, 3; sw t1, 0x70(t0)
    li t1, 1; sw t1, 0x24(t0); sw t1, 0x20(t0); li t1, 11; sw t1, 0x70(t0)
    sw zero, 0x30(t0); li t1, 8; sw t1, 0x38(t0)
    la t2, desc; sw t2, 0x80(t0); la t3, avail; sw t3, 0x90(t0); la t4, used; sw t4, 0xa0(t0)
    li t1, 1; sw t1, 0x44(t0); li t1, 15; sw t1, 0x70(t0)
    la s5, bytes; sd s5, 0(t2); li t1, 16; sw t1, 8(t2); li t1, 2; sh t1, 12(t2)
    li t1, 1; sh t1, 2(t3); sw zero, 0x50(t0)
wait:
    lhu t1, 2(t4); beqz t1, wait
    ld s6, 0(s5); slli s7, s6, 8
done:
    li t0, 0x100000; li t1, 0x5555; sw t1, 0(t0)
forever: j forever
.align 4096
cell: .dword 0
      .dword 0x99
bytes: .dword 0
       .dword 0
.align 4096
desc: .dword 0
.align 256
avail: .dword 0
.align 256
used: .dword 0
      .dword 0
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, backend: str) -> Iterator[tuple[Trace, dict[str, int]]]:
    code, labels = assemble(PROGRAM, BASE)
    path = tmp_path_factory.mktemp("origin") / "way.trace"
    config = MachineConfig(memory_bytes=16 << 20, bios="none", options={"entropy": "seed"})
    image = elf(code, {"_start": 0, "done": labels["done"] - BASE})
    recorder = Recorder(config, Images(kernel=image), path, backend=backend)
    assert recorder.run(timeout_s=30).reason == "poweroff"
    recorder.board.engine.close()
    with Trace.open(path, backend) as t:
        t.add_breakpoint(labels["done"])
        t.cont()
        yield t, labels


def kinds(source: Source) -> list[str]:
    return [each.kind for _, each in source.walk()]


def constants(source: Source) -> set[int]:
    return {end.value for end in source.ends if end.kind == "immediate"}


def test_a_constant_comes_back_through_registers_and_memory(run: tuple[Trace, dict[str, int]]) -> None:
    trace, _ = run
    here = trace.cursor
    found = trace.origin("a0")
    assert found.value == 0
    assert kinds(found) == ["immediate"]
    found = trace.origin("a2")
    # li makes it in two instructions: lui and addiw
    assert kinds(found) == ["csr", "load", "store", "copy", "compute", "immediate"]
    assert {source.value for _, source in found.walk()} == {0x12345678, 0x12345000}
    assert trace.cursor == here


def test_memory_in_pieces_has_a_way_for_each(run: tuple[Trace, dict[str, int]]) -> None:
    trace, labels = run
    found = trace.origin("a1")
    assert found.value == 0x55345678
    stores = [source for source in found.sources if source.kind == "store"]
    assert sorted(source.what for source in stores) == [
        f"1 bytes of RAM at {labels['cell'] + 3:#x}",
        f"3 bytes of RAM at {labels['cell']:#x}",
        f"4 bytes of RAM at {labels['cell'] + 4:#x}",
    ]
    assert constants(found) == {0x55, 0x12345000}
    memory = trace.origin(labels["cell"])
    assert (memory.value, constants(memory)) == (found.value, constants(found))


def test_atomics_load_what_was_there_and_store_what_they_make(run: tuple[Trace, dict[str, int]]) -> None:
    trace, _ = run
    old = trace.origin("a3")
    assert (old.value, kinds(old)) == (0x99, ["load", "start"])
    swapped = trace.origin("a4")
    assert (swapped.value, kinds(swapped)) == (7, ["load", "store", "immediate"])
    added = trace.origin("a5")
    assert (added.value, constants(added)) == (14, {7})
    assert kinds(added).count("store") == 2


def test_a_calculation_has_all_its_sources(run: tuple[Trace, dict[str, int]]) -> None:
    found = run[0].origin("s4")
    assert found.kind == "compute"
    assert [source.what for source in found.sources] == ["s1", "s3"]
    device = next(end for end in found.ends if end.kind == "device")
    assert "uart0+0x5" in device.text


def test_entropy_comes_by_dma_from_an_input(run: tuple[Trace, dict[str, int]]) -> None:
    trace, labels = run
    found = trace.origin("s7")
    assert kinds(found) == ["compute", "load", "input"]
    end = found.ends[0]
    row = next(row for row in trace.trace.inputs() if row.id == end.input)
    assert (row.source, row.kind) == ("rng0", "entropy")
    assert row.payload[:8] == end.value.to_bytes(8, "little")
    assert found.value == end.value << 8 & (1 << 64) - 1
    # the last writer of that memory is the device, too
    last = trace.last_write(labels["bytes"])
    assert last is not None
    assert (last.device, last.icount) == ("rng0", end.icount)
    assert trace.next_write(labels["bytes"]) is None


def test_writes_by_devices_do_not_depend_on_the_back_end(run: tuple[Trace, dict[str, int]]) -> None:
    trace, _ = run
    rows = [tuple(row.values.values()) for row in trace.dma]
    # the buffer; the used ring's entry and its index
    assert {row[1] for row in rows} == {"rng0"}
    assert len(rows) == 3
    other = Filler(trace.trace, lambda: trace.symbols, backend="interp", jobs=2, writable=False)
    other.ensure(Want("dma"))
    assert other.store.read("SELECT * FROM dma ORDER BY icount, rowid") == [
        tuple(row.values()) for row in trace.sql("select * from dma order by icount, rowid")
    ]
    other.close()


def test_a_limit_ends_the_way_and_says_so(run: tuple[Trace, dict[str, int]]) -> None:
    found = run[0].origin("a2", limit=3)
    assert kinds(found)[-1] == "limit"
    assert len(kinds(found)) == 4


def test_what_has_no_origin_is_refused(run: tuple[Trace, dict[str, int]]) -> None:
    trace, labels = run
    for name in ("pc", "x32", "nothing"):
        with pytest.raises(ValueError, match="only of x0"):
            trace.origin(name)
    with pytest.raises(MemoryAccessError):
        trace.origin(0x123)
    with pytest.raises(MemoryAccessError):
        trace.origin(labels["cell"] - 4)


def test_a_key_is_found_in_the_inputs(tmp_path: Path, echo_elf: bytes) -> None:
    from tests.workbench.replay.test_ends import Typist

    source = Typist([b"a", b"b", b"q"], 3)
    config = MachineConfig(memory_bytes=16 << 20, bios="none", idle="ask")
    recorder = Recorder(config, Images(kernel=echo_elf), tmp_path / "echo.trace", source=source)
    source.recorder = recorder
    recorder.run(timeout_s=30)
    recorder.board.engine.close()
    with Trace.open(tmp_path / "echo.trace") as trace:
        trace.goto("end")
        found = trace.origin("a0")
        row = next(row for row in trace.trace.inputs() if row.id == found.input)
        assert (found.kind, found.value, row.payload) == ("input", ord("q"), b"q")
