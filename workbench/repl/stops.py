"""How a stop of the session reads: the line that every motion ends with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.errors import CommandError
from workbench.output import Text
from workbench.registers import PRIVILEGES

if TYPE_CHECKING:
    from workbench.repl.context import Context

_SENTENCES = {
    "start": "No more reverse-execution history: this is the start of the trace.",
    "end": "No more history: this is the end of the trace.",
    "interrupted": "Interrupted.",
}


_STOPPERS = {"watchpoint": "Watchpoint", "catch": "Catchpoint"}


def describe_stop(context: Context, stop: Any) -> Text:
    """Return what a motion says when it stops: why, where, and the instruction that is next."""
    lines = []
    reason = str(stop.reason)
    detail = str(stop.detail or "")
    number = stop.stopper
    if reason == "breakpoint":
        lines.append(f"Breakpoint {detail}".rstrip() + f" at {context.place(stop.pc)}")
    elif reason in _STOPPERS:
        lines.append(f"{_STOPPERS[reason]} {number}: {detail}")
    elif reason in _SENTENCES:
        lines.append(_SENTENCES[reason])
    elif detail:
        lines.append(f"{reason}: {detail}")
    line = source_line(context, stop.pc)
    lines += [position_line(context), instruction_line(context, stop.pc), line]
    value = {
        "reason": reason,
        "position": stop.icount,
        "hart": stop.hart,
        "pc": f"{stop.pc:#x}",
        "symbol": context.session.symbols.format(stop.pc),
        "detail": detail,
        "stopper": number,
    }
    return Text("\n".join(line for line in lines if line), value, kind="asm")


def position_line(context: Context) -> str:
    """Return position, hart and mode at the cursor."""
    session = context.session
    return f"position {session.cursor:_} of {session.end:_} · hart {session.hart} · {mode(context)}"


def mode(context: Context) -> str:
    """Return the letter of the selected hart's privilege mode."""
    return PRIVILEGES.get(context.session.reg("priv"), "?")


def instruction_line(context: Context, pc: int) -> str:
    """Return the instruction at an address as listings mark it."""
    code = code_at(context, pc)
    found = context.disassembler.decode(code, pc)
    if found is None:
        return f"=> {context.place(pc)}: no memory there"
    return f"=> {context.place(pc)}: {found.text}"


def source_line(context: Context, pc: int) -> str:
    """Return the source line of an address, empty where none is known."""
    found = context.session.lines.at(pc)
    if found is None:
        return ""
    text = context.sources.lines(found.file, found.line, found.line)
    return f"{found.file}:{found.line}" + (f"   {text[0][1].strip()}" if text else "")


def code_at(context: Context, pc: int) -> bytes:
    """Return the bytes of the instruction at an address, fewer where they can't be read."""
    for size in (4, 2):
        try:
            return context.memory(pc, size)
        except CommandError:
            continue
    return b""
