"""On-disk layout of qcow2: the header, its extensions, and the bits of table entries. All integers big
endian."""

from __future__ import annotations

import struct
import sys
from array import array
from dataclasses import dataclass, field

from machine.block.errors import ImageFormatError, UnsupportedError
from machine.block.flags import MAX_SIZE

MAGIC = b"QFI\xfb"
OFFSET_MASK = 0x00FF_FFFF_FFFF_FE00
COPIED = 1 << 63
COMPRESSED = 1 << 62
ZERO = 1
#: Reserved bits of a plain L2 entry; bit 0 is "reads as zero", of v3 only.
L2_RESERVED = 0x3F00_0000_0000_01FE
L1_RESERVED = 0x7F00_0000_0000_01FF

INCOMPAT_DIRTY, INCOMPAT_CORRUPT, INCOMPAT_DATA_FILE, INCOMPAT_COMPRESSION, INCOMPAT_EXTL2 = 1, 2, 4, 8, 16
COMPAT_LAZY = 1
AUTOCLEAR_BITMAPS, AUTOCLEAR_DATA_RAW = 1, 2
KNOWN_INCOMPAT = 31
KNOWN_AUTOCLEAR = 3

EXT_BACKING_FORMAT = 0xE2792ACA
EXT_FEATURES = 0x6803F857
EXT_BITMAPS = 0x23852875
EXT_CRYPTO = 0x0537BE77
EXT_DATA_FILE = 0x44415441

MAX_L1_BYTES = 32 << 20
MAX_REFTABLE_BYTES = 8 << 20
MAX_SNAPSHOTS = 65536
MAX_SNAPSHOT_TABLE = 64 << 20

FEATURES = (
    (0, 0, "dirty bit"),
    (0, 1, "corrupt bit"),
    (0, 2, "external data file"),
    (0, 3, "compression type"),
    (0, 4, "extended L2 entries"),
    (1, 0, "lazy refcounts"),
    (2, 0, "bitmaps"),
    (2, 1, "raw external data"),
)
_BASE = struct.Struct(">4sIQIIQIIQQIIQ")
_V3 = struct.Struct(">QQQII")


def decode_table(data: bytes | bytearray | memoryview) -> array[int]:
    """Return a table of 64-bit entries in native order."""
    table = array("Q")
    table.frombytes(data)
    if sys.byteorder == "little":
        table.byteswap()
    return table


def encode_table(table: array[int]) -> bytes:
    """Return a table of 64-bit entries as it is on disk."""
    if sys.byteorder == "big":
        return table.tobytes()
    copy = table[:]
    copy.byteswap()
    return copy.tobytes()


@dataclass(slots=True)
class Header:
    """The header and what else lives in cluster 0."""

    version: int = 3
    backing_file: str | None = None
    cluster_bits: int = 16
    size: int = 0
    crypt_method: int = 0
    l1_entries: int = 0
    l1_offset: int = 0
    reftable_offset: int = 0
    reftable_clusters: int = 0
    snapshot_count: int = 0
    snapshot_offset: int = 0
    incompatible: int = 0
    compatible: int = 0
    autoclear: int = 0
    refcount_order: int = 4
    compression_type: int = 0
    backing_format: str | None = None
    data_file: str | None = None
    bitmaps: bytes | None = None
    #: Header bytes behind the fields we know, kept when the header is rewritten.
    tail: bytes = b""
    #: Extensions we don't know, kept verbatim.
    unknown: list[tuple[int, bytes]] = field(default_factory=list)
    feature_names: dict[tuple[int, int], str] = field(default_factory=dict)

    @property
    def cluster_size(self) -> int:
        """Bytes of a cluster."""
        return 1 << self.cluster_bits

    @property
    def extended_l2(self) -> bool:
        """Whether L2 entries have 16 bytes and 32 subclusters."""
        return bool(self.incompatible & INCOMPAT_EXTL2)

    def l1_entries_for(self, size: int) -> int:
        """Return how many L1 entries cover ``size`` bytes."""
        per = self.cluster_size >> (4 if self.extended_l2 else 3)
        return -(-size // (per << self.cluster_bits))

    def encode(self) -> bytes:
        """Return cluster 0's used part.

        Raises:
            ImageFormatError: it does not fit into one cluster.
        """
        length = 72 if self.version == 2 else 112 + len(self.tail)
        extensions = self._encode_extensions(names=True)
        if length + len(extensions) + len((self.backing_file or "").encode()) > self.cluster_size:
            extensions = self._encode_extensions(
                names=False
            )  # feature names are a courtesy: small clusters go without
        name = (self.backing_file or "").encode()
        where = length + len(extensions) if self.backing_file is not None else 0
        total = length + len(extensions) + len(name)
        if total > self.cluster_size or len(name) > 1023:
            raise ImageFormatError(
                "header, extensions and backing file name exceed their limits: use a shorter name"
            )
        base = _BASE.pack(
            MAGIC, self.version, where, len(name), self.cluster_bits, self.size, self.crypt_method,
            self.l1_entries, self.l1_offset, self.reftable_offset, self.reftable_clusters,
            self.snapshot_count, self.snapshot_offset,
        )  # fmt: skip
        if self.version >= 3:
            base += _V3.pack(self.incompatible, self.compatible, self.autoclear, self.refcount_order, length)
            base += bytes([self.compression_type]) + bytes(7) + self.tail
        return base + extensions + name

    def _encode_extensions(self, *, names: bool) -> bytes:
        items: list[tuple[int, bytes]] = []
        if self.backing_format:
            items.append((EXT_BACKING_FORMAT, self.backing_format.encode()))
        if self.data_file:
            items.append((EXT_DATA_FILE, self.data_file.encode()))
        if self.version >= 3 and names:
            records = b"".join(
                bytes([kind, bit]) + name.encode().ljust(46, b"\0") for kind, bit, name in FEATURES
            )
            items.append((EXT_FEATURES, records))
        if self.bitmaps is not None:
            items.append((EXT_BITMAPS, self.bitmaps))
        items += self.unknown
        out = b"".join(
            struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8) for kind, data in items
        )
        return out + bytes(8)


def _text(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ImageFormatError(f"{what} in the image is not UTF-8") from None


def parse_header(data: bytes, *, where: str) -> Header:
    """Parse cluster 0 (or as much of it as the file has).

    Raises:
        ImageFormatError: what is wrong. UnsupportedError: a version or feature we don't know.
    """
    if len(data) < 72 or data[:4] != MAGIC:
        raise ImageFormatError(f"{where}: image is not in qcow2 format")
    (_, version, back_off, back_len, bits, size, crypt, l1n, l1o, rto, rtn, nsnap, snapo) = _BASE.unpack_from(
        data
    )
    if version not in (2, 3):
        raise UnsupportedError(f"{where}: unsupported qcow2 version {version}, expected 2 or 3")
    if not 9 <= bits <= 21:
        raise ImageFormatError(f"{where}: unsupported cluster size 2^{bits}, expected 2^9 to 2^21")
    header = Header(
        version=version, cluster_bits=bits, size=size, crypt_method=crypt, l1_entries=l1n, l1_offset=l1o,
        reftable_offset=rto, reftable_clusters=rtn, snapshot_count=nsnap, snapshot_offset=snapo,
    )  # fmt: skip
    data = data[: 1 << bits]
    length = 72
    if version == 3:
        length = _parse_v3(header, data, where)
    end = back_off if back_off else len(data)
    if back_off:
        if back_len > 1023 or back_off + back_len > len(data) or back_off < length:
            raise ImageFormatError(f"{where}: backing file name is too long or outside cluster 0")
        header.backing_file = _text(data[back_off : back_off + back_len], "backing file name")
    _parse_extensions(header, data, length, end, where)
    _check_features(header, where)
    _check_tables(header, where)
    return header


def _parse_v3(header: Header, data: bytes, where: str) -> int:
    if len(data) < 104:
        raise ImageFormatError(f"{where}: header is cut off")
    (header.incompatible, header.compatible, header.autoclear, header.refcount_order, length) = (
        _V3.unpack_from(data, 72)
    )
    if length < 104 or length % 8 or length > len(data):
        raise ImageFormatError(f"{where}: header length {length} is invalid")
    if header.refcount_order > 6:
        raise ImageFormatError(
            f"{where}: refcount width 2^{header.refcount_order} is invalid, expected up to 64 bits"
        )
    if length > 104:
        header.compression_type = data[104]
        header.tail = data[112:length]
    if bool(header.incompatible & INCOMPAT_COMPRESSION) != bool(header.compression_type):
        raise ImageFormatError(f"{where}: compression type and its feature bit contradict each other")
    if header.compression_type > 1:
        raise UnsupportedError(f"{where}: unknown compression type {header.compression_type}")
    return int(length)


def _parse_extensions(header: Header, data: bytes, offset: int, end: int, where: str) -> None:
    while offset + 8 <= end:
        kind, length = struct.unpack_from(">II", data, offset)
        offset += 8
        if length > end - offset:
            raise ImageFormatError(f"{where}: header extension {kind:#x} is too large")
        if kind == 0:
            return
        body = data[offset : offset + length]
        offset += length + (-length % 8)
        if kind == EXT_BACKING_FORMAT:
            if length > 15:
                raise ImageFormatError(f"{where}: backing format name is too long")
            header.backing_format = _text(body, "backing format")
        elif kind == EXT_DATA_FILE:
            header.data_file = _text(body, "data file name")
        elif kind == EXT_FEATURES:
            for at in range(0, length // 48 * 48, 48):
                name = body[at + 2 : at + 48].split(b"\0")[0].decode(errors="replace")
                header.feature_names[body[at], body[at + 1]] = name
        elif kind == EXT_BITMAPS:
            if length != 24:
                raise ImageFormatError(f"{where}: bitmaps extension has {length} bytes, expected 24")
            header.bitmaps = body
        else:
            header.unknown.append((kind, body))


def _check_features(header: Header, where: str) -> None:
    unknown = header.incompatible & ~KNOWN_INCOMPAT
    if unknown:
        names = [
            header.feature_names.get((0, bit), f"unknown bit {bit}")
            for bit in range(64)
            if unknown >> bit & 1
        ]
        raise UnsupportedError(f"{where}: unsupported qcow2 features: {', '.join(names)}")
    if header.extended_l2 and header.cluster_bits < 14:
        raise ImageFormatError(f"{where}: extended L2 entries need clusters of at least 16 KiB")
    if header.crypt_method:
        raise UnsupportedError(f"{where}: encrypted images are not supported")


def _check_tables(header: Header, where: str) -> None:
    mask = header.cluster_size - 1
    if header.size > MAX_SIZE:
        raise ImageFormatError(f"{where}: virtual size {header.size} is too large")
    if header.l1_entries * 8 > MAX_L1_BYTES:
        raise ImageFormatError(f"{where}: active L1 table of {header.l1_entries} entries is too large")
    if header.l1_entries < header.l1_entries_for(header.size):
        raise ImageFormatError(f"{where}: L1 table is too small for the disk's size")
    for name, offset, length in (
        ("L1 table", header.l1_offset, header.l1_entries * 8),
        ("refcount table", header.reftable_offset, header.reftable_clusters << header.cluster_bits),
        ("snapshot table", header.snapshot_offset, header.snapshot_count * 40),
    ):
        if length and (offset & mask or offset + length > 1 << 56):
            raise ImageFormatError(f"{where}: {name} offset {offset:#x} is invalid")
    if header.reftable_clusters << header.cluster_bits > MAX_REFTABLE_BYTES:
        raise ImageFormatError(f"{where}: refcount table is too large")
    if header.snapshot_count > MAX_SNAPSHOTS:
        raise ImageFormatError(f"{where}: too many snapshots ({header.snapshot_count})")
