"""A guest in M-mode that works on a virtio disk: reads, changes and writes 4 KiB at a time, with a flush now and then.

A request that fails is counted, and the guest goes on. It ends by switching the machine off.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from machine.config import DriveConfig, Images, MachineConfig
from tests.rvasm import assemble
from workbench.replay.recorder import Recorder, RecordLimits

RAM = 0x8000_0000
ROUNDS = 48
BLOCKS = 512  # of 4 KiB: the disk has 2 MiB
LIMITS = RecordLimits(rolling_steps=1 << 13, checkpoint_every=8)

SOURCE = """
    li s0, 0x10008000           # the first disk's slot
    li t0, 1
    sw t0, 0x70(s0)
    li t0, 3
    sw t0, 0x70(s0)
    li t0, 1                    # VIRTIO_F_VERSION_1
    sw t0, 0x24(s0)
    sw t0, 0x20(s0)
    li t0, 0xb
    sw t0, 0x70(s0)
    sw zero, 0x30(s0)
    li t0, 8
    sw t0, 0x38(s0)
    la t0, desc
    sw t0, 0x80(s0)
    la t0, avail
    sw t0, 0x90(s0)
    la t0, used
    sw t0, 0xa0(s0)
    li t0, 1
    sw t0, 0x44(s0)
    li t0, 0xf
    sw t0, 0x70(s0)
    la t0, header               # the chain: header, data, status
    la t1, desc
    sd t0, 0(t1)
    la t0, data
    sd t0, 16(t1)
    la t0, status
    sd t0, 32(t1)
    li s1, 0                    # round
    li s3, 0                    # requests so far
    li s4, 0                    # failures
    li s5, 12345                # pseudo-random
loop:
    li t0, 1103515245
    mul s5, s5, t0
    addi s5, s5, 1235
    srli s6, s5, 16
    li t0, 511
    and s6, s6, t0
    slli s6, s6, 3              # sector of a block
    li a0, 0
    mv a1, s6
    li a2, 3                    # to be written by the device, one follows
    call request
    la t1, data
    ld t0, 8(t1)
    add t0, t0, s1
    sd t0, 8(t1)
    srli s6, s6, 1
    andi s6, s6, -8
    li a0, 1
    mv a1, s6
    li a2, 1
    call request
    andi t0, s1, 15
    bnez t0, next
    li a0, 4
    li a1, 0
    li a2, 1
    call request
next:
    addi s1, s1, 1
    li t0, ROUNDS
    bne s1, t0, loop
    la t1, failures
    sd s4, 0(t1)
    li t0, 0x100000
    li t1, 0x5555
    sw t1, 0(t0)
stay:
    j stay

request:                        # a0 kind, a1 sector, a2 flags of the data's descriptor
    la t1, header
    sw a0, 0(t1)
    sd a1, 8(t1)
    la t1, desc
    sh a2, 28(t1)
    la t1, avail
    sh zero, 4(t1)
    addi s3, s3, 1
    slli t3, s3, 48
    srli t3, t3, 48
    sh t3, 2(t1)
    sw zero, 0x50(s0)
    la t1, used
wait:
    lhu t0, 2(t1)
    bne t0, t3, wait
    la t1, status
    lbu t0, 0(t1)
    beqz t0, fine
    addi s4, s4, 1
fine:
    ret

    .align 4096
desc:
    .dword 0
    .dword 0x1000100000010
    .dword 0
    .dword 0x2000300001000
    .dword 0
    .dword 0x200000001
    .align 256
avail:
    .dword 0
    .dword 0
    .dword 0
    .align 256
used:
    .dword 0
    .align 128
header:
    .dword 0
    .dword 0
status:
    .dword 0
failures:
    .dword 0
    .align 4096
data:
    .dword 0
"""


def build() -> tuple[bytes, dict[str, int]]:
    """Return the program and its labels."""
    return assemble(SOURCE.replace("ROUNDS", str(ROUNDS)), RAM)


def recorder(out: Path, drive: DriveConfig, **more: Any) -> Recorder:
    """Return a recorder of this guest on a drive of 2 MiB."""
    config = MachineConfig(memory_bytes=4 << 20, bios="file", drives=(drive,), options={"entropy": "seed"})
    more.setdefault("limits", LIMITS)
    return Recorder(config, Images(bios=build()[0]), out, **more)
