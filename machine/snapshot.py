"""The machine's state without RAM, as data: collected from the parts, checked and handed back to them.

The layout, all JSON::

    version     of this layout
    icount, warp_ns
    sched       the engine's: whose turn, until when, what each hart waits for
    harts       a list of {register: value}
    clock       [owner, timer, vtime_ns] in firing order
    devices     {name: {declared state}}, in bus order
    drives      {name: the block node's state}
    stop        null, or [reason, code] once the guest has ended the machine
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from machine.clock import Clock
from machine.hw.blockproto import BlockNode
from machine.hw.device import Device
from machine.hw.state import parse_int

VERSION = 1
KEYS = ("version", "icount", "warp_ns", "sched", "harts", "clock", "devices", "drives", "stop")


class EngineState(Protocol):
    """What is saved of an engine."""

    harts: int
    warp_ns: int

    @property
    def icount(self) -> int: ...

    def set_icount(self, icount: int) -> None: ...

    def save_state(self, hart: int) -> dict[str, int]: ...

    def load_state(self, hart: int, state: Mapping[str, int]) -> None: ...

    def save_sched(self) -> list[int]: ...

    def load_sched(self, values: Sequence[int]) -> None: ...


def collect(
    engine: EngineState,
    clock: Clock,
    devices: Sequence[Device],
    drives: Mapping[str, BlockNode],
    stop: tuple[str, int] | None,
) -> dict[str, Any]:
    """Return the state of all parts, in the order of ``KEYS``."""
    return {
        "version": VERSION,
        "icount": engine.icount,
        "warp_ns": engine.warp_ns,
        "sched": engine.save_sched(),
        "harts": [engine.save_state(hart) for hart in range(engine.harts)],
        "clock": clock.save_state(),
        "devices": {device.name: device.save_state() for device in devices},
        "drives": {name: node.save_state() for name, node in drives.items()},
        "stop": list(stop) if stop is not None else None,
    }


def _mapping(state: dict[str, Any], key: str, names: Sequence[str]) -> dict[str, Any]:
    value = state[key]
    if not isinstance(value, dict) or set(value) != set(names):
        raise ValueError(f"state {key}: expected {list(names)}")
    return value


def restore(
    state: Any, engine: EngineState, clock: Clock, devices: Sequence[Device], drives: Mapping[str, BlockNode]
) -> tuple[str, int] | None:
    """Hand ``collect``'s data back to the parts; returns the stop in it.

    Raises:
        ValueError: it is not a state of this machine. Parts may have taken some of it: load another.
    """
    if not isinstance(state, dict) or set(state) != set(KEYS):
        raise ValueError(f"not a machine's state: expected the keys {', '.join(KEYS)}")
    if state["version"] != VERSION:
        raise ValueError(
            f"a state of layout {state['version']!r}, expected {VERSION}: made by another version"
        )
    harts, sched = state["harts"], state["sched"]
    if (
        not isinstance(harts, list)
        or len(harts) != engine.harts
        or not all(isinstance(h, dict) for h in harts)
    ):
        raise ValueError(f"state harts: expected {engine.harts}")
    if not isinstance(sched, list):
        raise ValueError("state sched: expected a list")
    stop = _parse_stop(state["stop"])
    engine.set_icount(parse_int(state["icount"], 63, "icount"))
    engine.warp_ns = parse_int(state["warp_ns"], 63, "warp_ns")
    engine.load_sched(sched)
    for hart, registers in enumerate(harts):
        engine.load_state(hart, registers)
    saved = _mapping(state, "devices", [device.name for device in devices])
    for device in devices:
        device.load_state(saved[device.name], device.name)
    disks = _mapping(state, "drives", list(drives))
    for name, node in drives.items():
        node.load_state(disks[name])
    clock.load_state(state["clock"])
    return stop


def _parse_stop(data: Any) -> tuple[str, int] | None:
    if data is None:
        return None
    if not isinstance(data, list) or len(data) != 2 or data[0] not in ("poweroff", "reboot", "fail"):
        raise ValueError("state stop: expected null or [reason, code]")
    return data[0], parse_int(data[1], 32, "stop")
