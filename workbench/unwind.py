"""Frames by the frame-pointer chain of the RISC-V ABI; best effort where a guest keeps none."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from workbench.errors import exit_code_of

if TYPE_CHECKING:
    from workbench.session import Session
    from workbench.symbols import Symbols

MAX_FRAMES = 256
RA, FP = 1, 8
#: Linux's entry of traps, which saves pc and x1 to x31 on the stack in this order (struct pt_regs), and what it
#: changes to another stack by.
TRAP_ENTRY = "handle_exception"
STACK_CHANGE = "call_on_irq_stack"
#: A frame is not larger than a kernel stack and an interrupt stack together.
MAX_FRAME_BYTES = 1 << 16


class Frame(NamedTuple):
    """One frame: where it goes on, its frame pointer (0 where none was found), and whether it waits for a call."""

    pc: int
    fp: int
    calling: bool = True

    def symbol(self, symbols: Symbols) -> str:
        """Return the function and the offset in it, ``name+0x12``, or an empty string where there is no symbol.

        A call that never returns may be a function's last instruction, and its return address another function's
        first: what waits for a call is in the function that the call lies in.
        """
        found = symbols.symbol_at(self.pc - self.calling)
        if found is None:
            return ""
        offset = self.pc - found.address
        return f"{found.name}+{offset:#x}" if offset else found.name


def is_call(code: bytes) -> bool:
    """Tell whether an instruction links: jal or jalr with ra or t0, or c.jalr.

    Spec: unprivileged, table 2.1 (return-address stack hints).
    """
    if len(code) == 4:
        word = int.from_bytes(code, "little")
        return word & 0x7F in (0x6F, 0x67) and word >> 7 & 31 in (1, 5)
    if len(code) == 2:
        half = int.from_bytes(code, "little")
        return half & 0xF07F == 0x9002 and half >> 7 & 31 != 0
    return False


def backtrace(session: Session, limit: int = MAX_FRAMES) -> list[Frame]:
    """Return the frames from the innermost one on, as far as the chain of frame pointers is sound.

    A frame's return address lies at fp - 8 and its caller's frame pointer at fp - 16. A leaf that keeps
    no frame of its own is recognised by ra pointing into another function than the saved return address.
    Linux's change of stacks for an interrupt, and its entry from what was interrupted, are crossed.

    Replay: reads the state at the cursor only.
    """
    fp = session.reg("x8")
    frames = _innermost(session, Frame(session.reg("pc"), fp, calling=False), session.reg("x1"))
    seen = {fp}
    while len(frames) < limit:
        caller, above = _load(session, fp - 8), _load(session, fp - 16)
        if caller is None or above is None or caller == 0 or not _is_code(session, caller):
            break
        frames.append(Frame(caller, above))
        function = function_of_call(session.symbols, caller)
        if (
            function == TRAP_ENTRY
        ):  # which calls with sp at what it saved: so that is where the frame of its callee ends
            pc, ra, above = (_load(session, fp + 8 * number) for number in (0, RA, FP))
            if pc is None or ra is None or above is None or not _is_code(session, pc):
                break
            frames += _innermost(session, Frame(pc, above, calling=False), ra)
        elif function != STACK_CHANGE and not fp < above <= fp + MAX_FRAME_BYTES:
            break
        if above & 7 or above in seen:
            break
        fp = above
        seen.add(fp)
    return frames[:limit]


def _innermost(session: Session, frame: Frame, ra: int) -> list[Frame]:
    """Return a frame that waits for no call, and its caller where it has not saved that yet."""
    saved = _load(session, frame.fp - 8)
    if _is_code(session, ra) and ra != saved and not _same_function(session, ra, frame.pc):
        return [frame, Frame(ra, frame.fp)]
    return [frame]


def function_of_call(symbols: Symbols, pc: int) -> str:
    """Return the name of the function whose call returns to an address, or an empty string."""
    found = symbols.symbol_at(pc - 1)
    return "" if found is None else found.name


def return_address(session: Session) -> int | None:
    """Return where the function at the cursor returns to, or None where no frame says."""
    frames = backtrace(session, 2)
    return frames[1].pc if len(frames) > 1 else None


def _load(session: Session, address: int) -> int | None:
    if address < 0 or address & 7:
        return None
    try:
        return int.from_bytes(session.read_mem(address, 8), "little")
    except ValueError:
        return None
    # whatever the session calls an unmapped address carries an exit code
    except Exception as error:
        if exit_code_of(error) is None:
            raise
        return None


def _is_code(session: Session, address: int) -> bool:
    """Tell whether an address may be a return address: even, mapped, and a symbol's if any are known."""
    if address & 1 or _load(session, address & ~7) is None:
        return False
    return not len(session.symbols) or session.symbols.find(address) is not None


def _same_function(session: Session, ra: int, pc: int) -> bool:
    one, other = session.symbols.symbol_at(ra - 1), session.symbols.symbol_at(pc)
    return one is not None and one == other
