"""Frames by call frame information, and by frame pointers where there is none: each with its registers.

Spec: DWARF 5, section 6.4
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from workbench.peek import Peek
from workbench.unwind import FP, MAX_FRAMES, RA, TRAP_ENTRY, backtrace, function_of_call

from .errors import DwarfError, Unavailable
from .file import DebugFile
from .frametables import FrameTable
from .places import Machine, evaluate

if TYPE_CHECKING:
    from workbench.session import Session
    from workbench.symbols import Symbols

SP: Final = 2
#: What a call leaves as it was: sp by its frame's address, gp, tp, s0 to s11. Spec: RISC-V ABI, integer registers.
_KEPT: Final = (3, 4, 8, 9, *range(18, 28))
_MASK: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class CallFrame:
    """One frame.

    Args:
        level: 0 is the innermost. pc: where it goes on. registers: x0 to x31 as far as they are known, by number.
        cfa: its canonical frame address, None where nothing tells. interrupted: it waits for no call, but for the end
            of a trap.
    """

    level: int
    pc: int
    registers: dict[int, int] = field(default_factory=dict)
    cfa: int | None = None
    interrupted: bool = False

    @property
    def calling(self) -> bool:
        """Whether it waits for a call."""
        return self.level > 0 and not self.interrupted

    @property
    def code(self) -> int:
        """An address inside of the instruction that the frame is at: of a caller, of its call."""
        return self.pc - self.calling


def frame_name(symbols: Symbols, frame: CallFrame) -> str:
    """Return where a frame is, by its symbol: of a caller by its call, as what it returns to may be another's."""
    found = symbols.find(frame.code)
    if found is None:
        return f"{frame.pc:#x}"
    offset = found[1] + frame.pc - frame.code
    return f"{found[0]}+{offset:#x}" if offset else found[0]


class Unwinder:
    """Finds the frames of a session's selected hart.

    Args:
        files: debug files with call frame information.
    """

    def __init__(self, files: Iterable[DebugFile]) -> None:
        self._tables = [(FrameTable(file), file) for file in files if not file.empty]

    def frames(self, session: Session, limit: int = MAX_FRAMES) -> list[CallFrame]:
        """Return the frames, innermost first: as far as the tables and the frame pointers lead."""
        registers = {0: 0} | {number: session.reg(f"x{number}") for number in range(1, 32)}
        out: list[CallFrame] = []
        frame = CallFrame(0, session.reg("pc"), registers)
        peek = Peek(session)
        seen: set[tuple[int, int | None]] = set()
        while len(out) < limit:
            above = _behind_trap(peek, session, frame) or self._caller(peek, frame)
            out.append(frame if above is None else above[0])
            if above is None or (above[1].pc, above[1].registers.get(SP)) in seen:
                break
            frame = above[1]
            seen.add((frame.pc, frame.registers.get(SP)))
            if session.symbols.find(frame.code) is None and len(session.symbols):
                break
        else:
            return out
        return out if len(out) > 1 else _by_pointers(session, limit, out)

    def _caller(self, peek: Peek, frame: CallFrame) -> tuple[CallFrame, CallFrame] | None:
        """Return a frame with its frame address, and its caller; None where it has none that is known."""
        row = self._row(frame.code)
        if row is None:
            return _by_pointer(peek, frame)
        try:
            cfa = _frame_address(row, frame, peek)
            found = {number: frame.registers[number] for number in _KEPT if number in frame.registers}
            found |= {SP: cfa, 0: 0}
            ra: int | None = None if frame.calling else frame.registers.get(RA)
            for number, rule in row[1].items():
                value = _restored(rule, cfa, frame, peek)
                if number == RA:
                    ra = value
                elif value is not None:
                    found[number] = value
        except (DwarfError, KeyError):
            return None
        if not ra or ra & 1:
            return None
        here = CallFrame(frame.level, frame.pc, frame.registers, cfa)
        return here, CallFrame(frame.level + 1, ra, found)

    def _row(self, address: int) -> tuple[Any, dict[int, Any], Any] | None:
        """Return the frame address' rule, the registers' rules and the structures of the code at an address."""
        found = next(
            ((e, file) for table, file in self._tables if (e := table.at(address)) is not None), None
        )
        if found is None:
            return None
        entry, file = found
        rows = [row for row in file.guard(lambda: entry.get_decoded().table) if row["pc"] <= address]
        if not rows:
            return None
        rules = {number: rule for number, rule in rows[-1].items() if isinstance(number, int)}
        return rows[-1]["cfa"], rules, entry.structs


def _frame_address(row: tuple[Any, dict[int, Any], Any], frame: CallFrame, peek: Peek) -> int:
    rule, _, structs = row
    if rule.expr is not None:
        return evaluate(structs, bytes(rule.expr), machine_of(frame, peek)).number
    return (frame.registers[rule.reg] + int(rule.offset)) & _MASK


def _restored(rule: Any, cfa: int, frame: CallFrame, peek: Peek) -> int | None:
    match rule.type:
        case "OFFSET":
            return peek.word((cfa + rule.arg) & _MASK)
        case "VAL_OFFSET":
            return (cfa + int(rule.arg)) & _MASK
        case "SAME_VALUE":
            return None
        case "REGISTER":
            return frame.registers.get(rule.arg)
    return None


def _behind_trap(peek: Peek, session: Session, frame: CallFrame) -> tuple[CallFrame, CallFrame] | None:
    """Return the frame of Linux's trap entry, and what was interrupted; None for all other frames."""
    at = frame.registers.get(SP)
    if at is None or not frame.calling or function_of_call(session.symbols, frame.pc) != TRAP_ENTRY:
        return None
    saved = peek.read(at, 8 * 32)
    if saved is None or len(saved) < 8 * 32:
        return None
    pc, *registers = struct.unpack("<32Q", saved)
    found = {0: 0} | dict(enumerate(registers, 1))
    return frame, CallFrame(frame.level + 1, pc, found, interrupted=True)


def _by_pointer(peek: Peek, frame: CallFrame) -> tuple[CallFrame, CallFrame] | None:
    """Return a frame and its caller by the frame pointer: ra lies at fp - 8, the caller's fp at fp - 16."""
    fp = frame.registers.get(FP)
    if not frame.calling or not fp or fp & 7:
        return None
    ra, above = peek.word(fp - 8), peek.word(fp - 16)
    if not ra or ra & 1 or above is None:
        return None
    here = CallFrame(frame.level, frame.pc, frame.registers, fp)
    return here, CallFrame(frame.level + 1, ra, {0: 0, SP: fp, FP: above})


def _by_pointers(session: Session, limit: int, first: list[CallFrame]) -> list[CallFrame]:
    found = backtrace(session, limit)[1:]
    return first + [
        CallFrame(i, f.pc, {0: 0, FP: f.fp}, interrupted=not f.calling) for i, f in enumerate(found, 1)
    ]


def machine_of(frame: CallFrame, peek: Peek, frame_base: Any = None) -> Machine:
    """Return what location expressions may ask of a frame."""

    def register(number: int) -> int:
        if number not in frame.registers:
            raise Unavailable("its register was not kept by the functions that were called")
        return frame.registers[number]

    def memory(address: int, size: int) -> int:
        value = peek.word(address, size) if 0 < size <= 8 else None
        if value is None:
            raise Unavailable(f"its location needs memory at {address:#x}, which is not there")
        return value

    def cfa() -> int:
        if frame.cfa is None:
            raise Unavailable("the frame's address is not known")
        return frame.cfa

    return Machine(register, memory, frame_base or cfa, cfa)
