"""Object files at given addresses say what the linker's output says, and damaged ones end in one clear error."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from workbench.dwarf.errors import DwarfError
from workbench.dwarf.file import DebugFile, children_of, name_of
from workbench.dwarf.relocating import NOWHERE, is_relocatable, placed
from workbench.errors import WorkbenchError

pytestmark = pytest.mark.requires("riscv64-linux-gnu-gcc")

SOURCE = """
static int counter;
int table[4] = {1, 2, 3, 4};
struct pair { int first; long second; };
__attribute__((noinline)) static int add(struct pair *p, int n)
{
    for (int i = 0; i < n; i++)
        p->second += table[i & 3];
    return counter += p->first;
}
int entry(int n)
{
    struct pair p = {n, 2 * n};
    if (n > 100)
        return add(&p, n) + add(&p, 1);
    return add(&p, 7);
}
__attribute__((section(".init.text"))) int begin(void) { return entry(3); }
"""
TEXT, DATA, BSS = 0xFFFFFFFF01234000, 0xFFFFFFFF01240000, 0xFFFFFFFF01244000
ADDRESSES = {".text": TEXT, ".data": DATA, ".bss": BSS, ".sbss": BSS}
SCRIPT = f"""
SECTIONS {{ .text {TEXT:#x} : {{ *(.text) }} .data {DATA:#x} : {{ *(.data) }} .bss {BSS:#x} : {{ *(.bss .sbss) }}
  .init.text {NOWHERE:#x} : {{ *(.init.text) }} }}
"""


def built(folder: Path, *flags: str) -> tuple[bytes, bytes]:
    """Return an object file, and what the linker makes of it."""
    source, script = folder / "m.c", folder / "m.lds"
    source.write_text(SOURCE)
    script.write_text(SCRIPT)
    command: list[str | Path] = [
        "riscv64-linux-gnu-gcc",
        "-g",
        "-mcmodel=medany",
        "-fno-pic",
        "-ffreestanding",
        "-msmall-data-limit=0",
    ]
    subprocess.run([*command, *flags, "-c", source, "-o", folder / "m.o"], check=True)
    link: list[str | Path] = [
        "riscv64-linux-gnu-ld",
        "--no-relax",
        "-T",
        script,
        "-e",
        "entry",
        "-o",
        folder / "m.elf",
        folder / "m.o",
    ]
    subprocess.run(link, check=True)
    return (folder / "m.o").read_bytes(), (folder / "m.elf").read_bytes()


def told(file: DebugFile) -> dict[str, object]:
    """Return what is asked of debug information: lines, functions, variables and their places."""
    out: dict[str, object] = {"rows": sorted(file.rows())}
    for unit in file.units():
        for die in children_of(unit.get_top_DIE()):
            if die.tag == "DW_TAG_subprogram":
                out[name_of(die)] = file.ranges(die)
                out[name_of(die) + " scopes"] = [
                    [name_of(scope) for scope in file.scopes_at(low)] for low, _ in file.ranges(die)
                ]
    out |= {name: bytes(die.attributes["DW_AT_location"].value) for name, die in file.globals.items()}
    assert {"entry", "add", "begin", "counter", "table"} <= set(out)
    return out


@pytest.mark.parametrize(
    "flags",
    [
        ("-O1", "-mno-relax"),
        ("-Os", "-fno-align-functions"),
        ("-O2", "-mno-relax", "-gdwarf-4"),
        ("-O1", "-mno-relax", "-gz=zlib"),
    ],
    ids=" ".join,
)
def test_a_placed_object_file_says_what_the_linked_one_says(tmp_path: Path, flags: tuple[str, ...]) -> None:
    loose, linked = built(tmp_path, *flags)
    assert is_relocatable(loose)
    assert not is_relocatable(linked)
    data = placed(loose, "m.o", ADDRESSES)
    assert not is_relocatable(data)
    ours, theirs = told(DebugFile(data, "m.o")), told(DebugFile(linked, "m.elf"))
    assert ours == theirs
    assert (TEXT, TEXT + 2) < ours["add"][0] < (TEXT + 4096, 0) or ours["add"][0][0] == TEXT  # type: ignore[index]


def test_frames_of_a_placed_object_file_are_those_of_the_linked_one(tmp_path: Path) -> None:
    loose, linked = built(tmp_path, "-O1", "-fno-asynchronous-unwind-tables", "-fno-exceptions")
    found = []
    for data in (placed(loose, "m.o", ADDRESSES), linked):
        entries = DebugFile(data, "m").dwarf.CFI_entries()
        found.append(
            sorted(
                (entry.header["initial_location"], entry.header["address_range"])
                for entry in entries
                if "initial_location" in entry.header
            )
        )
    assert found[0] == found[1]
    assert len(found[0]) == 3


def test_damaged_object_files_end_in_a_clear_error(tmp_path: Path) -> None:
    loose, _ = built(tmp_path, "-O1")
    rng = random.Random(5)
    refused = 0
    for _ in range(300):
        data = bytearray(loose)
        for _ in range(rng.randint(1, 30)):
            data[rng.randrange(64, len(data))] = rng.randrange(256)
        try:
            file = DebugFile(placed(bytes(data), "m.ko", ADDRESSES), "m.ko")
            file.rows()
        except WorkbenchError as error:
            refused += 1
            assert "m.ko" in str(error)
    assert refused > 20


def test_another_machines_object_file_is_refused(tmp_path: Path) -> None:
    loose, _ = built(tmp_path, "-O1")
    data = bytearray(loose)
    data[18] = 62  # x86-64
    with pytest.raises(DwarfError, match=r"m\.o: an object file of another machine"):
        placed(bytes(data), "m.o", ADDRESSES)


def test_a_file_whose_debug_information_is_elsewhere_says_where(tmp_path: Path) -> None:
    """Variables and types of a file built with -gsplit-dwarf were not there, and nothing said why."""
    loose, _ = built(tmp_path, "-O1", "-gsplit-dwarf")
    assert DebugFile(placed(loose, "m.o", ADDRESSES), "m.o").split.endswith("m.dwo")
    whole, _ = built(tmp_path, "-O1")
    assert DebugFile(placed(whole, "m.o", ADDRESSES), "m.o").split == ""
