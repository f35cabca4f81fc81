"""Loaded kernel modules: where they lie, and their symbols, from the tables that the kernel keeps for its messages.

Spec: Linux, include/linux/module.h; ELF, symbol table
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from workbench.symbols import Symbol, table_symbols

from .errors import KernelError

if TYPE_CHECKING:
    from .linux import Kernel

_MAX_MODULES: Final = 4096
#: RISC-V's modules have a label for each relocation.
_MAX_SYMBOLS: Final = 2_000_000
_MAX_NAMES: Final = 64 << 20
_ENTRY_BYTES: Final = 24
_POINTER_BYTES: Final = 8
_MAX_SECTIONS: Final = 1000
_MAX_NAME: Final = 256
#: MODULE_STATE_LIVE: what it began with is freed.
_LIVE: Final = 0


class Module(NamedTuple):
    """A module: its name, address and bytes of its code, and where its ``struct module`` is."""

    name: str
    base: int
    size: int
    at: int


def modules(kernel: Kernel) -> Iterator[Module]:
    """Yield loaded modules, the youngest first. Raises KernelError: the list can't be read."""
    types, memory, head = kernel.types, kernel.memory, kernel.symbol("modules")
    list_at, name_at = types.offset("module", "list"), types.offset("module", "name")
    # the first of a module's memories holds its code
    code_at = types.offset("module", "mem")
    base_at, size_at = (code_at + types.offset("module_memory", name) for name in ("base", "size"))
    node = memory.word(head)
    for _ in range(_MAX_MODULES):
        if node in (head, 0):
            return
        at = node - list_at
        yield Module(
            memory.text(at + name_at, 64), memory.word(at + base_at), memory.word(at + size_at, 4), at
        )
        node = memory.word(node)


def module_symbols(kernel: Kernel, module: Module) -> list[Symbol]:
    """Return the symbols of a module. Raises KernelError: its table can't be read."""
    types, memory = kernel.types, kernel.memory
    table = memory.word(module.at + types.offset("module", "kallsyms"))
    if not table:
        return []
    # the names end where a letter for each symbol begins
    symbols, names, letters = (
        memory.word(table + types.offset("mod_kallsyms", field)) for field in ("symtab", "strtab", "typetab")
    )
    count = memory.word(table + types.offset("mod_kallsyms", "num_symtab"), 4)
    if count > _MAX_SYMBOLS or not 0 <= letters - names <= _MAX_NAMES:
        raise KernelError(f"module {module.name}: its symbols' table is damaged: {count} symbols")
    return list(
        table_symbols(memory.read(symbols, _ENTRY_BYTES * count), memory.read(names, letters - names))
    )


def module_sections(kernel: Kernel, module: Module) -> dict[str, int]:
    """Return where a module's sections lie, by name; those that the kernel has freed since are not among them.

    Raises:
        KernelError: the kernel does not keep them (CONFIG_SYSFS, CONFIG_KALLSYMS), or the table can't be read.

    Spec: Linux, kernel/module/sysfs.c
    """
    types, memory = kernel.types, kernel.memory
    table = memory.word(module.at + types.offset("module", "sect_attrs"))
    if not table:
        return {}
    name_at, address_at = types.offset("bin_attribute", "attr.name"), _address_at(kernel)
    row = memory.word(table + types.offset("module_sect_attrs", "grp.bin_attrs"))
    live = memory.word(module.at + types.offset("module", "state"), 4) == _LIVE
    out: dict[str, int] = {}
    for at in range(row, row + _MAX_SECTIONS * _POINTER_BYTES, _POINTER_BYTES):
        attribute = memory.word(at)
        if not attribute:
            return out
        name = memory.text(memory.word(attribute + name_at), _MAX_NAME)
        if not (live and name.startswith(".init")):
            out.setdefault(name, memory.word(attribute + address_at))
    raise KernelError(f"module {module.name}: its sections' table is damaged: {_MAX_SECTIONS} and no end")


def _address_at(kernel: Kernel) -> int:
    """Return the offset of a section's address from its attribute: in that from Linux 6.14 on, beside it before."""
    types = kernel.types
    try:
        types.find("struct module_sect_attr")
    except KernelError:
        return types.offset("bin_attribute", "private")
    return types.offset("module_sect_attr", "address") - types.offset("module_sect_attr", "battr")
