"""Frames and what they are called."""

from __future__ import annotations

from workbench.symbols import Symbol, Symbols
from workbench.unwind import Frame

SYMBOLS = Symbols([Symbol(0x1000, 0x20, "caller", "func"), Symbol(0x1020, 0x10, "next", "func")])


def test_a_call_that_ends_a_function_is_that_functions() -> None:
    """A backtrace through a call of a function that never returns named the function behind the caller."""
    assert Frame(0x1020, 0x8000).symbol(SYMBOLS) == "caller+0x20"
    assert Frame(0x1020, 0x8000, calling=False).symbol(SYMBOLS) == "next"
    assert Frame(0x1008, 0x8000).symbol(SYMBOLS) == "caller+0x8"
    assert Frame(0x5000, 0x8000).symbol(SYMBOLS) == ""
