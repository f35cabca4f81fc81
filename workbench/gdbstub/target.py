"""The registers of riscv64 as gdb knows them: features, names, numbers, and the XML that tells them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from xml.sax.saxutils import quoteattr

from workbench.registers import ABI_F, ABI_X, CSRS

#: gdb's numbers: x0..x31 0..31, pc 32, f0..f31 33..64, CSR n 65 + n, the privilege mode behind all CSRs.
PC_NUMBER = 32
F_NUMBER = 33
CSR_NUMBER = 65
PRIV_NUMBER = CSR_NUMBER + 4096

CPU, FPU, CSR, VIRTUAL = "cpu", "fpu", "csr", "virtual"
#: Of the CSRs, gdb looks for these in the FPU's feature.
_FPU_CSRS = ("fflags", "frm", "fcsr")
_DOUBLE = (
    '  <union id="riscv_double">\n    <field name="float" type="ieee_single"/>\n'
    '    <field name="double" type="ieee_double"/>\n  </union>\n'
)


@dataclass(frozen=True)
class TargetRegister:
    """One register: gdb's number, name and type; ``source`` is the engine's name, empty for x0."""

    number: int
    name: str
    source: str
    bits: int
    type: str
    group: str
    feature: str

    def encode(self, value: int) -> bytes:
        """Return a value as the protocol has it: hex, little endian."""
        size = self.bits // 8
        return (value & (1 << self.bits) - 1).to_bytes(size, "little").hex().encode()


class Target:
    """The register set of one machine.

    Args:
        known: the engine's register names; a CSR that is not among them is not shown.
    """

    def __init__(self, known: Iterable[str]) -> None:
        names = frozenset(known)
        self.registers = tuple(sorted(_registers(names), key=lambda register: register.number))
        self.by_number = {register.number: register for register in self.registers}
        #: The registers of a ``g`` reply: a prefix of all in the order of their numbers.
        self.general = tuple(r for r in self.registers if r.number < CSR_NUMBER)

    def document(self, annex: str) -> bytes | None:
        """Return ``target.xml`` or one of the documents it includes, None for any other name."""
        features = sorted(
            {register.feature for register in self.registers}, key=(CPU, FPU, CSR, VIRTUAL).index
        )
        if annex == "target.xml":
            includes = "".join(f'  <xi:include href="riscv-64bit-{name}.xml"/>\n' for name in features)
            return (
                '<?xml version="1.0"?>\n<!DOCTYPE target SYSTEM "gdb-target.dtd">\n'
                '<target version="1.0" xmlns:xi="http://www.w3.org/2001/XInclude">\n'
                f"  <architecture>riscv:rv64</architecture>\n{includes}</target>\n"
            ).encode()
        for name in features:
            if annex == f"riscv-64bit-{name}.xml":
                return self._feature(name).encode()
        return None

    def _feature(self, feature: str) -> str:
        lines = "".join(_line(register) for register in self.registers if register.feature == feature)
        union = _DOUBLE if feature == FPU else ""
        return (
            '<?xml version="1.0"?>\n<!DOCTYPE feature SYSTEM "gdb-target.dtd">\n'
            f'<feature name="org.gnu.gdb.riscv.{feature}">\n{union}{lines}</feature>\n'
        )


def _line(register: TargetRegister) -> str:
    group = f" group={quoteattr(register.group)}" if register.group else ""
    return (
        f'  <reg name={quoteattr(register.name)} bitsize="{register.bits}" type={quoteattr(register.type)} '
        f'regnum="{register.number}"{group}/>\n'
    )


def _registers(names: frozenset[str]) -> Iterable[TargetRegister]:
    types = {"ra": "code_ptr", "sp": "data_ptr", "gp": "data_ptr", "tp": "data_ptr", "fp": "data_ptr"}
    for number, name in enumerate(ABI_X):
        source = f"x{number}" if number else ""
        yield TargetRegister(number, name, source, 64, types.get(name, "int"), "", CPU)
    yield TargetRegister(PC_NUMBER, "pc", "pc", 64, "code_ptr", "", CPU)
    if "f0" in names:
        for number, name in enumerate(ABI_F):
            yield TargetRegister(F_NUMBER + number, name, f"f{number}", 64, "riscv_double", "float", FPU)
    for name, number in CSRS.items():
        if name in names:
            in_fpu = name in _FPU_CSRS
            group, feature = ("float", FPU) if in_fpu else ("csr", CSR)
            bits, type_ = (32, "int") if in_fpu else (64, "int")
            yield TargetRegister(CSR_NUMBER + number, name, name, bits, type_, group, feature)
    if "priv" in names:
        yield TargetRegister(PRIV_NUMBER, "priv", "priv", 64, "int", "", VIRTUAL)
