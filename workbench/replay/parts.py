"""What record and replay ask of a machine: the board and the engine, as protocols; and how a board is built.

Protocols let the whole of this package run on a small machine in Python in its tests. A board is built from
a configuration, images and a gate, for a recording and for a replay alike.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from machine.config import DriveConfig, Images, MachineConfig
from machine.hw.blockproto import BaseRead, BlobStore, BlockNode
from machine.inputs import ConsoleSink, InputGate
from machine.tcg.pageset import PageSet
from machine.tcg.probes import Probe
from machine.tcg.snapshot import PageSnapshot

#: Bytes of a RAM page.
PAGE_BYTES = 4096


class EngineLike(Protocol):
    """The part of ``machine.tcg.engine.Engine`` that this package uses."""

    warp_ns: int
    reg_names: tuple[str, ...]
    ram: memoryview
    ram_pages: int

    @property
    def icount(self) -> int: ...
    @property
    def vtime_ns(self) -> int: ...
    @property
    def current_hart(self) -> int: ...
    def set_icount(self, n: int) -> None: ...
    def read_phys(self, paddr: int, size: int) -> bytes: ...
    def translate(self, hart: int, vaddr: int, access: str = "r") -> int | None: ...
    def dirty_pages(self, clear: bool = True) -> PageSet: ...
    def prepare_ram(self, first: int, pages: int) -> None: ...
    def snapshot(self, pages: PageSet) -> PageSnapshot: ...
    def get_reg(self, hart: int, name: str | int) -> int: ...
    def save_state(self, hart: int) -> dict[str, int]: ...
    def save_sched(self) -> list[int]: ...
    def set_probes(self, probes: Sequence[Probe]) -> None: ...
    def skip_probes_at(self, icount: int | None) -> None: ...
    def probe_stopped(self) -> int | None: ...
    def probe_last(self, index: int) -> int | None: ...
    def take_records(self) -> bytes: ...
    def close(self) -> None: ...


class BoardStop(Protocol):
    """Why a board's run ended; ``reason`` is a ``machine.board.StopReason``."""

    @property
    def reason(self) -> Any: ...
    @property
    def code(self) -> int: ...


class BoardLike(Protocol):
    """The part of ``machine.board.Board`` that this package uses."""

    images: Images
    on_records: Callable[[], None] | None
    on_dma: Callable[[str, int, bytes], None] | None

    @property
    def engine(self) -> Any: ...
    @property
    def devices(self) -> Sequence[Any]: ...
    @property
    def config(self) -> MachineConfig: ...
    @property
    def icount(self) -> int: ...
    @property
    def vtime_ns(self) -> int: ...
    def reset(self) -> None: ...
    def run(self, until: int | None) -> BoardStop: ...
    def interrupt(self) -> None: ...
    def save_state(self) -> dict[str, Any]: ...
    def load_state(self, state: dict[str, Any]) -> None: ...
    def load_ram_pages(self, pages: Sequence[int], contents: bytes) -> list[int]: ...
    def ram_page(self, index: int) -> memoryview: ...


class BoardFactory(Protocol):
    """Builds a board that is not reset yet."""

    def __call__(
        self,
        config: MachineConfig,
        images: Images,
        gate: InputGate,
        console: ConsoleSink,
        drives: Mapping[str, BlockNode],
        backend: str,
    ) -> BoardLike: ...


def build_board(
    config: MachineConfig,
    images: Images,
    gate: InputGate,
    console: ConsoleSink,
    drives: Mapping[str, BlockNode],
    backend: str,
) -> BoardLike:
    """Build the real board. Raises MachineError: such a machine can't be built."""
    from machine.board import Board

    if config.options.get("devices"):
        from workbench.plugins import load

        load()
    board: BoardLike = Board(config, images, gate, console, drives, backend)
    if os.environ.get("WORKBENCH_PERF_MAP"):
        from workbench import perfmap

        perfmap.watch(board.engine)
    return board


def open_drives(
    config: MachineConfig,
    store: BlobStore | None,
    on_read: Callable[[str], BaseRead] | None = None,
    packed: Callable[[str], Callable[[int], bytes | None] | None] = lambda name: None,
    *,
    identify: bool = True,
) -> tuple[MachineConfig, dict[str, BlockNode]]:
    """Open a machine's drives, each once.

    Args:
        config: names the files, and their content where it is known.
        store: keeps the overlays' contents that saved states name.
        on_read: makes the function that hears of a drive's base clusters as they are read.
        packed: returns what reads a drive's base clusters from a trace, None for a drive that is a file.
        identify: find the content hash of a drive that has none, by reading all of it.

    Returns:
        the configuration with what was found of every drive, and the drives by name.

    Raises:
        MachineError: a file is missing, or is not the one that was recorded.
    """
    from machine.drives import drive_name, open_drive, packed_drive

    drives: dict[str, BlockNode] = {}
    found: list[DriveConfig] = []
    for index, drive in enumerate(config.drives):
        key = drive_name(drive, index)
        read = packed(key)
        if read is not None:
            node = packed_drive(drive, read)
        else:
            drive, node = open_drive(drive, on_read(key) if on_read else None, identify=identify)
        node.set_blob_store(store)
        found.append(drive)
        drives[key] = node
    return replace(config, drives=tuple(found)), drives


def reason_name(stop: BoardStop) -> str:
    """Return a board's stop reason as the lower-case word that traces and results use."""
    return str(getattr(stop.reason, "name", stop.reason)).lower()
