"""Names of riscv64's registers as people and gdb write them, and their groups; data alone."""

from __future__ import annotations

#: ABI names of x0..x31, as gdb lists them.
ABI_X = (
    *("zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "fp", "s1"),
    *(f"a{i}" for i in range(8)),
    *(f"s{i}" for i in range(2, 12)),
    *(f"t{i}" for i in range(3, 7)),
)
#: ABI names of f0..f31.
ABI_F = (
    *(f"ft{i}" for i in range(8)),
    *("fs0", "fs1"),
    *(f"fa{i}" for i in range(8)),
    *(f"fs{i}" for i in range(2, 12)),
    *(f"ft{i}" for i in range(8, 12)),
)

#: CSR numbers. SPEC: privileged 1.12, tables 2.2 to 2.6
CSRS: dict[str, int] = {
    "fflags": 0x001,
    "frm": 0x002,
    "fcsr": 0x003,
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
    **{f"pmpcfg{i}": 0x3A0 + i for i in (0, 2)},
    **{f"pmpaddr{i}": 0x3B0 + i for i in range(16)},
    "mcycle": 0xB00,
    "minstret": 0xB02,
    "cycle": 0xC00,
    "time": 0xC01,
    "instret": 0xC02,
    "mvendorid": 0xF11,
    "marchid": 0xF12,
    "mimpid": 0xF13,
    "mhartid": 0xF14,
}

#: The CSRs that ``info registers csr`` shows first: what a kernel person looks at.
CSR_GROUP = (
    *(
        "sstatus",
        "sie",
        "sip",
        "stvec",
        "sepc",
        "scause",
        "stval",
        "sscratch",
        "satp",
        "stimecmp",
        "scounteren",
    ),
    *(
        "senvcfg",
        "mstatus",
        "mie",
        "mip",
        "mtvec",
        "mepc",
        "mcause",
        "mtval",
        "mscratch",
        "medeleg",
        "mideleg",
    ),
    *("mcounteren", "menvcfg", "fflags", "frm", "cycle", "time", "instret"),
)

PRIVILEGES = {0: "U", 1: "S", 3: "M"}

_CANONICAL = {
    **{name: f"x{i}" for i, name in enumerate(ABI_X)},
    **{name: f"f{i}" for i, name in enumerate(ABI_F)},
    "s0": "x8",
}


def canonical(name: str) -> str:
    """Return the engine's name of a register: ``a0`` is ``x10``, ``$ft0`` is ``f0``; others stay."""
    name = name.removeprefix("$").lower()
    return _CANONICAL.get(name, name)


def abi_name(name: str) -> str:
    """Return the name that listings have: ``x10`` is ``a0``; others stay."""
    if name[:1] in ("x", "f") and name[1:].isdecimal() and int(name[1:]) < 32:
        return (ABI_X if name[0] == "x" else ABI_F)[int(name[1:])]
    return name
