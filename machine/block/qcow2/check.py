"""Checking a qcow2 image: count every reference anew, compare with the refcounts, repair on request."""

from __future__ import annotations

import errno
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from machine.block.errors import BlockError, ImageFormatError
from machine.block.qcow2 import bitmaps, layout, snapshots
from machine.block.qcow2.cache import read_padded
from machine.block.qcow2.layout import (
    COMPRESSED,
    COPIED,
    L2_RESERVED,
    OFFSET_MASK,
    decode_table,
    encode_table,
)
from machine.block.qcow2.refcount import decode_block, encode_block

if TYPE_CHECKING:
    from machine.block.qcow2.image import Qcow2Image

#: Clusters whose references are counted; a file with more of them can't be checked.
MAX_CLUSTERS = 1 << 28
MAX_MESSAGES = 100


@dataclass(slots=True)
class CheckResult:
    """What a check found. Counts are of clusters or entries."""

    corruptions: int = 0
    leaks: int = 0
    check_errors: int = 0
    corruptions_fixed: int = 0
    leaks_fixed: int = 0
    total_clusters: int = 0
    allocated_clusters: int = 0
    compressed_clusters: int = 0
    fragmented_clusters: int = 0
    image_end_offset: int = 0
    messages: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Add a message, up to a bound."""
        if len(self.messages) < MAX_MESSAGES:
            self.messages.append(text)


class Checker:
    """One pass over an image."""

    def __init__(self, node: Qcow2Image, fix_errors: bool) -> None:
        self.node = node
        self.header = node.header
        self.bits = node.header.cluster_bits
        self.result = CheckResult()
        self.fix_errors = fix_errors
        self.clusters = -(-node.file.size_bytes >> self.bits) if node.file.size_bytes else 0
        self.clusters = (node.file.size_bytes + node.cluster - 1) >> self.bits
        if self.clusters > MAX_CLUSTERS:
            raise BlockError(errno.EFBIG, f"{node.filename}: too many clusters to check ({self.clusters})")
        self.counts = array("I", bytes(4 * self.clusters))
        self.rebuild = False
        self.last_leak = -1
        self.copied: list[tuple[int, int, int]] = []

    def bad(self, text: str) -> None:
        """Count a corruption."""
        self.result.corruptions += 1
        self.result.say(f"ERROR {text}")

    def use(self, offset: int, size: int, what: str) -> bool:
        """Count a reference to a byte range of the file; False if it lies outside."""
        if size <= 0:
            return True
        first, last = offset >> self.bits, (offset + size - 1) >> self.bits
        if last >= self.clusters:
            self.bad(f"{what} at {offset:#x} lies behind the end of the image file")
            return False
        counts = self.counts
        for cluster in range(first, last + 1):
            counts[cluster] += 1
        return True

    async def run(self) -> None:
        """Count all references."""
        header, node = self.header, self.node
        self.result.total_clusters = -(-header.size // node.cluster)
        self.use(0, node.cluster, "header")
        await self._l1(node.mapping.l1, header.l1_offset, header.l1_entries, "active L1 table", active=True)
        for snapshot in node.snapshots:
            size = snapshot.l1_entries * 8
            if self.use(snapshot.l1_offset, size, f"L1 table of snapshot {snapshot.id}") and size:
                table = decode_table(await read_padded(node.file, snapshot.l1_offset, size))
                await self._l1(table, 0, 0, f"L1 table of snapshot {snapshot.id}", active=False)
        if node.snapshots:
            length = sum(len(s.encode()) for s in node.snapshots)
            self.use(header.snapshot_offset, length, "snapshot table")
            for snapshot in self.node.snapshots:
                if snapshot.incomplete:
                    self.result.say(f"ERROR snapshot '{snapshot.id}' lacks its extra data")
                    self.result.corruptions += 1
        await self._bitmaps()
        for kind, body in header.unknown:
            if kind == layout.EXT_CRYPTO and len(body) >= 16:
                place, size = (int.from_bytes(body[i : i + 8], "big") for i in (0, 8))
                self.use(place, size, "encryption header")

    async def _bitmaps(self) -> None:
        node = self.node
        if self.header.bitmaps is None or not self.header.autoclear & layout.AUTOCLEAR_BITMAPS:
            return
        try:
            entries = await bitmaps.read_directory(node)
        except ImageFormatError as error:
            self.bad(error.message)
            return
        _, _, size, offset = bitmaps._EXT.unpack(self.header.bitmaps)
        self.use(offset, size, "bitmap directory")
        for entry in entries:
            if not self.use(entry.table_offset, entry.table_entries * 8, f"table of bitmap '{entry.name}'"):
                continue
            for word in decode_table(
                await read_padded(node.file, entry.table_offset, entry.table_entries * 8)
            ):
                if word & OFFSET_MASK:
                    self.use(word & OFFSET_MASK, node.cluster, f"data of bitmap '{entry.name}'")

    async def _l1(self, table: array[int], offset: int, entries: int, what: str, *, active: bool) -> None:
        if active and entries:
            self.use(offset, entries * 8, what)
        for index, entry in enumerate(table):
            place = entry & OFFSET_MASK
            if not place:
                if entry & layout.L1_RESERVED:
                    self.bad(f"{what}: entry {index} has reserved bits")
                continue
            if place & (self.node.cluster - 1):
                self.bad(f"{what}: L2 offset {place:#x} of entry {index} is not aligned to clusters")
                continue
            if not self.use(place, self.node.cluster, f"{what}: L2 table {index}"):
                continue
            data = await read_padded(self.node.file, place, self.node.cluster)
            self._l2(decode_table(data), place, active)
            if active:
                self.copied.append((-1, index, entry))

    def _l2(self, table: array[int], place: int, active: bool) -> None:
        node, result = self.node, self.result
        words, cluster, counts, bits = node.mapping.words, node.cluster, self.counts, self.bits
        following = 0
        external = node.data_file_external
        for at in range(0, len(table), words):
            word = table[at]
            if not word:
                continue
            if word & COMPRESSED:
                if word & COPIED:
                    self.bad(f"compressed entry at {place + 8 * at:#x} claims to be its cluster's only user")
                offset, size = node.mapping.compressed_place(word)
                self.use(offset, size, f"compressed data of the L2 table at {place:#x}")
                if active:
                    result.allocated_clusters += 1
                    result.compressed_clusters += 1
                    result.fragmented_clusters += 1
                continue
            if words == 2 and table[at + 1] & table[at + 1] >> 32:
                self.bad(f"L2 entry at {place + 8 * at:#x} has subclusters that are allocated and zero")
            host = word & OFFSET_MASK
            if host & (cluster - 1) or word & L2_RESERVED:
                self.bad(f"L2 entry at {place + 8 * at:#x} is invalid: {word:#x}")
                continue
            if not host or external:
                if active and external and word & COPIED:
                    result.allocated_clusters += 1
                continue
            number = host >> bits
            if number >= self.clusters:
                self.bad(f"data cluster {host:#x} lies behind the end of the image file")
                continue
            counts[number] += 1
            if active:
                self.copied.append((place, at, word))
                if not word & 1:
                    result.allocated_clusters += 1
                    if following and host != following:
                        result.fragmented_clusters += 1
                    following = host + cluster

    async def refblocks(self) -> None:
        """Count the refcount structures themselves."""
        header, node = self.header, self.node
        self.use(header.reftable_offset, header.reftable_clusters << self.bits, "refcount table")
        blocks: set[int] = set()
        for index, entry in enumerate(node.refs.table):
            if not entry:
                continue
            if entry & ~OFFSET_MASK or entry & (node.cluster - 1):
                self.bad(f"refcount block {index} has the invalid offset {entry:#x}")
                self.rebuild = True
            elif entry >> self.bits >= self.clusters:
                self.bad(f"refcount block {index} at {entry:#x} lies behind the end of the image file")
                self.rebuild = True
            elif entry in blocks or self.counts[entry >> self.bits]:
                self.use(entry, node.cluster, "refcount block")
                self.bad(f"refcount block {index} at {entry:#x} is used for something else too")
                self.rebuild = True
            else:
                self.use(entry, node.cluster, "refcount block")
                blocks.add(entry)

    async def compare(self, fix_leaks: bool) -> None:
        """Compare refcounts with what was counted; correct those that are asked to be."""
        node, refs, result = self.node, self.node.refs, self.result
        for index in range(max(len(refs.table), -(-self.clusters // refs.per_block))):
            low = index * refs.per_block
            counted = self.counts[low : low + refs.per_block]
            entry = refs.table[index] if index < len(refs.table) else 0
            usable = entry and not entry & ~OFFSET_MASK and not entry & (node.cluster - 1)
            usable = bool(usable and entry >> self.bits < self.clusters)
            if not usable:
                missing = len(counted) - counted.count(0)
                if missing:
                    result.corruptions += missing
                    result.say(f"ERROR {missing} clusters from {low << self.bits:#x} have no refcount block")
                    self.rebuild = True
                continue
            cells = decode_block(bytes(await read_padded(node.file, entry, node.cluster)), refs.order)
            counted.extend(array("I", bytes(4 * (len(cells) - len(counted)))))
            if array("Q", cells) == array("Q", counted) if refs.order == 6 else array("I", cells) == counted:
                continue
            await self._correct(entry, low, cells, counted, fix_leaks)

    async def _correct(
        self, entry: int, low: int, cells: array[int], counted: array[int], fix_leaks: bool
    ) -> None:
        result, refs = self.result, self.node.refs
        changed = False
        for i, (stored, real) in enumerate(zip(cells, counted, strict=True)):
            if stored == real:
                continue
            leak = stored > real
            if low + i >= self.clusters and not fix_leaks:
                continue  # behind the end of the file nothing is lost
            word = "Leaked cluster" if leak else "ERROR cluster"
            result.say(f"{word} {low + i} refcount={stored} reference={real}")
            if (fix_leaks if leak else self.fix_errors) and real <= refs.maximum:
                cells[i] = real
                changed = True
                if leak:
                    result.leaks_fixed += 1
                else:
                    result.corruptions_fixed += 1
            elif leak:
                result.leaks += 1
                self.last_leak = low + i
            else:
                result.corruptions += 1
        if changed and not self.rebuild:
            await self.node.file.pwrite(entry, encode_block(cells, refs.order))

    async def copied_flags(self) -> None:
        """Check the "exactly one reference" flags of the active tables."""
        node = self.node
        l1_changed = False
        by_table: dict[int, list[tuple[int, int]]] = {}
        for place, at, word in self.copied:
            number = (word & OFFSET_MASK) >> self.bits
            single = (self.counts[number] if self.rebuild else await node.refs.get(number)) == 1
            if single == bool(word & COPIED):
                continue
            self.result.say(f"ERROR entry {word:#x} has a wrong copied flag, references={int(single)}")
            if not self.fix_errors:
                self.result.corruptions += 1
                continue
            self.result.corruptions_fixed += 1
            right = word ^ COPIED
            if place < 0:
                node.mapping.l1[at] = right
                l1_changed = True
            else:
                by_table.setdefault(place, []).append((at, right))
        for place, changes in by_table.items():
            for at, right in changes:
                await node.file.pwrite(place + 8 * at, right.to_bytes(8, "big"))
        if l1_changed:
            await node.file.pwrite(self.header.l1_offset, encode_table(node.mapping.l1))

    async def rebuild_refcounts(self, order: int | None = None) -> None:
        """Write new refcount structures behind everything that is referenced, and switch the header to them.

        Args:
            order: their width; the old structures, which are whole then, stay until the header is switched.
        """
        node, header, refs = self.node, self.header, self.node.refs
        old_end = 0
        if order is not None:
            places = [header.reftable_offset + (header.reftable_clusters << self.bits) - 1, *refs.table]
            old_end = max((place & OFFSET_MASK) >> self.bits for place in places) + 1
        order = refs.order if order is None else order
        per_block, maximum = (node.cluster * 8) >> order, (1 << (1 << order)) - 1
        fresh = Checker(node, False)
        await fresh.run()
        counts = fresh.counts
        last = next((i for i in range(len(counts) - 1, -1, -1) if counts[i]), 0)
        base = max(last + 1, old_end)
        counts.extend(array("I", bytes(4 * max(0, base - len(counts)))))
        per_table = node.cluster // 8
        blocks = tables = 1
        while True:
            total = base + blocks + tables
            need_blocks = -(-total // per_block)
            need_tables = -(-need_blocks // per_table)
            if need_blocks <= blocks and need_tables <= tables:
                break
            blocks, tables = max(blocks, need_blocks), max(tables, need_tables)
        total = base + blocks + tables
        counts = counts[:base] + array("I", [1]) * (blocks + tables)
        counts.extend(array("I", bytes(4 * (blocks * per_block - total))))
        table = array("Q", bytes(tables * node.cluster))
        for index in range(blocks):
            cells = decode_block(bytes(node.cluster), order)
            for i, value in enumerate(counts[index * per_block : (index + 1) * per_block]):
                if value > maximum:
                    raise BlockError(
                        errno.EINVAL,
                        f"{node.filename}: a cluster has more references than its refcount holds",
                    )
                cells[i] = value
            table[index] = (base + index) << self.bits
            await node.file.pwrite(table[index], encode_block(cells, order))
        place = (base + blocks) << self.bits
        await node.file.pwrite(place, encode_table(table))
        await node.file.flush()
        header.reftable_offset, header.reftable_clusters = place, tables
        if order == header.refcount_order:
            await node.file.pwrite(48, place.to_bytes(8, "big") + tables.to_bytes(4, "big"))
        else:
            header.refcount_order = order
            await node.write_header()
        await node.file.flush()
        node.forget_metadata_map()


async def _one_pass(node: Qcow2Image, fix_leaks: bool, fix_errors: bool) -> Checker:
    checker = Checker(node, fix_errors)
    await checker.run()
    await checker.refblocks()
    await checker.compare(fix_leaks)
    node.refs.cache.clear()
    await checker.copied_flags()
    counts = checker.counts
    last = next((i for i in range(len(counts) - 1, -1, -1) if counts[i]), -1)
    checker.result.image_end_offset = (max(last, checker.last_leak) + 1) << checker.bits
    return checker


async def check(node: Qcow2Image, *, fix_leaks: bool = False, fix_errors: bool = False) -> CheckResult:
    """Check an image that nobody else uses.

    Args:
        fix_leaks: free clusters that nothing refers to.
        fix_errors: correct refcounts that are too low, wrong flags, and rebuild refcount structures.
    """
    if not node.read_only and not node.broken:
        await node.l2.flush()
        node.refs.cache.writable = True
        await node.refs.cache.flush()
    if node.header.snapshot_count and not node.snapshots:
        node.snapshots = await snapshots.load(node)
    checker = await _one_pass(node, (fix_leaks and fix_errors) or fix_leaks, fix_errors)
    if fix_errors and any(snapshot.incomplete for snapshot in node.snapshots):
        await snapshots.store_table(node, node.snapshots)
        await node.refs.cache.flush()
        for snapshot in node.snapshots:
            snapshot.incomplete = False
    result = checker.result
    if not (fix_leaks or fix_errors):
        return result
    if checker.rebuild and fix_errors:
        await checker.rebuild_refcounts()
    await _reload(node)
    again = await _one_pass(node, False, False)
    final = again.result
    final.messages = result.messages + final.messages
    final.corruptions_fixed = max(0, result.corruptions + result.corruptions_fixed - final.corruptions)
    final.leaks_fixed = max(0, result.leaks + result.leaks_fixed - final.leaks)
    if checker.rebuild and fix_leaks and final.leaks:
        third = await _one_pass(node, True, False)
        final.leaks_fixed += third.result.leaks_fixed
        final.leaks = third.result.leaks
        await _reload(node)
    if fix_errors and not final.corruptions and not final.check_errors:
        wanted = node.header.incompatible & ~(layout.INCOMPAT_DIRTY | layout.INCOMPAT_CORRUPT)
        if wanted != node.header.incompatible:
            node.header.incompatible = wanted
            await node.write_incompatible()
        node.broken = False
    return final


async def _reload(node: Qcow2Image) -> None:
    await node.file.flush()
    node.l2.clear()
    node.refs.cache.clear()
    await node.load_tables()
