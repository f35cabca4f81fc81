"""The machine's device tree: harts, memory and boot choices, around the nodes that the devices declare."""

from __future__ import annotations

from collections.abc import Sequence

from machine.config import MachineConfig
from machine.cpu import isa_extensions
from machine.fdt import Node, Value, cells64, parse_fdt
from machine.hw.device import Device
from machine.hw.virtmap import RAM_BASE, TIMEBASE_HZ, UART_BASE, cpu_phandle, intc_phandle

ISA_BASE = "rv64i"
ISA_SINGLE = "imafdc"
#: Extensions of more than a letter, in the canonical order of names.
ISA_MULTI = (
    *("zic64b", "zicbom", "zicbop", "zicboz", "ziccamoa", "ziccif", "zicclsm", "ziccrse", "zicntr", "zicond"),
    *("zicsr", "zifencei", "zihintpause", "zihpm", "za64rs", "zawrs"),
    *("zfhmin", "zca", "zcb", "zcd", "zba", "zbb", "zbc", "zbs", "zkr"),
    *("smstateen", "sscofpmf", "ssstateen", "sstc", "svadu", "svinval", "svnapot", "svpbmt"),
)
CACHE_BLOCK_BYTES = 64


def _isa(cpu: str) -> list[str]:
    """Return the extensions in the canonical order: single letters, then names."""
    chosen = isa_extensions(cpu)
    return [*ISA_SINGLE, *(n for n in chosen if len(n) == 1), *ISA_MULTI, *(n for n in chosen if len(n) > 1)]


def _isa_string(extensions: Sequence[str]) -> str:
    letters = "".join(name for name in extensions if len(name) == 1)
    return "rv64" + letters + "".join(f"_{name}" for name in extensions if len(name) > 1)


def _cpus(harts: int, isa: list[str]) -> Node:
    cpus = Node("cpus", {"#address-cells": 1, "#size-cells": 0, "timebase-frequency": TIMEBASE_HZ})
    cluster = Node("cluster0")
    for hart in range(harts):
        cpu = cpus.add(
            Node(
                f"cpu@{hart:x}",
                {
                    "device_type": "cpu",
                    "reg": hart,
                    "status": "okay",
                    "compatible": "riscv",
                    "riscv,isa": _isa_string(isa),
                    "riscv,isa-base": ISA_BASE,
                    "riscv,isa-extensions": isa,
                    "riscv,cbom-block-size": CACHE_BLOCK_BYTES,
                    "riscv,cbop-block-size": CACHE_BLOCK_BYTES,
                    "riscv,cboz-block-size": CACHE_BLOCK_BYTES,
                    "mmu-type": "riscv,sv57",
                    "phandle": cpu_phandle(hart),
                },
            )
        )
        cpu.add(
            Node(
                "interrupt-controller",
                {
                    "#interrupt-cells": 1,
                    "#address-cells": 0,
                    "interrupt-controller": None,
                    "compatible": "riscv,cpu-intc",
                    "phandle": intc_phandle(hart),
                },
            )
        )
        cluster.add(Node(f"core{hart}", {"cpu": cpu_phandle(hart)}))
    cpus.add(Node("cpu-map")).add(cluster)
    return cpus


def _chosen(config: MachineConfig, initrd: tuple[int, int] | None, rng_seed: bytes) -> dict[str, Value]:
    props: dict[str, Value] = {}
    if config.append:
        props["bootargs"] = config.append
    if initrd is not None:
        props["linux,initrd-start"] = cells64(initrd[0])
        props["linux,initrd-end"] = cells64(initrd[1])
    if rng_seed:
        props["rng-seed"] = rng_seed
    return props


def build_tree(
    config: MachineConfig, devices: Sequence[Device], initrd: tuple[int, int] | None, rng_seed: bytes
) -> Node:
    """Return the root of the machine's tree.

    Args:
        config: harts, memory and command line.
        devices: in bus order; written from the last to the first, since Linux names disks by that order.
        initrd: its first and behind-last guest-physical address.
        rng_seed: entropy for the kernel; none if empty.
    """
    root = Node(
        "",
        {
            "#address-cells": 2,
            "#size-cells": 2,
            "compatible": "riscv-virtio",
            "model": "riscv-virtio,workbench",
        },
    )
    root.add(
        Node("chosen", {"stdout-path": f"/soc/serial@{UART_BASE:x}", **_chosen(config, initrd, rng_seed)})
    )
    root.add(
        Node(f"memory@{RAM_BASE:x}", {"device_type": "memory", "reg": cells64(RAM_BASE, config.memory_bytes)})
    )
    root.add(_cpus(config.harts, _isa(config.cpu)))
    soc = Node("soc", {"#address-cells": 2, "#size-cells": 2, "compatible": "simple-bus", "ranges": None})
    root.add(soc)
    for device in reversed(devices):
        for node in device.fdt_nodes():
            (soc if node.parent == "/soc" else root).add(node)
    return root


def amend_tree(
    blob: bytes, config: MachineConfig, initrd: tuple[int, int] | None, rng_seed: bytes
) -> tuple[Node, bytes]:
    """Return a tree given by the user with this boot's choices in ``/chosen``, and its memory reservations.

    Raises:
        ImageError: the blob is not a flattened device tree.
    """
    root, reservations = parse_fdt(blob)
    chosen = root.find("/chosen") or root.add(Node("chosen"))
    chosen.props.update(_chosen(config, initrd, rng_seed))
    return root, reservations
