"""The process's standard streams: there from the start, and heard when they fail."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

from workbench.errors import OutputError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_MODES = (os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)


class _Output(io.FileIO):
    """Standard output, below its buffers: what it does not take is an ``OutputError``, but for a reader that left."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Write, as ``FileIO`` does."""
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(error) from None


def prepare() -> None:
    """Make the three streams fit to be used, whatever the caller left of them.

    One that is closed is opened, so that no file of ours gets its number; the wrong way round, as GNU's tools do it:
    who uses it is told that it is not there.
    """
    for number, mode in enumerate(_MODES):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # takes the lowest number that is free: this one
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, "r", closefd=False)))
    if sys.stderr is None:
        sys.stderr = io.TextIOWrapper(io.BufferedWriter(io.FileIO(2, "w", closefd=False)), write_through=True)
    encoding = "utf-8" if sys.stdout is None else sys.stdout.encoding.lower()
    # a file's name need not be UTF-8, and goes out as it is; what another locale does not have is a question mark
    errors = "surrogateescape" if encoding == "utf-8" else "replace"
    buffer = io.BufferedWriter(_Output(1, "w", closefd=False))
    sys.stdout = io.TextIOWrapper(buffer, encoding, errors, line_buffering=os.isatty(1))


def drop_output() -> None:
    """Send what is still to come on stdout nowhere, so that Python's own last flush is quiet."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
