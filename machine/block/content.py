"""Identity of what a guest sees on a disk, whatever its format: a hash over the hashes of 1 MiB chunks."""

from __future__ import annotations

import hashlib

from machine.block import flags as F
from machine.block.node import Node, status_above

CHUNK = 1 << 20


def leaf(data: bytes | bytearray | memoryview) -> bytes:
    """Return the hash of one chunk."""
    return hashlib.sha256(data).digest()


_ZERO_LEAF = leaf(bytes(CHUNK))


async def leaves(node: Node) -> list[bytes]:
    """Return the chunk hashes of a disk; chunks that are holes are not read."""
    found: list[bytes] = []
    for start in range(0, node.size_bytes, CHUNK):
        length = min(CHUNK, node.size_bytes - start)
        if length == CHUNK and await _is_hole(node, start, length):
            found.append(_ZERO_LEAF)
        else:
            found.append(leaf(await node.read(start, length)))
    return found


async def _is_hole(node: Node, offset: int, length: int) -> bool:
    status, _ = await status_above(node, None, offset, length)
    return bool(status.flags & F.ST_ZERO) and status.length >= length


def root_of(hashes: list[bytes], size_bytes: int) -> str:
    """Return the root over chunk hashes and size, in hexadecimal."""
    return hashlib.sha256(size_bytes.to_bytes(8, "little") + b"".join(hashes)).hexdigest()


async def content_root(node: Node) -> str:
    """Return the disk's identity.

    Returns:
        64 hexadecimal digits; equal for raw, qcow2 and NBD disks of the same size and content.
    """
    return root_of(await leaves(node), node.size_bytes)
