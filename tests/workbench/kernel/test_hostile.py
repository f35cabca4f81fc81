"""Guests that lie: whatever lies in memory, what reads it ends soon, with an answer or with an error of its own."""

from __future__ import annotations

import random
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workbench.kernel.test_btf import Maker, example
from workbench.kallsyms import find_symbols
from workbench.kernel.btf import STRUCT, Btf
from workbench.kernel.errors import KernelError
from workbench.kernel.pagetable import GuestMemory
from workbench.kernel.symbols import inflate
from workbench.kernel.typed import Typed

pytestmark = pytest.mark.timeout(60)


@given(st.binary(max_size=64), st.integers(0, 600), st.integers(0, 255))
def test_every_question_about_damaged_types_ends(noise: bytes, at: int, byte: int) -> None:
    data = bytearray(example())
    data[at % len(data)] = byte
    data[at % len(data) : at % len(data)] = b""
    data[(at * 7) % len(data) : (at * 7) % len(data) + len(noise)] = noise
    try:
        types = Btf(bytes(data))
    except KernelError:
        return
    for type_id in range(len(types)):
        for question in (types.resolve, types.size, types.name, types.members, types.kind, types.tag):
            try:
                question(type_id)
            except KernelError:
                continue
        try:
            types.member(type_id, "nothing")
        except KernelError:
            continue


def test_structs_of_themselves_are_looked_into_once() -> None:
    """A struct with two nameless members of its own type took 2^32 looks to say that it has no such member."""
    make = Maker()
    make.struct(STRUCT, "knot", 8, [("", 1, 0), ("", 1, 8), ("", 1, 16)])
    with pytest.raises(KernelError, match="no member 'x'"):
        Btf(make.data()).member(1, "x")


class Flat:
    """Memory that is mapped everywhere and holds one value."""

    def read(self, address: int, size: int) -> bytes:
        return bytes(size)

    def word(self, address: int, size: int = 8) -> int:
        return 0


def test_a_struct_that_is_too_large_to_show_is_shown_in_part() -> None:
    """Three levels of structs with ten thousand members each would have taken weeks."""
    make = Maker()
    number = make.add(1, "int", 4, struct.pack("<I", 32))
    of = number
    for name in ("inner", "middle", "outer"):
        of = make.struct(STRUCT, name, 8, [(f"m{i}", of, 0) for i in range(10_000)])
    kernel: Any = type("K", (), {"memory": Flat(), "types": Btf(make.data())})()
    assert len(Typed(kernel, of, 0x1000).show()) < 10_000_000
    assert isinstance(Typed(kernel, of, 0x1000).python(), dict)


def test_images_that_only_look_like_a_symbol_table_are_given_up() -> None:
    """Zeros before a token table were tried as its markers one by one, each with a copy of all behind it."""
    digits = b"".join(b"%d\0" % digit for digit in range(10))
    texts = [b"%c\0" % i if 0x21 <= i < 0x7F and not 0x30 <= i < 0x3A else b"x\0" for i in range(256)]
    texts[0x30:0x3A] = [b"%d\0" % digit for digit in range(10)]
    table, offsets, at = b"".join(texts), [], 0
    for text in texts:
        offsets.append(at)
        at += len(text)
    assert digits in table
    block = bytes(1 << 20) + table.ljust((len(table) + 7) & ~7, b"\0") + struct.pack("<256H", *offsets)
    assert find_symbols(block * 12) == []
    assert find_symbols(digits * 100_000) == []


@given(st.integers(0, 1 << 32))
def test_noise_has_no_symbols(seed: int) -> None:
    choose = random.Random(seed)
    noise = bytes(choose.choice(b"0123456789\0\0\0abc") for _ in range(4000))
    assert find_symbols(noise) == []


class Knot:
    """RAM whose every page is a page table that points to itself."""

    def read_phys(self, paddr: int, size: int) -> bytes:
        return struct.pack("<Q", 1) * (size // 8)


@pytest.mark.parametrize("mode", [9])
def test_page_tables_that_hold_themselves_are_given_up(mode: int) -> None:
    """They hold no page, so the limit on pages was never met: 512^5 entries were gone through."""
    memory = GuestMemory(Knot(), mode << 60)
    with pytest.raises(KernelError, match="more than 8192 page tables"):
        list(memory.areas())
    assert memory.translate(0x1000) is None


def test_what_is_kept_is_not_inflated_without_end() -> None:
    bomb = zlib.compress(bytes(1 << 20), 9)
    assert len(inflate(bomb, 1 << 20)) == 1 << 20
    for data, most in ((bomb, (1 << 20) - 1), (bomb[:-5], 1 << 20), (b"no zlib", 10)):
        with pytest.raises(zlib.error):
            inflate(data, most)
