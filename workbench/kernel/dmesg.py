"""The kernel's log, from its ring buffer in memory.

Spec: Linux, kernel/printk/printk_ringbuffer.h: descriptors by number, each with a state, an info (time, level,
length) and a block of text in a ring of bytes that begins with the descriptor's number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .errors import KernelError
from .linux import Kernel

_COMMITTED, _FINALIZED = 1, 2
_NUMBER = (1 << 62) - 1
_MAX_BITS, _MAX_COUNT_BITS = 26, 20
_MAX_STRUCT = 1024


class Message(NamedTuple):
    """One message: its number, its time in ns since boot, its level (0 emergency to 7 debug) and its text."""

    seq: int
    ts_ns: int
    level: int
    text: str

    def __str__(self) -> str:
        head = f"[{self.ts_ns // 10**9:5}.{self.ts_ns // 1000 % 10**6:06}] "
        return "\n".join(head + line for line in self.text.split("\n"))


def messages(kernel: Kernel) -> Iterator[Message]:
    """Yield what the log holds at this position, oldest first. Raises KernelError: not of a known shape."""
    memory, types = kernel.memory, kernel.types
    ring = memory.word(kernel.symbol("prb"))

    def ring_word(path: str, size: int = 8) -> int:
        return kernel.field(ring, "printk_ringbuffer", path, size)

    count_bits, text_bits = ring_word("desc_ring.count_bits", 4), ring_word("text_data_ring.size_bits", 4)
    if not (0 < count_bits <= _MAX_COUNT_BITS and 0 < text_bits <= _MAX_BITS):
        raise KernelError(
            f"the log's ring has 2^{count_bits} messages and 2^{text_bits} bytes: not set up, or damaged"
        )
    count, text_size = 1 << count_bits, 1 << text_bits
    desc_size = types.size(types.find("struct prb_desc"))
    info_size = types.size(types.find("struct printk_info"))
    if not (0 < desc_size <= _MAX_STRUCT and 0 < info_size <= _MAX_STRUCT):
        raise KernelError(
            f"the log's structures have {desc_size} and {info_size} bytes: not of a known shape"
        )
    descs = memory.read(ring_word("desc_ring.descs"), count * desc_size)
    infos = memory.read(ring_word("desc_ring.infos"), count * info_size)
    text = memory.read(ring_word("text_data_ring.data"), text_size)
    offsets = {
        name: types.offset(*name)
        for name in (
            ("prb_desc", "state_var"), ("prb_desc", "text_blk_lpos.begin"), ("prb_desc", "text_blk_lpos.next"),
            ("printk_info", "seq"), ("printk_info", "ts_nsec"), ("printk_info", "text_len"),
        )
    }  # fmt: skip
    level = types.member(types.find("struct printk_info"), "level").offset_bits

    def part(data: bytes, at: int, name: tuple[str, str], size: int = 8) -> int:
        return int.from_bytes(data[at + offsets[name] : at + offsets[name] + size], "little")

    head, tail = ring_word("desc_ring.head_id") & _NUMBER, ring_word("desc_ring.tail_id") & _NUMBER
    for i in range(min((head - tail & _NUMBER) + 1, count)):
        number = tail + i & _NUMBER
        desc, info = number % count * desc_size, number % count * info_size
        state = part(descs, desc, ("prb_desc", "state_var"))
        if state & _NUMBER != number or state >> 62 not in (_COMMITTED, _FINALIZED):
            continue
        begin = part(descs, desc, ("prb_desc", "text_blk_lpos.begin"))
        following = part(descs, desc, ("prb_desc", "text_blk_lpos.next"))
        length = part(infos, info, ("printk_info", "text_len"), 2)
        data = b""
        if not begin & 1:
            # a block that would wrap lies at the ring's begin as a whole
            wraps = begin >> text_bits != (following - 1) >> text_bits
            at = 0 if wraps else begin % text_size
            data = text[at + 8 : at + 8 + length]
        yield Message(
            part(infos, info, ("printk_info", "seq")),
            part(infos, info, ("printk_info", "ts_nsec")),
            int.from_bytes(infos[info + level // 8 : info + level // 8 + 1], "little") >> level % 8 & 7,
            data.decode("utf-8", "replace"),
        )


def dmesg(kernel: Kernel) -> str:
    """Return the log as ``dmesg`` prints it. Raises KernelError."""
    return "".join(f"{message}\n" for message in messages(kernel))
