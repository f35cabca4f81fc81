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

SETUP = """
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
"""

SOURCE = """
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

"""

#: Asks for a write, changes its buffers at once, and asks to read the same block while both are under way. What is
#: read must be what was in the buffer when the write was asked for.
OVERLAPPING = """
    la t1, desc
    la t0, header
    sd t0, 0(t1)
    la t0, data
    sd t0, 16(t1)
    la t0, status
    sd t0, 32(t1)
    li t0, 1                    # its data are read by the device
    sh t0, 28(t1)
    la t0, header2
    sd t0, 48(t1)
    la t0, data2
    sd t0, 64(t1)
    la t0, status2
    sd t0, 80(t1)
    la t1, avail
    li t0, 3                    # of two chains, the write at even places and the read at odd ones
    sh t0, 6(t1)
    sh t0, 10(t1)
    sh t0, 14(t1)
    sh t0, 18(t1)
    li s1, 0                    # round
    li s3, 0                    # requests so far
    li s4, 0                    # failures
    la s6, data
    la s7, header
    la s8, header2
loop:
    addi s5, s1, 1
    slli s5, s5, 20
    sd s5, 0(s6)
    sd s5, 2040(s6)
    andi t0, s1, 7
    slli t0, t0, 3              # sector of a block
    li t1, 1
    sw t1, 0(s7)
    sd t0, 8(s7)
    sd t0, 8(s8)
    call kick
    sd zero, 0(s6)              # the buffer, the header and the descriptor are the guest's again
    sd zero, 2040(s6)
    sd zero, 8(s7)
    la t1, desc
    sd s8, 16(t1)
    call kick
    la t1, used
wait:
    lhu t0, 2(t1)
    bne t0, t3, wait
    la t1, desc
    sd s6, 16(t1)
    la t1, data2
    ld t0, 0(t1)
    bne t0, s5, wrong
    ld t0, 2040(t1)
    bne t0, s5, wrong
    la t1, status
    ld t0, 0(t1)
    bnez t0, wrong
    la t1, status2
    ld t0, 0(t1)
    beqz t0, next
wrong:
    addi s4, s4, 1
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

kick:
    la t1, avail
    addi s3, s3, 1
    slli t3, s3, 48
    srli t3, t3, 48
    sh t3, 2(t1)
    sw zero, 0x50(s0)
    ret

"""

PLACES = """
    .align 4096
desc:
    .dword 0
    .dword 0x1000100000010
    .dword 0
    .dword 0x2000300001000
    .dword 0
    .dword 0x200000001
    .dword 0                    # header2, data2, status2
    .dword 0x4000100000010
    .dword 0
    .dword 0x5000300001000
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
header2:
    .dword 0
    .dword 0
status2:
    .dword 0
    .align 4096
data2:
    .dword 0
    .align 4096
data:
    .dword 0
"""


def build(source: str = SOURCE) -> tuple[bytes, dict[str, int]]:
    """Return the program and its labels."""
    return assemble((SETUP + source + PLACES).replace("ROUNDS", str(ROUNDS)), RAM)


def recorder(out: Path, drive: DriveConfig, source: str = SOURCE, **more: Any) -> Recorder:
    """Return a recorder of a guest on a drive of 2 MiB."""
    config = MachineConfig(memory_bytes=4 << 20, bios="file", drives=(drive,), options={"entropy": "seed"})
    more.setdefault("limits", LIMITS)
    return Recorder(config, Images(bios=build(source)[0]), out, **more)
