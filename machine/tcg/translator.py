"""How a machine's code is translated: switches, limits, counters, and what was made of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from machine.tcg._core import ffi, lib
from machine.tcg.probes import NEVER


class Translator:
    """The translator of one machine.

    Args:
        machine: of the core; it lives at least as long. check_hart: returns a hart's number, or raises ValueError.

    Replay: nothing that is set here changes what a guest can see.
    """

    def __init__(self, machine: Any, check_hart: Callable[[int], int]) -> None:
        self._m = machine
        self._check_hart = check_hart

    @property
    def has_jit(self) -> bool:
        return bool(lib.wb_has_jit(self._m))

    def switches(self) -> dict[str, bool]:
        """Return whether each of its switches is on."""
        names: list[str] = []
        while (name := lib.wb_switch_name(len(names))) != ffi.NULL:
            names.append(ffi.string(name).decode())
        return {n: bool(lib.wb_switch_get(self._m, n.encode())) for n in names}

    def set_switch(self, name: str, on: bool) -> None:
        """Turn a switch on or off. Raises ValueError for an unknown one, or ``jit`` where the host has none."""
        if lib.wb_switch_set(self._m, name.encode(), on):
            raise ValueError(f"no switch {name!r} on this host: there are {', '.join(self.switches())}")

    def set_tb_max(self, insns: int) -> None:
        """Cut blocks at this many instructions (1 to 64)."""
        lib.wb_set_tb_max(self._m, insns)

    def set_hot_runs(self, runs: int) -> None:
        """Compile a block after this many interpreted runs."""
        lib.wb_set_hot_runs(self._m, runs)

    def set_cache_bytes(self, size: int) -> None:
        """Flush translated blocks when they take this many bytes (96 MiB unless told)."""
        lib.wb_set_cache_bytes(self._m, size)

    def drop_tlb(self) -> None:
        lib.wb_drop_tlb(self._m)

    def drop_code(self) -> None:
        lib.wb_drop_code(self._m)

    def stat(self, name: str) -> int:
        """Return a counter of the translator. Raises ValueError for an unknown one."""
        value = int(lib.wb_stat(self._m, name.encode()))
        if value == NEVER:
            raise ValueError(f"no counter {name!r}")
        return value

    def code_map(self) -> list[tuple[int, int, int]]:
        """Return generated code since its last flush: host address, bytes and guest pc, the shared part's NEVER."""
        n = lib.wb_code_map(self._m, ffi.NULL, 0)
        out = ffi.new("uint64_t[]", 3 * n)
        lib.wb_code_map(self._m, out, n)
        words = iter(out[0 : 3 * n])
        return list(zip(words, words, words, strict=True))

    def dump_ir(self, hart: int) -> str:
        """Return the IR of the block at a hart's pc, as text."""
        return self._dump(lib.wb_dump_ir, hart)

    def dump_insn_ir(self, hart: int) -> str:
        """Return the IR of the one instruction at a hart's pc, not optimised, as text; empty where no code is."""
        return self._dump(lib.wb_dump_insn_ir, hart)

    def _dump(self, dump: Any, hart: int) -> str:
        out = ffi.new("char[65536]")
        n = dump(self._m, self._check_hart(hart), out, 65536)
        return bytes(ffi.buffer(out)[0 : min(n, 65535)]).decode(errors="replace")
