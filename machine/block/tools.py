"""Image tools as a library: what ``workbench img`` and ``workbench nbd`` do. Results are data; nothing prints.

Names, options and JSON keys are those of qemu-img, so that scripts can be carried over.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine.block import flags as F
from machine.block.drivers.file import create_file
from machine.block.errors import BlockError, OptionError, StatusError, UnsupportedError
from machine.block.flags import Perm
from machine.block.graph import Graph
from machine.block.jobs.chain import change_backing_file, copy_range
from machine.block.node import Node, is_allocated_above, status_above
from machine.block.options import parse_keyvals, parse_size, resolve_backing
from machine.block.qcow2 import check as qcow2_check
from machine.block.qcow2 import layout, snapshots
from machine.block.qcow2.create import RAW_OPTIONS, CreateOptions, create_options
from machine.block.qcow2.create import create as create_qcow2
from machine.block.qcow2.node import Qcow2Node

STEP = 2 << 20
Progress = Callable[[int, int], None]


#: What qemu-img's cache modes mean here; in all but ``unsafe`` the data are on the disk when the command ends.
CACHE_MODES: dict[str, dict[str, bool]] = {
    "none": {"direct": True},
    "directsync": {"direct": True},
    "writethrough": {},
    "writeback": {},
    "unsafe": {"no-flush": True},
}


def _spec(
    name: str,
    fmt: str | None,
    *,
    image_opts: bool = False,
    force_share: bool = False,
    cache: str = "writeback",
) -> Any:
    extra: dict[str, Any] = {}
    if force_share:
        extra["force-share"] = True
    if CACHE_MODES[cache]:
        extra["cache"] = CACHE_MODES[cache]
    if image_opts:
        return {**parse_keyvals(name), **extra}
    return (name, fmt, extra)


async def open_image(
    graph: Graph,
    name: str,
    fmt: str | None = None,
    *,
    writable: bool = False,
    image_opts: bool = False,
    force_share: bool = False,
    cache: str = "writeback",
    **options: Any,
) -> Node:
    """Open an image as a tool does.

    Args:
        name: a file name, json: name or URI; with ``image_opts``, key=value options.
        fmt: format, probed if None.
        force_share: open beside a writer; what is read may be torn.
        cache: one of ``CACHE_MODES``; ``unsafe`` skips host flushes (targets that are worthless until complete).
    """
    spec = _spec(name, fmt, image_opts=image_opts, force_share=force_share, cache=cache)
    if isinstance(spec, dict):
        node = await graph.open({**spec, **options}, driver=fmt, read_only=not writable)
    else:
        name, fmt, extra = spec
        node = await graph.open(name, driver=fmt, read_only=not writable, defaults={**extra, **options})
    if writable:
        await graph.backend(node, name=f"tool on {name}")  # takes the file's locks
    return node


async def create(
    graph: Graph,
    filename: str,
    fmt: str = "raw",
    size: int | None = None,
    *,
    backing: str | None = None,
    backing_format: str | None = None,
    unsafe: bool = False,
    options: dict[str, Any] | None = None,
) -> CreateOptions:
    """Make a new image.

    Args:
        size: virtual size; None takes the backing file's.
        unsafe: don't open the backing file to check it.

    Returns:
        What was made, defaults filled in.
    """
    pairs = dict(options or {})
    if backing is not None:
        pairs["backing_file"] = backing
    if backing_format is not None:
        pairs["backing_fmt"] = backing_format
    wanted = create_options(pairs, size or 0)
    if wanted.backing_file is not None and (not unsafe or size is None):
        if wanted.backing_format is None and not unsafe:
            raise OptionError("a backing file needs its format: give -F")
        name = resolve_backing(filename, wanted.backing_file)
        below = await open_image(graph, name, wanted.backing_format, force_share=True)
        if size is None and "size" not in pairs:
            wanted.size = below.size_bytes
        await graph.close_node(below)
    elif size is None and "size" not in pairs:
        raise OptionError("the size of the image is missing")
    if fmt == "raw":
        if wanted.backing_file is not None:
            raise OptionError("raw images have no backing file")
        foreign = ", ".join(key for key in pairs if key not in RAW_OPTIONS)
        if foreign:
            raise OptionError(f"raw images have no option {foreign}: expected {', '.join(RAW_OPTIONS)}")
        create_file(filename)
        raw = await graph.open({"driver": "file", "filename": filename})
        try:
            await raw.truncate(wanted.size, wanted.preallocation)
        except BlockError:
            Path(filename).unlink(missing_ok=True)
            raise
        finally:
            await graph.close_node(raw)
        return wanted
    if fmt != "qcow2":
        raise OptionError(f"can't create format '{fmt}': expected raw or qcow2")
    wanted.to_header()
    create_file(filename)
    file = await graph.open({"driver": "file", "filename": filename, "cache": {"no-flush": True}})
    data: Node | None = None
    if wanted.data_file is not None:
        place = resolve_backing(filename, wanted.data_file)
        create_file(place)
        data = await graph.open({"driver": "file", "filename": place})
    try:
        await create_qcow2(graph, file, wanted, data)
    except BlockError:
        Path(filename).unlink(missing_ok=True)
        raise
    finally:
        for node in (file, data):
            if node is not None and not node.closed:
                await graph.close_node(node)
    return wanted


async def open_beside(graph: Graph, name: str, fmt: str | None = None, **options: Any) -> Node:
    """Open an image whose writes go to a temporary file and end with the node; the image stays as it is."""
    if fmt is None:
        probe = await open_image(graph, name)
        fmt = probe.driver
        await graph.close_node(probe)
    below = name if "://" in name or name.startswith("json:") else str(Path(name).absolute())
    with tempfile.TemporaryDirectory(prefix="workbench-") as folder:
        place = str(Path(folder, "overlay.qcow2"))
        await create(graph, place, "qcow2", backing=below, backing_format=fmt)
        return await open_image(graph, place, "qcow2", writable=True, cache="unsafe", **options)


def _disk_size(node: Node) -> int | None:
    """Return what an image takes on the host; None where that is not known, as of a server's."""
    total, known = 0, False
    stack, seen = [node], set[str]()
    while stack:
        here = stack.pop()
        allocated = getattr(here, "allocated_bytes", None)
        if allocated is not None and here.name not in seen:
            seen.add(here.name)
            total, known = total + allocated(), True
        stack.extend(e.node for link, e in here.children.items() if link != "backing")
    return total if known else None


def _snapshot_info(snapshot: snapshots.Snapshot) -> dict[str, Any]:
    info: dict[str, Any] = {
        "id": snapshot.id,
        "name": snapshot.name,
        "vm-state-size": snapshot.vm_size,
        "date-sec": snapshot.sec,
        "date-nsec": snapshot.nsec,
        "vm-clock-sec": snapshot.clock_ns // 1_000_000_000,
        "vm-clock-nsec": snapshot.clock_ns % 1_000_000_000,
    }
    if snapshot.icount >= 0:
        info["icount"] = snapshot.icount
    return info


def image_info(node: Node) -> dict[str, Any]:
    """Return what qemu-img's ``info --output=json`` says about an opened image."""
    info: dict[str, Any] = {
        "virtual-size": node.size_bytes,
        "filename": node.filename,
        "format": node.driver,
    }
    size = _disk_size(node)
    if size is not None:
        info.update({"actual-size": size, "dirty-flag": False})
    if not isinstance(node, Qcow2Node):
        return info
    header = node.header
    info["cluster-size"] = node.cluster
    info["dirty-flag"] = bool(header.incompatible & layout.INCOMPAT_DIRTY)
    data: dict[str, Any] = {
        "compat": "0.10" if header.version == 2 else "1.1",
        "refcount-bits": 1 << header.refcount_order,
    }
    data["compression-type"] = "zstd" if header.compression_type else "zlib"
    if header.version >= 3:
        data["lazy-refcounts"] = bool(header.compatible & layout.COMPAT_LAZY)
        data["corrupt"] = bool(header.incompatible & layout.INCOMPAT_CORRUPT)
        data["extended-l2"] = header.extended_l2
        if header.data_file:
            data["data-file"] = header.data_file
            data["data-file-raw"] = bool(header.autoclear & layout.AUTOCLEAR_DATA_RAW)
        if len(node.bitmaps):
            data["bitmaps"] = [
                {
                    "flags": ["in-use"] * b.inconsistent + ["auto"] * b.enabled,
                    "name": b.name,
                    "granularity": b.granularity,
                }
                for b in node.bitmaps
            ]
    info["format-specific"] = {"type": "qcow2", "data": data}
    if header.backing_file is not None:
        info["backing-filename"] = header.backing_file
        info["full-backing-filename"] = resolve_backing(node.filename, header.backing_file)
        if header.backing_format:
            info["backing-filename-format"] = header.backing_format
    if node.snapshots:
        info["snapshots"] = [_snapshot_info(s) for s in node.snapshots]
    return info


async def info(
    graph: Graph, name: str, fmt: str | None = None, *, chain: bool = False, **how: Any
) -> list[dict[str, Any]]:
    """Return the information of an image, and with ``chain`` of everything below it."""
    how.setdefault("force_share", False)
    if not chain:
        try:
            node = await open_image(graph, name, fmt, **how, backing=None)
        except OptionError:
            node = await open_image(graph, name, fmt, **how)
        return [image_info(node)]
    node = await open_image(graph, name, fmt, **how)
    found: list[dict[str, Any]] = []
    here: Node | None = node
    while here is not None:
        if not here.is_filter:
            found.append(image_info(here))
        here = here.below
    return found


async def check(
    graph: Graph,
    name: str,
    fmt: str | None = None,
    *,
    repair: str = "",
    force_share: bool = False,
    cache: str | None = None,
) -> qcow2_check.CheckResult:
    """Check an image.

    Args:
        repair: empty, ``leaks`` or ``all``. force_share, cache: as for ``open_image``.

    Raises:
        UnsupportedError: the format has no check.
    """
    if repair not in ("", "leaks", "all"):
        raise OptionError(f"repair mode '{repair}' is unknown: expected leaks or all")
    spec: dict[str, Any] = {
        "driver": "qcow2",
        "read-only": not repair,
        "backing": None,
        "repair-dirty": False,
    }
    if fmt not in (None, "qcow2"):
        raise UnsupportedError(f"format {fmt} has no check")
    probe = await open_image(graph, name, fmt, writable=False, force_share=True)
    driver = probe.driver
    await graph.close_node(probe)
    if driver != "qcow2":
        raise UnsupportedError(f"'{name}': format {driver} has no check")
    spec["file"] = {"driver": "file", "filename": name, "cache": CACHE_MODES[cache or "writeback"]}
    if force_share and not repair:
        spec["force-share"] = True
    node = await graph.open(spec)
    assert isinstance(node, Qcow2Node)
    return await qcow2_check.check(node, fix_leaks=bool(repair), fix_errors=repair == "all")


async def map_image(
    graph: Graph, name: str, fmt: str | None = None, *, start: int = 0, length: int | None = None, **how: Any
) -> list[dict[str, Any]]:
    """Return what qemu-img's ``map`` tells: runs with start, length, depth, present, zero, data, offset, filename.

    Args:
        start, length: bytes of the disk to map; all by default. how: as for ``open_image``.
    """
    node = await open_image(graph, name, fmt, **how)
    layers: list[Node] = []
    here: Node | None = node
    while here is not None:
        if not here.is_filter:
            layers.append(here)
        here = here.below
    runs: list[dict[str, Any]] = []
    offset = start
    end = node.size_bytes if length is None else min(node.size_bytes, start + length)
    while offset < end:
        status, layer = await status_above(node, None, offset, end - offset)
        depth = layers.index(layer) if layer in layers else len(layers) - 1
        ended = (
            offset >= layers[depth].size_bytes
        )  # zeroes that the longer layer above shows, and does not hold
        depth -= ended
        run: dict[str, Any] = {
            "start": offset,
            "length": status.length,
            "depth": depth,
            "present": bool(status.flags & F.ST_ALLOCATED) and not ended,
            "zero": bool(status.flags & F.ST_ZERO),
            "data": bool(status.flags & F.ST_DATA),
        }
        if status.flags & F.ST_OFFSET:
            run["offset"] = status.offset
            run["filename"] = (status.node or layers[depth]).filename
        if runs and _continues(runs[-1], run):
            runs[-1]["length"] += run["length"]
        else:
            runs.append(run)
        offset += status.length
    return runs


def _continues(last: dict[str, Any], run: dict[str, Any]) -> bool:
    same = all(last[key] == run[key] for key in ("depth", "present", "zero", "data"))
    if "offset" in last or "offset" in run:
        return same and last.get("offset", -1) + last["length"] == run.get("offset", -2)
    return same


@dataclass(slots=True)
class Comparison:
    """``offset`` is where the images differ first, or None; a ``strict`` comparison stops at another size, too."""

    offset: int | None
    sizes_differ: bool
    allocation_differs: bool = False
    strict: bool = False

    def __str__(self) -> str:
        if self.strict and self.sizes_differ:
            return "Strict mode: Image size mismatch!"
        if self.allocation_differs:
            return f"Strict mode: Offset {self.offset} block status mismatch!"
        return (
            "Images are identical." if self.offset is None else f"Content mismatch at offset {self.offset}!"
        )


async def compare(
    graph: Graph, first: Node, second: Node, *, strict: bool = False, progress: Progress | None = None
) -> Comparison:
    """Compare two disks; what one has beyond the other's end has to be zero.

    Args:
        strict: another size, or other ranges that are allocated, zeroes or data, is a difference.

    Raises:
        StatusError: an image can't tell what it holds. BlockError: one can't be read.
    """
    sizes = sorted((first.size_bytes, second.size_bytes))
    if strict and sizes[0] != sizes[1]:
        return Comparison(sizes[0], True, strict=True)
    offset, total = 0, sizes[1]
    while offset < total:
        length = min(STEP, (sizes[0] if offset < sizes[0] else total) - offset)
        kinds = []
        for node in (first, second):
            if offset >= node.size_bytes:
                kinds.append(F.ST_ZERO)
                continue
            try:
                status, _ = await status_above(node, None, offset, length)
            except BlockError as error:
                raise StatusError(error.errno, error.message) from error
            length = min(length, status.length)
            kinds.append(status.flags & (F.ST_ALLOCATED | F.ST_DATA | F.ST_ZERO | F.ST_OFFSET))
        if strict and kinds[0] != kinds[1]:
            return Comparison(offset, False, True)
        if not all(kind & F.ST_ZERO for kind in kinds):
            parts = [
                bytes(length) if offset >= node.size_bytes else await node.read(offset, length)
                for node in (first, second)
            ]
            if parts[0] != parts[1]:
                at = next(i for i, (a, b) in enumerate(zip(*parts, strict=True)) if a != b)
                return Comparison(offset + at, sizes[0] != sizes[1] and offset >= sizes[0])
        offset += length
        if progress is not None:
            progress(offset, total)
    return Comparison(None, sizes[0] != sizes[1])


async def snapshot(
    graph: Graph,
    name: str,
    fmt: str | None,
    action: str,
    tag: str = "",
    *,
    sec: int = 0,
    nsec: int = 0,
    force_share: bool = False,
) -> list[dict[str, Any]]:
    """List, create, apply or delete an internal snapshot.

    Args:
        action: list, create, apply or delete. sec, nsec: the date of a new one, as the caller's clock says.
    """
    node = await open_image(graph, name, fmt, writable=action != "list", force_share=force_share)
    if not isinstance(node, Qcow2Node):
        raise UnsupportedError(f"'{name}': format {node.driver} has no snapshots")
    if action == "create":
        await snapshots.create(node, tag, sec=sec, nsec=nsec)
    elif action == "apply":
        await snapshots.apply(node, tag)
    elif action == "delete":
        await snapshots.delete(node, tag)
    elif action != "list":
        raise OptionError(f"unknown snapshot action '{action}'")
    return [_snapshot_info(s) for s in node.snapshots]


async def resize(
    graph: Graph, name: str, size: str, fmt: str | None = None, *, shrink: bool = False, prealloc: str = "off"
) -> int:
    """Set, grow (``+N``) or shrink (``-N``, needs ``shrink``) an image; returns the new size."""
    node = await open_image(graph, name, fmt, writable=True)
    relative = size[:1] if size[:1] in "+-" else ""
    amount = parse_size(size[1:] if relative else size)
    total = {"+": node.size_bytes + amount, "-": node.size_bytes - amount}.get(relative, amount)
    if total < 0:
        raise OptionError(f"'{name}': the new size would be negative")
    if total < node.size_bytes and not shrink:
        raise OptionError(f"'{name}': shrinking from {node.size_bytes} to {total} loses data: give --shrink")
    backend = await graph.backend(node, perm=Perm.CONSISTENT_READ | Perm.WRITE | Perm.RESIZE, name="resize")
    await backend.truncate(total, prealloc)
    backend.close()
    return total


async def rebase(
    graph: Graph, name: str, fmt: str | None, new: str | None, new_fmt: str | None, *, unsafe: bool = False,
    force_share: bool = False, cache: str = "writeback", source_cache: str = "writeback",
    progress: Progress | None = None,
) -> None:  # fmt: skip
    """Give an overlay another backing file. Safe mode first copies what differs into the overlay.

    Args:
        force_share: open the overlay beside a program that uses it. cache, source_cache: of ``CACHE_MODES``, for the
            overlay and for the new backing file.
    """
    options: dict[str, Any] = {"backing": None} if unsafe else {}
    node = await open_image(graph, name, fmt, writable=True, force_share=force_share, cache=cache, **options)
    if not isinstance(node, Qcow2Node):
        raise UnsupportedError(f"'{name}': format {node.driver} has no backing file")
    if not unsafe:
        below = (
            await open_image(graph, resolve_backing(name, new), new_fmt, force_share=True, cache=source_cache)
            if new
            else None
        )
        await _copy_differences(node, node.backing, below, progress)
        if below is not None:
            await graph.close_node(below)
    await change_backing_file(node, new, new_fmt)


async def _copy_differences(
    node: Node, old: Node | None, new: Node | None, progress: Progress | None
) -> None:
    step = max(node.cluster_bytes(), 65536)
    for start in range(0, node.size_bytes, step):
        length = min(step, node.size_bytes - start)
        offset = start
        while offset < start + length:
            status = await node.block_status(offset, start + length - offset)
            if not status.flags & F.ST_ALLOCATED:
                was, will = (
                    await _content(old, offset, status.length),
                    await _content(new, offset, status.length),
                )
                if was != will:
                    if F.is_zero(was):
                        await node.pwrite_zeroes(offset, len(was))
                    else:
                        await node.pwrite(offset, was)
            offset += status.length
        if progress is not None:
            progress(offset, node.size_bytes)


async def _content(node: Node | None, offset: int, length: int) -> bytes:
    inside = 0 if node is None else max(0, min(length, node.size_bytes - offset))
    data = bytes(await node.read(offset, inside)) if node is not None and inside else b""
    return data + bytes(length - inside)


def _image_below(node: Node, name: str) -> Node:
    """Return the image of that file name in a backing chain, below its top."""
    wanted = Path(name).absolute()
    here = node.below
    while here is not None:
        if not here.is_filter and here.filename and Path(here.filename).absolute() == wanted:
            return here
        here = here.below
    raise OptionError(f"'{name}' is not below '{node.filename}'")


async def commit(
    graph: Graph, name: str, fmt: str | None = None, *, base_name: str | None = None, keep: bool = False,
    progress: Progress | None = None, cache: str = "writeback",
) -> None:  # fmt: skip
    """Write an overlay's data into its backing file, then empty the overlay.

    Args:
        base_name: commit to this image of the chain, with what lies between. The overlay keeps its data then; the
            images between show something else afterwards than before.
        keep: don't empty the overlay. cache: of the overlay, one of ``CACHE_MODES``.
    """
    node = await open_image(graph, name, fmt, writable=True, cache=cache)
    base = node.backing if base_name is None else _image_below(node, base_name)
    if base is None:
        raise BlockError(errno.EINVAL, f"'{name}' has no backing file to commit to")
    keep = keep or base_name is not None
    await graph.reopen([(base, False)])
    if base.size_bytes < node.size_bytes:
        await base.truncate(node.size_bytes)
    offset = 0
    while offset < node.size_bytes:
        held, length = await is_allocated_above(
            node, base, False, offset, min(STEP, node.size_bytes - offset)
        )
        if held:
            await copy_range(node, base, offset, length)
        offset += length
        if progress is not None:
            progress(offset, node.size_bytes)
    await base.flush()
    if not keep:
        await node.make_empty()
