"""Machine options: QEMU's spelling and meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.cli.group import two_dashes
from workbench.cli.machineopts import (
    AS_QEMU,
    build_machine,
    parse_drive,
    parse_harts,
    parse_size,
    place_drives,
)
from workbench.cli.values import split_commas
from workbench.errors import InputError, UsageError

DEFAULTS: dict[str, Any] = {
    "kernel": None,
    "initrd": None,
    "append": "",
    "bios": "builtin",
    "dtb": None,
    "memory": "512M",
    "smp": "1",
    "cpu": "rv64",
    "drives": (),
    "devices": (),
    "quantum": None,
    "seed": None,
    "chaos": False,
    "board": "virt",
    "nographic": False,
    "no_reboot": False,
    **{f"qemu_{name}": () for name in AS_QEMU},
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("512M", 512 << 20),
        ("512", 512 << 20),
        ("2G", 2 << 30),
        ("1g", 1 << 30),
        ("262144K", 256 << 20),
        ("size=128M", 128 << 20),
        ("64MiB", 64 << 20),
        ("1T", 1 << 40),
    ],
)
def test_memory_sizes_are_qemus(text: str, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "M", "-1M", "1.5G", "512X", "９M", "1" * 40])
def test_memory_sizes_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text)


def test_harts() -> None:
    assert (parse_harts("4"), parse_harts("cpus=2")) == (4, 2)
    for text in ("0", "17", "two", "", "99999"):
        with pytest.raises(UsageError):
            parse_harts(text)


def test_drive_has_qemus_keys_and_escapes() -> None:
    drive = parse_drive("file=/a,,b.img,format=raw,if=virtio,readonly=on,id=X")
    assert (drive.file, drive.format, drive.readonly, drive.id) == ("/a,b.img", "raw", True, "X")
    assert parse_drive("file=x", 3).id == "virtio3"
    assert parse_drive("file=nbd://host:1/x=y").file == "nbd://host:1/x=y"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "file=",
        "format=raw",
        "file=a,file=b",
        "file=a,readonly=maybe",
        "file=a,format=vmdk",
        "file=a,",
    ],
)
def test_drives_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--drive"):
        parse_drive(text)


def test_qemus_device_option_puts_a_drive_on_a_bus() -> None:
    """The command line of a teaching kernel, as its Makefile has it."""
    drives, left = place_drives(
        [parse_drive("file=fs.img,if=none,format=raw,id=x0"), parse_drive("file=b", 1)],
        ["virtio-blk-device,drive=x0,bus=virtio-mmio-bus.0,serial=s,num-queues=2", "mine"],
    )
    assert [(d.id, d.slot, d.interface, d.serial, d.queues) for d in drives] == [
        ("x0", 0, "virtio", "s", 2),
        ("virtio1", -1, "virtio", "", 1),
    ]
    assert left == ["mine"]
    drives, _ = place_drives([parse_drive("file=a,if=none,id=x")], ["virtio-blk-device,drive=x"])
    assert (drives[0].slot, drives[0].interface) == (-1, "virtio")


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ([], "no device for x0"),
        (["virtio-blk-device"], "must name a --drive"),
        (["virtio-blk-device,drive=y"], "must name a --drive"),
        (["virtio-blk-device,drive=x0"] * 2, "must name a --drive"),
        (["virtio-blk-device,drive=x0,bus=pci.0"], r"bus=pci\.0 is not one of"),
        (["virtio-blk-device,drive=x0,num-queues=many"], "num-queues=many is not one of"),
    ],
)
def test_devices_without_their_drives_are_refused(devices: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        place_drives([parse_drive("file=fs.img,if=none,id=x0")], devices)


@given(st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_escaped_commas_come_back(parts: list[str]) -> None:
    # an empty part between others would read as an escaped comma, in QEMU as here
    kept = [part.replace(",", ";") or "x" for part in parts]
    assert split_commas(",".join(kept)) == kept
    assert split_commas("a,,".join(kept)) == ["a,".join(kept)]


@given(st.text(max_size=60))
def test_any_drive_text_is_a_drive_or_a_usage_error(text: str) -> None:
    try:
        assert parse_drive(text).file
    except UsageError:
        return


def test_one_dash_options_of_qemu_are_taken_but_not_in_values() -> None:
    assert two_dashes(["-kernel", "k", "-append", "-kernel"]) == ["--kernel", "k", "--append", "-kernel"]
    assert two_dashes(["-m", "1G", "-nographic", "-smp", "2"]) == ["-m", "1G", "--nographic", "--smp", "2"]


def test_options_of_one_letter_become_long_but_not_in_values() -> None:
    """click looks for a long option that is spelt alike first, which is most of the time that parsing took."""
    long = {"-m": "--memory", "-o": "--output"}
    given = ["-m", "1G", "--until", "-m", "-o", "-m", "-m2G", "--", "-m"]
    assert two_dashes(given, {"-m", "--memory", "-o", "--output", "--until"}, long) == (
        ["--memory", "1G", "--until", "-m", "--output", "-m", "-m2G", "--", "-m"]
    )


def test_machine_is_built_of_options(tmp_path: Path) -> None:
    kernel = tmp_path / "k"
    kernel.write_bytes(b"kernel")
    options = {**DEFAULTS, "kernel": str(kernel), "memory": "1G", "smp": "2", "append": "quiet", "seed": 7}
    config, images = build_machine(options, idle="ask")
    assert (config.memory_bytes, config.harts, config.append, config.idle) == (1 << 30, 2, "quiet", "ask")
    assert (config.seed, config.options["entropy"]) == (7, "seed")
    assert images.kernel == b"kernel"


def test_settings_of_qemus_devices_are_what_there_is_or_refused(tmp_path: Path) -> None:
    kernel = tmp_path / "k"
    kernel.write_bytes(b"kernel")
    options = {**DEFAULTS, "kernel": str(kernel), "qemu_global": ("virtio-mmio.force-legacy=false",)}
    build_machine(options, idle="jump")
    options |= {
        "qemu_serial": ("mon:stdio",),
        "qemu_display": ("none",),
        "no_reboot": True,
        "bios": "default",
    }
    assert build_machine(options, idle="jump")[0].bios == "builtin"
    with pytest.raises(UsageError, match="--serial file:x: only stdio or mon:stdio"):
        build_machine({**options, "qemu_serial": ("file:x",)}, idle="jump")
    with pytest.raises(
        UsageError, match=r"--global virtio-mmio\.force-legacy=true: only virtio-mmio\.force-legacy=false"
    ):
        build_machine({**options, "qemu_global": ("virtio-mmio.force-legacy=true",)}, idle="jump")


def test_bios_file_is_read(tmp_path: Path) -> None:
    bios = tmp_path / "fw"
    bios.write_bytes(b"firmware")
    config, images = build_machine({**DEFAULTS, "bios": str(bios)}, idle="jump")
    assert (config.bios, images.bios) == ("file", b"firmware")


def test_missing_kernel_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"kernel .*nothing"):
        build_machine({**DEFAULTS, "kernel": str(tmp_path / "nothing")}, idle="jump")


def test_two_drives_of_one_id_are_refused(tmp_path: Path) -> None:
    options = {**DEFAULTS, "kernel": "k", "drives": ("file=a,id=x", "file=b,id=x")}
    with pytest.raises(UsageError, match="two drives have the id x"):
        build_machine(options, idle="jump")
