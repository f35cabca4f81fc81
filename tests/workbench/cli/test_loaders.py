"""`--device loader`: files at addresses of their own."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.cli.loaders import take_loaders
from workbench.errors import InputError, UsageError

RAM = 0x8000_0000
#: auipc a0,0; ld a1,16(a0); lui a2,0x100; sw a1,0(a2); then what is to be written: power off
POWEROFF = struct.pack("<4IQ", 0x517, 0x1053583, 0x100637, 0xB62023, 0x5555)
#: li a0,0x401; slli a0,a0,21; jr a0: firmware that knows its kernel's place
JUMP = struct.pack("<4I", 0x40100513, 0x1551513, 0x50067, 0x13)


def test_pieces_are_taken_out_of_the_devices(tmp_path: Path) -> None:
    (tmp_path / "a,b").write_bytes(b"code")
    device = f"loader,file={str(tmp_path / 'a,b').replace(',', ',,')},addr=0x80200000,force-raw=on"
    assert take_loaders(["lamp", device]) == ([(RAM + 0x20_0000, b"code")], ["lamp"])


def test_an_elf_file_goes_to_its_own_addresses(tmp_path: Path, tiny_elf: bytes) -> None:
    path = tmp_path / "tiny.elf"
    path.write_bytes(tiny_elf)
    pieces, _ = take_loaders([f"loader,file={path}"])
    assert pieces and all(paddr >= RAM and data in tiny_elf for paddr, data in pieces)
    assert take_loaders([f"loader,file={path},addr=0x80000000,force-raw=on"])[0] == [(RAM, tiny_elf)]
    with pytest.raises(UsageError, match="addresses of its own"):
        take_loaders([f"loader,file={path},addr=0x80000000"])


@pytest.mark.parametrize(
    ("device", "text"),
    [
        ("loader", "file=… is missing"),
        ("loader,file=F", "expected an address like 0x80200000"),
        ("loader,file=F,addr=there", "expected an address"),
        ("loader,file=F,addr=0,force-raw=perhaps", "expected on or off"),
        ("loader,file=F,addr=0x80000000,cpu-num=0", "cpu-num=0 is not one of"),
        ("loader,addr=0x80000000,data=7,data-len=4", "data=7 is not one of"),
    ],
)
def test_other_values_are_refused(device: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "F").write_bytes(b"code")
    with pytest.raises(UsageError, match=text):
        take_loaders([device.replace("file=F", f"file={tmp_path / 'F'}")])


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"file .*/none: can't be read"):
        take_loaders([f"loader,file={tmp_path / 'none'},addr=0x80000000"])


@pytest.mark.parametrize("bios", ["none", "file"])
def test_a_loaded_program_is_recorded_and_replayed(bios: str, tmp_path: Path) -> None:
    """Teaching kernels are started so, alone or behind firmware that jumps to a fixed address."""
    (tmp_path / "firmware").write_bytes(JUMP)
    (tmp_path / "program").write_bytes(POWEROFF)
    start = RAM if bios == "none" else RAM + 0x20_0000
    trace = str(tmp_path / "t.trace")
    arguments = ["-bios", "none" if bios == "none" else str(tmp_path / "firmware"), "-m", "16M", "--no-input"]
    arguments += ["-device", f"loader,file={tmp_path / 'program'},addr={start:#x}"]
    for command, said in (
        (["record", "-o", trace, *arguments], "the guest switched off"),
        (["replay", "--verify", trace], "verified: "),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "workbench", *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert done.returncode == 0 and said in done.stdout + done.stderr, done.stderr
