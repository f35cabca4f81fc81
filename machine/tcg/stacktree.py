"""Counts steps by stack of calls, in C: from the records of probes to a tree of stacks (core/stacktree.h)."""

from __future__ import annotations

from typing import Final, NamedTuple

from machine.tcg._core import ffi, lib
from machine.tcg.handle import Handle, whole_records

#: The first nodes: what runs with no call open in the kernel, in user mode; and all calls that there was no room for.
KERNEL, USER, MORE = range(3)
ROOTS: Final = 3
#: The target of a node that stands for all calls deeper than MAX_DEPTH.
DEEPER: Final = (1 << 64) - 1
MAX_DEPTH: Final = 512
MAX_NODES: Final = 1 << 21
#: The probes whose records are wanted, by the names of their kinds.
PROBES: Final = ("CALL", "RET", "TRAP", "XRET", "TURN")
_NODE_WORDS: Final = 3
_LOW: Final = (1 << 32) - 1


class Nodes(NamedTuple):
    """Calls, each behind the one below it; the first are the roots, which have no target and are below themselves.

    Args:
        targets: what was called. below: the node that it is on top of. steps: with it on top.
    """

    targets: list[int]
    below: list[int]
    steps: list[int]


class StackTree(Handle):
    """Steps by stack, from a position on. A context manager.

    Args:
        icount: the first step. hart: whose turn it is there. user: whether it is in user mode.

    Raises:
        MemoryError: the host has none.
    """

    def __init__(self, icount: int, hart: int = 0, user: bool = False) -> None:
        super().__init__(lib.wb_stacktree_create(icount, hart, user), lib.wb_stacktree_destroy)
        if not self._p:
            raise MemoryError("no memory for the stacks of a stretch")
        #: open calls that were forgotten as there were too many: what they called is shown without them
        self.forgotten = 0

    def feed(self, records: bytes | memoryview) -> None:
        """Take records of ``PROBES``, in the run's order.

        Raises:
            ValueError: the bytes are not whole records. MemoryError: the host has none; close this object then.
        """
        data, count = whole_records(records)
        if lib.wb_stacktree_feed(self._p, data, count):
            raise MemoryError("no memory for the stacks of this stretch")

    def nodes(self, end: int) -> Nodes:
        """Return what was counted.

        Args:
            end: steps before it are counted.
        """
        n, forgotten = ffi.new("uint32_t *"), ffi.new("uint64_t *")
        data = lib.wb_stacktree_nodes(self._p, end, n, forgotten)
        words = memoryview(ffi.buffer(data, 8 * _NODE_WORDS * n[0])).cast("Q").tolist()
        self.forgotten = int(forgotten[0])
        below = [*range(ROOTS), *(word & _LOW for word in words[_NODE_WORDS * ROOTS + 2 :: _NODE_WORDS])]
        return Nodes(words[::_NODE_WORDS], below, words[1::_NODE_WORDS])
