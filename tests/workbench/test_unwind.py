"""Frames and what they are called."""

from __future__ import annotations

from collections.abc import Mapping

from workbench.errors import WorkbenchError
from workbench.symbols import Symbol, Symbols
from workbench.unwind import Frame, backtrace

SYMBOLS = Symbols([Symbol(0x1000, 0x20, "caller", "func"), Symbol(0x1020, 0x10, "next", "func")])


def test_a_call_that_ends_a_function_is_that_functions() -> None:
    """A backtrace through a call of a function that never returns named the function behind the caller."""
    assert Frame(0x1020, 0x8000).symbol(SYMBOLS) == "caller+0x20"
    assert Frame(0x1020, 0x8000, calling=False).symbol(SYMBOLS) == "next"
    assert Frame(0x1008, 0x8000).symbol(SYMBOLS) == "caller+0x8"
    assert Frame(0x5000, 0x8000).symbol(SYMBOLS) == ""


class Stack:
    """A session that has registers, words of memory and symbols."""

    def __init__(self, registers: Mapping[str, int], words: Mapping[int, int]) -> None:
        self._registers, self._words = registers, words
        names = (
            "handler",
            "handle_irq",
            "call_on_irq_stack",
            "do_irq",
            "handle_exception",
            "worker",
            "leaf",
            "thread",
        )
        self.symbols = Symbols(Symbol(0x1000 * (i + 1), 0x100, name, "func") for i, name in enumerate(names))

    def reg(self, name: str) -> int:
        return self._registers[name]

    def read_mem(self, address: int, size: int) -> bytes:
        if address & ~0xFFF in (0x1000 * i for i in range(1, 9)):
            return bytes(size)
        if address not in self._words:
            raise WorkbenchError(f"cannot access memory at address {address:#x}")
        return self._words[address].to_bytes(8, "little")


#: The interrupts' stack lies above the task's here, which frame pointers alone take for its end.
_IRQ, _TASK = 0x9_0000, 0x5_0000


def interrupted(ra: int) -> Stack:
    """Return a handler of an interrupt that came in a leaf function, which was called from ``worker``."""
    entry, worker = _TASK + 0x200, _TASK + 0x400
    words = {
        _IRQ + 0x40 - 8: 0x2010,
        _IRQ + 0x40 - 16: _IRQ + 0x80,  # handler, called by handle_irq
        _IRQ + 0x80 - 8: 0x3010,
        _IRQ + 0x80 - 16: _TASK + 0x100,  # handle_irq, called by call_on_irq_stack
        _TASK + 0x100 - 8: 0x4010,
        _TASK + 0x100 - 16: entry,  # call_on_irq_stack, called by do_irq
        entry - 8: 0x5010,
        entry - 16: 0,  # do_irq, called by handle_exception, which has no frame of its own
        entry: 0x7020,
        entry + 8: ra,
        entry + 64: worker,  # pt_regs: pc, ra, fp
        worker - 8: 0x8010,
        worker - 16: 0,  # worker, called by thread
    }
    return Stack({"pc": 0x1020, "x1": 0x2010, "x8": _IRQ + 0x40}, words)


def test_backtrace_crosses_the_stacks_and_the_entry_of_an_interrupt() -> None:
    """It ended where Linux changes to the stack of its interrupts."""
    stack = interrupted(ra=0x6010)
    frames = backtrace(stack)  # type: ignore[arg-type]
    names = [frame.symbol(stack.symbols) for frame in frames]
    entry = [
        "handler+0x20",
        "handle_irq+0x10",
        "call_on_irq_stack+0x10",
        "do_irq+0x10",
        "handle_exception+0x10",
    ]
    assert names == [*entry, "leaf+0x20", "worker+0x10", "thread+0x10"]
    assert [frame.calling for frame in frames] == [False, True, True, True, True, False, True, True]


def test_backtrace_of_a_stack_that_is_its_own_caller_ends() -> None:
    stack = interrupted(ra=0)
    stack._words = {**stack._words, _TASK + 0x100 - 16: _IRQ + 0x40, _TASK + 0x100 - 8: 0x3010}
    assert len(backtrace(stack)) == 4  # type: ignore[arg-type]
