"""Source lines of addresses, from the built-in guest's debug information."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import InputError
from workbench.guests import builtin
from workbench.lines import Lines, Row
from workbench.symbols import Symbols


@pytest.fixture(scope="module")
def lines() -> Lines:
    return Lines.from_elf(builtin.read_image())


def test_a_function_is_in_its_file(lines: Lines) -> None:
    symbols = Symbols.from_elf(builtin.read_image())
    for name, file in (("kmain", "main.c"), ("pool_put", "pool.c"), ("trap_entry", "start.S")):
        address = symbols.lookup(name)
        assert address is not None
        line = lines.at(address)
        assert line is not None and line.file.endswith(file)
        assert line.low <= address < line.high
        assert address in lines.addresses(file, line.line)
        assert lines.begins(address)
        assert lines.at(line.high - 1) == line
    assert lines.at(0) is None
    assert lines.at((1 << 64) - 1) is None
    assert lines.addresses("nothing.c", 1) == []


def test_rows_with_ends_and_gaps() -> None:
    lines = Lines(
        [
            Row(10, "a/x.c", 1, True),
            Row(14, "a/x.c", 2, False),
            Row(20, "", 0, True),
            Row(20, "b/y.c", 5, True),
        ]
    )
    lines.add([Row(24, "", 0, True)])
    assert str(lines.at(12)) == "x.c:1"
    assert lines.at(15) == ("a/x.c", 2, 14, 20)
    assert not lines.begins(14)
    assert lines.at(20) == ("b/y.c", 5, 20, 24)
    assert lines.at(24) is None
    assert lines.addresses("y.c", 5) == lines.addresses("b/y.c", 5) == [20]
    assert lines.after_prologue(10, 20) == 14


@settings(max_examples=15)
@given(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=64))
def test_damaged_files_are_refused_or_read(at: int, noise: bytes) -> None:
    image = bytearray(builtin.read_image())
    at %= len(image)
    image[at : at + len(noise)] = noise[: len(image) - at]
    try:
        Lines.from_elf(bytes(image))
    except InputError as error:
        assert "damaged" in str(error)
