"""Vector loads and stores: addresses, faults in the middle, what watches memory. SPEC: vector 1.0, chapter 7."""

from __future__ import annotations

import random
from fractions import Fraction
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machine.tcg.probes import Probe, ProbeAction, ProbeKind
from tests.machine.tcg.riscv.onestep import A0, A1, A2, CODE, DATA, DEVICE, MPP, MPRV, NONE, RAM, SIZE, Tables
from tests.machine.tcg.riscv.vectormodel import Machine
from tests.machine.tcg.riscv.vectorstep import VectorStep, encode

LOAD_ACCESS, STORE_ACCESS, LOAD_PAGE, STORE_PAGE = 5, 7, 13, 15
AREA = 4096  # around the base, of which a model is kept
BASE = DATA + AREA // 2
END = RAM + SIZE


@pytest.fixture(params=["jit", "interp"])
def cpu(request: pytest.FixtureRequest) -> VectorStep:
    return VectorStep(request.param)


@cache
def hart(backend: str, vlen: int) -> VectorStep:
    return VectorStep(backend, vlen)


def numbered(cpu: VectorStep) -> None:
    """Registers in which every byte tells its place."""
    cpu.set_file(bytes((i * 7 + i // 256) & 255 for i in range(32 * cpu.vlenb)))


@settings(max_examples=300)
@given(
    st.sampled_from([("jit", 128), ("interp", 128), ("jit", 256)]),
    st.sampled_from(["unit", "strided", "indexed"]),
    st.booleans(),
    st.sampled_from([8, 16, 32, 64]),
    st.sampled_from([8, 16, 32, 64]),
    st.sampled_from([Fraction(1, 2), Fraction(1), Fraction(2), Fraction(4), Fraction(8)]),
    st.integers(1, 8),
    st.booleans(),
    st.integers(0, 1 << 32),
)
def test_accesses_meet_their_model(
    which: tuple[str, int],
    mode: str,
    is_store: bool,
    width: int,
    sew: int,
    lmul: Fraction,
    fields: int,
    masked: bool,
    seed: int,
) -> None:
    """Every addressing mode, with segments, masks and a vstart, at any alignment and over a page's end."""
    if sew > 64 * lmul:
        lmul = Fraction(1)
    eew = sew if mode == "indexed" else width
    emul, index_emul = lmul * eew / sew, lmul * width / sew
    if not Fraction(1, 8) <= emul <= 8 or not Fraction(1, 8) <= index_emul <= 8:
        return
    registers = max(1, int(emul))
    while fields * registers > 8:
        fields -= 1
    rng, cpu = random.Random(seed), hart(*which)
    m = Machine(cpu.vlenb, bytearray(rng.randbytes(32 * cpu.vlenb)), 0, sew, lmul)
    m.vl = rng.randint(0, m.vlmax)
    m.vstart = rng.randrange(m.vl) if m.vl and rng.random() < 0.3 else 0
    memory = bytearray(rng.randbytes(AREA))
    base, stride = BASE + rng.randrange(-16, 16), rng.choice((0, -eew // 8, 3, 8 * fields, 1, -5))
    vd, vs2 = 8, 24
    if mode == "indexed":
        for i in range(m.vl):
            m.put(vs2, i, width, rng.randrange(min(1 << width, 1024)))
    cpu.engine.write_phys(DATA, memory)
    cpu.load(m)
    cpu[A1], cpu[A2] = base, stride & NONE
    kind = {"unit": "e", "strided": "se", "indexed": rng.choice(("uxei", "oxei"))}[mode]
    if fields > 1:
        kind = {"e": "segNe", "se": "ssegNe", "uxei": "uxsegNei", "oxei": "oxsegNei"}[kind]
    name = f"v{'s' if is_store else 'l'}{kind}{width}.v"
    second = {"unit": 0, "strided": A2, "indexed": vs2}[mode]
    word = encode(name, vd=vd, rs1=A1, vs2=second, vm=not masked, nf=fields)
    size = eew // 8
    for i in range(m.vstart, m.vl):
        if masked and not m.bit(0, i):
            continue
        offset = {"unit": i * fields * size, "strided": i * stride, "indexed": 0}[mode]
        if mode == "indexed":
            offset = m.get(vs2, i, width)
        for field in range(fields):
            at, reg = base + offset + field * size - DATA, vd + field * registers
            if is_store:
                memory[at : at + size] = m.get(reg, i, eew).to_bytes(size, "little")
            else:
                m.put(reg, i, eew, int.from_bytes(memory[at : at + size], "little"))
    assert cpu.step(word) is None
    assert cpu.file() == bytes(m.v)
    assert cpu.engine.read_phys(DATA, AREA) == bytes(memory)
    assert cpu["vstart"] == 0


@pytest.mark.parametrize("registers", [1, 2, 4, 8])
def test_whole_registers_go_whatever_vl_is(cpu: VectorStep, registers: int) -> None:
    cpu.configure(64, Fraction(1), 1)
    numbered(cpu)
    size = registers * cpu.vlenb
    cpu[A1] = BASE + 1
    assert cpu.step(encode(f"vs{registers}r.v", vd=8, rs1=A1)) is None
    kept = cpu.file()[8 * cpu.vlenb :][:size]
    assert cpu.engine.read_phys(BASE + 1, size) == kept
    for width in (8, 16, 32, 64):
        cpu["vstart"] = 1
        assert cpu.step(encode(f"vl{registers}re{width}.v", vd=16, rs1=A1)) is None
        got = cpu.file()[16 * cpu.vlenb :][:size]
        assert got[width // 8 :] == kept[width // 8 :] and cpu["vstart"] == 0


def test_masks_are_as_many_bytes_as_vl_needs(cpu: VectorStep) -> None:
    cpu.configure(8, Fraction(8), 17)
    numbered(cpu)
    cpu[A1] = BASE
    cpu.engine.write_phys(BASE, bytes(16))
    assert cpu.step(encode("vsm.v", vd=3, rs1=A1)) is None
    mask = cpu.file()[3 * cpu.vlenb :]
    assert cpu.engine.read_phys(BASE, 16) == mask[:3] + bytes(13)
    assert cpu.step(encode("vlm.v", vd=5, rs1=A1)) is None
    assert cpu.file()[5 * cpu.vlenb :][:3] == mask[:3]


@pytest.mark.parametrize(
    ("name", "cause"),
    [("vle32.v", LOAD_ACCESS), ("vse32.v", STORE_ACCESS), ("vlse32.v", LOAD_ACCESS), ("vsse32.v", STORE_ACCESS),
     ("vluxei8.v", LOAD_ACCESS), ("vsoxei8.v", STORE_ACCESS), ("vlsegNe32.v", LOAD_ACCESS)],
)  # fmt: skip
def test_a_fault_leaves_vstart_at_its_element_and_what_was_before_done(
    cpu: VectorStep, name: str, cause: int
) -> None:
    """The trap handler can mend what was wrong and return: the instruction goes on at vstart."""
    cpu.configure(32, Fraction(4))  # 16 elements
    numbered(cpu)
    fields = 2 if "seg" in name else 1
    before = 5  # elements inside RAM
    cpu[A1], cpu[A2] = END - 4 * before * fields, 4
    if "xei" in name:
        cpu.engine.set_reg(0, "v24", int.from_bytes(bytes(4 * i for i in range(16)), "little"))
    cpu.engine.write_phys(END - 64, bytes(range(64)))
    old = cpu.file()
    more = {"vlse32.v": {"vs2": A2}, "vsse32.v": {"vs2": A2}}.get(name, {"vs2": 24} if "xei" in name else {})
    word = encode(name, vd=8, rs1=A1, nf=fields, **more)
    assert cpu.step(word) == cause
    assert (cpu["vstart"], cpu["mtval"], cpu["vl"]) == (before, END, 16)
    data = cpu.engine.read_phys(END - 4 * before * fields, 4 * before * fields)
    if name[1] == "s":
        assert data == old[8 * cpu.vlenb :][: 4 * before]
    else:
        loaded = cpu.file()
        want = b"".join(data[4 * fields * i :][:4] for i in range(before))
        assert loaded[8 * cpu.vlenb :][: 4 * before] == want
        assert (
            loaded[8 * cpu.vlenb + 4 * before : 12 * cpu.vlenb]
            == old[8 * cpu.vlenb + 4 * before : 12 * cpu.vlenb]
        )
    cpu[A1] = cpu[A1] - 0x1000  # as if the handler had mapped it
    assert cpu.step(word) is None
    assert cpu["vstart"] == 0


def test_masked_off_elements_do_not_fault(cpu: VectorStep) -> None:
    cpu.configure(8)
    cpu.engine.set_reg(0, "v0", 0b1111)
    cpu[A1] = END - 4
    assert cpu.step(encode("vle8.v", vd=8, rs1=A1, vm=0)) is None
    assert cpu.step(encode("vse8.v", vd=8, rs1=A1, vm=0)) is None


@pytest.mark.parametrize("fields", [1, 3])
def test_fault_only_first_ends_the_vector_before_a_fault(cpu: VectorStep, fields: int) -> None:
    cpu.configure(16, Fraction(1))
    name = "vle16ff.v" if fields == 1 else "vlsegNe16ff.v"
    word = encode(name, vd=8, rs1=A1, nf=fields)
    for before in (1, 3, 7):
        cpu.configure(16, Fraction(1))
        cpu[A1] = END - 2 * fields * before
        assert cpu.step(word) is None
        assert (cpu["vl"], cpu["vstart"]) == (before, 0)
    cpu.configure(16, Fraction(1))
    cpu[A1] = END - 2 * fields * 8
    assert cpu.step(word) is None and cpu["vl"] == 8
    cpu[A1] = END - 2 * (fields - 1)  # the first element
    assert cpu.step(word) == LOAD_ACCESS
    assert (cpu["vl"], cpu["vstart"]) == (8, 0)


def test_fault_only_first_reads_no_device_behind_the_first_element(cpu: VectorStep) -> None:
    cpu.configure(64, Fraction(1))
    cpu[A1], cpu.device_reads[:] = DEVICE, []
    assert cpu.step(encode("vle64ff.v", vd=8, rs1=A1)) is None
    assert (cpu["vl"], cpu.device_reads) == (1, [DEVICE])


def test_device_registers_are_accessed_element_by_element_once_each(cpu: VectorStep) -> None:
    cpu.configure(32, Fraction(1))
    cpu[A1], cpu[A2], cpu.device_reads[:] = DEVICE, 0, []
    assert cpu.step(encode("vlse32.v", vd=8, rs1=A1, vs2=A2)) is None
    assert cpu.device_reads == [DEVICE] * 4
    assert cpu["v8"] == int.from_bytes((0x55).to_bytes(4, "little") * 4, "little")
    cpu.device_reads[:] = []
    assert cpu.step(encode("vle32.v", vd=9, rs1=A1)) == LOAD_ACCESS
    assert cpu.device_reads == [DEVICE, DEVICE + 4] and cpu["vstart"] == 1


def as_supervisor(cpu: VectorStep) -> None:
    """Data by S-mode's translation."""
    cpu["mstatus"] = cpu["mstatus"] & ~MPP | MPRV | 1 << 11


def paged(cpu: VectorStep) -> Tables:
    """Sv39 by MPRV; the page at 0x4000_0000 is mapped, the one behind it is not."""
    tables = Tables(cpu)
    t = Tables
    tables.map(0x4000_0000, DATA, t.V | t.R | t.W | t.A | t.D)
    cpu["satp"] = tables.satp
    as_supervisor(cpu)
    return tables


def test_a_page_fault_and_its_mending_are_one_store(cpu: VectorStep) -> None:
    cpu.configure(8, Fraction(1))
    numbered(cpu)
    tables = paged(cpu)
    cpu[A1] = 0x4000_1000 - 6
    word = encode("vse8.v", vd=8, rs1=A1)
    assert cpu.step(word) == STORE_PAGE
    assert (cpu["vstart"], cpu["mtval"]) == (6, 0x4000_1000)
    t = Tables
    slot = tables.map(0x4000_1000, DATA + 0x3000, t.V | t.R | t.W)
    as_supervisor(cpu)
    assert cpu.step(word) is None
    stored = cpu.engine.read_phys(DATA + 0x1000 - 6, 6) + cpu.engine.read_phys(DATA + 0x3000, 10)
    assert stored == cpu.file()[8 * cpu.vlenb :][:16]
    assert cpu.get64(slot) & (t.A | t.D) == t.A | t.D


def test_a_store_over_page_table_entries_is_seen_by_its_own_next_element(cpu: VectorStep) -> None:
    """Law 4: as if there were no TLB, within one instruction too."""
    tables = paged(cpu)
    t = Tables
    leaf = t.V | t.R | t.W | t.A | t.D
    slot = tables.map(0x4000_2000, DATA + 0x2000, leaf)
    page = slot & ~0xFFF
    tables.map(0x4000_3000, page, leaf)  # the page table itself
    cpu.engine.write_phys(DATA + 0x2000, bytes(16))
    cpu.engine.write_phys(DATA + 0x4000, bytes(16))
    # element 0 stores through 0x4000_2000; 1 changes where that leads; 2 stores through it again
    cpu.configure(64, Fraction(2), 3)
    offsets = [0x4000_2000, 0x4000_3000 + (slot & 0xFFF), 0x4000_2008]
    for reg, values in ((16, offsets), (8, [0x11, (DATA + 0x4000) >> 12 << 10 | leaf, 0x22])):
        data = b"".join(v.to_bytes(8, "little") for v in values).ljust(32, b"\0")
        cpu.engine.set_reg(0, f"v{reg}", int.from_bytes(data[:16], "little"))
        cpu.engine.set_reg(0, f"v{reg + 1}", int.from_bytes(data[16:], "little"))
    cpu[A1] = 0
    assert cpu.step(encode("vsoxei64.v", vd=8, rs1=A1, vs2=16)) is None
    assert cpu.get64(DATA + 0x2000) == 0x11 and cpu.get64(DATA + 0x2008) == 0
    assert cpu.get64(DATA + 0x4008) == 0x22


def test_a_vector_store_over_code_is_executed_at_once(cpu: VectorStep) -> None:
    cpu.configure(32, Fraction(1), 2)
    new = 0x02A0_0513  # addi a0, zero, 42
    cpu.engine.set_reg(0, "v8", new << 32 | 0x13)
    cpu[A1], cpu[A0] = CODE + 4, 0
    assert cpu.step(encode("vse32.v", vd=8, rs1=A1), 0x13, 0x0010_0513) is None
    assert cpu[A0] == 42


@pytest.mark.parametrize("kind", [ProbeKind.WRITE, ProbeKind.READ])
def test_probes_see_every_element_once(cpu: VectorStep, kind: ProbeKind) -> None:
    cpu.configure(16, Fraction(2), 11)
    numbered(cpu)
    cpu.engine.set_probes([Probe(kind, ProbeAction.RECORD, DATA, DATA + AREA)])
    cpu[A1] = BASE
    name = "vse16.v" if kind is ProbeKind.WRITE else "vle16.v"
    assert cpu.step(encode(name, vd=8, rs1=A1)) is None
    records = cpu.engine.take_records()
    addresses = [int.from_bytes(records[at + 24 : at + 32], "little") for at in range(0, len(records), 128)]
    assert addresses == [BASE + 2 * i for i in range(11)]


def test_a_watchpoint_stops_behind_the_whole_store(cpu: VectorStep) -> None:
    cpu.configure(8, Fraction(1))
    numbered(cpu)
    cpu.engine.set_probes([Probe(ProbeKind.WRITE, ProbeAction.STOP, BASE + 3, BASE + 3)])
    cpu[A1] = BASE
    cpu.put32(CODE, encode("vse8.v", vd=8, rs1=A1), 0x13)
    cpu["pc"] = CODE
    at = cpu.engine.icount
    cpu.engine.run(at + 2)
    assert cpu.engine.icount == at + 1 and cpu["vstart"] == 0
    assert cpu.engine.read_phys(BASE, 16) == cpu.file()[8 * cpu.vlenb :][:16]
