"""Guests that nobody here wrote: recorded, replayed with every digest compared, their key lines printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from machine.config import DriveConfig, Images, MachineConfig
from tests.conftest import fetched_guest, requires_file
from tests.e2e.typist import Recorded, key_line, record, verify
from tests.machine.test_board import elf

if TYPE_CHECKING:
    from workbench.guests.fetch import Guest

pytestmark = pytest.mark.slow

UBOOT = Path("/usr/lib/u-boot/qemu-riscv64/u-boot.bin")
UBOOT_SMODE = Path("/usr/lib/u-boot/qemu-riscv64_smode/uboot.elf")
UART, CLINT_MTIME, CLINT_MTIMECMP, FINISHER = 0x1000_0000, 0x200_BFF8, 0x200_4000, 0x10_0000


def show(capsys: pytest.CaptureFixture[str], recorded: Recorded, pattern: str) -> None:
    """Print the key line and what the replay compared."""
    line, verified = key_line(recorded, pattern), verify(recorded)
    with capsys.disabled():
        print(f"\n  {line}\n  {verified}")


def _print(text: str) -> str:
    return "\n".join(f"li a0, {ord(c)}; sb a0, 0(s0)" for c in text + "\n")


#: Vectored traps, the timer, WFI, the PMP, U-mode and back: on the bare board, without firmware.
MACHINE_MODE = f"""
    csrr t0, mhartid; beqz t0, boot
park: wfi; j park
boot: li s0, {UART}; li s1, 0
    la t0, vectors; addi t0, t0, 1; csrw mtvec, t0
    {_print("M-mode up")}
    li s2, {CLINT_MTIME}; li s3, {CLINT_MTIMECMP}
    ld t0, 0(s2); addi t0, t0, 1000; sd t0, 0(s3)
    li t0, 0x80; csrw mie, t0
    li t0, 8; csrs mstatus, t0
waits: wfi; addi t0, s1, -3; bnez t0, waits
    {_print("3 ticks")}
    li t0, -1; csrw pmpaddr0, t0; li t0, 0x1f; csrw pmpcfg0, t0
    la t0, user; csrw mepc, t0; li t0, 0x1800; csrc mstatus, t0; mret
user: ecall
    j user
    .align 64
vectors: j exception
    j exception; j exception; j exception; j exception; j exception; j exception
    j timer
timer: addi s1, s1, 1; ld t0, 0(s3); addi t0, t0, 1000; sd t0, 0(s3); mret
exception: csrr t0, mcause; addi t0, t0, -8; bnez t0, exception
    {_print("U-mode called")}
    li t0, {FINISHER}; li t1, 0x5555; sw t1, 0(t0)
stop: j stop
"""


def test_a_guest_in_machine_mode_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = MachineConfig(memory_bytes=16 << 20, harts=2, bios="none")
    done = record(tmp_path / "m.trace", config, Images(kernel=elf(MACHINE_MODE)))
    assert done.result.reason == "poweroff" and done.text == "M-mode up\n3 ticks\nU-mode called\n"
    show(capsys, done, "U-mode called")


@pytest.fixture(scope="module")
def teaching_kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the kernel in C beside this file, its entry at the start of RAM."""
    out = tmp_path_factory.mktemp("kernel") / "kernel"
    options = (
        "-O1 -march=rv64gc -mabi=lp64d -mcmodel=medany -ffreestanding -fno-stack-protector -fno-pic -no-pie"
    )
    options += " -static -nostdlib -nostartfiles -Wall -Werror"
    link = ("-Wl,--build-id=none", "-Wl,--section-start=.start=0x80000000", "-Wl,-Ttext=0x80001000")
    source = Path(__file__).with_name("teaching_kernel.c")
    subprocess.run(
        ["riscv64-linux-gnu-gcc", *options.split(), *link, "-o", str(out), str(source)], check=True
    )
    return out


@pytest.mark.requires("riscv64-linux-gnu-gcc")
def test_a_teaching_kernel_runs_users_on_three_harts_and_its_disk(
    tmp_path: Path, teaching_kernel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It looked for a vendor that is QEMU, for its disk in the first slot, and never accepts VERSION_1: no disk."""
    disk = tmp_path / "fs.img"
    disk.write_bytes(bytes(1 << 20))
    drive = DriveConfig(file=str(disk), id="x0", slot=0)
    config = MachineConfig(memory_bytes=128 << 20, harts=3, bios="none", drives=(drive,))
    images = Images(kernel=teaching_kernel.read_bytes())
    done = record(tmp_path / "t.trace", config, images, [(r"\$ ", "d"), (r"\$ ", "u"), (r"\$ ", "q")])
    assert done.result.reason == "poweroff"
    assert done.text == (
        "kernel is up\n"
        "$ d\n48 blocks written and read back, 96 requests\n"
        "$ u\nusers run on both other harts\nA and D are set\n"
        "$ q\n"
    )
    show(capsys, done, "blocks written")


@pytest.mark.requires("riscv64-linux-gnu-gcc")
def test_qemus_command_line_of_a_teaching_kernel_is_taken(tmp_path: Path, teaching_kernel: Path) -> None:
    (tmp_path / "fs.img").write_bytes(bytes(1 << 20))
    line = (
        f"-machine virt -bios none -kernel {teaching_kernel} -m 128M -smp 3 -nographic -no-reboot "
        "-serial mon:stdio -global virtio-mmio.force-legacy=false -drive file=fs.img,if=none,format=raw,id=x0 "
        "-device virtio-blk-device,drive=x0,bus=virtio-mmio-bus.0"
    )
    command = [
        sys.executable,
        "-m",
        "workbench",
        "run",
        *line.split(),
        "--no-input",
        "--until",
        "kernel is up",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=200)
    assert done.returncode == 0 and b"kernel is up" in done.stdout, done.stderr


def test_uboot_in_machine_mode_comes_to_its_prompt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = Images(bios=requires_file(UBOOT, "u-boot-qemu").read_bytes())
    script = [
        ("Hit any key", "\n"),
        ("=> ", "version\n"),
        ("riscv64-linux-gnu-gcc[^=]*=> ", "echo bye$cpu\n"),
    ]
    done = record(tmp_path / "u.trace", MachineConfig(bios="file"), images, script, until="\nbye")
    show(capsys, done, r"^U-Boot 20|\nU-Boot 20")


def uboot_with_disk(
    folder: Path, files: dict[str, Path], commands: list[str], until: str | None = None
) -> Recorded:
    """Give U-Boot a disk with these files, and these commands at its prompt."""
    contents, disk = folder / "files", folder / "boot.img"
    contents.mkdir()
    for name, source in files.items():
        (contents / name).write_bytes(source.read_bytes())
    subprocess.run(["genext2fs", "-B", "4096", "-b", "16384", "-d", str(contents), str(disk)], check=True)
    script = [("Hit any key", "\n"), *(("=> ", command + "\n") for command in commands)]
    images = Images(kernel=requires_file(UBOOT_SMODE, "u-boot-qemu").read_bytes())
    config = MachineConfig(drives=(DriveConfig(file=str(disk)),))
    return record(folder / "u.trace", config, images, script, until=until)


@pytest.mark.requires("genext2fs")
def test_uboot_boots_a_kernel_from_a_disk(
    tmp_path: Path, debian_guest: Guest, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"Image": debian_guest.kernel, "initrd": debian_guest.initrd}
    commands = [
        "virtio scan",
        "ext4load virtio 0 ${kernel_addr_r} Image",
        "ext4load virtio 0 ${ramdisk_addr_r} initrd",
        "setenv bootargs console=ttyS0 wb.poweroff",
        "fdt move ${fdtcontroladdr} ${fdt_addr_r} 10000",
        "booti ${kernel_addr_r} ${ramdisk_addr_r}:${filesize} ${fdt_addr_r}",
    ]
    done = uboot_with_disk(tmp_path, files, commands)
    assert "Starting kernel ..." in done.text and done.result.reason == "poweroff"
    show(capsys, done, "workbench: init reached")


@pytest.mark.requires("genext2fs")
def test_uboot_starts_a_kernel_by_uefi(
    tmp_path: Path, debian_guest: Guest, capsys: pytest.CaptureFixture[str]
) -> None:
    """Distributions' disks are started so: the firmware's UEFI runs a kernel's EFI stub, or GRUB before it."""
    commands = [
        "virtio scan",
        "ext4load virtio 0 ${kernel_addr_r} Image",
        "setenv bootargs console=ttyS0 panic=-1",
        "bootefi ${kernel_addr_r} ${fdtcontroladdr}",
    ]
    done = uboot_with_disk(tmp_path, {"Image": debian_guest.kernel}, commands, until="Unable to mount root")
    assert "efi: EFI v2." in done.text and "by Das U-Boot" in done.text
    show(capsys, done, "by Das U-Boot")


def test_the_installer_comes_to_its_first_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guest = fetched_guest("debian-riscv64-installer")
    images = Images(kernel=guest.kernel.read_bytes(), initrd=guest.initrd.read_bytes())
    config = MachineConfig(append="console=ttyS0")
    done = record(tmp_path / "i.trace", config, images, until="Choose the language")
    show(capsys, done, "Choose the language")


@pytest.mark.timeout(3000)
def test_debian_on_a_disk_comes_to_a_login_and_a_shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """dpkg configures 80 packages, systemd starts, root logs in."""
    guest = fetched_guest("debian-riscv64-rootfs")
    images = Images(kernel=guest.kernel.read_bytes(), initrd=guest.initrd.read_bytes())
    config = MachineConfig(
        append="console=ttyS0 wb.root=/dev/vda", drives=(DriveConfig(file=str(guest.disk)),)
    )
    script = [
        (r"ttyS0\s+debian login: ", "root\n"),  # the other console has one too
        ("# ", "systemctl is-system-running; cat /etc/debian_version; echo $((6 * 7)) | sha256sum\n"),
        ("# ", "poweroff\n"),
    ]
    done = record(tmp_path / "d.trace", config, images, script)
    assert "workbench: dpkg ended with 0" in done.text and done.result.reason == "poweroff"
    assert "084c799cd551dd1d8d5c5f9a5d593b2e931f5e36122ee5c793c1d08a19839cc0" in done.text  # of "42\n"
    assert re.search(r"(running|degraded|starting)\n13\.\d", done.text), done.text[-3000:]
    show(capsys, done, "debian login: ")
