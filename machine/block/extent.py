"""A range of a host file as the payload of a write: the host moves the bytes, or shares them, by itself."""

from __future__ import annotations

import errno
import os

from machine.block.errors import UnsupportedError, from_oserror

_NO_COPY = (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.ETXTBSY)


class HostExtent:
    """Bytes of an open host file. Has a length and slices as a buffer does; the file must stay open meanwhile."""

    __slots__ = ("_fd", "_length", "_offset")

    def __init__(self, fd: int, offset: int, length: int) -> None:
        self._fd = fd
        self._offset = offset
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> HostExtent:
        start, stop, _ = part.indices(self._length)
        return HostExtent(self._fd, self._offset + start, max(0, stop - start))

    def load(self) -> bytes:
        """Return the bytes; zeroes beyond the file's end. Raises BlockError."""
        try:
            data = os.pread(self._fd, self._length, self._offset)
        except OSError as error:
            raise from_oserror(error, f"reading at {self._offset}") from error
        return data + bytes(self._length - len(data))

    def copy_to(self, fd: int, offset: int) -> None:
        """Let the host copy the bytes into another file.

        Raises:
            UnsupportedError: these two files, or this file system, have no such copy; a part may be there already.
            OSError: it failed.
        """
        source, left = self._offset, self._length
        while left:
            try:
                done = os.copy_file_range(self._fd, fd, left, source, offset)
            except OSError as error:
                if error.errno in _NO_COPY:
                    raise UnsupportedError("the host can't copy between these files") from error
                raise
            if not done:
                raise UnsupportedError("the source ends before the range does")
            source, offset, left = source + done, offset + done, left - done
