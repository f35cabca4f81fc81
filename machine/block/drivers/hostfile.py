"""What a host file can do beyond reading and writing: byte locks, holes, fallocate."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from machine.block.errors import PermissionConflictError, UnsupportedError
from machine.block.flags import Perm

_F_OFD_GETLK, _F_OFD_SETLK = 36, 37
_FLOCK = struct.Struct("hhqqi4x")
_TAKEN, _UNSHARED = 100, 200
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16


class FileLocks:
    """Open-file-description locks on bytes of an image file, one pair a permission bit.

    A read lock on byte 100+bit says that the bit is taken, one on byte 200+bit that it is not shared; the
    same bytes are used by qemu-img and its kin.
    """

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self._name = name
        self._held: set[int] = set()

    def _set(self, byte: int, kind: int) -> None:
        fcntl.fcntl(self._fd, _F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0))

    def _foreign(self, byte: int) -> bool:
        probe = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
        answer = fcntl.fcntl(self._fd, _F_OFD_GETLK, probe)
        return int(_FLOCK.unpack(answer)[0]) != fcntl.F_UNLCK

    def hold(self, perm: Perm, shared: Perm) -> None:
        """Announce exactly these permissions.

        Raises:
            PermissionConflictError: another process (or another open of the file) excludes them.
        """
        wanted = {_TAKEN + bit for bit in range(4) if perm >> bit & 1}
        wanted |= {_UNSHARED + bit for bit in range(4) if not shared >> bit & 1}
        added = wanted - self._held
        try:
            for byte in sorted(added):
                self._set(byte, fcntl.F_RDLCK)
            for bit in range(4):
                word = (Perm(1 << bit).name or "").lower().replace("_", " ")
                if perm >> bit & 1 and self._foreign(_UNSHARED + bit):
                    raise PermissionConflictError(
                        f'failed to get "{word}" lock on {self._name}: is another process using the image?'
                    )
                if not shared >> bit & 1 and self._foreign(_TAKEN + bit):
                    raise PermissionConflictError(
                        f'failed to get shared "{word}" lock on {self._name}: is another process using '
                        "the image?"
                    )
        except BaseException:
            for byte in added:
                self._set(byte, fcntl.F_UNLCK)
            raise
        for byte in self._held - wanted:
            self._set(byte, fcntl.F_UNLCK)
        self._held = wanted

    def release(self) -> None:
        """Announce nothing any more: before the descriptor is closed, which a starting process may have a copy of."""
        self.hold(Perm.NONE, Perm.ALL)


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """Call fallocate(2). Raises UnsupportedError where the file system can't, OSError otherwise."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    call = libc.fallocate64 if hasattr(libc, "fallocate64") else libc.fallocate
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    if call(fd, mode, offset, length) != 0:
        number = ctypes.get_errno()
        if number in (errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV):
            raise UnsupportedError("the file system can't do this fallocate")
        raise OSError(number, os.strerror(number))


def data_extent(fd: int, offset: int, end: int) -> tuple[bool, int]:
    """Return whether ``offset`` lies in data, and where that run of data or hole ends (at most ``end``)."""
    try:
        data = os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return False, end
        return True, end
    if data > offset:
        return False, min(data, end)
    try:
        return True, min(os.lseek(fd, offset, os.SEEK_HOLE), end)
    except OSError:
        return True, end
