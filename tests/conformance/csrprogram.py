"""A program in M-mode that writes, sets and clears every CSR and keeps what each then reads; for any machine."""

from __future__ import annotations

import random
import struct
from functools import cache

from tests.conformance.csrs import ALL, LOCKS, ROWS, SEED, XLEN64
from tests.rvasm import assemble

BASE = 0x8000_0000
VALUES_AT, OUT_AT = BASE + 0x4_0000, BASE + 0x10_0000
RAM_BYTES = 32 << 20
ABSENT = 0x0BAD_0BAD_0BAD_0BAD
#: Before each row: everything is delegated, timers are far away, nothing counts.
PRELUDE = {
    0x302: ALL, 0x303: ALL, 0x320: 5, 0x14D: ALL, 0x30A: 1 << 63, 0x306: 0xFFFF_FFFF, 0x300: 3 << 13,
    0xB00: 0, 0xB02: 0,
}  # fmt: skip


def values() -> list[int]:
    """Return what is written: corners, single bits, modes of satp and tdata1, fields with reserved codes, anything."""
    rng = random.Random(1)
    out = [0, ALL, 0x5555_5555_5555_5555, 0xAAAA_AAAA_AAAA_AAAA, LOCKS - 0x0101_0101_0101_0101]
    out += [1 << n for n in range(64)]
    out += [mode << 60 | 0x1234_5678_9ABC for mode in range(16)]
    out += [kind << 60 | rng.getrandbits(27) for kind in (2, 6, 2, 6, 2, 6, 3, 15)]
    out += [n << 11 for n in range(4)] + [n << 13 for n in range(4)] + [n << 4 | 0xC1 for n in range(4)]
    return out + [rng.getrandbits(64) for _ in range(24)]


def tested(by_peer: bool = False) -> list[int]:
    """Return the CSRs that the program writes; a write to a trigger aborts the peer."""
    return [n for n in ROWS if n != SEED and not (by_peer and 0x7A0 <= n <= 0x7A5)]


@cache
def _assembled(by_peer: bool) -> tuple[bytes, dict[str, int]]:
    return assemble(_source(by_peer), BASE)


def _source(by_peer: bool) -> str:
    lines = ["csrr t0, mhartid; beqz t0, boot", "park: wfi; j park"]
    lines += ["boot: la t0, handler; csrw mtvec, t0", f"li s0, {OUT_AT}"]
    for number in tested(by_peer):
        for other, value in PRELUDE.items():
            lines.append(f"li t0, {value}; csrw {other:#x}, t0")
        lines += [
            f"li s1, {VALUES_AT}; li s2, {VALUES_AT + 8 * len(values())}; li s3, {ALL & ~ROWS[number].avoid}",
            f"csrr s4, {number:#x}; mv a0, s4; sd a0, 0(s0); addi s0, s0, 8",
            f"loop{number}: ld a1, 0(s1); and a1, a1, s3; addi s1, s1, 8",
            *(
                f"{op} zero, {number:#x}, a1; csrr a0, {number:#x}; sd a0, {8 * i}(s0)"
                for i, op in enumerate(("csrrw", "csrrs", "csrrc"))
            ),
            f"addi s0, s0, 24; bltu s1, s2, loop{number}",
            f"csrw {number:#x}, s4",
        ]
    finish = "li t0, 0x100000; li t1, 0x5555; sw t1, 0(t0)"
    handler = f"csrr t6, mepc; addi t6, t6, 4; csrw mepc, t6; li a0, {ABSENT}; mret"
    return "\n".join([*lines, finish, "stay: j stay", ".align 64", f"handler: {handler}"])


def image(by_peer: bool = False) -> bytes:
    """Return the contents of RAM from its start."""
    code, _ = _assembled(by_peer)
    assert len(code) <= VALUES_AT - BASE
    return code.ljust(VALUES_AT - BASE, b"\0") + struct.pack(f"<{len(values())}Q", *values())


def expected(by_peer: bool = False) -> dict[int, list[int]]:
    """Return what each CSR reads by its row: at first, then behind each write, set and clear."""
    out: dict[int, list[int]] = {}
    for number in tested(by_peer):
        row, held = ROWS[number], _first(number, by_peer)
        if row.volatile:
            continue
        reads = [held]
        for value in values():
            value &= ~row.avoid
            for how in range(3):
                held = row.write(held, (value, held | value, held & ~value)[how]) if row.write else held
                reads.append(held)
        out[number] = reads
    return out


def _first(number: int, by_peer: bool) -> int:
    row = ROWS[number]
    start = PRELUDE.get(number, 0)
    if number == 0x100:
        return 2 << 32 | 1 << 63 | 3 << 13
    if number == 0x300:
        return XLEN64 | 1 << 63 | 3 << 13
    if number == 0x305:
        return _assembled(by_peer)[1]["handler"]
    if number in (0x747, 0x7A1):
        return 1 << 9 if number == 0x747 else 15 << 60  # of reset
    return row.write(0, start) if row.write else 0


def reads(ram: bytes, by_peer: bool = False) -> dict[int, list[int]]:
    """Decode what the program left behind."""
    each = 1 + 3 * len(values())
    numbers = tested(by_peer)
    words = struct.unpack_from(f"<{each * len(numbers)}Q", ram, OUT_AT - BASE)
    return {n: list(words[i * each : (i + 1) * each]) for i, n in enumerate(numbers) if not ROWS[n].volatile}
