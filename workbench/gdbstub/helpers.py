"""Commands for gdb itself; ``workbench gdb`` has gdb run this file. They move the cursor through ``monitor``.

wb COMMAND        any command of the workbench's REPL
goto POSITION     go to a position
when              where the cursor is

And they lead backtraces of Linux through its exception entry.
"""

from __future__ import annotations

from typing import Any

import gdb  # type: ignore[import-untyped]
from gdb.unwinder import Unwinder, register_unwinder  # type: ignore[import-untyped]


class Relay(gdb.Command):  # type: ignore[misc]
    """Hands a line to the workbench, and has gdb look anew at where the machine is."""

    def __init__(self, name: str, command: str, help_text: str) -> None:
        self.__doc__ = help_text
        super().__init__(name, gdb.COMMAND_RUNNING)
        self._command = command

    def invoke(self, argument: str, from_tty: bool) -> None:
        """Run the line; gdb's caches of registers and memory are dropped, as the cursor may have moved."""
        before = _pc()
        gdb.execute(f"monitor {self._command} {argument}".rstrip())
        for cache in ("register-cache", "dcache"):
            gdb.execute(f"maintenance flush {cache}", to_string=True)
        if _pc() != before:
            gdb.execute("frame")


def _pc() -> Any:
    try:
        return int(gdb.selected_frame().pc())
    except gdb.error:
        return None


Relay("wb", "", "Run a command of the workbench: wb last-write jiffies.")
Relay("goto", "goto", "Go to a position: goto 50%, goto end, goto @bookmark, goto +1000.")
Relay("when", "where", "Tell where the cursor is.")


#: Linux's ``struct pt_regs`` on riscv64, which its exception entry leaves on the stack; pc is the interrupted one.
_PT_REGS = (
    *("pc", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "fp", "s1"),
    *(f"a{i}" for i in range(8)),
    *(f"s{i}" for i in range(2, 12)),
    *("t3", "t4", "t5", "t6"),
)


class _FrameId:
    def __init__(self, sp: Any, pc: Any) -> None:
        self.sp, self.pc = sp, pc


class EntryUnwinder(Unwinder):  # type: ignore[misc]
    """Goes through Linux's entry of traps, where gdb, without tables, ends in an error.

    That is: from the entry to what was interrupted, and from the interrupts' stack to the one before it. Callers in
    a kernel without debug information are found by frame pointers, which it keeps: gdb guesses at its prologues.
    """

    def __init__(self) -> None:
        super().__init__("workbench-entry")

    def __call__(self, pending_frame: Any) -> Any:
        """Return the caller of a frame that waits in the entry, None for all others."""
        pc = pending_frame.read_register("pc")
        if not pending_frame.level():
            return None
        function = _function(int(pc))
        try:
            if function == "handle_exception":
                return _interrupted(pending_frame, pc)
            if function == "ret_from_fork":  # where a kernel thread begins: nobody has called it
                return _unwound(pending_frame, pending_frame.read_register("sp"), pc, {"pc": 0})
            if function == "call_on_irq_stack" or (
                int(pc) >> 63 and gdb.find_pc_line(int(pc)).symtab is None
            ):
                return _by_frame_pointer(pending_frame, pc)
        except gdb.MemoryError:
            return None
        return None


def _interrupted(pending_frame: Any, pc: Any) -> Any:
    sp = pending_frame.read_register("sp")
    return _unwound(pending_frame, sp, pc, dict(zip(_PT_REGS, _words(int(sp), len(_PT_REGS)), strict=True)))


def _by_frame_pointer(pending_frame: Any, pc: Any) -> Any:
    """Return the caller by fp and ra, which lie below where the frame pointer points; None if that can't be."""
    here = pending_frame.read_register("fp")
    fp, ra = _words(int(here) - 16, 2)
    if not _function(ra):
        return None
    return _unwound(pending_frame, here, pc, {"pc": ra, "sp": int(here), "fp": fp})


def _function(pc: int) -> str:
    name = str(gdb.execute(f"info symbol {pc:#x}", to_string=True)).split(" ")[0]
    return "" if name == "No" else name


def _words(address: int, count: int) -> list[int]:
    data = bytes(gdb.selected_inferior().read_memory(address, 8 * count))
    return [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)]


def _unwound(pending_frame: Any, sp: Any, pc: Any, registers: dict[str, int]) -> Any:
    found = pending_frame.create_unwind_info(_FrameId(sp, pc))
    for name, value in registers.items():
        found.add_saved_register(name, gdb.Value(value).cast(pending_frame.read_register(name).type))
    return found


register_unwinder(None, EntryUnwinder())
