"""Making a new qcow2 image."""

from __future__ import annotations

import errno
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from machine.block.errors import BlockError, OptionError
from machine.block.flags import MAX_SIZE
from machine.block.graph import Graph
from machine.block.node import Node
from machine.block.options import parse_bool, parse_size
from machine.block.qcow2 import layout
from machine.block.qcow2.layout import Header
from machine.block.qcow2.node import Qcow2Node
from machine.block.qcow2.refcount import encode_block


def _size(text: str, name: str) -> int:
    return parse_size(text)


def _text(text: str, name: str) -> str:
    return str(text)


@dataclass(slots=True)
class CreateOptions:
    """What an image is to be.

    Args:
        size: virtual size in bytes.
        compat: ``0.10`` (version 2) or ``1.1`` (version 3).
        cluster_size: a power of two, 512 to 2 MiB (16 KiB at least with extended L2).
        refcount_bits: 1, 2, 4, 8, 16, 32 or 64.
        preallocation: off, metadata, falloc or full.
        compression_type: zlib or zstd.
    """

    size: int = 0
    compat: str = "1.1"
    cluster_size: int = 65536
    refcount_bits: int = 16
    backing_file: str | None = None
    backing_format: str | None = None
    lazy_refcounts: bool = False
    preallocation: str = "off"
    data_file: str | None = None
    data_file_raw: bool = False
    extended_l2: bool = False
    compression_type: str = "zlib"

    def to_header(self) -> Header:
        """Return the header of the image, without tables.

        Raises:
            OptionError: a value or a combination is not allowed.
        """
        bits = self.cluster_size.bit_length() - 1
        if self.compat not in ("0.10", "1.1", "v2", "v3"):
            raise OptionError(f"compat '{self.compat}' is unknown: expected 0.10 or 1.1")
        version = 2 if self.compat in ("0.10", "v2") else 3
        if self.cluster_size != 1 << bits or not 9 <= bits <= 21:
            raise OptionError(
                f"cluster size {self.cluster_size} must be a power of two between 512 and 2048k"
            )
        order = self.refcount_bits.bit_length() - 1
        if self.refcount_bits != 1 << order or not 0 <= order <= 6:
            raise OptionError(f"refcount width {self.refcount_bits} must be a power of two up to 64 bits")
        if self.compression_type not in ("zlib", "zstd"):
            raise OptionError(f"compression type '{self.compression_type}' is unknown: expected zlib or zstd")
        newer = self.lazy_refcounts or order != 4 or self.data_file or self.extended_l2
        if version == 2 and (newer or self.compression_type != "zlib"):
            raise OptionError("this combination needs compatibility level 1.1 or above")
        if self.data_file_raw and not self.data_file:
            raise OptionError("data_file_raw needs data_file")
        if self.data_file_raw and self.backing_file:
            raise OptionError("a backing file and data_file_raw exclude each other")
        if self.extended_l2 and bits < 14:
            raise OptionError("extended L2 entries need clusters of at least 16k")
        if self.backing_format and self.backing_file is None:
            raise OptionError("a backing format needs a backing file")
        incompatible = layout.INCOMPAT_EXTL2 if self.extended_l2 else 0
        incompatible |= layout.INCOMPAT_DATA_FILE if self.data_file else 0
        incompatible |= layout.INCOMPAT_COMPRESSION if self.compression_type == "zstd" else 0
        return Header(
            version=version,
            cluster_bits=bits,
            refcount_order=order,
            backing_file=self.backing_file,
            backing_format=self.backing_format,
            incompatible=incompatible,
            compatible=layout.COMPAT_LAZY if self.lazy_refcounts else 0,
            autoclear=layout.AUTOCLEAR_DATA_RAW if self.data_file_raw else 0,
            compression_type=int(self.compression_type == "zstd"),
            data_file=self.data_file,
        )


#: qemu-img's names of the options: the field, how its text is read, and what it is.
OPTIONS: dict[str, tuple[str, Callable[[str, str], Any], str]] = {
    "size": ("size", _size, "virtual size"),
    "compat": ("compat", _text, "0.10 (version 2) or 1.1 (version 3)"),
    "cluster_size": ("cluster_size", _size, "a power of two from 512 to 2M"),
    "refcount_bits": ("refcount_bits", _size, "1, 2, 4, 8, 16, 32 or 64"),
    "backing_file": ("backing_file", _text, "the image below"),
    "backing_fmt": ("backing_format", _text, "its format"),
    "backing_format": ("backing_format", _text, "the same"),
    "lazy_refcounts": ("lazy_refcounts", parse_bool, "on or off"),
    "preallocation": ("preallocation", _text, "off, metadata, falloc or full"),
    "data_file": ("data_file", _text, "a raw file for the guest's data"),
    "data_file_raw": ("data_file_raw", parse_bool, "on: the data file is a raw image all the time"),
    "extended_l2": ("extended_l2", parse_bool, "on: clusters have 32 parts"),
    "compression_type": ("compression_type", _text, "zlib or zstd"),
}
#: Those that a raw image has.
RAW_OPTIONS = ("size", "preallocation")


def create_options(pairs: Mapping[str, Any], size: int) -> CreateOptions:
    """Return creation options from qemu-img's ``-o`` names. Raises OptionError for unknown ones."""
    result = CreateOptions(size=size)
    for key, value in pairs.items():
        if key not in OPTIONS:
            raise OptionError(f"unknown creation option '{key}': expected {', '.join(OPTIONS)}")
        name, parse, _ = OPTIONS[key]
        setattr(result, name, parse(value, key))
    return result


async def create(graph: Graph, file: Node, options: CreateOptions, data_file: Node | None = None) -> None:
    """Write an empty image into a node and close nothing.

    Raises:
        OptionError, BlockError: what can't be done.
    """
    header = options.to_header()
    cluster = header.cluster_size
    if header.l1_entries_for(options.size) * 8 > layout.MAX_L1_BYTES or options.size > MAX_SIZE:
        raise BlockError(
            errno.EFBIG, f"the image size {options.size} is too large for clusters of {cluster} bytes"
        )
    header.reftable_offset, header.reftable_clusters, header.l1_offset = cluster, 1, 0
    data = header.encode()
    per_block = (cluster * 8) >> header.refcount_order
    cells = array("Q" if header.refcount_order == 6 else "BBBBHI"[header.refcount_order], [0]) * per_block
    cells[0] = cells[1] = cells[2] = 1
    if file.size_bytes:
        await file.truncate(0)
    table = (2 * cluster).to_bytes(8, "big").ljust(cluster, b"\0")
    await file.pwrite(0, data.ljust(cluster, b"\0") + table + encode_block(cells, header.refcount_order))
    spec: dict[str, object] = {"driver": "qcow2", "file": file, "backing": None}
    if data_file is not None:
        spec["data-file"] = data_file
    file.monitor_owned, before = True, file.monitor_owned
    try:
        node = await graph.open(spec)
        assert isinstance(node, Qcow2Node)
        try:
            if options.size:
                await node.truncate(options.size, options.preallocation)
        finally:
            await graph.close_node(node)
    finally:
        file.monitor_owned = before
