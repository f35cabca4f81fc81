"""The kernel's list of a module's sections, in the forms that it has had, in a made-up memory."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import pytest

from tests.workbench.kernel.test_btf import Maker
from workbench.kernel.btf import Btf
from workbench.kernel.errors import KernelError
from workbench.kernel.modules import Module, module_sections

MODULE, TABLE, ROW, NAMES, ATTRIBUTES = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000
LIVE, COMING = 0, 1


def types(new: bool) -> Btf:
    """Return the types of Linux 6.14, or of one before, as far as they are asked for."""
    make = Maker()
    int_ = make.add(1, "unsigned int", 4, struct.pack("<I", 32))
    long_ = make.add(1, "long unsigned int", 8, struct.pack("<I", 64))
    attr = make.struct(4, "attribute", 16, [("name", long_, 0)])
    battr = make.struct(
        4, "bin_attribute", 48, [("attr", attr, 0), ("size", long_, 128), ("private", long_, 192)]
    )
    either = make.struct(5, "", 8, [("bin_attrs", long_, 0), ("bin_attrs_new", long_, 0)])
    row = ("", either, 256) if new else ("bin_attrs", long_, 256)
    group = make.struct(4, "attribute_group", 40, [("name", long_, 0), row])
    make.struct(4, "module_sect_attrs", 48, [("grp", group, 0)])
    if not new:
        make.struct(4, "module_sect_attr", 56, [("battr", battr, 0), ("address", long_, 384)])
    make.struct(4, "module", 64, [("state", int_, 0), ("sect_attrs", long_, 128)])
    return Btf(make.data())


class Memory:
    """Words and texts by address; nothing else is there."""

    def __init__(self) -> None:
        self.words: dict[int, int] = {}
        self.texts: dict[int, str] = {}

    def word(self, at: int, size: int = 8) -> int:
        if at not in self.words:
            raise KernelError(f"{at:#x} can't be read")
        return self.words[at]

    def text(self, at: int, limit: int) -> str:
        return self.texts[at][:limit]


def kernel(new: bool, state: int = LIVE) -> Any:
    memory = Memory()
    memory.words |= {MODULE: state, MODULE + 16: TABLE, TABLE + 32: ROW}
    for n, (name, address) in enumerate([(".text", 0x10000), (".init.text", 0x20000), (".data", 0x30000)]):
        at = ATTRIBUTES + 0x100 * n
        memory.words |= {ROW + 8 * n: at, at: NAMES + n, at + 24: address if new else 0, ROW + 8 * (n + 1): 0}
        memory.texts[NAMES + n] = name
        if not new:
            memory.words[at + 48] = address
    return SimpleNamespace(types=types(new), memory=memory)


M = Module("m", 0x10000, 4096, MODULE)


@pytest.mark.parametrize("new", [False, True], ids=["6.12", "6.14"])
def test_sections_lie_where_the_kernel_says_and_init_is_gone_once_it_is_live(new: bool) -> None:
    """From Linux 6.14 on nothing counts the sections, and each one's address is in its attribute."""
    assert module_sections(kernel(new), M) == {".text": 0x10000, ".data": 0x30000}
    assert module_sections(kernel(new, COMING), M)[".init.text"] == 0x20000


@pytest.mark.parametrize("new", [False, True], ids=["6.12", "6.14"])
def test_list_without_an_end_is_damaged(new: bool) -> None:
    made = kernel(new)
    made.memory.words |= {ROW + 8 * n: ATTRIBUTES for n in range(1000)}
    with pytest.raises(KernelError, match=r"module m: .* no end"):
        module_sections(made, M)
