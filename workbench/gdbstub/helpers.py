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


class TrapUnwinder(Unwinder):  # type: ignore[misc]
    """Goes from Linux's exception entry to what was interrupted; gdb, without tables, ends there in an error."""

    def __init__(self) -> None:
        super().__init__("workbench-trap")

    def __call__(self, pending_frame: Any) -> Any:
        """Return the caller of a frame that waits in ``handle_exception``, None for all others."""
        pc = pending_frame.read_register("pc")
        if not pending_frame.level() or not _in_entry(int(pc)):
            return None
        sp = pending_frame.read_register("sp")
        found = pending_frame.create_unwind_info(_FrameId(sp, pc))
        try:
            saved = gdb.selected_inferior().read_memory(int(sp), 8 * len(_PT_REGS))
        except gdb.MemoryError:
            return None
        for index, name in enumerate(_PT_REGS):
            value = int.from_bytes(bytes(saved[8 * index : 8 * index + 8]), "little")
            found.add_saved_register(name, gdb.Value(value).cast(pending_frame.read_register(name).type))
        return found


def _in_entry(pc: int) -> bool:
    return str(gdb.execute(f"info symbol {pc:#x}", to_string=True)).startswith("handle_exception")


register_unwinder(None, TrapUnwinder())
