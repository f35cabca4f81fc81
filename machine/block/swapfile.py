"""A temporary file without a name, for what does not fit into memory."""

from __future__ import annotations

import os
import tempfile


class SwapFile:
    """A file in ``TMPDIR`` that is gone when it is closed. Methods raise OSError."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="workbench-")  # noqa: SIM115 - closed by its owner

    def pread(self, offset: int, size: int) -> bytes:
        return os.pread(self._file.fileno(), size, offset)

    def pwrite(self, offset: int, data: bytes | bytearray) -> None:
        view = memoryview(data)
        while view:
            done = os.pwrite(self._file.fileno(), view, offset)
            offset, view = offset + done, view[done:]

    def size_bytes(self) -> int:
        """Return how long the file is."""
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        self._file.close()
