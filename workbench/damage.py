"""Damaged files: what a reader of ELF or debug information stumbles over becomes one error that names the file."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from workbench.errors import InputError, WorkbenchError

T = TypeVar("T")


def stumbles() -> tuple[type[Exception], ...]:
    """Return what pyelftools, and readers of ours like it, raise over a damaged file."""
    from elftools.common.exceptions import DWARFError, ELFError
    from elftools.construct import ConstructError

    return (
        DWARFError,
        ELFError,
        ConstructError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
        ArithmeticError,
        AssertionError,
        NotImplementedError,
        RecursionError,
    )


def guarded(what: str, read: Callable[[], T], raises: type[WorkbenchError] = InputError) -> T:
    """Return what a reader returns.

    Args:
        what: the file, and what of it is read, for the message.
        read: the reader; an error of ours passes as it is.
        raises: the class of the error.

    Raises:
        InputError, or what is given: the reader stumbled over damage.
    """
    try:
        return read()
    except stumbles() as error:
        raise raises(f"{what}: damaged: {error}") from None
