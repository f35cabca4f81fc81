"""The drivers by name; their modules are imported when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from machine.block.errors import OptionError

if TYPE_CHECKING:
    from machine.block.node import Node

#: name -> (module, class, kind); kinds: protocol, format, filter.
_DRIVERS = {
    "file": ("machine.block.drivers.file", "FileNode", "protocol"),
    "host_device": ("machine.block.drivers.file", "FileNode", "protocol"),
    "memory": ("machine.block.drivers.memory", "MemoryNode", "protocol"),
    "null-co": ("machine.block.drivers.memory", "NullNode", "protocol"),
    "null-aio": ("machine.block.drivers.memory", "NullNode", "protocol"),
    "nbd": ("machine.block.nbd.client", "NbdNode", "protocol"),
    "raw": ("machine.block.drivers.raw", "RawNode", "format"),
    "qcow2": ("machine.block.qcow2.node", "Qcow2Node", "format"),
    "blkdebug": ("machine.block.drivers.blkdebug", "BlkdebugNode", "image"),
    "throttle": ("machine.block.drivers.throttle", "ThrottleNode", "filter"),
    "copy-on-read": ("machine.block.filters.cor", "CopyOnReadNode", "filter"),
    "copy-before-write": ("machine.block.filters.cbw", "CopyBeforeWriteNode", "filter"),
    "snapshot-access": ("machine.block.filters.cbw", "SnapshotAccessNode", "filter"),
    "quorum": ("machine.block.filters.quorum", "QuorumNode", "group"),
    "blkverify": ("machine.block.filters.quorum", "BlkverifyNode", "group"),
    "write-log": ("machine.block.filters.writelog", "WriteLogNode", "filter"),
    "replication": ("machine.block.replication", "ReplicationNode", "filter"),
}
QCOW2_MAGIC = b"QFI\xfb"


def driver_class(name: str) -> type[Node]:
    """Return the node class of a driver. Raises OptionError for an unknown name."""
    entry = _DRIVERS.get(name)
    if entry is None:
        raise OptionError(f"unknown driver '{name}': expected one of {', '.join(sorted(_DRIVERS))}")
    cls: type[Node] = getattr(importlib.import_module(entry[0]), entry[1])
    return cls


def is_protocol(name: str) -> bool:
    """Whether the driver is at the bottom of a chain."""
    return name in _DRIVERS and _DRIVERS[name][2] == "protocol"


def takes_file(name: str) -> bool:
    """Whether ``filename`` given to this driver means its ``file`` child."""
    return name in _DRIVERS and _DRIVERS[name][2] in ("format", "filter")


async def probe(node: Node) -> str:
    """Return the format of what a protocol node holds: qcow2, or raw for anything else."""
    if node.size_bytes < 4:
        return "raw"
    head = await node.read(0, 4)
    return "qcow2" if bytes(head) == QCOW2_MAGIC else "raw"
