"""``--device loader``: files that go into RAM at addresses of their own, as QEMU's device of that name puts them."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.cli.values import ON, read_image, split_commas
from workbench.errors import UsageError

Piece = tuple[int, bytes]  # where, and what


def take_loaders(devices: Sequence[str]) -> tuple[list[Piece], list[str]]:
    """Return what ``loader`` devices load, and the devices that are left.

    Raises:
        UsageError: a loader with a value that is not one of its, or that loads nothing.
        InputError: a file that can't be read.
        ImageError: an ELF file that is damaged or another architecture's.
    """
    pieces: list[Piece] = []
    left: list[str] = []
    for device in devices:
        kind, *parts = split_commas(device)
        if kind == "loader":
            pieces += _load(device, dict(part.partition("=")[::2] for part in parts))
        else:
            left.append(device)
    return pieces, left


def _load(device: str, values: dict[str, str]) -> list[Piece]:
    from machine.images import ELF_MAGIC, parse_elf

    path, address, raw = values.pop("file", ""), values.pop("addr", ""), values.pop("force-raw", "off")
    if values:
        key, value = next(iter(values.items()))
        raise UsageError(
            f"--device {device}: {key}={value} is not one of file=…, addr=…, force-raw=on; a register is set by "
            "--bios or --kernel"
        )
    if not path:
        raise UsageError(f"--device {device}: file=… is missing")
    if raw not in ON:
        raise UsageError(f"--device {device}: force-raw={raw}: expected on or off")
    data = read_image(path, "file")
    if data[:4] == ELF_MAGIC and not ON[raw]:
        if address:
            raise UsageError(
                f"--device {device}: an ELF file has addresses of its own; leave out addr, or add force-raw=on"
            )
        return [(segment.paddr, segment.data) for segment in parse_elf(data, path).segments if segment.data]
    try:
        paddr = int(address, 0)
    except ValueError:
        raise UsageError(f"--device {device}: addr={address}: expected an address like 0x80200000") from None
    return [(paddr, data)]
