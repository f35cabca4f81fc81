"""Constants and structures of the NBD protocol; everything big endian."""

from __future__ import annotations

import errno
import struct

INIT_MAGIC = b"NBDMAGIC"
OPTION_MAGIC = b"IHAVEOPT"
CLISERV_MAGIC = 0x00420281861253
REPLY_MAGIC = 0x0003E889045565A9
FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES = 1, 2

OPT_EXPORT_NAME, OPT_ABORT, OPT_LIST, OPT_STARTTLS, OPT_INFO, OPT_GO = 1, 2, 3, 5, 6, 7
OPT_STRUCTURED_REPLY, OPT_LIST_META, OPT_SET_META = 8, 9, 10
REP_ACK, REP_SERVER, REP_INFO, REP_META = 1, 2, 3, 4
ERR_UNSUP, ERR_POLICY, ERR_INVALID, ERR_TLS_REQD, ERR_UNKNOWN, ERR_BLOCK_SIZE = (
    0x8000_0000 + n for n in (1, 2, 3, 5, 6, 8)
)
INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE = 0, 1, 2, 3

HAS_FLAGS, READ_ONLY, SEND_FLUSH, SEND_FUA = 1, 2, 4, 8
SEND_TRIM, SEND_ZEROES, SEND_DF, MULTI_CONN = 32, 64, 128, 256
SEND_CACHE, SEND_FAST_ZERO = 1024, 2048

REQUEST_MAGIC = 0x25609513
SIMPLE_MAGIC = 0x67446698
CHUNK_MAGIC = 0x668E33EF
CMD_READ, CMD_WRITE, CMD_DISC, CMD_FLUSH, CMD_TRIM, CMD_CACHE, CMD_ZEROES, CMD_STATUS = range(8)
CMD_FUA, CMD_NO_HOLE, CMD_DF, CMD_REQ_ONE, CMD_FAST_ZERO = 1, 2, 4, 8, 16
CHUNK_NONE, CHUNK_DATA, CHUNK_HOLE, CHUNK_STATUS, CHUNK_ERROR, CHUNK_ERROR_OFFSET = 0, 1, 2, 5, 0x8001, 0x8002
CHUNK_DONE = 1
STATE_HOLE, STATE_ZERO = 1, 2

REQUEST = struct.Struct(">IHHQQI")
SIMPLE = struct.Struct(">IIQ")
CHUNK = struct.Struct(">IHHQI")
OPTION = struct.Struct(">8sII")
OPTION_REPLY = struct.Struct(">QIII")

MAX_PAYLOAD = 32 << 20
MAX_NAME = 4096

_TO_WIRE = {
    errno.EPERM: 1, errno.EACCES: 1, errno.EROFS: 1, errno.EIO: 5, errno.ENOMEM: 12, errno.EINVAL: 22,
    errno.ENOSPC: 28, errno.EFBIG: 28, errno.EDQUOT: 28, errno.EOVERFLOW: 75, errno.ENOTSUP: 95,
    errno.ESHUTDOWN: 108,
}  # fmt: skip
_FROM_WIRE = {
    1: errno.EPERM, 5: errno.EIO, 12: errno.ENOMEM, 22: errno.EINVAL, 28: errno.ENOSPC, 75: errno.EOVERFLOW,
    95: errno.ENOTSUP, 108: errno.ESHUTDOWN,
}  # fmt: skip


def to_wire(number: int) -> int:
    """Return the protocol's number of an errno; EINVAL for those it has none for."""
    return _TO_WIRE.get(number, 22)


def from_wire(number: int) -> int:
    """Return the errno of a protocol number; EINVAL for unknown ones."""
    return _FROM_WIRE.get(number, errno.EINVAL)
