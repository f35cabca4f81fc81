"""Every CSR there is, and what a write leaves in it. SPEC: privileged 1.12, chapters 2 to 4.

A row says what the specification leaves to the implementation as this machine chose it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

ALL = (1 << 64) - 1
XLEN64 = 2 << 32 | 2 << 34  # mstatus.UXL and SXL
S_IRQS, M_IRQS = 0x2222, 0x888
STCE, PBMTE, ADUE = 1 << 63, 1 << 62, 1 << 61
SSTATUS = 1 << 1 | 1 << 5 | 1 << 8 | 3 << 13 | 1 << 18 | 1 << 19
MSTATUS = SSTATUS | 1 << 3 | 1 << 7 | 3 << 11 | 1 << 17 | 7 << 20
LOCKS = 0x8080_8080_8080_8080

Write = Callable[[int, int], int]


@dataclass(frozen=True)
class Row:
    """A CSR.

    Args:
        write: what it reads behind a write, of what it held and of what was written; None: it is read-only, or what is
            written goes nowhere.
        avoid: bits that a test of it in M-mode cannot set and live.
        volatile: it counts, so its value is tested elsewhere.
        gate: beside its privilege: the CSR and bit that S-mode asks for.
    """

    name: str
    write: Write | None = None
    avoid: int = 0
    volatile: bool = False
    gate: tuple[int, int] | None = None


def bits(mask: int, fixed: int = 0) -> Write:
    return lambda old, value: value & mask | fixed


def _status(mask: int, fixed: int) -> Write:
    def write(old: int, value: int) -> int:
        if value >> 11 & 3 == 2:
            value &= ~(3 << 11)  # 3.1.6.1: there is no such mode
        return value & mask | fixed | (1 << 63 if value >> 13 & 3 == 3 else 0)

    return write


def _vector(old: int, value: int) -> int:
    return value & ~3 | old & 3 if value & 2 else value  # 3.1.7


def _envcfg(mask: int) -> Write:
    def write(old: int, value: int) -> int:
        keep = 3 << 4 if value >> 4 & 3 == 2 else 0  # CMO: 2 is reserved
        return value & mask & ~keep | old & keep

    return write


def _satp(old: int, value: int) -> int:
    return value if value >> 60 in (0, 8, 9, 10) else old  # 4.1.11


def _pmpcfg(old: int, value: int) -> int:
    out = 0
    for i in range(0, 64, 8):
        entry = value >> i & 0x9F
        out |= (entry & ~7 if entry & 3 == 2 else entry) << i  # 3.7.1: W without R is reserved
    return out


def _tdata1(old: int, value: int) -> int:
    """Debug 1.0, 5.7.11 and 5.7.12: address matches with action 0, or disabled."""
    kind = value >> 60
    if kind not in (2, 6):
        return 15 << 60
    match = value >> 7 & 15
    out = kind << 60 | value & 0x5F | (match << 7 if match < 4 else 0)
    size = value >> 16 & 7 if kind == 6 else value >> 16 & 3 | (value >> 21 & 3) << 2
    if size in (1, 2, 3, 5) and not value & 4:
        out |= size << 16 if kind == 6 else (size & 3) << 16 | size >> 2 << 21
    return out | (value & 1 << 22 if kind == 6 else value & 1 << 20 | 63 << 53)


SEED = 0x015
ROWS: dict[int, Row] = {
    0x001: Row("fflags", bits(31)),
    0x002: Row("frm", bits(7)),
    0x003: Row("fcsr", bits(255)),
    0x100: Row("sstatus", _status(SSTATUS, 2 << 32)),
    0x104: Row("sie", bits(S_IRQS)),
    0x105: Row("stvec", _vector),
    0x106: Row("scounteren", bits(0xFFFF_FFFF)),
    0x10A: Row("senvcfg", _envcfg(0xF1), gate=(0x30C, 62)),
    **{0x10C + n: Row(f"sstateen{n}", bits(0), gate=(0x30C + n, 63)) for n in range(4)},
    0x140: Row("sscratch", bits(ALL)),
    0x141: Row("sepc", bits(ALL - 1)),
    0x142: Row("scause", bits(ALL)),
    0x143: Row("stval", bits(ALL)),
    0x144: Row("sip", bits(0x2002)),
    0x14D: Row("stimecmp", bits(ALL), gate=(0x306, 1)),
    0x180: Row("satp", _satp),
    0x300: Row("mstatus", _status(MSTATUS, XLEN64), avoid=1 << 3 | 1 << 17),
    0x301: Row("misa", bits(0, 2 << 62 | sum(1 << ord(c) - 97 for c in "abcdfimsu"))),
    0x302: Row("medeleg", bits(0xB3FF)),
    0x303: Row("mideleg", bits(S_IRQS)),
    0x304: Row("mie", bits(S_IRQS | M_IRQS)),
    0x305: Row("mtvec", _vector),
    0x306: Row("mcounteren", bits(0xFFFF_FFFF)),
    0x30A: Row("menvcfg", _envcfg(0xF1 | STCE | PBMTE | ADUE)),
    0x30C: Row("mstateen0", bits(3 << 62)),
    **{0x30C + n: Row(f"mstateen{n}", bits(1 << 63)) for n in (1, 2, 3)},
    0x320: Row("mcountinhibit", bits(5)),
    **{0x320 + n: Row(f"mhpmevent{n}", bits(0)) for n in range(3, 32)},
    0x340: Row("mscratch", bits(ALL)),
    0x341: Row("mepc", bits(ALL - 1)),
    0x342: Row("mcause", bits(ALL)),
    0x343: Row("mtval", bits(ALL)),
    0x344: Row("mip", bits(0x2202)),
    0x3A0: Row("pmpcfg0", _pmpcfg, avoid=LOCKS),
    0x3A2: Row("pmpcfg2", _pmpcfg, avoid=LOCKS),
    **{0x3B0 + n: Row(f"pmpaddr{n}", bits((1 << 54) - 1)) for n in range(16)},
    0x747: Row("mseccfg", bits(0x300)),
    0x7A0: Row("tselect", lambda old, value: value if value < 4 else old),
    0x7A1: Row("tdata1", _tdata1),
    0x7A2: Row("tdata2", bits(ALL)),
    0x7A3: Row("tdata3", bits(0)),
    0x7A4: Row("tinfo", bits(0, 1 << 24 | 1 << 2 | 1 << 6 | 1 << 15)),
    0x7A5: Row("tcontrol", bits(0x88)),
    0xB00: Row("mcycle", bits(ALL)),
    0xB02: Row("minstret", bits(ALL)),
    **{0xB00 + n: Row(f"mhpmcounter{n}", bits(0)) for n in range(3, 32)},
    0xC00: Row("cycle", volatile=True, gate=(0x306, 0)),
    0xC01: Row("time", volatile=True, gate=(0x306, 1)),
    0xC02: Row("instret", volatile=True, gate=(0x306, 2)),
    **{0xC00 + n: Row(f"hpmcounter{n}", gate=(0x306, n)) for n in range(3, 32)},
    0xDA0: Row("scountovf"),
    **{0xF11 + n: Row(name) for n, name in enumerate("mvendorid marchid mimpid mhartid mconfigptr".split())},
}

#: What QEMU 7.2 reads otherwise, and what says that it need not be so, or must not.
DEVIATIONS: dict[str, str] = {
    "sstatus": "keeps VS without V; 3.1.6.6 allows it",
    "mstatus": "keeps VS without V, and MPP = 2; 3.1.6.1: WARL, no such mode",
    "stvec": "a reserved mode writes nothing; WARL, 4.1.2",
    "mtvec": "the same, 3.1.7",
    "sepc": "keeps bit 0; 4.1.7: it is always 0",
    "scounteren": "keeps 64 bits; 4.1.5: it has 32",
    "mcounteren": "the same, 3.1.11",
    "senvcfg": "keeps the reserved CBIE = 2; WARL, Zicbom",
    "menvcfg": "has no ADUE; Svadu came later",
    "misa": "shows no B, which came later",
    "medeleg": "holds the hypervisor's causes and its calls; WARL, 3.1.8",
    "mideleg": "holds the hypervisor's interrupts; WARL",
    "mie": "the same",
    "mip": "the board's timer is pending at reset",
    "mcountinhibit": "keeps 64 bits; WARL, 3.1.12",
    "mseccfg": "SSEED is 0 at reset; scalar cryptography, 4.4: a defined value",
    "scountovf": "has no Sscofpmf",
    "marchid": "says who it is",
    "mimpid": "the same",
    **{f"{m}stateen{n}": "has no Smstateen" for m in "ms" for n in range(4)},
    **dict.fromkeys(("mepc", "mcause", "mtval"), "left over from the traps of CSRs that it lacks"),
    **{f"mhpmevent{n}": "keeps any event; WARL, 3.1.10" for n in range(3, 32)},
    **{f"mhpmcounter{n}": "counts; 3.1.10 allows zero" for n in range(3, 19)},
    **{f"{m}hpmcounter{n}": "has 16 of them; 3.1.10: all exist" for m in ("m", "") for n in range(19, 32)},
    **{f"pmpcfg{n}": "keeps bits 5 and 6 and W without R; 3.7.1: they are 0, and reserved" for n in (0, 2)},
    **{f"pmpaddr{n}": "keeps 64 bits; 3.7.1: it has 54" for n in range(16)},
}
