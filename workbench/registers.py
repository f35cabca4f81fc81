"""Names of riscv64's registers as people write them, over the architecture's data; what listings show first."""

from __future__ import annotations

from machine.arch.riscv64 import CANONICAL, CSR_NUMBERS, F_NAMES, X_NAMES

#: Names of x0..x31 and f0..f31, by number.
ABI_X = X_NAMES
ABI_F = F_NAMES
#: CSR numbers by name.
CSRS = CSR_NUMBERS

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


def canonical(name: str) -> str:
    """Return the engine's name of a register: ``a0`` is ``x10``, ``$ft0`` is ``f0``; others stay."""
    name = name.removeprefix("$").lower()
    return CANONICAL.get(name, name)


def abi_name(name: str) -> str:
    """Return the name that listings have: ``x10`` is ``a0``; others stay."""
    if name[:1] in ("x", "f") and name[1:].isdecimal() and int(name[1:]) < 32:
        return (ABI_X if name[0] == "x" else ABI_F)[int(name[1:])]
    return name
