"""What the core asks of Python while a machine runs: accesses outside RAM, SBI calls, entropy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from machine.tcg._core import ffi, lib

_WORD: Final = (1 << 64) - 1


class Host(Protocol):
    """What the engine asks of the board. ``None`` and ``False`` mean that nothing is at this address."""

    def mmio_read(self, paddr: int, size: int, hart: int) -> int | None: ...

    def mmio_write(self, paddr: int, size: int, hart: int, value: int) -> bool | None: ...

    def sbi_call(self, hart: int) -> None: ...


class Callbacks:
    """Who answers the core, and what they raised meanwhile.

    Args:
        host: takes MMIO and SBI calls.
        entropy: gives 16 bits for a hart's read of the seed CSR; None: the source is dead.
    """

    def __init__(self, host: Host, entropy: Callable[[int], int] | None) -> None:
        self.host = host
        self.entropy = entropy
        self._handle = ffi.new_handle(self)
        self._raised: BaseException | None = None

    def connect(self, machine: Any, builtin_sbi: bool) -> None:
        """Let a machine of the core ask these, which must live as long as it; SBI calls only with ``builtin_sbi``."""
        sbi = lib.wb_py_sbi_call if builtin_sbi else ffi.NULL
        seed = lib.wb_py_entropy if self.entropy is not None else ffi.NULL
        lib.wb_set_host(machine, self._handle, lib.wb_py_mmio_read, lib.wb_py_mmio_write, seed, sbi)

    def keep(self, raised: BaseException) -> None:
        """Keep an exception until Python runs again: cffi would print and swallow it."""
        self._raised = raised

    def check(self) -> None:
        """Raise what was kept, if anything."""
        if self._raised is not None:
            raised, self._raised = self._raised, None
            raise raised


def _failed(exception: type[BaseException], value: BaseException, traceback: Any) -> None:
    """Give a callback's exception to whom it was called for."""
    frame = traceback.tb_frame if traceback is not None else None
    handle = frame.f_locals.get("opaque") if frame is not None else None
    if handle is not None:
        callbacks: Callbacks = ffi.from_handle(handle)
        callbacks.keep(value)


@ffi.def_extern(error=-1, onerror=_failed)  # type: ignore[untyped-decorator]
def wb_py_mmio_read(opaque: Any, paddr: int, size: int, hart: int, value: Any) -> int:
    result = ffi.from_handle(opaque).host.mmio_read(paddr, size, hart)
    if result is None:
        return 1
    value[0] = result & _WORD
    return 0


@ffi.def_extern(error=-1, onerror=_failed)  # type: ignore[untyped-decorator]
def wb_py_mmio_write(opaque: Any, paddr: int, size: int, hart: int, value: int) -> int:
    return 1 if ffi.from_handle(opaque).host.mmio_write(paddr, size, hart, value) is False else 0


@ffi.def_extern(error=-1, onerror=_failed)  # type: ignore[untyped-decorator]
def wb_py_entropy(opaque: Any, hart: int, value: Any) -> int:
    value[0] = ffi.from_handle(opaque).entropy(hart) & 0xFFFF
    return 0


@ffi.def_extern(error=-1, onerror=_failed)  # type: ignore[untyped-decorator]
def wb_py_sbi_call(opaque: Any, hart: int) -> int:
    ffi.from_handle(opaque).host.sbi_call(hart)
    return 0
