"""Internal snapshots: their table, making, applying and deleting them, and machine state beside the disk."""

from __future__ import annotations

import errno
import struct
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

from machine.block.errors import BlockError, ImageFormatError
from machine.block.qcow2 import erase, resize
from machine.block.qcow2.cache import read_padded
from machine.block.qcow2.layout import (
    COMPRESSED,
    COPIED,
    MAX_L1_BYTES,
    MAX_SNAPSHOT_TABLE,
    MAX_SNAPSHOTS,
    OFFSET_MASK,
    decode_table,
    encode_table,
)

if TYPE_CHECKING:
    from machine.block.qcow2.image import Qcow2Image

_ENTRY = struct.Struct(">QIHHIIQII")
_EXTRA = struct.Struct(">QQQ")
NO_ICOUNT = (1 << 64) - 1


@dataclass(slots=True)
class Snapshot:
    """One entry of the table. Times are what the caller says; ``icount`` is -1 when unknown."""

    id: str
    name: str
    l1_offset: int = 0
    l1_entries: int = 0
    sec: int = 0
    nsec: int = 0
    clock_ns: int = 0
    vm_size: int = 0
    disk_size: int = 0
    icount: int = -1
    extra: bytes = b""
    #: Lacks what version 3 needs, as images do that an old program upgraded; written anew it is whole.
    incomplete: bool = False

    def encode(self) -> bytes:
        """Return the entry as it is on disk."""
        icount = self.icount & NO_ICOUNT
        extra = _EXTRA.pack(self.vm_size, self.disk_size, icount) + self.extra
        ident, name = self.id.encode(errors="surrogateescape"), self.name.encode(errors="surrogateescape")
        data = _ENTRY.pack(
            self.l1_offset, self.l1_entries, len(ident), len(name), self.sec, self.nsec, self.clock_ns,
            min(self.vm_size, 0xFFFF_FFFF), len(extra),
        )  # fmt: skip
        data += extra + ident + name
        return data + bytes(-len(data) % 8)


async def load(node: Qcow2Image) -> list[Snapshot]:
    """Read the table. Raises ImageFormatError for entries out of bounds."""
    header = node.header
    found: list[Snapshot] = []
    offset = header.snapshot_offset
    for number in range(header.snapshot_count):
        if offset + 40 > min(node.file.size_bytes + 8, header.snapshot_offset + MAX_SNAPSHOT_TABLE):
            raise ImageFormatError(f"{node.filename}: snapshot table is cut off at entry {number}")
        fixed = await read_padded(node.file, offset, 40)
        l1o, l1n, id_len, name_len, sec, nsec, clock, vm, extra_len = _ENTRY.unpack(fixed)
        if extra_len > 1024:
            raise ImageFormatError(f"{node.filename}: snapshot {number} has {extra_len} bytes of extra data")
        rest = bytes(await read_padded(node.file, offset + 40, extra_len + id_len + name_len))
        vm64, disk, icount = _EXTRA.unpack(rest[:extra_len].ljust(24, b"\xff")[:24])
        if l1n * 8 > MAX_L1_BYTES or (l1n and l1o & (node.cluster - 1)):
            raise ImageFormatError(f"{node.filename}: L1 table of snapshot {number} is invalid")
        text = rest[extra_len:]
        found.append(
            Snapshot(
                id=text[:id_len].decode(errors="surrogateescape"),
                name=text[id_len:].decode(errors="surrogateescape"),
                l1_offset=l1o,
                l1_entries=l1n,
                sec=sec,
                nsec=nsec,
                clock_ns=clock,
                vm_size=vm64 if extra_len >= 8 else vm,
                disk_size=disk if extra_len >= 16 else header.size,
                icount=icount if extra_len >= 24 and icount != NO_ICOUNT else -1,
                extra=rest[24:extra_len],
                incomplete=header.version >= 3 and extra_len < 16,
            )
        )
        offset += 40 + len(rest)
        offset += -offset % 8
    return found


def find(node: Qcow2Image, name: str) -> Snapshot:
    """Return the snapshot of that id, or else of that name. Raises BlockError ENOENT."""
    for snapshot in node.snapshots:
        if snapshot.id == name:
            return snapshot  # type: ignore[no-any-return]
    for snapshot in node.snapshots:
        if snapshot.name == name:
            return snapshot  # type: ignore[no-any-return]
    raise BlockError(errno.ENOENT, f"{node.filename}: no snapshot '{name}'")


async def store_table(node: Qcow2Image, snapshots: list[Snapshot]) -> None:
    """Write a new table, switch the header to it, free the old one."""
    header = node.header
    data = b"".join(s.encode() for s in snapshots)
    if len(snapshots) > MAX_SNAPSHOTS or len(data) > MAX_SNAPSHOT_TABLE:
        raise BlockError(errno.EFBIG, f"{node.name}: too many snapshots")
    old_offset = header.snapshot_offset
    old_size = len(b"".join(s.encode() for s in node.snapshots))
    offset = 0
    if data:
        offset = await node.refs.allocate(-(-len(data) // node.cluster))
        await node.file.pwrite(offset, data)
    await node.l2.flush()
    await node.refs.cache.flush()
    await node.file.flush()
    await node.file.pwrite(60, len(snapshots).to_bytes(4, "big") + offset.to_bytes(8, "big"))
    await node.file.flush()
    header.snapshot_count, header.snapshot_offset = len(snapshots), offset
    node.snapshots = snapshots
    node.forget_metadata_map()
    await node.note_inactive()
    if old_size:
        await node.refs.release(old_offset, old_size)


async def _change_refs(node: Qcow2Image, l1: array[int], delta: int) -> None:
    """Add ``delta`` to every cluster that an L1 table reaches (the table itself not); undone on failure."""
    done: list[tuple[int, int]] = []
    bits, mapping = node.header.cluster_bits, node.mapping
    try:
        for l1_entry in l1:
            table_offset = l1_entry & OFFSET_MASK
            if not table_offset:
                continue
            table = (await node.l2.get(table_offset))[:]
            for word in table[:: mapping.words]:
                if word & COMPRESSED:
                    place, size = mapping.compressed_place(word)
                    first, last = place >> bits, (place + size - 1) >> bits
                elif word & OFFSET_MASK:
                    first = last = (word & OFFSET_MASK) >> bits
                else:
                    continue
                await node.refs.change(first, last - first + 1, delta, discard=node.pass_discard_snapshot)
                done.append((first, last - first + 1))
            await node.refs.change(table_offset >> bits, 1, delta)
            done.append((table_offset >> bits, 1))
    except BlockError:
        if delta > 0 and not node.broken:
            for first, count in done:
                await node.refs.change(first, count, -delta)
        raise


async def refresh_copied(node: Qcow2Image) -> None:
    """Make the "exactly one reference" flags of the active tables agree with the refcounts."""
    mapping, bits = node.mapping, node.header.cluster_bits
    changed_l1 = False
    for index, entry in enumerate(mapping.l1):
        table_offset = entry & OFFSET_MASK
        if not table_offset:
            continue
        table = await node.l2.get(table_offset)
        new = table[:]
        for at in range(0, len(table), mapping.words):
            word = table[at]
            if word & COMPRESSED or not word & OFFSET_MASK:
                continue
            single = await node.refs.get((word & OFFSET_MASK) >> bits) == 1
            new[at] = word | COPIED if single else word & ~COPIED
        if new != table:
            await node.l2.order_after(node.refs.cache)
            node.l2.put(table_offset, new)
        single = await node.refs.get(table_offset >> bits) == 1
        flagged = table_offset | COPIED if single else table_offset
        if flagged != entry:
            mapping.l1[index] = flagged
            changed_l1 = True
    await node.l2.flush()
    await node.refs.cache.flush()
    if changed_l1:
        await node.file.flush()
        await node.file.pwrite(node.header.l1_offset, encode_table(mapping.l1))
        await node.file.flush()


async def create(
    node: Qcow2Image,
    name: str,
    *,
    sec: int = 0,
    nsec: int = 0,
    clock_ns: int = 0,
    vm_size: int = 0,
    icount: int = -1,
) -> Snapshot:
    """Make a snapshot of the present state. No request may be in flight.

    Raises:
        BlockError: EINVAL when a refcount would overflow its width (nothing was changed), ENOTSUP with a
        data file.
    """
    if node.data_file_external:
        raise BlockError(
            errno.ENOTSUP, f"{node.name}: internal snapshots and an external data file exclude each other"
        )
    node._check(0, 0, write=True)
    await node.flush()
    ids = [int(s.id) for s in node.snapshots if s.id.isdigit()]
    async with node.marked_dirty(), node.lock:
        await node.mark_lazy_dirty()
        l1 = node.mapping.l1
        clusters = -(-len(l1) * 8 // node.cluster)
        offset = await node.refs.allocate(clusters) if clusters else 0
        snapshot = Snapshot(
            id=str(max(ids, default=0) + 1), name=name, l1_offset=offset, l1_entries=len(l1), sec=sec,
            nsec=nsec, clock_ns=clock_ns, vm_size=vm_size, disk_size=node.size_bytes, icount=icount,
        )  # fmt: skip
        try:
            if clusters:
                await node.file.pwrite(offset, encode_table(array("Q", (e & ~COPIED for e in l1))))
            await _change_refs(node, l1, 1)
        except BaseException:
            if clusters and not node.broken:
                await node.refs.change(offset >> node.header.cluster_bits, clusters, -1)
            raise
        await refresh_copied(node)
        await store_table(node, [*node.snapshots, snapshot])
        if vm_size:
            start = vm_offset(node)
            await _drop_vm_state(node, start, vm_size)
    await node.flush()
    return snapshot


async def _drop_vm_state(node: Qcow2Image, start: int, size: int) -> None:
    node.lock.release()
    try:
        await erase.discard_range(node, start, start + -(-size // node.cluster) * node.cluster, full=True)
    finally:
        await node.lock.acquire()


async def read_l1(node: Qcow2Image, snapshot: Snapshot) -> array[int]:
    """Return the L1 table of a snapshot. Raises BlockError: it is damaged."""
    data = await read_padded(node.file, snapshot.l1_offset, snapshot.l1_entries * 8)
    table = decode_table(data)
    for entry in table:
        if entry & OFFSET_MASK & (node.cluster - 1):
            raise node.corrupt(f"L1 table of snapshot {snapshot.id} is invalid")
    return table


async def apply(node: Qcow2Image, name: str) -> Snapshot:
    """Go back to a snapshot; the present state is lost. No request may be in flight."""
    snapshot = find(node, name)
    node._check(0, 0, write=True)
    await node.flush()
    if snapshot.disk_size != node.size_bytes:
        saved, node.snapshots = node.snapshots, []
        try:
            await node.truncate(snapshot.disk_size)
        finally:
            node.snapshots = saved
    async with node.marked_dirty(), node.lock:
        await node.mark_lazy_dirty()
        await resize.grow_l1(node, snapshot.l1_entries)
        table = await read_l1(node, snapshot)
        await _change_refs(node, table, 1)
        await node.refs.cache.flush()
        old = node.mapping.l1
        new = table + array("Q", bytes(8 * (len(old) - len(table))))
        await node.file.flush()
        await node.file.pwrite(node.header.l1_offset, encode_table(new))
        await node.file.flush()
        node.mapping.l1 = new
        node.forget_metadata_map()
        await _change_refs(node, old, -1)
        await refresh_copied(node)
    await node.flush()
    return snapshot


async def delete(node: Qcow2Image, name: str) -> None:
    """Remove a snapshot: first from the table, then its references."""
    snapshot = find(node, name)
    node._check(0, 0, write=True)
    await node.flush()
    async with node.marked_dirty(), node.lock:
        await node.mark_lazy_dirty()
        table = await read_l1(node, snapshot)
        await store_table(node, [s for s in node.snapshots if s is not snapshot])
        await _change_refs(node, table, -1)
        if snapshot.l1_entries:
            await node.refs.release(snapshot.l1_offset, snapshot.l1_entries * 8)
        await refresh_copied(node)
    await node.flush()


def vm_offset(node: Qcow2Image) -> int:
    """Return the guest offset at which machine state is kept, above the disk."""
    return node.header.l1_entries_for(node.header.size) * node.mapping.table_span


async def save_vmstate(node: Qcow2Image, offset: int, data: bytes) -> None:
    """Write machine state at a position of its own; ``create`` with its ``vm_size`` keeps it in a
    snapshot."""
    node._check(0, 0, write=True)
    start = vm_offset(node) + offset
    async with node.lock:
        await resize.grow_l1(node, -(-(start + len(data)) // node.mapping.table_span))
    await node.drv_write(start, data, 0)
    node.write_gen += 1


async def load_vmstate(node: Qcow2Image, offset: int, length: int) -> bytes:
    """Read machine state of the active state, as an applied snapshot left it."""
    data = bytearray(length)
    await node.drv_read(vm_offset(node) + offset, memoryview(data), 0)
    return bytes(data)
