"""The built-in guest: its image matches its source, and it boots everywhere it should."""

from __future__ import annotations

import io
import re
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from workbench.guests.builtin import build


def sections(image: bytes) -> dict[str, bytes]:
    elf = ELFFile(io.BytesIO(image))
    return {section.name: section.data() for section in elf.iter_sections()}


def test_image_is_small_has_symbols_and_lines_and_no_path_of_its_builder(builtin_image: bytes) -> None:
    parts = sections(builtin_image)
    assert len(builtin_image) < 200_000
    assert {".symtab", ".debug_line"} <= parts.keys()
    assert b"pool_put" in parts[".strtab"]
    # The prefix map leaves relative names alone.
    assert re.search(rb"(^|\0)/[a-z]+/", parts[".debug_line_str"]) is None


@pytest.mark.requires("riscv64-linux-gnu-gcc")
def test_image_is_what_the_source_builds(builtin_image: bytes, tmp_path: Path) -> None:
    build.build(tmp_path / "rebuilt.elf")
    rebuilt = (tmp_path / "rebuilt.elf").read_bytes()
    if sections(rebuilt)[".comment"] != sections(builtin_image)[".comment"]:
        pytest.skip("built by another version of the compiler")
    assert rebuilt == builtin_image


@pytest.mark.requires("qemu-system-riscv64")
def test_image_boots_on_qemu(builtin_path: Path) -> None:
    command = ["qemu-system-riscv64", "-M", "virt", "-m", "64M", "-nographic", "-icount", "shift=0"]
    done = subprocess.run(
        [*command, "-kernel", str(builtin_path), "-append", "safe"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "1028 primes below 8192" in done.stdout
    assert "all tasks ended" in done.stdout
