"""The guest that runs sequences: sets the state of each, enters it in U- or S-mode, logs its traps, keeps what is left.

The same bytes run on every machine. A sequence may do what it likes with the arena, three pages with its code across
the first boundary between them; PMP denies it all else. Traps go to M-mode, are logged, and go on behind the
instruction. It ends at its last instruction, outside of its code, or when the watchdog's timer fires.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from tests.rvasm import REGS, assemble

BASE = 0x8000_0000
RAM_BYTES = 32 << 20
CTX = BASE + 0x8000
ARENA = BASE + 0x1_0000
ARENA_BYTES = 0x3000
TEMPLATE = BASE + 0x1_4000
CODE = ARENA + 0x1000 - 0x60
TABLES = BASE + 0x3_0000  # levels 0 to 4, a page each; no 16-bit offset leads here from the arena
TABLE_BYTES = 0x8000
#: Virtual pages from the arena's address on that level 0 maps as the sequence says.
N_PTES = 8
FIRST_PTE = (ARENA >> 12) & 511
RECORDS_IN = BASE + 0x10_0000
RECORDS_OUT = BASE + 0x90_0000
RECORD_BYTES = 1024
MAX_SEQUENCES = 8000
MAX_CODE_BYTES = 320
#: Behind a sequence's code, in its place: the handler of delegated traps, which goes on four bytes further.
SUPERVISOR_HANDLER = CODE + MAX_CODE_BYTES - 32
LOGGED_TRAPS = 8

FINISHER = 0x10_0000
CLINT_MTIMECMP = 0x200_4000
CLINT_MTIME = 0x200_BFF8
MASK64 = (1 << 64) - 1

# Offsets in a record that goes in.
IN_MSTATUS, IN_F, IN_FCSR, IN_END, IN_SATP, IN_MENVCFG, IN_PTES, IN_MEDELEG, IN_LEAF_AT, IN_LEAF, IN_CODE = (
    0, 256, 512, 520, 528, 536, 544, 608, 616, 624, 640,
)  # fmt: skip
# Offsets in a record that comes out.
OUT_TRAPS, OUT_F, OUT_FCSR, OUT_ARENA, OUT_TRAP_DIGEST, OUT_STATUS = 0, 256, 512, 520, 528, 536
OUT_MSTATUS, OUT_SCSRS, OUT_REWRITTEN, OUT_LEAF, OUT_PTES, OUT_LOG, OUT_VECTOR = (
    544,
    552,
    600,
    624,
    640,
    704,
    968,
)
REWRITTEN_WORDS = (MAX_CODE_BYTES // 2 + 63) // 64
STATUSES = ("ended", "left its code", "watchdog")
#: What a machine that broke down over a sequence is said to have left.
BROKEN = "broke the machine"
SCSRS = {
    "sepc": 0x141,
    "scause": 0x142,
    "stval": 0x143,
    "sscratch": 0x140,
    "senvcfg": 0x10A,
    "scounteren": 0x106,
}
#: The CSRs of vectors, behind the digest of the registers; only where there are any.
VCSRS = {"vstart": 0x008, "vcsr": 0x00F, "vl": 0xC20, "vtype": 0xC21}
V_REGS = BASE + 0xC000  # where a hart's are put to be digested
V_SHIFT = 10  # of the size of a hart's place
#: FS, VS and SD: how soon instructions make the former dirty is the implementation's choice. SPEC: privileged, 3.1.6.6
STATUS_MASK = 0x7FFF_FFFF_FFFF_99FF
CTX_BYTES = 1024  # of a hart
# Offsets in the context.
CTX_IN, CTX_OUT, CTX_LEFT, CTX_COUNT, CTX_DIGEST, CTX_PATIENCE, CTX_END, CTX_STATUS, CTX_SAVED, CTX_KEPT, CTX_LOG = (
    0, 8, 16, 24, 32, 40, 48, 56, 64, 112, 128,
)  # fmt: skip
DIGEST_FACTOR = 0x9E37_79B9_7F4A_7C15


def _fp(op: str, reg: int, offset: int, base: str) -> str:
    if op == "fld":
        word = (offset & 0xFFF) << 20 | REGS[base] << 15 | 3 << 12 | reg << 7 | 0x07
    else:
        word = (offset >> 5 & 0x7F) << 25 | reg << 20 | REGS[base] << 15 | 3 << 12 | (offset & 31) << 7 | 0x27
    return f".word {word:#x}"


def _copy(label: str, source: str, target: str, size: int) -> str:
    """Copy ``size`` bytes (a multiple of 64) from s2 to s3."""
    moves = "; ".join(f"ld a{i}, {8 * i}(s2)" for i in range(8))
    moves += "; " + "; ".join(f"sd a{i}, {8 * i}(s3)" for i in range(8))
    return f"""
    li s2, {source}; li s3, {target}; li s4, {size}; add s4, s4, s3
{label}: {moves}
    addi s2, s2, 64; addi s3, s3, 64; bltu s3, s4, {label}
"""


def _mix(value: str, digest: str, factor: str, scratch: str) -> str:
    return (
        f"add {digest}, {digest}, {value}; mul {digest}, {digest}, {factor}; "
        f"srli {scratch}, {digest}, 29; xor {digest}, {digest}, {scratch}"
    )


def _vector_move(reg: int, base: str, store: bool) -> str:
    """vl8re8.v or vs8r.v: eight registers."""
    return f".word {7 << 29 | 1 << 25 | 8 << 20 | REGS[base] << 15 | reg << 7 | (0x27 if store else 0x07):#x}"


def _load_vectors(vlen: int) -> str:
    """The registers from the template, and the CSRs as no instruction has set them: vill alone."""
    loads = "; ".join(
        f"li t0, {TEMPLATE + vlen * i}; {_vector_move(8 * i, 't0', store=False)}" for i in range(4)
    )
    vsetvl = 0x80 << 24 | REGS["t0"] << 20 | 7 << 12 | 0x57
    return f"li t0, 0x600; csrs mstatus, t0; csrw 0x008, zero; {loads}; li t0, -1; .word {vsetvl:#x}; csrw 0x00f, zero"


def _log_vstart() -> str:
    """In the handler: where a trap came in the middle of a vector. It starts anew: what a vstart that is not less than
    vl does is compared otherwise."""
    return f"""
    csrr x5, mstatus; andi x5, x5, 0x600; beqz x5, scalar
    csrr x5, 0x008; csrw 0x008, zero; {_mix("x5", "x30", "x29", "x6")}; sd x30, {CTX_DIGEST}(x31)
scalar:
"""


def _keep_vectors(vlen: int) -> str:
    csrs = "; ".join(
        f"csrr t0, {number:#x}; sd t0, {OUT_VECTOR + 8 + 8 * i}(s1)"
        for i, number in enumerate(VCSRS.values())
    )
    stores = "; ".join(f"{_vector_move(8 * i, 'a2', store=True)}; addi a2, a2, {vlen}" for i in range(4))
    return f"""
    li t0, 0x600; csrs mstatus, t0
    {csrs}
    csrw 0x008, zero
    csrr t0, mhartid; slli t0, t0, {V_SHIFT}; li a2, {V_REGS}; add a2, a2, t0
    {stores}
    li a0, 0; li a1, {DIGEST_FACTOR}; addi a3, a2, {-4 * vlen}
vdigest: ld a4, 0(a3); {_mix("a4", "a0", "a1", "a5")}; addi a3, a3, 8; bltu a3, a2, vdigest
    sd a0, {OUT_VECTOR}(s1)
"""


def _source(vlen: int) -> str:
    load_x = "; ".join(f"ld x{i}, {8 * i}(x31)" for i in range(1, 32))
    load_f = "; ".join(_fp("fld", i, IN_F + 8 * i, "s0") for i in range(32))
    store_f = "; ".join(_fp("fsd", i, OUT_F + 8 * i, "s1") for i in range(32))
    saved = {5: 0, 6: 8, 7: 16, 28: 24, 29: 32, 30: 40}
    save = "; ".join(f"sd x{r}, {CTX_SAVED + o}(x31)" for r, o in saved.items())
    restore = "; ".join(f"ld x{r}, {CTX_SAVED + o}(x31)" for r, o in saved.items())
    keep_x = "; ".join(f"sd x{i}, {8 * i}(x30)" for i in range(1, 30) if i not in saved)
    keep_saved = "; ".join(f"ld x5, {CTX_SAVED + o}(x31); sd x5, {8 * r}(x30)" for r, o in saved.items())
    seeds = "; ".join(
        f"csrw {n}, zero" for n in ("sepc", "scause", "stval", "sscratch", "sie", "0x10a", "0x106", "mcause")
    )
    keep_scsrs = "; ".join(
        f"csrr t0, {number:#x}; sd t0, {OUT_SCSRS + 8 * i}(s1)" for i, number in enumerate(SCSRS.values())
    )
    level0 = TABLES + 8 * FIRST_PTE
    ptes_in = "; ".join(f"ld t0, {IN_PTES + 8 * i}(s0); sd t0, {8 * i}(t1)" for i in range(N_PTES))
    ptes_out = "; ".join(f"ld t0, {8 * i}(t1); sd t0, {OUT_PTES + 8 * i}(s1)" for i in range(N_PTES))
    log_out = "; ".join(
        f"ld t0, {CTX_LOG + 8 * i}(s5); sd t0, {OUT_LOG + 8 * i}(s1)" for i in range(4 * LOGGED_TRAPS)
    )
    log_clear = "; ".join(f"sd zero, {CTX_LOG + 8 * i}(s5)" for i in range(4 * LOGGED_TRAPS))
    return f"""
    la t0, without; csrw mtvec, t0; li t0, -1; csrw 0x30c, t0   # mstateen0, where there is one
    .align 4
without: la t0, handler; csrw mtvec, t0
    li t0, {ARENA >> 2}; csrw 0x3b0, t0; li t0, {ARENA + ARENA_BYTES >> 2}; csrw 0x3b1, t0
    li t0, {TABLES >> 2 | (TABLE_BYTES // 8 - 1)}; csrw 0x3b2, t0
    li t0, 0x1b0f00; csrw 0x3a0, t0
    li t0, 0x80; csrw mie, t0
    li t0, 0x6000; csrw mstatus, t0
    csrw medeleg, zero; csrw mideleg, zero; csrw mcounteren, zero
next:
    csrr t0, mhartid; slli t0, t0, 10; li s5, {CTX}; add s5, s5, t0
    ld t0, {CTX_LEFT}(s5); bnez t0, go; j finished
go:
    addi t0, t0, -1; sd t0, {CTX_LEFT}(s5)
    ld s0, {CTX_IN}(s5)
    {_copy("fill", str(TEMPLATE), str(ARENA), ARENA_BYTES)}
    addi s2, s0, {IN_CODE}; li s3, {CODE}; li s4, {MAX_CODE_BYTES}; add s4, s4, s3
place: ld a0, 0(s2); sd a0, 0(s3); addi s2, s2, 8; addi s3, s3, 8; bltu s3, s4, place
    li t1, {level0}; {ptes_in}
    ld t1, {IN_LEAF_AT}(s0); beqz t1, tables; ld t0, 0(t1); sd t0, {CTX_KEPT}(s5); ld t0, {IN_LEAF}(s0); sd t0, 0(t1)
tables:
    fence.i; sfence.vma
    {log_clear}
    sd zero, {CTX_COUNT}(s5); sd zero, {CTX_DIGEST}(s5); sd zero, {CTX_STATUS}(s5)
    ld t0, {IN_END}(s0); sd t0, {CTX_END}(s5)
    {seeds}
    {load_f}
    {_load_vectors(vlen) if vlen else ""}
    ld t0, {IN_FCSR}(s0); csrw fcsr, t0
    ld t0, {IN_SATP}(s0); csrw satp, t0; sfence.vma
    ld t0, {IN_MENVCFG}(s0); csrw menvcfg, t0
    ld t0, {IN_MEDELEG}(s0); csrw medeleg, t0; li t0, {SUPERVISOR_HANDLER}; csrw stvec, t0
    ld t0, {IN_MSTATUS}(s0); csrw mstatus, t0
    li t0, {CODE}; csrw mepc, t0
    csrw mscratch, s5
    li t1, {CLINT_MTIME}; ld t0, 0(t1); ld t2, {CTX_PATIENCE}(s5); add t0, t0, t2
    csrr t1, mhartid; slli t1, t1, 3; li t2, {CLINT_MTIMECMP}; add t1, t1, t2; sd t0, 0(t1)
    mv x31, s0
    {load_x}
    mret

    .align 64
handler:
    csrrw x31, mscratch, x31
    {save}
    ld x30, {CTX_DIGEST}(x31); li x29, {DIGEST_FACTOR}
    ld x28, {CTX_COUNT}(x31); addi x5, x28, 1; sd x5, {CTX_COUNT}(x31)
    andi x28, x28, {LOGGED_TRAPS - 1}; slli x28, x28, 5; add x28, x28, x31
    csrr x5, mcause; blt x5, zero, watchdog; sd x5, {CTX_LOG}(x28); {_mix("x5", "x30", "x29", "x6")}
    csrr x5, mepc; sd x5, {CTX_LOG + 8}(x28); {_mix("x5", "x30", "x29", "x6")}
    csrr x5, mcause; addi x6, x5, -3; csrr x5, mtval; bnez x6, faulted
    li x5, 0   # the tval of a breakpoint may be 0 or its address: privileged, 3.1.16
faulted:
    sd x5, {CTX_LOG + 16}(x28); {_mix("x5", "x30", "x29", "x6")}
    csrr x5, mstatus; li x6, {STATUS_MASK:#x}; and x5, x5, x6
    sd x5, {CTX_LOG + 24}(x28); {_mix("x5", "x30", "x29", "x6")}
    sd x30, {CTX_DIGEST}(x31)
    {_log_vstart() if vlen else ""}
    csrr x5, mepc; ld x6, {CTX_END}(x31)
    beq x5, x6, done
    bgeu x5, x6, left
    li x7, {CODE}; bltu x5, x7, left
    lhu x6, 0(x5); andi x6, x6, 3; addi x6, x6, -3; sltiu x6, x6, 1
    addi x5, x5, 2; add x5, x5, x6; add x5, x5, x6
    csrw mepc, x5
    {restore}
    csrrw x31, mscratch, x31
    mret
watchdog:
    li x5, 2; sd x5, {CTX_STATUS}(x31); j done
left:
    li x5, 1; sd x5, {CTX_STATUS}(x31)
done:
    ld x30, {CTX_OUT}(x31)
    {keep_x}
    {keep_saved}
    csrr x5, mscratch; sd x5, {8 * 31}(x30)
    mv s5, x31; mv s1, x30
    csrr t1, mhartid; slli t1, t1, 3; li t2, {CLINT_MTIMECMP}; add t1, t1, t2; li t0, -1; sd t0, 0(t1)
    csrr t0, mstatus; sd t0, {OUT_MSTATUS}(s1)
    li t1, 0x6000; csrs mstatus, t1
    {store_f}
    csrr t0, fcsr; sd t0, {OUT_FCSR}(s1)
    {_keep_vectors(vlen) if vlen else ""}
    {keep_scsrs}
    csrw satp, zero; sfence.vma
    li t1, {level0}; {ptes_out}
    ld t2, {CTX_IN}(s5); ld t1, {IN_LEAF_AT}(t2); sd zero, {OUT_LEAF}(s1); beqz t1, plain
    ld t0, 0(t1); sd t0, {OUT_LEAF}(s1); ld t0, {CTX_KEPT}(s5); sd t0, 0(t1)
plain:
    {log_out}
    ld t0, {CTX_COUNT}(s5); sd t0, {OUT_TRAPS}(s1)
    ld t0, {CTX_DIGEST}(s5); sd t0, {OUT_TRAP_DIGEST}(s1)
    ld t0, {CTX_STATUS}(s5); sd t0, {OUT_STATUS}(s1)
    li a0, 0; li a1, {DIGEST_FACTOR}; li a2, {ARENA}; li a3, {ARENA + ARENA_BYTES}
digest: ld a4, 0(a2); {_mix("a4", "a0", "a1", "a5")}; ld a4, 8(a2); {_mix("a4", "a0", "a1", "a5")}
    addi a2, a2, 16; bltu a2, a3, digest
    sd a0, {OUT_ARENA}(s1)
    ld t0, {CTX_IN}(s5); addi a0, t0, {IN_CODE}; li a1, {CODE}; li a2, {CODE + MAX_CODE_BYTES}
    addi s2, s1, {OUT_REWRITTEN}; li a3, 1; li a4, 0
rewritten: lhu a5, 0(a0); lhu a6, 0(a1); beq a5, a6, same; or a4, a4, a3
same: addi a0, a0, 2; addi a1, a1, 2; slli a3, a3, 1; bnez a3, rewritten
    sd a4, 0(s2); addi s2, s2, 8; li a3, 1; li a4, 0; bltu a1, a2, rewritten
    addi s1, s1, {RECORD_BYTES}; sd s1, {CTX_OUT}(s5)
    ld t0, {CTX_IN}(s5); addi t0, t0, {RECORD_BYTES}; sd t0, {CTX_IN}(s5)
    j next
finished:
    csrr t0, mhartid; beqz t0, last
parked: wfi; j parked
last:
    li t0, {FINISHER}; li t1, 0x5555; sw t1, 0(t0)
    j last
"""


@dataclass
class Start:
    """The state a sequence starts from, and its code, the last instruction being an ``ecall`` that ends it."""

    code: bytes
    x: list[int]
    f: list[int]
    fcsr: int
    mstatus: int
    satp: int = 0
    menvcfg: int = 0
    medeleg: int = 0
    ptes: list[int] = field(default_factory=lambda: [0] * N_PTES)
    #: bits of a vector register; 0: the machine has none
    vlen: int = 0
    #: a superpage: the address of a PTE on a level above the last, and the leaf in its place; 0: none
    leaf_at: int = 0
    leaf: int = 0

    def pack(self) -> bytes:
        assert len(self.code) <= SUPERVISOR_HANDLER - CODE
        head = struct.pack("<32Q32Q", self.mstatus, *self.x[1:], *self.f)
        last = CODE + len(self.code) - 4
        head += struct.pack("<13Q", self.fcsr, last, self.satp, self.menvcfg, *self.ptes, self.medeleg)
        head += struct.pack("<2Q", self.leaf_at, self.leaf)
        code = self.code.ljust(SUPERVISOR_HANDLER - CODE, b"\0") + _HANDLER
        return (head.ljust(IN_CODE, b"\0") + code).ljust(RECORD_BYTES, b"\0")


def _tables() -> bytes:
    """Levels 1 to 4: each leads to the one below at the arena's index."""
    out = bytearray(TABLE_BYTES)
    for level in range(1, 5):
        index = ARENA >> (12 + 9 * level) & 511
        pte = (TABLES + 0x1000 * (level - 1)) >> 12 << 10 | 1
        struct.pack_into("<Q", out, 0x1000 * level + 8 * index, pte)
    return bytes(out)


_HANDLER, _ = assemble(
    """csrrw x31, sscratch, x31; csrr x31, sepc; addi x31, x31, 4; csrw sepc, x31
    csrrw x31, sscratch, x31; sret""",
    SUPERVISOR_HANDLER,
)


@cache
def _code(vlen: int) -> bytes:
    code, _ = assemble(_source(vlen), BASE)
    assert len(code) <= CTX - BASE
    return code


def vlen_of(starts: Sequence[Start]) -> int:
    """Return the VLEN of the machine that all of these sequences ask for; 0: one without vectors."""
    (vlen,) = {start.vlen for start in starts} or {0}
    return vlen


def image(starts: list[Start], template: bytes, patience: int, harts: int = 1) -> bytes:
    """Return the contents of RAM, from its start, for a run of these sequences.

    Args:
        patience: of the watchdog, in ticks of 100 ns.
        harts: among which the sequences are shared out, in equal parts; all have the one arena and its page tables.
    """
    assert len(starts) <= MAX_SEQUENCES and len(template) == ARENA_BYTES
    size = RECORDS_IN - BASE + RECORD_BYTES * len(starts)
    out = bytearray(size)
    code = _code(vlen_of(starts))
    out[: len(code)] = code
    each = len(starts) // harts
    for hart in range(harts):
        at = RECORD_BYTES * each * hart
        ctx = CTX - BASE + CTX_BYTES * hart
        struct.pack_into("<6Q", out, ctx, RECORDS_IN + at, RECORDS_OUT + at, each, 0, 0, patience)
    out[TEMPLATE - BASE : TEMPLATE - BASE + ARENA_BYTES] = template
    out[TABLES - BASE : TABLES - BASE + TABLE_BYTES] = _tables()
    for i, start in enumerate(starts):
        at = RECORDS_IN - BASE + RECORD_BYTES * i
        out[at : at + RECORD_BYTES] = start.pack()
    return bytes(out)


@dataclass(frozen=True)
class Outcome:
    """What a sequence left behind."""

    status: str
    fields: dict[str, int]
    rewritten: int  # a bit for each 2 bytes of the code that are no longer what they were

    @classmethod
    def unpack(cls, record: bytes) -> Outcome:
        words = struct.unpack("<128Q", record)
        at = {f"x{i}": words[i] for i in range(1, 32)}
        at |= {f"f{i}": words[OUT_F // 8 + i] for i in range(32)}
        at |= {"fcsr": words[OUT_FCSR // 8], "arena": words[OUT_ARENA // 8], "traps": words[OUT_TRAPS // 8]}
        at["mstatus"] = words[OUT_MSTATUS // 8] & STATUS_MASK
        at |= {name: words[OUT_VECTOR // 8 + i] for i, name in enumerate(("v", *VCSRS))}
        at |= {name: words[OUT_SCSRS // 8 + i] for i, name in enumerate(SCSRS)}
        at |= {f"pte{i}": words[OUT_PTES // 8 + i] for i in range(N_PTES)}
        at["leaf"] = words[OUT_LEAF // 8]
        for i in range(LOGGED_TRAPS):
            for k, name in enumerate(("cause", "epc", "tval", "status")):
                at[f"trap{i}.{name}"] = words[OUT_LOG // 8 + 4 * i + k]
        at["trap digest"] = words[OUT_TRAP_DIGEST // 8]
        rewritten = sum(words[OUT_REWRITTEN // 8 + i] << 64 * i for i in range(REWRITTEN_WORDS))
        return cls(STATUSES[words[OUT_STATUS // 8]], at, rewritten & (1 << MAX_CODE_BYTES // 2) - 1)


def outcomes(records: bytes) -> list[Outcome]:
    """Decode the records from RECORDS_OUT on."""
    step = RECORD_BYTES
    return [Outcome.unpack(records[i : i + step]) for i in range(0, len(records), step)]
