"""What a machine is made of: frozen dataclasses, stored as JSON in a trace's ``config`` table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, field, fields
from typing import Any, TypeVar, cast

from machine.values import valueclass

T = TypeVar("T")

#: Grows with every change to what a guest can observe (determinism.md, law 9).
#: 3: a disk's requests take effect, and its writes take their data, when they are asked for; a flush ends after the
#: requests before it; disks have several queues where asked for; Zkr, Smstateen,
#: debug triggers, and users read the counters below the built-in SBI; virtio's
#: vendor is QEMU's; a UART takes wide accesses; reserved overlaps of fractional vector groups are illegal.
#: mtime can be written; HSM suspends harts, and they say so; drivers need not
#: accept virtio's VERSION_1.
SEMANTICS = 3


@valueclass(frozen=True, slots=True)
class DriveConfig:
    """One ``--drive``.

    Args:
        file: a path or URI. hash: the content identity of the base, hexadecimal, or empty.
        serial: what the guest reads as the serial number, up to 20 bytes; empty: the drive's name.
        queues: request queues, 1 to 16.
        timing: when a request completes: ``model``, by a function of the request; ``host``, after what the host
            took for it, which is an input.
        slot: which virtio slot it is in, 0 to 7; -1: the last that is free.
    """

    file: str
    format: str = "raw"
    interface: str = "virtio"
    readonly: bool = False
    id: str = ""
    hash: str = ""
    size_bytes: int = 0
    serial: str = ""
    queues: int = 1
    slot: int = -1
    timing: str = "model"


@valueclass(frozen=True, slots=True)
class MachineConfig:
    """A machine without the contents of its images.

    Images (kernel, initrd, bios, dtb) are given to the board as bytes beside this; a trace keeps them as blobs.

    Args:
        memory_bytes: RAM, a multiple of 4 KiB.
        harts: 1 to 16.
        cpu: the processor and its features, as ``--cpu`` spells them (``machine.cpu``).
        bios: ``builtin``, ``none`` or ``file``.
        append: kernel command line.
        quantum_steps: steps of a hart's turn (law 6).
        ns_per_step: virtual nanoseconds of one step.
        idle: ``jump`` (virtual time jumps to the next deadline) or ``ask`` (idle time is an input:
            a console or network is attached).
        seed: of chaos mode's generator, and of entropy where that is seeded.
        options: what has no field of its own. ``entropy``: ``host`` (asked of the gate, the default) or ``seed`` (the
            generator's bytes, still through the gate, and a fixed wall clock). ``devices``: names of
            devices of plug-ins, in the order of their places on the platform bus. ``loaded``: address and size of
            each piece of ``Images.loaded``.
    """

    memory_bytes: int = 512 << 20
    harts: int = 1
    cpu: str = "rv64"
    bios: str = "builtin"
    append: str = ""
    quantum_steps: int = 100_000
    ns_per_step: int = 1
    idle: str = "jump"
    seed: int = 0
    chaos: bool = False
    drives: tuple[DriveConfig, ...] = ()
    guest: str = "riscv64"
    board: str = "virt"
    options: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict; ``from_json`` gives the same configuration back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> MachineConfig:
        """Build from ``to_json``'s dict. Raises TypeError or ValueError for one that is not."""
        drives = tuple(_of_json(DriveConfig, each) for each in data.get("drives", ()))
        return _of_json(cls, {**data, "drives": drives})


_KINDS = {"int": int, "bool": bool, "str": str, "tuple[DriveConfig, ...]": tuple, "dict[str, Any]": dict}


def _of_json(cls: type[T], data: Mapping[str, Any]) -> T:
    """Return the class with these values. Raises TypeError: one is not of its field's type."""
    for each in fields(cast("Any", cls)):
        value = data.get(each.name)
        if each.name in data and type(value) is not _KINDS[str(each.type)]:
            raise TypeError(f"{each.name} is {value!r}, expected {each.type}")
    return cls(**data)


@valueclass(frozen=True, slots=True)
class Images:
    """What is loaded at reset: contents, decompressed by the loader where a format allows it.

    ``loaded`` is what goes to addresses of its own: the pieces of ``MachineConfig.options["loaded"]``, in turn.
    """

    kernel: bytes = b""
    initrd: bytes = b""
    bios: bytes = b""
    dtb: bytes = b""
    loaded: bytes = b""

    def by_role(self) -> dict[str, bytes]:
        """Return those that there are, by the fields' names."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return {role: data for role, data in found.items() if data}
