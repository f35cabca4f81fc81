"""What the peer of the differential tests does not have, held against models written from the specification."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.differential.items import patterns
from tests.differential.values import INTEGERS
from tests.machine.tcg.riscv.onestep import A0, A1, A2, CODE, DATA, NONE, WFI, M, OneStep, S, Tables, U

BACKENDS = ["jit", "interp"]
A3, A4 = 13, 14
ILLEGAL, STORE_ACCESS, STORE_PAGE = 2, 7, 15
CBIE_FLUSH, CBIE, CBCFE, CBZE = 1 << 4, 3 << 4, 1 << 6, 1 << 7


@pytest.fixture(params=BACKENDS)
def cpu(request: pytest.FixtureRequest) -> OneStep:
    return OneStep(request.param)


def signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return (value - (value >> (bits - 1) << bits)) & NONE


def trailing_zeros(value: int, bits: int) -> int:
    return next((i for i in range(bits) if value >> i & 1), bits)


#: x[rd] from x[rs1] and x[rs2]. SPEC: unprivileged, Zicond and Zbb.
REGISTER_MODELS: dict[str, tuple[int, Callable[[int, int], int]]] = {
    "czero.eqz": (0x0EC5_D533, lambda a, b: a if b else 0),
    "czero.nez": (0x0EC5_F533, lambda a, b: 0 if b else a),
    "ctzw": (0x6015_951B, lambda a, b: trailing_zeros(a, 32)),
}


@pytest.mark.parametrize("name", REGISTER_MODELS)
def test_register_instruction_meets_its_model(cpu: OneStep, name: str) -> None:
    insn, model = REGISTER_MODELS[name]
    assert any(p.mnemonic == name and insn & p.mask == p.match for p in patterns())
    for a in INTEGERS:
        for b in (0, 1, NONE, a):
            cpu[A1], cpu[A2] = a, b
            assert cpu.step(insn) is None
            assert cpu[A0] == model(a, b), (name, hex(a), hex(b))
            cpu[A1], cpu[A0] = a, 0x99  # rd = rs1
            assert cpu.step(insn & ~(31 << 7) | A1 << 7) is None
            assert (cpu[A1], cpu[A0]) == (model(a, b), 0x99)


#: c.* of Zcb on rd' = a4. SPEC: unprivileged, Zc
UNARY: dict[str, tuple[int, Callable[[int], int]]] = {
    "c.zext.b": (0x9C61, lambda v: v & 0xFF),
    "c.sext.b": (0x9C65, lambda v: signed(v, 8)),
    "c.zext.h": (0x9C69, lambda v: v & 0xFFFF),
    "c.sext.h": (0x9C6D, lambda v: signed(v, 16)),
    "c.zext.w": (0x9C71, lambda v: v & 0xFFFF_FFFF),
    "c.not": (0x9C75, lambda v: ~v & NONE),
}


def step16(cpu: OneStep, halfword: int) -> int | None:
    return cpu.step(halfword | 0x0001 << 16)


@pytest.mark.parametrize("name", UNARY)
def test_zcb_unary_meets_its_model(cpu: OneStep, name: str) -> None:
    base, model = UNARY[name]
    for reg in (8, A4, 15):
        for value in INTEGERS:
            cpu[reg] = value
            assert step16(cpu, base | (reg - 8) << 7) is None
            assert cpu[reg] == model(value)


def test_zcb_multiplies(cpu: OneStep) -> None:
    for a in INTEGERS:
        cpu[A4], cpu[A3] = a, 0x1234_5678_9ABC_DEF1
        assert step16(cpu, 0x9C41 | (A4 - 8) << 7 | (A3 - 8) << 2) is None
        assert cpu[A4] == a * 0x1234_5678_9ABC_DEF1 & NONE


@pytest.mark.parametrize(
    ("name", "base", "bits"), [("c.lbu", 0x8000, 8), ("c.lhu", 0x8400, 16), ("c.lh", 0x8440, -16)]
)
def test_zcb_loads(cpu: OneStep, name: str, base: int, bits: int) -> None:
    content = 0x8182_8384_8586_8788
    cpu.put64(DATA, content)
    for offset in range(4) if bits == 8 else (0, 2):
        cpu[A1] = DATA
        field = (offset & 1) << 6 | (offset >> 1) << 5 if bits == 8 else (offset >> 1) << 5
        assert step16(cpu, base | field | (A1 - 8) << 7 | (A4 - 8) << 2) is None
        raw = content >> 8 * offset & ((1 << abs(bits)) - 1)
        assert cpu[A4] == (signed(raw, 16) if bits < 0 else raw)


@pytest.mark.parametrize(("base", "size"), [(0x8800, 1), (0x8C00, 2)])
def test_zcb_stores(cpu: OneStep, base: int, size: int) -> None:
    for offset in range(0, 4, size):
        cpu.put64(DATA, 0)
        cpu[A1], cpu[A4] = DATA, 0x1234_5678_9ABC_DEF1
        field = (offset & 1) << 6 | (offset >> 1) << 5 if size == 1 else (offset >> 1) << 5
        assert step16(cpu, base | field | (A1 - 8) << 7 | (A4 - 8) << 2) is None
        assert cpu.get64(DATA) == (0x1234_5678_9ABC_DEF1 & ((1 << 8 * size) - 1)) << 8 * offset


def test_reserved_neighbours_of_zcb_are_illegal(cpu: OneStep) -> None:
    for halfword in (0x8C40, 0x9C79, 0x9C7D, 0x9000):
        assert step16(cpu, halfword | 1 << 7 if halfword & 3 else halfword) == ILLEGAL, hex(halfword)


def cbo(op: int) -> int:
    return op << 20 | A1 << 15 | 2 << 12 | 0x0F


INVAL, CLEAN, FLUSH, ZERO = map(cbo, (0, 1, 2, 4))


def test_zeroing_a_block_clears_its_64_bytes(cpu: OneStep) -> None:
    rng = random.Random(1)
    before = rng.randbytes(256)
    for offset in (64, 71, 127):
        cpu.engine.write_phys(DATA, before)
        cpu[A1] = DATA + offset
        assert cpu.step(ZERO) is None
        assert cpu.engine.read_phys(DATA, 256) == before[:64] + bytes(64) + before[128:]


def test_zeroing_code_takes_effect_at_once(cpu: OneStep) -> None:
    """The NOP behind it is in the block that it clears: two zero bytes are illegal."""
    cpu[A1] = CODE
    assert cpu.step(ZERO, 0x13) == ILLEGAL
    assert cpu["mepc"] == CODE + 4


@pytest.mark.parametrize(
    ("insn", "bit"), [(INVAL, CBIE), (INVAL, CBIE_FLUSH), (CLEAN, CBCFE), (FLUSH, CBCFE), (ZERO, CBZE)]
)
def test_block_operations_ask_the_modes_above(cpu: OneStep, insn: int, bit: int) -> None:
    """SPEC: unprivileged, CMO, 2.5.3."""
    for menvcfg, senvcfg, priv in [(a, b, p) for a in (0, bit) for b in (0, bit) for p in (U, S, M)]:
        cpu["menvcfg"], cpu["senvcfg"], cpu["priv"] = menvcfg, senvcfg, priv
        cpu[A1] = DATA
        allowed = priv == M or (bool(menvcfg) and (priv == S or bool(senvcfg)))
        cause = cpu.step(insn)
        assert cause == (None if allowed else ILLEGAL), (menvcfg, senvcfg, priv)
        if cause is not None:
            assert cpu["mtval"] == insn


@pytest.mark.parametrize("insn", [INVAL, CLEAN, FLUSH, ZERO])
def test_block_operations_fault_like_stores(cpu: OneStep, insn: int) -> None:
    cpu["menvcfg"] = CBIE | CBCFE | CBZE
    tables = Tables(cpu)
    code = Tables.V | Tables.R | Tables.X | Tables.A
    tables.map(CODE, CODE, code)
    va = 0x4000_0000
    read_only = tables.map(va, DATA, Tables.V | Tables.R | Tables.A)
    tables.map(va + 0x1000, DATA, Tables.V | Tables.X | Tables.A)
    tables.map(va + 0x2000, 0x5000_0000, Tables.V | Tables.R | Tables.W | Tables.A | Tables.D)
    cpu["satp"] = tables.satp
    for address, want in [
        (va + 0x48, STORE_PAGE if insn == ZERO else None),  # where a load may, the managing ones may
        (va + 0x1048, STORE_PAGE),
        (va + 0x9048, STORE_PAGE),
        (va + 0x2048, STORE_ACCESS if insn == ZERO else None),
    ]:
        cpu["priv"] = S
        cpu[A1] = address
        assert cpu.step(insn) == want, hex(address)
        if want is not None:
            assert cpu["mtval"] == address
    assert not cpu.get64(read_only) & Tables.D


@pytest.mark.parametrize("insn", [0x00D0_0073, 0x01D0_0073])
def test_wait_on_reservation_ends(cpu: OneStep, insn: int) -> None:
    for priv in (U, S, M):
        cpu["priv"] = priv
        assert cpu.step(insn) is None


@pytest.mark.parametrize(
    ("insn", "in_user"), [(0x1600_0073, ILLEGAL), (0x1800_0073, ILLEGAL), (0x1810_0073, ILLEGAL)]
)
def test_invalidation_is_not_for_user_mode(cpu: OneStep, insn: int, in_user: int) -> None:
    """TVM refuses S-mode SINVAL.VMA as it does SFENCE.VMA, and nothing else. SPEC: privileged, Svinval"""
    for priv, tvm in [(U, 0), (S, 0), (S, 1), (M, 1)]:
        cpu["mstatus"], cpu["priv"] = tvm << 20, priv
        refused = priv == U or (priv == S and tvm and insn == 0x1600_0073)
        assert cpu.step(insn) == (ILLEGAL if refused else None)


def test_wfi_of_user_mode_is_illegal(cpu: OneStep) -> None:
    cpu["priv"] = U
    assert cpu.step(WFI) == ILLEGAL


def test_prefetches_do_nothing_wherever_they_point(cpu: OneStep) -> None:
    for kind in (0, 1, 3):
        cpu[A1] = 0x1234
        before = cpu.engine.save_state(0)
        assert cpu.step(kind << 20 | A1 << 15 | 6 << 12 | 0x13) is None
        after = cpu.engine.save_state(0)
        assert {k for k in before if before[k] != after[k]} <= {"pc"}


def test_counter_overflow_bits_read_zero(cpu: OneStep) -> None:
    """SPEC: Sscofpmf: no counter here counts, so none overflows; LCOFI is software's alone, and can be delegated."""
    assert cpu.csr(2, 0xDA0, rs1=0) == 0
    assert cpu.step(1 << 12 | A1 << 15 | 0xDA0 << 20 | 0x73) == ILLEGAL
    assert cpu.write(0x303, 1 << 13) == 1 << 13
    assert cpu.write(0x344, 1 << 13) == 1 << 13
    assert cpu.csr(2, 0x144, rs1=0) & 1 << 13
