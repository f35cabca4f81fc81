"""A hart with vectors for tests of single instructions, and encodings of vector instructions by their names."""

from __future__ import annotations

from fractions import Fraction
from functools import cache

from machine.tcg.decodetree import Pattern
from tests.differential.items import patterns, put
from tests.machine.tcg.riscv.onestep import OneStep
from tests.machine.tcg.riscv.vectormodel import Machine

VS, FS = 3 << 9, 3 << 13
LMULS = {Fraction(1, 8): 5, Fraction(1, 4): 6, Fraction(1, 2): 7, Fraction(1): 0, Fraction(2): 1, Fraction(4): 2,
         Fraction(8): 3}  # fmt: skip
VILL = 1 << 63


@cache
def find(mnemonic: str) -> Pattern:
    """Return the table's line of this name. Of accesses to segments ``N`` stands for the number of fields."""
    (p,) = (p for p in patterns() if p.extension == "V" and p.mnemonic == mnemonic)
    return p


def encode(mnemonic: str, **arguments: int) -> int:
    """Return an encoding; what is not given is 0, vm 1."""
    p = find(mnemonic)
    word = p.match
    for name in p.args.kinds:
        word = put(p, word, name, arguments.get(name, 1 if name in ("vm", "nf") else 0))
    return word


def vtype(sew: int, lmul: Fraction = Fraction(1)) -> int:
    return LMULS[lmul] | {8: 0, 16: 1, 32: 2, 64: 3}[sew] << 3


class VectorStep(OneStep):
    """A ``OneStep`` in M-mode with FS and VS on.

    Args:
        vlen: bits of a vector register.
    """

    def __init__(self, backend: str = "jit", vlen: int = 128) -> None:
        super().__init__(backend, features={"v": 1, "vlen": vlen})
        self.vlenb = vlen // 8
        self["mstatus"] = VS | FS

    def configure(self, sew: int, lmul: Fraction = Fraction(1), vl: int = -1) -> int:
        """Set vtype, and vl (-1: VLMAX); return vl."""
        self[11] = vl & (1 << 64) - 1
        assert self.step(encode("vsetvli", rd=10, rs1=11, zimm=vtype(sew, lmul))) is None
        return self[10]

    def set_file(self, data: bytes) -> None:
        for i in range(32):
            self.engine.set_reg(
                0, f"v{i}", int.from_bytes(data[i * self.vlenb : (i + 1) * self.vlenb], "little")
            )

    def file(self) -> bytes:
        return b"".join(self[f"v{i}"].to_bytes(self.vlenb, "little") for i in range(32))

    def load(self, m: Machine) -> None:
        """Put a model's state into the hart."""
        assert self.configure(m.sew, m.lmul, m.vl) == m.vl
        self.set_file(bytes(m.v))
        self["vstart"], self["vcsr"] = m.vstart, m.vxrm << 1 | m.vxsat
