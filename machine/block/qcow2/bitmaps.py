"""Persistent dirty bitmaps: read at open, marked as in use while writable, stored at a clean close."""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

from machine.block.dirty import DirtyBitmap
from machine.block.errors import BlockError, ImageFormatError
from machine.block.qcow2 import layout
from machine.block.qcow2.cache import read_padded
from machine.block.qcow2.layout import OFFSET_MASK, decode_table, encode_table

if TYPE_CHECKING:
    from machine.block.qcow2.image import Qcow2Image

_DIR = struct.Struct(">QIIBBHI")
_EXT = struct.Struct(">IIQQ")
IN_USE, AUTO = 1, 2
MAX_BITMAPS = 65535
MAX_DIRECTORY = 64 << 20
MAX_BITMAP_BYTES = 1 << 29


@dataclass(slots=True)
class Entry:
    """One directory entry."""

    name: str
    table_offset: int
    table_entries: int
    flags: int
    granularity_bits: int
    extra: bytes = b""

    def encode(self) -> bytes:
        """Return the entry as it is on disk."""
        name = self.name.encode(errors="surrogateescape")
        head = _DIR.pack(
            self.table_offset,
            self.table_entries,
            self.flags,
            1,
            self.granularity_bits,
            len(name),
            len(self.extra),
        )
        data = head + self.extra + name
        return data + bytes(-len(data) % 8)


async def read_directory(node: Qcow2Image) -> list[Entry]:
    """Return the directory. Raises ImageFormatError when it is out of bounds."""
    if node.header.bitmaps is None:
        return []
    count, _, size, offset = _EXT.unpack(node.header.bitmaps)
    if not count or count > MAX_BITMAPS or size > MAX_DIRECTORY or offset & (node.cluster - 1):
        raise ImageFormatError(f"{node.filename}: bitmap directory is invalid")
    data = bytes(await read_padded(node.file, offset, min(size, max(0, node.file.size_bytes - offset))))
    entries: list[Entry] = []
    at = 0
    while at + 24 <= len(data):
        table, n, flags, kind, gran, name_len, extra_len = _DIR.unpack_from(data, at)
        end = at + 24 + extra_len + name_len
        if end > len(data) or kind != 1 or not 9 <= gran <= 31 or name_len > 1023 or not name_len:
            raise ImageFormatError(f"{node.filename}: bitmap directory entry {len(entries)} is invalid")
        if table & (node.cluster - 1) or n * 8 > MAX_DIRECTORY:
            raise ImageFormatError(f"{node.filename}: table of bitmap {len(entries)} is invalid")
        name = data[at + 24 + extra_len : end].decode(errors="surrogateescape")
        entries.append(Entry(name, table, n, flags, gran, data[at + 24 : at + 24 + extra_len]))
        at = end + (-end % 8)
    if len(entries) != count:
        raise ImageFormatError(
            f"{node.filename}: bitmap directory has {len(entries)} entries, expected {count}"
        )
    return entries


async def _read_bits(node: Qcow2Image, entry: Entry, bitmap: DirtyBitmap) -> None:
    needed = -(-len(bitmap.cells) // 8)
    if needed > MAX_BITMAP_BYTES or -(-needed // node.cluster) != entry.table_entries:
        raise ImageFormatError(f"{node.filename}: bitmap '{entry.name}' does not fit the disk's size")
    table = decode_table(await read_padded(node.file, entry.table_offset, entry.table_entries * 8))
    data = bytearray()
    for word in table:
        offset = word & OFFSET_MASK
        if offset & (node.cluster - 1) or word & ~(OFFSET_MASK | 1) or (offset and word & 1):
            raise ImageFormatError(f"{node.filename}: table of bitmap '{entry.name}' is invalid")
        if offset:
            data += await read_padded(node.file, offset, node.cluster)
        else:
            data += (b"\xff" if word & 1 else b"\0") * node.cluster
    bitmap.load_bits(bytes(data[:needed]))


async def load(node: Qcow2Image) -> list[str]:
    """Attach the image's bitmaps to the node; on a writable one mark them as in use. Returns what was
    wrong."""
    header = node.header
    node.stored_bitmaps = []
    if header.bitmaps is None:
        return []
    if not header.autoclear & layout.AUTOCLEAR_BITMAPS:
        # Somebody who does not know bitmaps wrote to the image: what they say is worth nothing.
        if not node.read_only:
            header.bitmaps = None
            await node.write_header()
        return [
            f"{node.filename}: bitmaps are dropped: the image was changed by a program that does not "
            "keep them"
        ]
    entries = await read_directory(node)
    errors: list[str] = []
    for entry in entries:
        bitmap = DirtyBitmap(entry.name, node.size_bytes, 1 << entry.granularity_bits)
        bitmap.persistent = True
        bitmap.enabled = bool(entry.flags & AUTO)
        bitmap.readonly = node.read_only
        if entry.flags & IN_USE:
            bitmap.inconsistent, bitmap.enabled = True, False
            errors.append(f"{node.filename}: bitmap '{entry.name}' was not stored and is inconsistent")
        else:
            try:
                await _read_bits(node, entry, bitmap)
            except ImageFormatError as error:
                bitmap.inconsistent, bitmap.enabled = True, False
                errors.append(error.message)
        node.bitmaps.add(bitmap)
    node.stored_bitmaps = entries
    if not node.read_only:
        await mark_in_use(node)
    return errors


async def mark_in_use(node: Qcow2Image) -> None:
    """Say on disk that the stored bitmaps are stale from now on; done in place, the directory keeps its
    size."""
    for bitmap in node.bitmaps:
        bitmap.readonly = False
    for entry in node.stored_bitmaps:
        entry.flags |= IN_USE
    if node.header.bitmaps is not None:
        offset = _EXT.unpack(node.header.bitmaps)[3]
        await node.file.pwrite(offset, b"".join(e.encode() for e in node.stored_bitmaps))
        await node.file.flush()


async def store(node: Qcow2Image) -> None:
    """Write the persistent bitmaps and clear their in-use flags; the old copies are freed."""
    keep = [b for b in node.bitmaps if b.persistent]
    old = node.stored_bitmaps
    if not keep and not old:
        return
    async with node.lock:
        await node.mark_lazy_dirty()
        entries = [await _store_one(node, b, old) for b in keep]
        extension: bytes | None = None
        if entries:
            directory = b"".join(e.encode() for e in entries)
            offset = await node.refs.allocate(-(-len(directory) // node.cluster))
            await node.file.pwrite(
                offset, directory.ljust(-(-len(directory) // node.cluster) * node.cluster, b"\0")
            )
            extension = _EXT.pack(len(entries), 0, len(directory), offset)
        await node.l2.flush()
        await node.refs.cache.flush()
        await node.file.flush()
        previous = node.header.bitmaps
        node.header.bitmaps = extension
        if extension is None:
            node.header.autoclear &= ~layout.AUTOCLEAR_BITMAPS
        else:
            node.header.autoclear |= layout.AUTOCLEAR_BITMAPS
        await node.write_header()
        await node.file.flush()
        node.stored_bitmaps = entries
        kept = {entry.table_offset for entry in entries}
        if previous is not None:
            _, _, size, offset = _EXT.unpack(previous)
            await node.refs.release(offset, size)
        for entry in old:
            if entry.table_offset not in kept:
                await _free_one(node, entry)


async def _store_one(node: Qcow2Image, bitmap: DirtyBitmap, old: list[Entry]) -> Entry:
    if bitmap.inconsistent:
        known = next((e for e in old if e.name == bitmap.name), None)
        if known is not None:
            return known
    data = bitmap.to_bits()
    cluster = node.cluster
    table = array("Q")
    for at in range(0, len(data), cluster):
        piece = data[at : at + cluster]
        if piece.count(0) == len(piece):
            table.append(0)
        elif len(piece) == cluster and piece.count(255) == cluster:
            table.append(1)
        else:
            offset = await node.refs.allocate(1)
            await node.file.pwrite(offset, piece.ljust(cluster, b"\0"))
            table.append(offset)
    if not table:
        raise BlockError(22, f"{node.name}: can't store bitmap '{bitmap.name}' of an empty disk")
    clusters = -(-len(table) * 8 // cluster)
    offset = await node.refs.allocate(clusters)
    await node.file.pwrite(offset, encode_table(table).ljust(clusters * cluster, b"\0"))
    flags = (AUTO if bitmap.enabled else 0) | (IN_USE if bitmap.inconsistent else 0)
    return Entry(bitmap.name, offset, len(table), flags, bitmap.shift)


async def _free_one(node: Qcow2Image, entry: Entry) -> None:
    table = decode_table(await read_padded(node.file, entry.table_offset, entry.table_entries * 8))
    for word in table:
        if word & OFFSET_MASK:
            await node.refs.release(word & OFFSET_MASK, node.cluster)
    await node.refs.release(entry.table_offset, max(1, entry.table_entries * 8))
