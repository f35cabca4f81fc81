"""What ``workbench img`` prints for people: line for line what qemu-img prints, for the scripts that read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from machine.block.errors import OptionError, UnsupportedError
from machine.block.qcow2.create import OPTIONS, RAW_OPTIONS, CreateOptions

if TYPE_CHECKING:
    from machine.block.qcow2.check import CheckResult

_UNITS = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
#: The order in which a format's own values are told.
_SPECIFIC = (
    "compat", "compression-type", "lazy-refcounts", "bitmaps", "refcount-bits", "data-file", "data-file-raw",
    "corrupt", "extended-l2",
)  # fmt: skip


def size_text(size: int) -> str:
    """Return a number of bytes with three digits and a unit, as ``1.38 MiB``."""
    unit = 0
    while unit < len(_UNITS) - 1 and size >= 1000 << 10 * unit:
        unit += 1
    return f"{size / (1 << 10 * unit):.3g} {_UNITS[unit]}B"


def formatting_text(filename: str, fmt: str, made: CreateOptions, given: Mapping[str, Any]) -> str:
    """Return the line that tells what is made: the options that have a default, and those that were given."""
    words = [f"Formatting '{filename}', fmt={fmt}"]
    values: dict[str, Any] = {"size": made.size}
    if fmt == "qcow2":
        backing = made.backing_file and made.backing_file.replace(",", ",,")
        values = {
            "cluster_size": made.cluster_size, "extended_l2": made.extended_l2,
            "preallocation": made.preallocation if "preallocation" in given else None,
            "compression_type": made.compression_type, "size": made.size,
            "compat": made.compat if "compat" in given else None,
            "backing_file": backing, "backing_fmt": made.backing_format, "data_file": made.data_file,
            "data_file_raw": made.data_file_raw if "data_file_raw" in given else None,
            "lazy_refcounts": made.lazy_refcounts, "refcount_bits": made.refcount_bits,
        }  # fmt: skip
    elif "preallocation" in given:
        values["preallocation"] = made.preallocation
    for key, value in values.items():
        if value is not None:
            words.append(f"{key}={('off', 'on')[value] if isinstance(value, bool) else value}")
    return " ".join(words)


def info_text(info: Mapping[str, Any]) -> str:
    """Return what is known about one image."""
    size, disk = info["virtual-size"], info.get("actual-size")
    lines = [
        f"image: {info['filename']}",
        f"file format: {info['format']}",
        f"virtual size: {size_text(size)} ({size} bytes)",
        f"disk size: {'unavailable' if disk is None else size_text(disk)}",
    ]
    if "cluster-size" in info:
        lines.append(f"cluster_size: {info['cluster-size']}")
    if info.get("dirty-flag"):
        lines.append("cleanly shut down: no")
    if "backing-filename" in info:
        name, place = info["backing-filename"], info["full-backing-filename"]
        lines.append(f"backing file: {name}" + (f" (actual path: {place})" if place != name else ""))
        if "backing-filename-format" in info:
            lines.append(f"backing file format: {info['backing-filename-format']}")
    if info.get("snapshots"):
        lines.append(snapshots_text(info["snapshots"]))
    specific = info.get("format-specific", {}).get("data", {})
    if specific:
        lines.append("Format specific information:")
        ordered = {key: specific[key] for key in _SPECIFIC if key in specific}
        lines += _indented({**ordered, **specific}, 1)
    return "\n".join(lines)


def _indented(value: Mapping[str, Any] | Sequence[Any], depth: int) -> Iterator[str]:
    named = value.items() if isinstance(value, Mapping) else [(f"[{i}]", v) for i, v in enumerate(value)]
    for key, item in named:
        name = "    " * depth + str(key).replace("-", " ") + ":"
        if isinstance(item, list | dict):
            yield name
            yield from _indented(item, depth + 1)
        else:
            yield f"{name} {str(item).lower() if isinstance(item, bool) else item}"


def snapshots_text(snapshots: Sequence[Mapping[str, Any]]) -> str:
    """Return the list of an image's snapshots; nothing where there are none."""
    if not snapshots:
        return ""
    lines = ["Snapshot list:", _snapshot_line("ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT")]
    for each in snapshots:
        seconds = each["vm-clock-sec"]
        clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{each['vm-clock-nsec'] // 10**6:03}"
        date = datetime.fromtimestamp(each["date-sec"]).strftime("%Y-%m-%d %H:%M:%S")
        icount = str(each.get("icount", ""))
        lines.append(
            _snapshot_line(each["id"], each["name"], size_text(each["vm-state-size"]), date, clock, icount)
        )
    return "\n".join(lines)


def _snapshot_line(number: str, tag: str, size: str, date: str, clock: str, icount: str) -> str:
    return f"{number:<9} {tag:<16} {size:>8} {date:>19} {clock:>12} {icount:>10}"


def check_text(result: CheckResult) -> str:
    """Return what a check found: mistakes, leaks, and how much of the image is in use."""
    lines: list[str] = []
    if not (result.corruptions or result.leaks or result.check_errors):
        lines.append("No errors were found on the image.")
    if result.corruptions:
        lines += ["", f"{result.corruptions} errors were found on the image."]
        lines.append("Data may be corrupted, or further writes to the image may corrupt it.")
    if result.leaks:
        lines += ["", f"{result.leaks} leaked clusters were found on the image."]
        lines.append("This means waste of disk space, but no harm to data.")
    if result.check_errors:
        lines += ["", f"{result.check_errors} internal errors have occurred during the check."]
    total, used = result.total_clusters, result.allocated_clusters
    if total and used:
        lines.append(
            f"{used}/{total} = {used * 100 / total:.2f}% allocated, "
            f"{result.fragmented_clusters * 100 / used:.2f}% fragmented, "
            f"{result.compressed_clusters * 100 / used:.2f}% compressed clusters"
        )
    if result.image_end_offset > 0:
        lines.append(f"Image end offset: {result.image_end_offset}")
    return "\n".join(lines)


def repaired_text(result: CheckResult) -> str:
    """Return what a check repaired, before the image is checked again."""
    return (
        "The following inconsistencies were found and repaired:\n\n"
        f"    {result.leaks_fixed} leaked clusters\n    {result.corruptions_fixed} corruptions\n\n"
        "Double checking the fixed image now..."
    )


def map_text(filename: str, runs: Sequence[Mapping[str, Any]]) -> str:
    """Return where the image's data lie.

    Raises:
        UnsupportedError: data have no place of their own: they are compressed, or not in a file.
    """
    lines = [_map_line("Offset", "Length", "Mapped to", "File")]
    for run in runs:
        if not run["data"] or run["zero"]:
            continue
        if "offset" not in run:
            raise UnsupportedError(f"'{filename}': data are compressed or in no file: use --output=json")
        start, length, place = (_hex(run[key]) for key in ("start", "length", "offset"))
        lines.append(_map_line(start, length, place, run["filename"]))
    return "\n".join(lines)


def options_text(fmt: str) -> str:
    """Return the options that an image of a format can be made with. Raises OptionError: of an unknown format."""
    if fmt not in ("raw", "qcow2"):
        raise OptionError(f"can't create format '{fmt}': expected raw or qcow2")
    rows = {name: text for name, (_, _, text) in OPTIONS.items() if fmt == "qcow2" or name in RAW_OPTIONS}
    width = max(map(len, rows))
    return "\n".join([f"Supported {fmt} options:", *(f"  {n:<{width}}  {text}" for n, text in rows.items())])


def _map_line(start: str, length: str, place: str, file: str) -> str:
    return f"{start:<16}{length:<16}{place:<16}{file}"


def _hex(value: int) -> str:
    return f"{value:#x}" if value else "0"
