"""What kernel and firmware files are: ELF, RISC-V Image, and the wrappings they come in.

Every length and offset comes from a file that may be damaged or hostile.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace

from machine.errors import ImageError
from machine.values import valueclass

ELF_MAGIC = b"\x7fELF"
EM_RISCV = 243
ET_DYN = 3
PT_LOAD = 1
PF_W, PF_R = 2, 4
UNPACKED_MAX = 1 << 30
#: How files begin that are given for a kernel by mistake.
_NO_CODE = (
    (b"\x27\x05\x19\x56", "a U-Boot image; give what it was made of"),
    (b"\xd0\x0d\xfe\xed", "a device tree, or a FIT image; give --dtb FILE, or what it was made of"),
    (b"BZh", "bzip2 data; unpack it first"),
    (b"\xfd7zXZ\0", "xz data; unpack it first"),
    (b"\x04\x22\x4d\x18", "lz4 data; unpack it first"),
    (b"\x02\x21\x4c\x18", "lz4 data; unpack it first"),
    (b"QFI\xfb", "a disk image; give --drive file=FILE"),
    (b"SQLite format 3\0", "a trace, or another database"),
    (b"07070", "a cpio archive; give --initrd FILE"),
    (b"MZ", "a program for UEFI, or a kernel of another architecture"),
)


@valueclass(frozen=True, slots=True)
class Segment:
    """Bytes at a guest-physical address, followed by zeros up to ``size``.

    Of an ELF file, the first ``headers`` bytes are what linkers put before the text for a loader that maps files: its
    headers, notes, and zeros up to the text.
    """

    paddr: int
    data: bytes
    size: int
    headers: int = 0

    def from_address(self, low: int) -> Segment | None:
        """Return the segment without those headers that lie below an address; None: nothing is left."""
        cut = min(low - self.paddr, self.size)
        if not 0 < cut <= self.headers:
            return self
        return Segment(low, self.data[cut:], self.size - cut) if cut < self.size else None


@valueclass(frozen=True, slots=True)
class Program:
    """Something loadable. ``fixed`` programs (ELF) have their own addresses; others are at 0 until placed."""

    segments: tuple[Segment, ...]
    entry: int
    fixed: bool
    kind: str

    @property
    def start(self) -> int:
        return min(s.paddr for s in self.segments)

    @property
    def end(self) -> int:
        return max(s.paddr + s.size for s in self.segments)

    def at(self, base: int) -> Program:
        """Return the program placed at ``base``; a fixed one stays where it is."""
        if self.fixed:
            return self
        moved = tuple(Segment(s.paddr + base, s.data, s.size) for s in self.segments)
        return Program(moved, self.entry + base, True, self.kind)

    def within(self, low: int, high: int) -> Program:
        """Return the program without headers that lie outside of some memory, which no code of it asks for."""
        known = [s for s in self.segments if s.headers < s.size or s.paddr + s.size <= high]
        kept = tuple(s for s in (segment.from_address(low) for segment in known) if s is not None)
        return replace(self, segments=kept or self.segments)


def unpack(data: bytes, what: str) -> bytes:
    """Return the contents of a gzip or zstd wrapped file, or of an EFI zboot image; other data as it is.

    Args:
        what: names the file in errors.

    Raises:
        ImageError: the wrapping is damaged, or unpacks to more than 1 GiB.
    """
    if data[:2] == b"\x1f\x8b":
        return _gunzip(data, what)
    if data[:4] == b"\x28\xb5\x2f\xfd":
        return _unzstd(data, what)
    if data[:2] == b"MZ" and data[4:8] == b"zimg":
        if len(data) < 64:
            raise ImageError(f"{what}: the header of its EFI zboot image is cut off; get the file anew")
        offset, size = struct.unpack_from("<II", data, 8)
        kind = data[24:56].split(b"\0")[0].decode("ascii", "replace")
        payload = data[offset : offset + size]
        if len(payload) != size or kind not in ("gzip", "zstd", "zstd22"):
            raise ImageError(
                f"{what}: EFI zboot image, damaged or packed with {kind!r}; expected gzip or zstd"
            )
        return _gunzip(payload, what) if kind == "gzip" else _unzstd(payload, what)
    return data


def _gunzip(data: bytes, what: str) -> bytes:
    unpacker = zlib.decompressobj(31)
    try:
        out = unpacker.decompress(data, UNPACKED_MAX + 1)
    except zlib.error as error:
        raise ImageError(f"{what}: damaged gzip data ({error}); get the file anew") from None
    if len(out) > UNPACKED_MAX:
        raise ImageError(f"{what}: unpacks to more than {UNPACKED_MAX >> 20} MiB; that is no kernel")
    if not unpacker.eof:
        raise ImageError(f"{what}: the gzip data are cut off; get the file anew")
    return out


def _unzstd(data: bytes, what: str) -> bytes:
    try:
        import zstandard
    except ImportError:
        raise ImageError(
            f"{what}: packed with zstd, which needs the Python package zstandard; or unpack it"
        ) from None
    try:
        with zstandard.ZstdDecompressor().stream_reader(data) as reader:
            out = reader.read(UNPACKED_MAX + 1)
    except zstandard.ZstdError as error:
        raise ImageError(f"{what}: damaged zstd data ({error}); get the file anew") from None
    if len(out) > UNPACKED_MAX:
        raise ImageError(f"{what}: unpacks to more than {UNPACKED_MAX >> 20} MiB; that is no kernel")
    return out


def parse_elf(data: bytes, what: str) -> Program:
    """Return the loadable segments of a 64-bit RISC-V executable, at their physical addresses.

    One that relocates itself and is linked at 0, as OpenSBI is, goes where its kind goes.

    Raises:
        ImageError: it is another kind of ELF, or damaged.
    """
    if len(data) < 64 or data[4] != 2 or data[5] != 1:
        raise ImageError(f"{what}: expected a little-endian ELF file of 64 bits")
    kind, machine = struct.unpack_from("<HH", data, 16)
    if machine != EM_RISCV or kind not in (2, 3):
        raise ImageError(
            f"{what}: ELF file of type {kind} for machine {machine}, expected a RISC-V executable"
        )
    entry, table = struct.unpack_from("<QQ", data, 24)
    entry_size, count = struct.unpack_from("<HH", data, 54)
    if entry_size < 56 or table + entry_size * count > len(data):
        raise ImageError(f"{what}: the program headers lie outside of the file; it is cut off or damaged")
    segments: list[Segment] = []
    start, loaded = entry, 0
    for index in range(count):
        p_type, flags, offset, vaddr, paddr, file_size, mem_size = struct.unpack_from(
            "<IIQQQQQ", data, table + index * entry_size
        )
        if p_type != PT_LOAD or not mem_size:
            continue
        if file_size > mem_size or offset + file_size > len(data):
            raise ImageError(f"{what}: segment {index} lies outside of the file; it is cut off or damaged")
        loaded += file_size
        if loaded > UNPACKED_MAX:
            raise ImageError(
                f"{what}: its segments add up to more than {UNPACKED_MAX >> 20} MiB; it is damaged"
            )
        entered = vaddr <= entry < vaddr + mem_size
        content = data[offset : offset + file_size]
        headers = 0
        if offset == 0 and not flags & PF_W:
            text = content[table + entry_size * count :].lstrip(b"\0")
            headers = mem_size if flags == PF_R and not entered else file_size - len(text)
        segments.append(Segment(paddr, content, mem_size, headers))
        if entered:
            start = entry - vaddr + paddr
    if not segments:
        raise ImageError(f"{what}: the ELF file has nothing to load")
    fixed = kind != ET_DYN or min(segment.paddr for segment in segments) != 0
    return Program(tuple(segments), start, fixed, "ELF")


def is_image(data: bytes) -> bool:
    """Tell whether the data begin with the header of a RISC-V Linux Image."""
    return len(data) >= 64 and data[48:56] == b"RISCV\0\0\0" and data[56:60] == b"RSC\x05"


def parse_kernel(data: bytes, what: str = "kernel") -> Program:
    """Return a kernel: an ELF file, a RISC-V Image, or else a raw binary entered at its beginning.

    ELF files and Images may be gzip, zstd or EFI zboot wrapped.

    Raises:
        ImageError: it is damaged, or no program: text, another kind of file, or not an instruction at its start.

    Spec: Linux, Documentation/arch/riscv/boot-image-header.rst
    """
    data = unpack(data, what)
    if data[:4] == ELF_MAGIC:
        return parse_elf(data, what)
    if is_image(data):
        size = struct.unpack_from("<Q", data, 16)[0]
        if size >= 1 << 40:
            raise ImageError(f"{what}: its header says that it needs {size} bytes; it is damaged")
        return Program((Segment(0, data, max(size, len(data))),), 0, False, "Image")
    if mistake := _no_code(data):
        raise ImageError(
            f"{what}: not a kernel but {mistake}; expected a RISC-V ELF file, a Linux Image (gzip or zstd too) or a "
            "raw binary"
        )
    return Program((Segment(0, data, len(data)),), 0, False, "raw")


def _no_code(data: bytes) -> str:
    """Return what a file is whose beginning can't be a program's; empty: it may be one."""
    for magic, kind in _NO_CODE:
        if data.startswith(magic):
            return kind
    head = data[:512]
    if len(head) < 2 or head[:2] in (b"\0\0", b"\xff\xff"):
        return "data that begin with no instruction"
    return "text" if _is_text(head) else ""


def _is_text(head: bytes) -> bool:
    """Tell whether a file's first bytes are UTF-8 text; its last character may be cut off."""
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        text = head[: error.start].decode() if error.start > len(head) - 4 else "\0"
    return all(character.isprintable() or character.isspace() for character in text)


def parse_firmware(data: bytes, what: str = "bios") -> Program:
    """Return firmware: an ELF file, or else a raw binary entered at its beginning. Raises ImageError."""
    data = unpack(data, what)
    if data[:4] == ELF_MAGIC:
        return parse_elf(data, what)
    if not data:
        raise ImageError(f"{what}: the file is empty")
    return Program((Segment(0, data, len(data)),), 0, False, "raw")
