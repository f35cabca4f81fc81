"""Symbols: by name, by address, from ELF files and System.map, from files that are neither."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import InputError
from workbench.symbols import MAX_OFFSET, Symbol, Symbols


def test_address_lies_in_the_symbol_whose_size_covers_it() -> None:
    known = Symbols([Symbol(100, 10, "sized", "func"), Symbol(200, 0, "open", "func")])
    assert known.find(100) == ("sized", 0)
    assert known.find(109) == ("sized", 9)
    assert known.find(110) is None
    assert known.find(99) is None
    assert known.find(250) == ("open", 50)
    assert known.find(200 + MAX_OFFSET) is None
    assert (known.format(109), known.format(100), known.format(5)) == ("sized+0x9", "sized", "")


def test_function_names_an_address_before_objects_and_underscored_names() -> None:
    names = [Symbol(8, 4, "__alias", "func"), Symbol(8, 4, "plain", "func"), Symbol(8, 4, "data", "object")]
    for order in (names, names[::-1]):
        assert Symbols(order).format(8) == "plain"


def test_range_of_a_symbol_without_size_ends_at_the_next() -> None:
    known = Symbols([Symbol(100, 0, "a", "func"), Symbol(160, 8, "b", "func")])
    assert known.range_of("a") == (100, 160)
    assert known.range_of("b") == (160, 168)
    assert known.range_of("c") is None


def test_names_complete_in_order() -> None:
    known = Symbols([Symbol(i, 1, name, "func") for i, name in enumerate(["do_b", "do_a", "x"])])
    assert known.complete("do_") == ["do_a", "do_b"]
    assert known.complete("do_", 1) == ["do_a"]


def test_system_map_is_read() -> None:
    known = Symbols.from_map(
        b"ffffffff80000000 T _start\nffffffff80000100 d data\n                 U nothing\n"
    )
    assert known.lookup("_start") == 0xFFFFFFFF80000000
    assert len(known) == 2
    with pytest.raises(InputError, match=r"not a System\.map"):
        Symbols.from_map(b"hello\n")


def test_elf_symbols_are_read(kernel: Path) -> None:
    known = Symbols.from_file(kernel)
    assert known.lookup("_start") == 0x8000_0000
    assert known.format((known.lookup("spin") or 0) + 4) == "spin+0x4"


def test_file_that_is_missing_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read"):
        Symbols.from_file(tmp_path / "nothing")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_elf_files_are_input_errors(tiny_elf: bytes, data: st.DataObject) -> None:
    damaged = bytearray(tiny_elf)
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(4, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(damaged[: data.draw(st.integers(4, len(damaged)))])
    for image in (bytes(damaged), cut):
        try:
            Symbols.from_elf(image)
        except InputError:
            continue


def test_lookups_among_150_000_symbols() -> None:
    known: Any = Symbols([Symbol(0x1000 + 16 * i, 16, f"symbol_{i}", "func") for i in range(150_000)])
    for i in range(0, 150_000, 15):
        assert known.find(0x1004 + 16 * i) == (f"symbol_{i}", 4)
        assert known.lookup(f"symbol_{i}") == 0x1000 + 16 * i


def test_names_are_found_by_a_part_in_order_and_without_case() -> None:
    names = ("vfs_read", "Vfs_write", "do_vfs", "other")
    known = Symbols([Symbol(16 * i, 4, name, "func") for i, name in enumerate(names)])
    assert known.containing("vfs") == ["Vfs_write", "do_vfs", "vfs_read"]
    assert known.containing("VFS_R") == ["vfs_read"]
    assert known.containing("vfs", 1) == ["Vfs_write"]
    assert known.containing("nothing") == []


@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from("abcdefgh"))), st.integers(0, 30))
def test_taking_a_set_means_the_same_as_adding_it(rows: list[tuple[int, str]], first: int) -> None:
    made = [Symbol(address, 4, name, "func") for address, name in rows]
    added, taken = Symbols(made[:first]), Symbols(made[:first])
    added.add(made[first:])
    taken.take(Symbols(made[first:]))
    assert list(taken) == list(added)
    assert {name: taken.lookup(name) for name in "abcdefgh"} == {
        name: added.lookup(name) for name in "abcdefgh"
    }


def test_a_symbol_that_tells_its_size_takes_the_place_of_one_that_does_not() -> None:
    known = Symbols([Symbol(0x10, 0, "here", "object"), Symbol(0x30, 0, "firmware", "func")])
    known.take(Symbols([Symbol(0x10, 16, "here", "func"), Symbol(0x20, 4, "there", "func")]))
    assert [(each.name, each.size) for each in known] == [("here", 16), ("there", 4), ("firmware", 0)]
    assert known.range_of("here") == (0x10, 0x20)
