"""The registers of the guest as gdb knows them, from the architecture's data, and the XML that tells them."""

from __future__ import annotations

from collections.abc import Iterable
from xml.sax.saxutils import quoteattr

from machine.arch.riscv64 import VECTOR_TYPE, GdbRegister, gdb_features, gdb_vector_fields

ARCHITECTURE = "riscv:rv64"
#: What lldb wants to be told of, beside names; gdb leaves the attribute alone.
_ROLES = {"pc": "pc", "sp": "sp", "fp": "fp", "ra": "ra"} | {f"a{i}": f"arg{i + 1}" for i in range(8)}
#: gdb's number of the first CSR; the registers before it make up a ``g`` reply.
CSR_NUMBER = 65


class Target:
    """The register set of one machine.

    Args:
        known: the engine's register names; what is not among them is not shown.
        vector_bits: of a vector register, 0 where there are none.
    """

    def __init__(self, known: Iterable[str], vector_bits: int = 0) -> None:
        names = frozenset(known)
        self._features = gdb_features(lambda name: name in names, vector_bits)
        registers = [register for feature in self._features.values() for register in feature]
        self.by_number = {register.number: register for register in registers}
        #: The registers of a ``g`` reply, a prefix of all in the order of their numbers.
        self.general = tuple(
            self.by_number[number] for number in sorted(self.by_number) if number < CSR_NUMBER
        )

    def document(self, annex: str) -> bytes | None:
        """Return ``target.xml`` or one of the documents that it includes, None for any other name."""
        if annex == "target.xml":
            includes = "".join(f'  <xi:include href="{_annex(name)}"/>\n' for name in self._features)
            return (
                '<?xml version="1.0"?>\n<!DOCTYPE target SYSTEM "gdb-target.dtd">\n'
                '<target version="1.0" xmlns:xi="http://www.w3.org/2001/XInclude">\n'
                f"  <architecture>{ARCHITECTURE}</architecture>\n{includes}</target>\n"
            ).encode()
        for name, registers in self._features.items():
            if annex == _annex(name):
                return (
                    '<?xml version="1.0"?>\n<!DOCTYPE feature SYSTEM "gdb-target.dtd">\n'
                    f"<feature name={quoteattr(name)}>\n{_types(registers)}{''.join(map(_line, registers))}"
                    "</feature>\n"
                ).encode()
        return None


def encode(register: GdbRegister, value: int) -> bytes:
    """Return a register's value as the protocol has it: hex, little endian."""
    size = register.bits // 8
    return (value & (1 << register.bits) - 1).to_bytes(size, "little").hex().encode()


def _annex(feature: str) -> str:
    return f"riscv-64bit-{feature.rpartition('.')[2]}.xml"


def _types(registers: list[GdbRegister]) -> str:
    """Return the definition of a vector register's type, where there are any."""
    wide = next((register for register in registers if register.type == VECTOR_TYPE), None)
    if wide is None:
        return ""
    fields = gdb_vector_fields(wide.bits)
    vectors = "".join(
        f'  <vector id="{type_}s" type="{type_}" count="{count}"/>\n' for _, type_, count in fields
    )
    views = "".join(f'<field name="{name}" type="{type_}s"/>' for name, type_, _ in fields)
    return f'{vectors}  <union id="{VECTOR_TYPE}">{views}</union>\n'


def _line(register: GdbRegister) -> str:
    role = _ROLES.get(register.name)
    generic = f' generic="{role}"' if role else ""
    return (
        f'  <reg name={quoteattr(register.name)} bitsize="{register.bits}" type={quoteattr(register.type)} '
        f'regnum="{register.number}" group={quoteattr(register.group)}{generic}/>\n'
    )
