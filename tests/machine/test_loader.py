"""Kernels, firmware, and where they go."""

from __future__ import annotations

import gzip
import struct

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from machine.config import Images, MachineConfig
from machine.errors import ConfigError, ImageError
from machine.images import parse_firmware, parse_kernel
from machine.loader import FW_DYNAMIC_MAGIC, MIB, Plan, plan

RAM = 0x8000_0000
DTB_BYTES = 64 << 10


def linux_image(size: int = 4096, image_size: int = 0) -> bytes:
    head = (
        struct.pack("<IIQQQIIQ", 0x5A4D, 0, 0x20_0000, image_size or size, 0, 2, 0, 0) + b"RISCV\0\0\0RSC\x05"
    )
    return head.ljust(size, b"\x13")


def elf(
    paddr: int = RAM, data: bytes = b"code", mem: int = 0, vaddr: int | None = None, machine: int = 243
) -> bytes:
    virtual = paddr if vaddr is None else vaddr
    head = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, virtual, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 120, virtual, paddr, len(data), mem or len(data), 4096)
    return head + segment + data


def zboot(payload: bytes, kind: bytes) -> bytes:
    return b"MZ\0\0zimg" + struct.pack("<II", 64, len(payload)) + bytes(8) + kind.ljust(40, b"\0") + payload


def place(images: Images, *, memory: int = 256, **options: object) -> Plan:
    config = MachineConfig(memory_bytes=memory * MIB, **options)  # type: ignore[arg-type]
    return plan(config, images, RAM, DTB_BYTES)


@pytest.mark.parametrize(
    "wrap",
    [
        bytes,
        gzip.compress,
        lambda data: zstandard.ZstdCompressor().compress(data),
        lambda data: zboot(gzip.compress(data), b"gzip"),
        lambda data: zboot(zstandard.ZstdCompressor().compress(data), b"zstd22"),
    ],
)
def test_image_is_found_in_its_wrapping(wrap: object) -> None:
    assert callable(wrap)
    program = parse_kernel(wrap(linux_image(4096, 9000)))
    assert program.kind == "Image" and program.segments[0].data == linux_image(4096, 9000)
    assert program.end == 9000


def test_elf_is_entered_at_the_physical_address_of_its_entry() -> None:
    program = parse_kernel(elf(RAM + 0x1000, b"abcd", 100, vaddr=0xFFFF_FFFF_8000_0000))
    assert program.entry == RAM + 0x1000
    assert (program.start, program.end) == (RAM + 0x1000, RAM + 0x1000 + 100)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "not a kernel"),
        (b"hello" * 50, "not a kernel"),
        (gzip.compress(linux_image(), mtime=0)[:-20], "cut off"),
        (b"\x1f\x8b" + bytes(50), "damaged gzip"),
        (b"\x28\xb5\x2f\xfd" + b"\xff" * 50, "damaged zstd"),
        (elf(machine=62), "expected a RISC-V executable"),
        (elf()[:100], "cut off"),
        (elf(data=b"code")[:-2], "cut off"),
        (zboot(b"x", b"lz4"), "packed with 'lz4'"),
        (linux_image(64, 1 << 50), "damaged"),
    ],
)
def test_what_is_no_kernel_is_refused_in_words(data: bytes, text: str) -> None:
    with pytest.raises(ImageError, match=text):
        parse_kernel(data, "kernel /x")


@given(st.integers(0, 130), st.binary(min_size=1, max_size=8))
def test_damaged_elf_never_raises_anything_else(at: int, patch: bytes) -> None:
    data = bytearray(elf(RAM, b"0123456789" * 4))
    data[at : at + len(patch)] = patch
    try:
        place(Images(kernel=bytes(data)), bios="none")
    except ImageError as error:
        assert str(error)


def test_builtin_bios_places_as_qemu_does() -> None:
    made = place(Images(kernel=linux_image(), initrd=b"i" * 5000))
    assert made.entry.pc == RAM + 2 * MIB
    assert not made.entry.machine_mode and not made.entry.all_harts
    assert made.initrd == (RAM + 130 * MIB, RAM + 130 * MIB + 5000)
    assert made.dtb_paddr == RAM + 254 * MIB


def test_bios_none_starts_every_hart_at_the_start_of_ram() -> None:
    made = place(Images(kernel=linux_image()), bios="none")
    assert (made.entry.pc, made.entry.all_harts, made.entry.machine_mode) == (RAM, True, True)


def test_firmware_finds_its_next_stage() -> None:
    made = place(Images(kernel=linux_image(), bios=b"\x13\0\0\0" * 10), bios="file")
    assert made.entry.pc == RAM and made.entry.all_harts
    info = next(s for s in made.segments if s.paddr == made.entry.arg2)
    assert struct.unpack("<6Q", info.data) == (FW_DYNAMIC_MAGIC, 2, RAM + 2 * MIB, 1, 0, 0)


def test_kernel_goes_behind_large_firmware() -> None:
    made = place(Images(kernel=linux_image(), bios=bytes(3 * MIB)), bios="file")
    info = next(s for s in made.segments if s.paddr == made.entry.arg2)
    assert struct.unpack("<6Q", info.data)[2] == RAM + 4 * MIB


def test_initrd_makes_way_for_a_large_kernel() -> None:
    made = place(Images(kernel=linux_image(4096, 40 * MIB), initrd=b"i" * 100), memory=64)
    assert made.initrd is not None and made.initrd[0] == RAM + 42 * MIB


def test_device_tree_stays_below_three_gigabytes() -> None:
    assert place(Images(kernel=linux_image()), memory=4096).dtb_paddr == 0xC000_0000 - 2 * MIB


def test_too_little_memory_says_how_much_is_needed() -> None:
    with pytest.raises(
        ImageError, match=r"32 MiB of memory are too little; use --memory 64M or more"
    ) as caught:
        place(Images(kernel=linux_image(4096, 40 * MIB)), memory=32)
    assert caught.value.exit_code == 3
    with pytest.raises(ImageError, match=r"initrd.*too little; use --memory 128M"):
        place(Images(kernel=linux_image(), initrd=bytes(60 * MIB)), memory=64)


def test_kernel_outside_ram_is_refused_whatever_the_memory() -> None:
    with pytest.raises(ImageError, match="and with more"):
        place(Images(kernel=elf(0x1000)))


def test_headers_that_a_linker_put_outside_of_ram_are_left_out() -> None:
    """GNU ld with ``-Ttext=0x80000000`` alone keeps a segment of headers at 0x10000: QEMU starts such a file."""
    code = elf()
    headers = struct.pack("<IIQQQQQQ", 1, 4, 0, 0x10000, 0x10000, 176, 176, 4096)
    data = code[:56] + struct.pack("<H", 2) + code[58:64] + headers + code[64:72]
    data += struct.pack("<Q", 176) + code[80:120] + b"code"
    made = place(Images(kernel=data), bios="none")
    assert [(s.paddr, s.data) for s in made.segments] == [(RAM, b"code")] and made.entry.pc == RAM
    writable = data.replace(headers, headers[:4] + struct.pack("<I", 6) + headers[8:])
    with pytest.raises(ImageError, match="kernel needs 0x10000 to 0x100b0"):
        place(Images(kernel=writable), bios="none")


def test_headers_before_the_text_of_a_segment_are_cut_off_below_ram() -> None:
    """GNU ld without notes puts headers and text into one segment, from the page before the text: QEMU starts it."""
    data = bytearray(elf(RAM - 0x1000, b""))
    data += bytes(0x1000 - len(data)) + b"code"
    struct.pack_into("<Q", data, 24, RAM)
    struct.pack_into("<QQQQQ", data, 72, 0, RAM - 0x1000, RAM - 0x1000, 0x1004, 0x2000)
    made = place(Images(kernel=bytes(data)), bios="none")
    assert [(s.paddr, s.data, s.size) for s in made.segments] == [
        (RAM, b"code", 0x1000)
    ] and made.entry.pc == RAM
    data[0x800] = 1
    with pytest.raises(ImageError, match="kernel needs 0x7ffff000"):
        place(Images(kernel=bytes(data)), bios="none")


@pytest.mark.parametrize(("bios", "paddr"), [("none", RAM), ("builtin", RAM + 0x20_0000)])
def test_raw_binary_is_a_kernel_where_its_firmware_enters_it(bios: str, paddr: int) -> None:
    """What objcopy made was refused below an SBI, where QEMU takes it: U-Boot's u-boot.bin, teaching kernels."""
    made = place(Images(kernel=b"\x13\0\0\0"), bios=bios)
    assert [(s.paddr, s.data) for s in made.segments] == [(paddr, b"\x13\0\0\0")] and made.entry.pc == paddr


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"#!/bin/sh\nexec qemu-system-riscv64\n", "text"),
        ("é".encode() * 300, "text"),
        (b"MZ\x90\0" + bytes(500), "another architecture"),
        (b"\xd0\x0d\xfe\xed" + bytes(64), "give --dtb FILE"),
        (b"QFI\xfb\0\0\0\3", "give --drive"),
        (b"070701" + b"0" * 104, "give --initrd"),
        (bytes(4096), "begin with no instruction"),
        (b"\xfd7zXZ\0\0\4", "unpack it first"),
    ],
)
@pytest.mark.parametrize("bios", ["none", "builtin"])
def test_slips_are_no_raw_binaries(data: bytes, text: str, bios: str) -> None:
    with pytest.raises(ImageError, match=f"not a kernel but .*{text}"):
        place(Images(kernel=data), bios=bios)


@pytest.mark.parametrize(("bios", "pc"), [("none", RAM), ("builtin", RAM + 0x20_0000)])
def test_pieces_go_to_their_addresses_and_need_no_kernel(bios: str, pc: int) -> None:
    """QEMU's -device loader, with which teaching kernels are started: it was refused."""
    pieces = [[pc, 4], [RAM + 0x100_0000, 3]]
    made = place(Images(loaded=b"codeabc"), bios=bios, options={"loaded": pieces})
    assert [(s.paddr, s.data) for s in made.segments] == [(pc, b"code"), (RAM + 0x100_0000, b"abc")]
    assert made.entry.pc == pc and made.entry.machine_mode == (bios == "none")
    with pytest.raises(ImageError, match=f"nothing is loaded at {pc:#x}, where the harts start"):
        place(Images(loaded=b"abc"), bios=bios, options={"loaded": [[RAM + 0x100_0000, 3]]})


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([[0x1000, 4]], r"what is loaded at 0x1000 needs 0x1000 to 0x1004, but RAM is"),
        ([[RAM + 2, 4]], "kernel and what is loaded at .* overlap"),
        ([[RAM + 0x1000, 5]], "not those of the configuration"),
        ([[RAM + 0x1000, 4], [RAM, 0]], "not those of the configuration"),
    ],
)
def test_pieces_that_do_not_fit_are_refused(pieces: list[list[int]], text: str) -> None:
    with pytest.raises((ImageError, ConfigError), match=text):
        place(Images(kernel=b"\x13\0\0\0", loaded=b"code"), bios="none", options={"loaded": pieces})


def test_missing_images_are_named() -> None:
    with pytest.raises(ConfigError, match="no kernel"):
        place(Images())
    with pytest.raises(ImageError, match="firmware file is empty"):
        place(Images(), bios="file")
    with pytest.raises(ConfigError, match="expected builtin, none or a file"):
        place(Images(kernel=linux_image()), bios="coreboot")


def test_firmware_may_be_elf_or_raw() -> None:
    assert parse_firmware(elf()).kind == "ELF"
    assert parse_firmware(b"\x13\0\0\0").kind == "raw"
    with pytest.raises(ImageError, match="empty"):
        parse_firmware(b"")


def test_firmware_that_relocates_itself_goes_to_the_start_of_ram() -> None:
    """OpenSBI 1.9's fw_jump.elf is linked at 0, where there is no RAM, and was refused."""
    data = bytearray(elf(0, b"code"))
    data[16:18] = struct.pack("<H", 3)
    made = place(Images(bios=bytes(data)), bios="file")
    assert (made.segments[0].paddr, made.entry.pc) == (RAM, RAM)


def test_segment_of_zeros_alone_takes_room_but_no_data() -> None:
    made = place(Images(kernel=elf(RAM, b"", 8192)), bios="none")
    assert made.segments[0].data == b"" and made.segments[0].size == 8192
