"""Source lines of addresses, from the built-in guest's debug information."""

from __future__ import annotations

import io
import itertools
import subprocess
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.dwarf.errors import DwarfError
from workbench.dwarf.file import DebugFile
from workbench.errors import InputError
from workbench.guests import builtin
from workbench.lines import Lines, Row
from workbench.symbols import Symbols


def lines_of(data: bytes) -> Lines:
    found = Lines()
    found.add_file(DebugFile(data, "ELF file"))
    return found


@pytest.fixture(scope="module")
def lines() -> Lines:
    return lines_of(builtin.read_image())


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


@given(st.data())
def test_units_read_one_at_a_time_are_the_same_lines_as_all_at_once(data: st.DataObject) -> None:
    """Each unit is put between those that are there, whatever the order in which they are asked for."""
    borders = sorted(data.draw(st.sets(st.integers(0, 60), min_size=2, max_size=12)))
    units = []
    for number, (low, high) in enumerate(itertools.pairwise(borders)):
        if data.draw(st.booleans(), label="a gap before it"):
            low += 1
        if low >= high:
            continue
        starts = sorted({low, *data.draw(st.sets(st.integers(low, high - 1), max_size=4))})
        rows = [
            Row(at, f"{number}.c", data.draw(st.integers(1, 3)), data.draw(st.booleans())) for at in starts
        ]
        units.append([*rows, Row(high, "", 0, True)])
    apart = Lines()
    for unit in data.draw(st.permutations(units)):
        apart.add(unit)
    together = Lines(row for unit in units for row in unit)
    for address in range(64):
        assert apart.at(address) == together.at(address)
        assert apart.begins(address) == together.begins(address)


def _by_pyelftools(data: bytes) -> list[Row]:
    from elftools.elf.elffile import ELFFile

    dwarf: Any = ELFFile(io.BytesIO(data)).get_dwarf_info()
    out = []
    for unit in dwarf.iter_CUs():
        program = dwarf.line_program_for_CU(unit)
        header = program.header
        new = header["version"] >= 5
        for entry in program.get_entries():
            state = entry.state
            if state is None:
                continue
            if state.end_sequence:
                out.append(Row(state.address, "", 0, True))
                continue
            file = header["file_entry"][state.file - (not new)]
            folders = [b"", *header["include_directory"]] if not new else header["include_directory"]
            path = PurePosixPath(folders[file.dir_index].decode(), file.name.decode())
            out.append(Row(state.address, str(path), state.line, bool(state.is_stmt)))
    return out


def test_line_programs_are_read_as_pyelftools_reads_them() -> None:
    data = builtin.read_image()
    rows = DebugFile(data, "ELF file").rows()
    assert len(rows) > 1000 and rows == _by_pyelftools(data)


LOOP = """\
int f(int n)
{
    int s = 0;
    for (int i = 0; i < n; i++)
        s ^= i * n;
    return s;
}
"""


@pytest.mark.requires("riscv64-linux-gnu-gcc")
@pytest.mark.parametrize("version", [2, 3, 4, 5])
@pytest.mark.parametrize("option", ["-O0", "-O2", "-mno-relax"])
def test_line_programs_of_each_version(version: int, option: str, tmp_path: Path) -> None:
    source, out = tmp_path / "loop.c", tmp_path / "loop.elf"
    source.write_text(
        "int f(int n)\n{\n    int s = 0;\n    for (int i = 0; i < n; i++)\n        s ^= i * n;\n    return s;\n}\n"
    )
    compiler = ["riscv64-linux-gnu-gcc", f"-gdwarf-{version}", option, "-nostdlib", "-static", "-Wl,-e,f"]
    subprocess.run([*compiler, "-o", out, source], check=True, cwd=tmp_path)
    data = out.read_bytes()
    rows = DebugFile(data, "loop.elf").rows()
    assert {row.line for row in rows} >= {2, 4, 5, 7} and rows == _by_pyelftools(data)


@settings(max_examples=15)
@given(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=64))
def test_damaged_files_are_refused_or_read(at: int, noise: bytes) -> None:
    image = bytearray(builtin.read_image())
    at %= len(image)
    image[at : at + len(noise)] = noise[: len(image) - at]
    try:
        lines_of(bytes(image))
    except (InputError, DwarfError) as error:
        assert "damaged" in str(error)
