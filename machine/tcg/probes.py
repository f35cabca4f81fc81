"""Probes as Python sees them: happenings to look for while a machine runs, and what was seen (``core/probe.h``)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Final

from machine.tcg._core import ffi
from machine.values import valueclass

#: No position, address or virtual time.
NEVER: Final = (1 << 64) - 1


class ProbeKind(IntEnum):
    """What a probe sees, and what its range is of (probe.h, WB_PROBE_KINDS)."""

    EXEC = 0
    READ = 1
    WRITE = 2
    CALL = 3
    RET = 4
    TRAP = 5
    XRET = 6
    CSR = 7
    MMIO = 8
    REG = 9
    TURN = 10


class ProbeAction(IntEnum):
    """What happens at a hit."""

    STOP = 0
    LAST = 1
    RECORD = 2
    COUNT = 3


@valueclass(frozen=True, slots=True)
class Probe:
    """A happening to look for: ``lo <= address <= hi``, and a condition.

    Args:
        physical: for EXEC, READ and WRITE: the range is of paddrs.
        paired: for RET: see only what may end a call that was recorded since ``set_probes``; none of those is missed.
        condition: a gdb agent expression, or empty. Beside gdb's registers it may ask for those numbered from 0x1000:
            value, value before, address, size, icount, paddr.
    """

    kind: ProbeKind
    action: ProbeAction
    lo: int
    hi: int
    physical: bool = False
    paired: bool = False
    condition: bytes = b""


#: A record: icount, pc, probe, kind, hart, size, op, priv, a, b, value, old, context, a0..a7 (probe.h, ProbeRecord).
RECORD = struct.Struct("<QQHBBBBBxQQQQQ8Q")
#: A count: a pc and how often it was met.
COUNT = struct.Struct("<QQ")


def as_specs(probes: Sequence[Probe]) -> tuple[Any, bytes]:
    """Return probes as the core takes them, and the code of their conditions."""
    specs = ffi.new("WbProbe[]", len(probes))
    code = b""
    for spec, probe in zip(specs, probes, strict=True):
        spec.kind, spec.action, spec.flags = probe.kind, probe.action, probe.physical | probe.paired << 1
        spec.lo, spec.hi = probe.lo & NEVER, probe.hi & NEVER
        spec.code, spec.code_len = len(code), len(probe.condition)
        code += probe.condition
    return specs, code
