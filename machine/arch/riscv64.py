"""riscv64 as data: register names and roles, gdb's numbering, causes of traps, fields of CSRs, page tables.

Spec: RISC-V privileged 1.12; psABI 1.0, chapter 1; gdb's target descriptions for RISC-V
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

#: ABI names of x0 to x31 and f0 to f31, by number. gdb calls x8 "fp", as here; "s0" is the same register.
X_NAMES = tuple(
    "zero ra sp gp tp t0 t1 t2 fp s1 a0 a1 a2 a3 a4 a5 a6 a7 "
    "s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6".split()
)
F_NAMES = tuple(
    "ft0 ft1 ft2 ft3 ft4 ft5 ft6 ft7 fs0 fs1 fa0 fa1 fa2 fa3 fa4 fa5 fa6 fa7 "
    "fs2 fs3 fs4 fs5 fs6 fs7 fs8 fs9 fs10 fs11 ft8 ft9 ft10 ft11".split()
)
#: The engine's name of every name that people use.
CANONICAL: Mapping[str, str] = MappingProxyType(
    {abi: f"x{i}" for i, abi in enumerate(X_NAMES)}
    | {abi: f"f{i}" for i, abi in enumerate(F_NAMES)}
    | {"s0": "x8"}
)


@dataclass(frozen=True, slots=True)
class Roles:
    """Which registers play the parts that debuggers and tracers ask for, by the engine's names."""

    pc: str = "pc"
    sp: str = "x2"
    ra: str = "x1"
    fp: str = "x8"
    args: tuple[str, ...] = tuple(f"x{i}" for i in range(10, 18))
    ret: str = "x10"
    syscall_number: str = "x17"
    syscall_args: tuple[str, ...] = tuple(f"x{i}" for i in range(10, 16))
    thread: str = "x4"


ROLES = Roles()

#: CSR numbers. SPEC: privileged 1.12, tables 2.2 to 2.6
CSR_NUMBERS: Mapping[str, int] = MappingProxyType(
    {
        "fflags": 0x001,
        "frm": 0x002,
        "fcsr": 0x003,
        "vstart": 0x008,
        "vxsat": 0x009,
        "vxrm": 0x00A,
        "vcsr": 0x00F,
        "sstatus": 0x100,
        "sie": 0x104,
        "stvec": 0x105,
        "scounteren": 0x106,
        "senvcfg": 0x10A,
        "sscratch": 0x140,
        "sepc": 0x141,
        "scause": 0x142,
        "stval": 0x143,
        "sip": 0x144,
        "stimecmp": 0x14D,
        "satp": 0x180,
        "mstatus": 0x300,
        "misa": 0x301,
        "medeleg": 0x302,
        "mideleg": 0x303,
        "mie": 0x304,
        "mtvec": 0x305,
        "mcounteren": 0x306,
        "menvcfg": 0x30A,
        "mcountinhibit": 0x320,
        "mscratch": 0x340,
        "mepc": 0x341,
        "mcause": 0x342,
        "mtval": 0x343,
        "mip": 0x344,
        "pmpcfg0": 0x3A0,
        "pmpcfg2": 0x3A2,
        **{f"pmpaddr{i}": 0x3B0 + i for i in range(16)},
        "mcycle": 0xB00,
        "minstret": 0xB02,
        "cycle": 0xC00,
        "time": 0xC01,
        "instret": 0xC02,
        "vl": 0xC20,
        "vtype": 0xC21,
        "vlenb": 0xC22,
        "mvendorid": 0xF11,
        "marchid": 0xF12,
        "mimpid": 0xF13,
        "mhartid": 0xF14,
        "mconfigptr": 0xF15,
    }
)


@dataclass(frozen=True, slots=True)
class GdbRegister:
    """A register as a target description has it: gdb's name and number, and the engine's name."""

    name: str
    number: int
    engine: str
    bits: int
    type: str
    group: str


#: gdb's number of v0.
V0_NUMBER = 4162
#: The type of a vector register, which its feature defines.
VECTOR_TYPE = "riscv_vector"


def gdb_vector_fields(bits: int) -> list[tuple[str, str, int]]:
    """Return the views of a vector register of so many bits: a field's name, the type of its elements, how many."""
    widths = ((8, "b"), (16, "s"), (32, "w"), (64, "l"), (128, "q"))
    return [(name, f"uint{width}", bits // width) for width, name in widths]


def gdb_features(known: Callable[[str], bool], vector_bits: int = 0) -> dict[str, list[GdbRegister]]:
    """Return the features of a target description, each with its registers in order.

    Args:
        known: tells whether the engine has a register of this name; x0, which it has not, is always listed.
        vector_bits: of a vector register, 0 where there are none.
    """
    cpu = [
        GdbRegister(
            name,
            i,
            f"x{i}",
            64,
            {1: "code_ptr", 2: "data_ptr", 3: "data_ptr", 4: "data_ptr", 8: "data_ptr"}.get(i, "int"),
            "general",
        )
        for i, name in enumerate(X_NAMES)
    ]
    cpu.append(GdbRegister("pc", 32, "pc", 64, "code_ptr", "general"))
    fpu = [GdbRegister(name, 33 + i, f"f{i}", 64, "ieee_double", "float") for i, name in enumerate(F_NAMES)]
    in_fpu = ("fflags", "frm", "fcsr")
    csrs = sorted((number, name) for name, number in CSR_NUMBERS.items() if known(name))
    fpu += [GdbRegister(name, 65 + n, name, 32, "int", "float") for n, name in csrs if name in in_fpu]
    system = [GdbRegister(name, 65 + n, name, 64, "int", "csr") for n, name in csrs if name not in in_fpu]
    vectors = [
        GdbRegister(f"v{i}", V0_NUMBER + i, f"v{i}", vector_bits, VECTOR_TYPE, "vector") for i in range(32)
    ]
    return {
        "org.gnu.gdb.riscv.cpu": cpu,
        "org.gnu.gdb.riscv.fpu": fpu,
        "org.gnu.gdb.riscv.csr": system,
        "org.gnu.gdb.riscv.virtual": [GdbRegister("priv", 4161, "priv", 8, "int", "general")],
        **({"org.gnu.gdb.riscv.vector": vectors} if vector_bits else {}),
    }


#: Causes of traps by their code. SPEC: privileged 1.12, table 3.6
EXCEPTIONS: Mapping[int, str] = MappingProxyType(
    {
        0: "instruction address misaligned",
        1: "instruction access fault",
        2: "illegal instruction",
        3: "breakpoint",
        4: "load address misaligned",
        5: "load access fault",
        6: "store address misaligned",
        7: "store access fault",
        8: "environment call from U-mode",
        9: "environment call from S-mode",
        11: "environment call from M-mode",
        12: "instruction page fault",
        13: "load page fault",
        15: "store page fault",
    }
)
INTERRUPTS: Mapping[int, str] = MappingProxyType(
    {
        1: "supervisor software interrupt",
        3: "machine software interrupt",
        5: "supervisor timer interrupt",
        7: "machine timer interrupt",
        9: "supervisor external interrupt",
        11: "machine external interrupt",
    }
)
PRIVILEGES: Mapping[int, str] = MappingProxyType({0: "U", 1: "S", 3: "M"})


def cause_name(cause: int) -> str:
    """Return what a value of ``scause`` or ``mcause`` (64 bits) means, in words."""
    code = cause & ~(1 << 63)
    names = INTERRUPTS if cause >> 63 else EXCEPTIONS
    return names.get(code, f"{'interrupt' if cause >> 63 else 'exception'} {code}")


@dataclass(frozen=True, slots=True)
class CsrField:
    """A bit field of a CSR; ``values`` names what its values mean, 0 among them if that is worth telling."""

    name: str
    lo: int
    bits: int = 1
    values: Mapping[int, str] | None = None


_FS = MappingProxyType({0: "Off", 1: "Initial", 2: "Clean", 3: "Dirty"})
_VS = MappingProxyType({1: "Initial", 2: "Clean", 3: "Dirty"})
_SEW = MappingProxyType({0: "e8", 1: "e16", 2: "e32", 3: "e64"})
_LMUL = MappingProxyType({0: "m1", 1: "m2", 2: "m4", 3: "m8", 5: "mf8", 6: "mf4", 7: "mf2"})
_VXRM = MappingProxyType({0: "rnu", 1: "rne", 2: "rdn", 3: "rod"})
_MODE = MappingProxyType({0: "Bare", 8: "Sv39", 9: "Sv48", 10: "Sv57"})
_TVEC = MappingProxyType({0: "Direct", 1: "Vectored"})
_RM = MappingProxyType({0: "RNE", 1: "RTZ", 2: "RDN", 3: "RUP", 4: "RMM"})
_SSTATUS = (
    *(CsrField("SIE", 1), CsrField("SPIE", 5), CsrField("UBE", 6)),
    *(
        CsrField("SPP", 8, 1, MappingProxyType({0: "U", 1: "S"})),
        CsrField("VS", 9, 2, _VS),
        CsrField("FS", 13, 2, _FS),
    ),
    *(
        CsrField("XS", 15, 2),
        CsrField("SUM", 18),
        CsrField("MXR", 19),
        CsrField("UXL", 32, 2),
        CsrField("SD", 63),
    ),
)
_MSTATUS = (
    *(CsrField("MIE", 3), CsrField("MPIE", 7), CsrField("MPP", 11, 2, PRIVILEGES), CsrField("MPRV", 17)),
    *(CsrField("TVM", 20), CsrField("TW", 21), CsrField("TSR", 22), CsrField("SXL", 34, 2)),
)
_S_IRQS = (CsrField("SSI", 1), CsrField("STI", 5), CsrField("SEI", 9))
_M_IRQS = (CsrField("MSI", 3), CsrField("MTI", 7), CsrField("MEI", 11))
_CAUSE = (CsrField("code", 0, 63), CsrField("interrupt", 63))
_COUNTERS = (CsrField("CY", 0), CsrField("TM", 1), CsrField("IR", 2))
_ENVCFG = (CsrField("FIOM", 0),)

CSR_FIELDS: Mapping[str, tuple[CsrField, ...]] = MappingProxyType(
    {
        "sstatus": _SSTATUS,
        "mstatus": tuple(sorted(_SSTATUS + _MSTATUS, key=lambda f: f.lo)),
        "sie": _S_IRQS,
        "sip": _S_IRQS,
        **dict.fromkeys(("mie", "mip", "mideleg"), tuple(sorted(_S_IRQS + _M_IRQS, key=lambda f: f.lo))),
        **dict.fromkeys(("scause", "mcause"), _CAUSE),
        **dict.fromkeys(("stvec", "mtvec"), (CsrField("mode", 0, 2, _TVEC), CsrField("base", 2, 62))),
        "vtype": (
            *(CsrField("LMUL", 0, 3, _LMUL), CsrField("SEW", 3, 3, _SEW)),
            *(CsrField("VTA", 6), CsrField("VMA", 7), CsrField("VILL", 63)),
        ),
        "vcsr": (CsrField("VXSAT", 0), CsrField("VXRM", 1, 2, _VXRM)),
        "satp": (CsrField("PPN", 0, 44), CsrField("ASID", 44, 16), CsrField("MODE", 60, 4, _MODE)),
        "fcsr": (
            *(CsrField(name, i) for i, name in enumerate(("NX", "UF", "OF", "DZ", "NV"))),
            CsrField("RM", 5, 3, _RM),
        ),
        **dict.fromkeys(("mcounteren", "scounteren", "mcountinhibit"), _COUNTERS),
        "senvcfg": _ENVCFG,
        "menvcfg": (*_ENVCFG, CsrField("ADUE", 61), CsrField("STCE", 63)),
    }
)


def describe_csr(name: str, value: int) -> str:
    """Return a CSR's fields that are not zero, from the high to the low, as text; empty when it has none."""
    words = []
    for field in reversed(CSR_FIELDS.get(name, ())):
        got = value >> field.lo & ((1 << field.bits) - 1)
        if field.values is not None and (got or 0 in field.values):
            words.append(f"{field.name}={field.values.get(got, got)}")
        elif field.values is None and got:
            words.append(field.name if field.bits == 1 else f"{field.name}={got:#x}")
    return " ".join(words)


@dataclass(frozen=True, slots=True)
class WalkStep:
    """One level of a page-table walk: the entry's guest-physical address, value, and flags as letters."""

    level: int
    entry_paddr: int
    entry: int
    flags: str


PAGE_BITS = 12
LEVELS: Mapping[int, int] = MappingProxyType({8: 3, 9: 4, 10: 5})


def walk(satp: int, vaddr: int, read_u64: Callable[[int], int]) -> tuple[int | None, list[WalkStep]]:
    """Walk the page table for a debugger; sets no bits, checks no permissions.

    Args:
        satp: the root, as the CSR holds it.
        vaddr: any virtual address.
        read_u64: reads guest-physical memory; may raise ValueError where there is none.

    Returns:
        The paddr, or None when the address is not mapped, and the levels that were visited.

    Spec: privileged 1.12, 4.3 to 4.5. Replay: outside of it.
    """
    mode = satp >> 60
    if mode == 0:
        return vaddr, []
    levels = LEVELS.get(mode)
    if levels is None:
        return None, []
    bits = PAGE_BITS + 9 * levels
    if (vaddr & ((1 << 64) - 1)) >> (bits - 1) not in (0, (1 << (65 - bits)) - 1):
        return None, []
    steps: list[WalkStep] = []
    table = (satp & ((1 << 44) - 1)) << PAGE_BITS
    for level in range(levels - 1, -1, -1):
        shift = PAGE_BITS + 9 * level
        at = table + 8 * (vaddr >> shift & 0x1FF)
        try:
            entry = read_u64(at)
        except ValueError:
            return None, steps
        flags = "".join(letter if entry >> i & 1 else "-" for i, letter in enumerate("VRWXUGAD"))
        steps.append(WalkStep(level, at, entry, flags))
        target = (entry >> 10 & ((1 << 44) - 1)) << PAGE_BITS
        if not entry & 1 or (entry & 6) == 4:
            return None, steps
        if entry & 0xA:
            low = (1 << shift) - 1
            return (None if target & low else target | vaddr & low), steps
        table = target
    return None, steps
