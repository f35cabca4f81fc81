"""The one hierarchy of errors of the workbench; each class knows its exit code (cli.md).

One class for each thing a caller does differently. The other packages have roots of their own
(``MachineError``, ``TraceError``, ``BlockError``), which carry ``exit_code`` the same way.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_DONE = 0
EXIT_NO = 1
EXIT_USAGE = 2
EXIT_INPUT = 3
EXIT_DIVERGED = 4
EXIT_TOOL = 6
EXIT_BUG = 70
EXIT_TIMEOUT = 124
EXIT_INTERRUPTED = 130


class WorkbenchError(Exception):
    """Something that the user is told in one line: what failed, where, what was expected, what to do."""

    exit_code: ClassVar[int] = EXIT_NO


class AnswerNo(WorkbenchError):
    """The command worked and its answer is no: a pattern was not met, a check failed."""

    exit_code = EXIT_NO


class CommandError(WorkbenchError):
    """A REPL command could not be carried out: no such symbol, an address that is not mapped."""

    exit_code = EXIT_NO


class UsageError(WorkbenchError):
    """Options or arguments that mean nothing together, or nothing at all."""

    exit_code = EXIT_USAGE


class InputError(WorkbenchError):
    """A file that was given can't be used: missing, damaged, of another kind or version."""

    exit_code = EXIT_INPUT


class OutputError(WorkbenchError):
    """Standard output takes nothing more: a full disk, or closed from the start."""

    exit_code = EXIT_INPUT

    def __init__(self, why: OSError) -> None:
        super().__init__(f"standard output: can't be written: {why.strerror}; send it elsewhere")


class DivergenceError(WorkbenchError):
    """A replay met another state or asked for another input than the recording."""

    exit_code = EXIT_DIVERGED


class MissingToolError(WorkbenchError):
    """A program or package that is needed is not installed; the message has the command that mends it."""

    exit_code = EXIT_TOOL


class TimedOut(WorkbenchError):
    """``--timeout`` passed before what was waited for."""

    exit_code = EXIT_TIMEOUT


def exit_code_of(error: BaseException) -> int | None:
    """Return the exit code that an expected error carries, None for one that is our bug."""
    code = getattr(error, "exit_code", None)
    return code if isinstance(code, int) else None


def one_line(error: BaseException) -> str:
    """Return the error's message as one line, for stderr and the debugger's console."""
    text = " ".join(str(error).split())
    return text or type(error).__name__
