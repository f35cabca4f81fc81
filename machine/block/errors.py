"""Errors of the block layer: each carries an errno, because a guest, an NBD peer or a job decides by it."""

from __future__ import annotations

import errno as _errno
import os


class BlockError(Exception):
    """A block operation failed.

    Args:
        errno: positive errno value, as the guest-visible or wire status derives from it.
        message: what failed, where, what was expected, what to do; one line.
    """

    exit_code = 3

    def __init__(self, errno: int, message: str = "") -> None:
        super().__init__(message or os.strerror(errno))
        self.errno = errno

    @property
    def message(self) -> str:
        """The one-line message."""
        return str(self.args[0])


class UnsupportedError(BlockError):
    """The driver or format can't do this operation; a caller may fall back to another one."""

    def __init__(self, message: str = "operation not supported") -> None:
        super().__init__(_errno.ENOTSUP, message)


class ImageFormatError(BlockError):
    """The file is not a usable image of its format."""

    def __init__(self, message: str, errno: int = _errno.EINVAL) -> None:
        super().__init__(errno, message)


class ImageCorruptError(BlockError):
    """Metadata of an image contradict themselves; the image was left alone. Run ``workbench img check``."""

    def __init__(self, message: str) -> None:
        super().__init__(_errno.EIO, message)


class StatusError(BlockError):
    """What an image holds where can't be found out."""


class PermissionConflictError(BlockError):
    """Another user of the node or of the file forbids this use."""

    def __init__(self, message: str, errno: int = _errno.EBUSY) -> None:
        super().__init__(errno, message)


class OptionError(BlockError):
    """An option is unknown, missing or has a wrong value."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(_errno.EINVAL, message)


class JobError(BlockError):
    """A job refused a verb or its arguments."""


class DeadlockError(RuntimeError):
    """No task can ever run again while one was waited for: a bug in the block layer or in a test."""

    exit_code = 70


def from_oserror(error: OSError, what: str) -> BlockError:
    """Return a BlockError with the OSError's errno (EIO where it has none) and a message that names
    ``what``."""
    number = error.errno or _errno.EIO
    return BlockError(number, f"{what}: {os.strerror(number)}")
