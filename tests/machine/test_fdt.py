"""Flattened device trees, held against dtc where it is there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine.config import MachineConfig
from machine.devicetree import amend_tree, build_tree
from machine.errors import ImageError
from machine.fdt import Node, cells64, encode_value, parse_fdt, write_fdt
from machine.hw.virtmap import RAM_BASE
from machine.virt import build_devices
from tests.machine.hw.fakes import FakeHarts, FakeWires

names = st.text("abcdefghijklmnopqrstuvwxyz,-", min_size=1, max_size=12)
values = st.none() | st.binary(max_size=9) | st.integers(0, 2**32 - 1) | st.text("abc@/", max_size=9)
nodes: st.SearchStrategy[Node] = st.recursive(
    st.builds(Node, names, st.dictionaries(names, values, max_size=4)),
    lambda inner: st.builds(
        Node, names, st.dictionaries(names, values, max_size=4), st.lists(inner, max_size=3)
    ),
    max_leaves=6,
)


def plain(node: Node) -> object:
    return {k: encode_value(v) for k, v in node.props.items()}, [(c.name, plain(c)) for c in node.children]


@given(nodes)
def test_what_is_written_is_read_back(root: Node) -> None:
    blob = write_fdt(root, reservations=bytes(range(16)))
    assert len(blob) % 8 == 0
    read, reservations = parse_fdt(blob)
    assert plain(read) == plain(root)
    assert reservations == bytes(range(16))


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 255))
def test_damaged_tree_is_refused_or_read(junk: bytes, at: int, value: int) -> None:
    good = bytearray(write_fdt(Node("", {"a": "b"}, [Node("child", {"c": [1, 2]})])))
    good[at % len(good)] = value
    for blob in (bytes(good), bytes(good[: at % len(good)]), junk, bytes(good[:40]) + junk):
        try:
            parse_fdt(blob)
        except ImageError as error:
            assert "not a usable device tree" in str(error)


def tree(harts: int = 2) -> Node:
    config = MachineConfig(memory_bytes=256 << 20, harts=harts, append="console=ttyS0")
    devices = sorted(build_devices(FakeWires(), FakeHarts(harts), config, {}), key=lambda d: d.base)
    return build_tree(config, devices, (RAM_BASE + 0x100_0000, RAM_BASE + 0x120_0000), b"\x55" * 32)


def test_nodes_are_those_of_the_virt_board() -> None:
    root = tree()
    for path, compatible in (
        ("/soc/serial@10000000", "ns16550a"),
        ("/soc/plic@c000000", ["sifive,plic-1.0.0", "riscv,plic0"]),
        ("/soc/clint@2000000", ["sifive,clint0", "riscv,clint0"]),
        ("/soc/rtc@101000", "google,goldfish-rtc"),
        ("/soc/virtio_mmio@10008000", "virtio,mmio"),
        ("/poweroff", "syscon-poweroff"),
        ("/reboot", "syscon-reboot"),
    ):
        node = root.find(path)
        assert node is not None and node.props["compatible"] == compatible
    chosen = root.find("/chosen")
    assert chosen is not None
    assert chosen.props["bootargs"] == "console=ttyS0"
    assert chosen.props["linux,initrd-start"] == cells64(RAM_BASE + 0x100_0000)
    assert root.find("/cpus/cpu@1/interrupt-controller") is not None
    slots = [node.name for node in root.children[-3].children if node.name.startswith("virtio")]
    assert slots == [f"virtio_mmio@1000{n}000" for n in range(8, 0, -1)], "the last slot comes first"


def test_tree_of_the_user_gets_this_boots_choices() -> None:
    blob = write_fdt(Node("", {"model": "mine"}, [Node("chosen", {"bootargs": "old", "kept": 1})]))
    config = MachineConfig(append="new")
    root, _ = amend_tree(blob, config, None, b"")
    chosen = root.find("/chosen")
    assert chosen is not None and encode_value(chosen.props["bootargs"]) == b"new\0"
    assert chosen.props["kept"] == b"\0\0\0\1"


@pytest.mark.requires("dtc")
@pytest.mark.parametrize("harts", [1, 16])
def test_dtc_has_nothing_to_complain_about(tmp_path: Path, harts: int) -> None:
    path = tmp_path / "tree.dtb"
    path.write_bytes(write_fdt(tree(harts)))
    done = subprocess.run(
        ["dtc", "-I", "dtb", "-O", "dts", str(path)], capture_output=True, text=True, check=True
    )
    assert 'bootargs = "console=ttyS0";' in done.stdout
    assert done.stderr == ""
