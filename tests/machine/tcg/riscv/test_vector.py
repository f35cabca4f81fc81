"""The state of vectors: configuration, CSRs, mstatus.VS, what is illegal. SPEC: vector 1.0, chapters 3 to 6."""

from __future__ import annotations

from fractions import Fraction

import pytest

from tests.machine.tcg.riscv.onestep import A0, A1, NONE, OneStep
from tests.machine.tcg.riscv.vectorstep import VILL, VS, VectorStep, encode, vtype

ILLEGAL = 2
VSTART, VXSAT, VXRM, VCSR, VL, VTYPE, VLENB = 0x008, 0x009, 0x00A, 0x00F, 0xC20, 0xC21, 0xC22
READ = 2
HALF, QUARTER, EIGHTH, ONE, TWO, FOUR, EIGHT = (Fraction(2) ** n for n in (-1, -2, -3, 0, 1, 2, 3))


@pytest.fixture(params=["jit", "interp"])
def cpu(request: pytest.FixtureRequest) -> VectorStep:
    return VectorStep(request.param)


@pytest.mark.parametrize("vlen", [128, 256])
def test_vsetvli_gives_the_lesser_of_avl_and_vlmax(vlen: int) -> None:
    cpu = VectorStep(vlen=vlen)
    for sew, lmul in ((8, ONE), (8, EIGHT), (64, EIGHT), (8, EIGHTH), (32, HALF), (16, FOUR)):
        vlmax = int(lmul * vlen / sew)
        for avl in (0, 1, vlmax - 1, vlmax, vlmax + 1, 2 * vlmax, NONE):
            assert cpu.configure(sew, lmul, avl) == min(avl, vlmax)
            assert (cpu["vl"], cpu["vtype"]) == (min(avl, vlmax), vtype(sew, lmul))
    assert cpu.csr(READ, VLENB, rs1=0) == vlen // 8


def test_avl_by_registers_that_are_zero(cpu: VectorStep) -> None:
    """6.2: rs1 = x0 asks for VLMAX, with rd = x0 too for the vl there is."""
    cpu.configure(32, ONE, 3)
    assert cpu.step(encode("vsetvli", rd=0, rs1=0, zimm=vtype(64, TWO))) is None
    assert (cpu["vl"], cpu["vtype"]) == (3, vtype(64, TWO))
    assert cpu.step(encode("vsetvli", rd=A0, rs1=0, zimm=vtype(32))) is None
    assert (cpu["vl"], cpu[A0]) == (4, 4)
    assert cpu.step(encode("vsetivli", rd=A0, rs1=2, zimm=vtype(8) | 0xC0)) is None
    assert (cpu["vl"], cpu[A0], cpu["vtype"]) == (2, 2, 0xC0)
    cpu[A1], cpu[12] = 7, vtype(8, HALF)
    assert cpu.step(encode("vsetvl", rd=A0, rs1=A1, rs2=12)) is None
    assert (cpu["vl"], cpu["vtype"]) == (7, vtype(8, HALF))


@pytest.mark.parametrize("bad", [4, 4 << 3, vtype(64) | 7, vtype(32) | 6, vtype(16) | 5, 1 << 8, 1 << 10])
def test_a_type_that_is_not_there_sets_vill(cpu: VectorStep, bad: int) -> None:
    cpu.configure(8)
    assert cpu.step(encode("vsetvli", rd=A0, rs1=A0, zimm=bad)) is None
    assert (cpu["vl"], cpu["vtype"], cpu[A0]) == (0, VILL, 0)
    for name in ("vadd.vv", "vle8.v", "vsm.v", "vid.v", "vmand.mm", "vmv.x.s"):
        assert cpu.step(encode(name)) == ILLEGAL, name
    cpu[A1] = 0x8000_8000
    for word in (encode("vl1re8.v", rs1=A1), encode("vs8r.v", rs1=A1), encode("vmv2r.v", vd=2, vs2=4)):
        assert cpu.step(word) is None, "whole registers do not ask"


def test_vs_off_makes_everything_illegal(cpu: VectorStep) -> None:
    cpu.configure(8)
    cpu["mstatus"] = 0
    for name in (
        "vadd.vv",
        "vle8.v",
        "vs1r.v",
        "vsetvli",
        "vsetivli",
        "vsetvl",
        "vmv1r.v",
        "vfadd.vv",
        "vredsum.vs",
    ):
        word = encode(name)
        assert cpu.step(word) == ILLEGAL and cpu["mtval"] == word, name
    for number in (VSTART, VXSAT, VXRM, VCSR, VL, VTYPE, VLENB):
        assert cpu.step(number << 20 | READ << 12 | A0 << 7 | 0x73) == ILLEGAL
    cpu["mstatus"] = VS  # and FS off
    assert cpu.step(encode("vfadd.vv")) == ILLEGAL
    assert cpu.step(encode("vadd.vv")) is None


def test_a_machine_without_vectors_has_nothing_of_them() -> None:
    cpu = OneStep()
    cpu["mstatus"] = VS
    assert cpu["mstatus"] & VS == 0
    assert cpu.step(encode("vsetvli", rd=A0)) == ILLEGAL
    assert cpu.step(VLENB << 20 | READ << 12 | A0 << 7 | 0x73) == ILLEGAL
    with pytest.raises(ValueError, match="v0"):
        cpu["v0"]


@pytest.mark.parametrize(
    "word", [encode("vadd.vv"), encode("vsetivli"), VXRM << 20 | 1 << 12 | A0 << 15 | 0x73]
)
def test_what_writes_vector_state_makes_it_dirty(cpu: VectorStep, word: int) -> None:
    cpu.configure(8)
    for status in (1 << 9, 2 << 9):
        cpu["mstatus"] = status
        assert cpu["mstatus"] & (VS | 1 << 63) == status
        assert cpu.step(word) is None
        assert cpu["mstatus"] & (VS | 1 << 63) == VS | 1 << 63
        assert cpu["sstatus"] & (VS | 1 << 63) == VS | 1 << 63


def test_csrs_hold_the_bits_that_they_have(cpu: VectorStep) -> None:
    """3.7 to 3.10"""
    assert cpu.write(VSTART, NONE) == 127
    assert cpu.write(VXSAT, NONE) == 1
    assert cpu.write(VXRM, NONE) == 3
    assert cpu.csr(READ, VCSR, rs1=0) == 7
    assert cpu.write(VCSR, 4) == 4
    assert (cpu.csr(READ, VXSAT, rs1=0), cpu.csr(READ, VXRM, rs1=0)) == (0, 2)
    for number in (VL, VTYPE, VLENB):
        assert cpu.step(number << 20 | 1 << 12 | A1 << 15 | 0x73) == ILLEGAL


@pytest.mark.parametrize(
    ("sew", "lmul", "name", "arguments"),
    [
        (32, TWO, "vadd.vv", {"vd": 1, "vs2": 2, "rs1": 4}),  # groups begin at multiples of LMUL
        (32, TWO, "vadd.vv", {"vd": 2, "vs2": 3, "rs1": 4}),
        (32, TWO, "vadd.vv", {"vd": 2, "vs2": 4, "rs1": 5}),
        (8, ONE, "vadd.vv", {"vd": 0, "vs2": 4, "rs1": 5, "vm": 0}),  # 5.3
        (64, ONE, "vwadd.vv", {"vd": 2, "vs2": 4, "rs1": 5}),  # of 128 bits
        (8, EIGHT, "vwadd.vv", {"vd": 0, "vs2": 8, "rs1": 16}),  # of 16 registers
        (8, ONE, "vwadd.vv", {"vd": 4, "vs2": 4, "rs1": 8}),  # 5.2: not the highest part
        (8, ONE, "vnsrl.wv", {"vd": 5, "vs2": 4, "rs1": 8}),  # not the lowest
        (32, TWO, "vmseq.vv", {"vd": 5, "vs2": 4, "rs1": 8}),
        (8, ONE, "vzext.vf2", {"vd": 2, "vs2": 4}),
        (32, EIGHTH, "vadd.vv", {}),
        (8, ONE, "vadc.vvm", {"vd": 0, "vs2": 4, "rs1": 5}),
        (8, ONE, "vrgather.vv", {"vd": 4, "vs2": 4, "rs1": 5}),
        (8, ONE, "vrgather.vv", {"vd": 4, "vs2": 5, "rs1": 4}),
        (8, ONE, "vslideup.vi", {"vd": 4, "vs2": 4}),
        (8, ONE, "vslide1up.vx", {"vd": 4, "vs2": 4}),
        (8, ONE, "vcompress.vm", {"vd": 4, "vs2": 5, "rs1": 4}),
        (8, ONE, "viota.m", {"vd": 4, "vs2": 4}),
        (8, ONE, "vmsbf.m", {"vd": 4, "vs2": 4}),
        (8, ONE, "vfadd.vv", {}),  # no floating point of 8 bits, nor of 16
        (16, ONE, "vfadd.vv", {}),
        (64, ONE, "vfwadd.vv", {"vd": 2, "vs2": 4, "rs1": 5}),
        (8, ONE, "vfwcvt.f.x.v", {"vd": 2, "vs2": 4}),
        (16, ONE, "vfncvt.f.x.w", {"vd": 2, "vs2": 4}),
        (8, TWO, "vle64.v", {"rs1": A1}),  # EMUL 8 is the most …
        (64, ONE, "vle8.v", {"rs1": A1, "vd": 0, "vm": 0}),
        (8, FOUR, "vle32.v", {"rs1": A1, "vd": 8}),
        (8, FOUR, "vlsegNe8.v", {"rs1": A1, "nf": 3}),  # … with all fields
        (8, ONE, "vlsegNe8.v", {"rs1": A1, "nf": 3, "vd": 30}),  # behind v31
        (8, ONE, "vluxei16.v", {"rs1": A1, "vd": 2, "vs2": 3}),
        (8, ONE, "vluxsegNei8.v", {"rs1": A1, "vd": 2, "vs2": 3, "nf": 2}),
        # The source is in the highest part, but its EMUL is less than 1, which takes a whole register too.
        (64, TWO, "vluxei16.v", {"rs1": A1, "vd": 2, "vs2": 3}),
        (64, TWO, "vzext.vf8", {"vd": 2, "vs2": 3}),
        (32, TWO, "vsext.vf4", {"vd": 2, "vs2": 3}),
        (8, ONE, "vl2re8.v", {"rs1": A1, "vd": 3}),
        (8, ONE, "vmv4r.v", {"vd": 4, "vs2": 2}),
    ],
)  # fmt: skip
def test_register_groups_that_may_not_be_are_illegal(
    cpu: VectorStep, sew: int, lmul: Fraction, name: str, arguments: dict[str, int]
) -> None:
    if (sew, lmul, name) != (32, EIGHTH, "vadd.vv"):
        cpu.configure(sew, lmul)
    before = cpu.file()
    cpu[A1] = 0x8000_8000
    word = encode(name, **arguments)
    assert cpu.step(word) == ILLEGAL and cpu["mtval"] == word
    assert cpu.file() == before


@pytest.mark.parametrize(
    ("sew", "lmul", "name", "arguments"),
    [
        (8, ONE, "vwadd.vv", {"vd": 4, "vs2": 5, "rs1": 5}),
        (8, ONE, "vnsrl.wv", {"vd": 4, "vs2": 4, "rs1": 8}),
        (32, TWO, "vmseq.vv", {"vd": 4, "vs2": 4, "rs1": 8}),
        (32, TWO, "vmseq.vv", {"vd": 0, "vs2": 4, "rs1": 8, "vm": 0}),
        (8, TWO, "vredsum.vs", {"vd": 0, "vs2": 4, "rs1": 7, "vm": 0}),
        (8, EIGHT, "vmv.s.x", {"vd": 3}),
        (8, ONE, "vluxei16.v", {"rs1": A1, "vd": 2, "vs2": 2}),
        (64, EIGHT, "vluxei8.v", {"rs1": A1, "vd": 8, "vs2": 15}),
        (32, TWO, "vzext.vf2", {"vd": 2, "vs2": 3}),
        (8, EIGHTH, "vfirst.m", {"vd": 10, "vs2": 3}),
    ],
)  # fmt: skip
def test_overlaps_that_are_allowed_are_legal(
    cpu: VectorStep, sew: int, lmul: Fraction, name: str, arguments: dict[str, int]
) -> None:
    cpu.configure(sew, lmul)
    cpu[A1] = 0x8000_8000
    assert cpu.step(encode(name, **arguments)) is None


@pytest.mark.parametrize("name", ["vcpop.m", "vfirst.m", "vmsbf.m", "viota.m", "vcompress.vm", "vredsum.vs"])
def test_what_never_stops_in_the_middle_does_not_begin_there(cpu: VectorStep, name: str) -> None:
    cpu.configure(8)
    cpu["vstart"] = 1
    assert cpu.step(encode(name, vd=2, vs2=4, rs1=6)) == ILLEGAL
    assert cpu["vstart"] == 1


@pytest.mark.parametrize("frm", [5, 6, 7])
def test_floating_point_needs_a_mode_that_is_one(cpu: VectorStep, frm: int) -> None:
    cpu.configure(32)
    cpu["frm"] = frm
    for name in ("vfadd.vv", "vfsgnj.vv", "vfmv.f.s", "vfredosum.vs", "vfclass.v"):
        assert cpu.step(encode(name)) == ILLEGAL, name


def test_vstart_not_below_vl_changes_nothing_and_is_cleared(cpu: VectorStep) -> None:
    cpu.configure(8, ONE, 4)
    cpu.set_file(bytes(i & 255 for i in range(512)))
    before = cpu.file()
    for name in ("vadd.vv", "vmv.v.i", "vid.v", "vmv.s.x", "vslide1up.vx", "vmand.mm", "vle8.v"):
        cpu["vstart"] = 4
        cpu[A1] = 0x8000_8000
        word = encode(name, vd=2, vs2=4) | (A1 << 15 if name == "vle8.v" else 0)
        assert cpu.step(word) is None, name
        assert (cpu["vstart"], cpu.file()) == (0, before), name


@pytest.mark.parametrize("state", [{"vl": 17}, {"vtype": 4}, {"vtype": 1 << 63 | 3}, {"vstart": 1 << 20}])
def test_a_checkpoint_holds_no_vector_that_leaves_the_registers(
    cpu: VectorStep, state: dict[str, int]
) -> None:
    cpu.configure(8)
    cpu.engine.load_state(0, cpu.engine.save_state(0) | state)
    assert cpu["vl"] <= 16 and cpu["vstart"] < 128
    assert cpu["vtype"] in (0, VILL)
