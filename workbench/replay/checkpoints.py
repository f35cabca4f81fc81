"""Checkpoints as a tree of differences: those of the trace, and those that a session keeps in memory.

The root is the machine after reset. A node holds the pages that differ from its parent's; what a page holds at a
node is found by walking towards the root. Going from one node to another touches the pages on the path
between them and nothing else, so a restore costs what changed, not the size of RAM.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from machine.values import valueclass
from traces.errors import TraceError
from traces.reader import TraceReader
from traces.rows import CheckpointRow

from .parts import PAGE_BYTES

#: Most nodes in memory.
_MAX_KEPT: Final = 512
#: Pages of the trace that are read at once.
_BATCH: Final = 4096
#: Checkpoints of the trace whose whole tables of pages are kept.
_MAX_FOLDED: Final = 4

ZERO_PAGE: Final = bytes(PAGE_BYTES)


class Node:
    """A full state at a position.

    Args:
        icount: the position. next_input: id of the first input not taken there.
        parent: what ``pages`` differ from, None for the root.
        rolling: pages written since the last rolling digest, None where that is not known.
    """

    def __init__(
        self, icount: int, next_input: int, parent: Node | None, rolling: frozenset[int] | None
    ) -> None:
        self.icount = icount
        self.next_input = next_input
        self.parent = parent
        self.rolling = rolling
        self.depth: int = 0 if parent is None else parent.depth + 1

    def state(self) -> dict[str, Any]:
        """Return everything but RAM."""
        raise NotImplementedError

    def pages(self) -> set[int]:
        """Return the pages that differ from the parent's."""
        raise NotImplementedError

    def page(self, index: int) -> bytes | None:
        """Return a page's contents if it is one of ``pages``."""
        raise NotImplementedError


class FileNode(Node):
    """A checkpoint in the trace; its pages are read when they are needed."""

    def __init__(
        self, store: BlobCache, row: CheckpointRow, parent: Node | None, rolling: frozenset[int] | None
    ) -> None:
        super().__init__(row.icount, row.next_input, parent, rolling)
        self.row = row
        self.store = store
        self._pages: dict[int, bytes] | None = None

    def state(self) -> dict[str, Any]:
        return self.store.trace.checkpoint_state(self.row.id)

    def hashes(self) -> dict[int, bytes]:
        """Return ``{page: hash}`` of the pages that differ from the parent's."""
        if self._pages is None:
            self._pages = self.store.trace.checkpoint_diff(self.row.id)
        return self._pages

    def pages(self) -> set[int]:
        return set(self.hashes())

    def page(self, index: int) -> bytes | None:
        name = self.hashes().get(index)
        return None if name is None else self.store.page(name)


class MemoryNode(Node):
    """A checkpoint that lives as long as the session, or until memory is needed."""

    def __init__(
        self,
        icount: int,
        next_input: int,
        parent: Node | None,
        rolling: frozenset[int] | None,
        state: dict[str, Any],
        pages: dict[int, bytes],
    ) -> None:
        super().__init__(icount, next_input, parent, rolling)
        self._state = state
        self.contents = pages
        self.used = 0

    def state(self) -> dict[str, Any]:
        return self._state

    def pages(self) -> set[int]:
        return set(self.contents)

    def page(self, index: int) -> bytes | None:
        return self.contents.get(index)


@valueclass(frozen=True, slots=True)
class Loose:
    """A checkpoint out of its tree, for another tree of the same trace.

    Args:
        base: position of the trace's checkpoint that ``pages`` differ from. The others are a node's.
    """

    icount: int
    next_input: int
    base: int
    rolling: frozenset[int] | None
    state: dict[str, Any]
    pages: dict[int, bytes]


class BlobCache:
    """RAM pages of a trace, the recently used ones in memory.

    Args:
        trace: where they are. max_pages: most that are kept.
        first: another thread's cache, which is only looked into.
    """

    def __init__(self, trace: TraceReader, max_pages: int = 32768, first: BlobCache | None = None) -> None:
        self.trace = trace
        self._max_pages = max_pages
        self._pages: OrderedDict[bytes, bytes] = OrderedDict()
        self._others: Mapping[bytes, bytes] = {} if first is None else first._pages

    def fetch(self, names: Iterable[bytes]) -> None:
        """Read several pages at once that will be asked for next."""
        wanted = [
            name for name in dict.fromkeys(names) if name not in self._pages and name not in self._others
        ]
        if len(wanted) > 1:
            self._pages.update(self.trace.blobs(wanted[: self._max_pages]))

    def page(self, name: bytes) -> bytes:
        """Return a page by its hash. Raises TraceError: missing or damaged."""
        data = self._others.get(name)
        if data is not None:
            return data
        data = self._pages.get(name)
        if data is None:
            data = self.trace.blob(name)
            self._pages[name] = data
        else:
            self._pages.move_to_end(name)
        while len(self._pages) > self._max_pages:
            self._pages.popitem(last=False)
        return data


class CheckpointTree:
    """All checkpoints that a session may restore.

    Args:
        initial: RAM's pages that are not zero after reset.
        root: the state after reset.
        budget_bytes: most that pages of nodes in memory may take.
    """

    def __init__(self, initial: Mapping[int, bytes], root: MemoryNode, budget_bytes: int = 512 << 20) -> None:
        self._initial = initial
        self.root = root
        self._budget = budget_bytes // PAGE_BYTES
        self._nodes: list[Node] = [root]
        self._file_at: dict[int, FileNode] = {}
        self._file_by_id: dict[int, FileNode] = {}
        self._held = 0
        self._kept = 0
        self._folded: OrderedDict[int, dict[int, bytes]] = OrderedDict()
        self._clock = 0

    def add_file(self, store: BlobCache, digest_positions: set[int]) -> None:
        """Add a trace's checkpoints up to its final position; those that are known already stay."""
        for row in store.trace.checkpoints():
            if row.icount > store.trace.final_icount or row.id in self._file_by_id:
                continue
            aligned = row.icount in (0, store.trace.start_icount) or row.icount in digest_positions
            if row.parent_id is not None and row.parent_id not in self._file_by_id:
                raise TraceError(f"{store.trace.path}: damaged: checkpoint {row.id} has no parent before it")
            parent = self.root if row.parent_id is None else self._file_by_id[row.parent_id]
            node = FileNode(store, row, parent, frozenset() if aligned else None)
            self._file_by_id[row.id] = node
            if row.icount:
                insort(self._nodes, node, key=lambda n: n.icount)
                self._file_at[row.icount] = node

    def misses(self, trace: TraceReader) -> bool:
        """Tell whether a recording has given up a checkpoint of its trace that is in the tree."""
        return not self._file_by_id.keys() <= {row.id for row in trace.checkpoints()}

    def nearest(self, icount: int) -> Node:
        """Return the last node at or before a position."""
        node = self._nodes[bisect_right(self._nodes, icount, key=lambda n: n.icount) - 1]
        if isinstance(node, MemoryNode):
            self._clock += 1
            node.used = self._clock
        return node

    def file_at(self, icount: int) -> FileNode | None:
        """Return the trace's checkpoint at exactly this position."""
        return self._file_at.get(icount)

    def positions(self) -> list[int]:
        """Return the positions of all nodes, ascending."""
        return [node.icount for node in self._nodes]

    def files(self) -> list[FileNode]:
        """Return the trace's own checkpoints, by position, without the one at reset."""
        return list(self._file_at.values())

    def contents_of(self, node: Node, pages: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Yield what pages hold at a node; those of the trace are read many at a time."""
        held: dict[int, bytes] = {}
        chain: list[dict[int, bytes]] = []
        at: Node | None = node
        while isinstance(at, MemoryNode):
            chain.append(at.contents)
            at = at.parent
        for each in reversed(chain):
            held.update(each)
        names = self._names(at) if isinstance(at, FileNode) else {}
        left = []
        for index in pages:
            data = held.get(index)
            if data is not None:
                yield index, data
            elif index in names:
                left.append(index)
            else:
                yield index, self._initial.get(index, ZERO_PAGE)
        if isinstance(at, FileNode):
            for start in range(0, len(left), _BATCH):
                batch = left[start : start + _BATCH]
                at.store.fetch(names[index] for index in batch)
                for index in batch:
                    yield index, at.store.page(names[index])

    def _names(self, node: FileNode) -> dict[int, bytes]:
        """Return ``{page: hash}`` of all that a checkpoint of the trace differs from reset in."""
        names = self._folded.get(node.icount)
        if names is None:
            chain: list[FileNode] = []
            at: Node | None = node
            while isinstance(at, FileNode):
                chain.append(at)
                at = at.parent
            names = {}
            for each in reversed(chain):
                names.update(each.hashes())
            self._folded[node.icount] = names
            if len(self._folded) > _MAX_FOLDED:
                self._folded.popitem(last=False)
        return names

    def difference(self, a: Node, b: Node) -> set[int]:
        """Return the pages that may differ between two nodes."""
        pages: set[int] = set()
        left: Node | None = a
        right: Node | None = b
        while left is not right:
            if right is None or (left is not None and left.depth >= right.depth):
                assert left is not None
                pages |= left.pages()
                left = left.parent
            else:
                pages |= right.pages()
                right = right.parent
        return pages

    def add(self, node: MemoryNode) -> None:
        """Add a node in memory; the ones unused for longest go when memory is short."""
        self._clock += 1
        node.used = self._clock
        insort(self._nodes, node, key=lambda n: n.icount)
        self._held += len(node.contents)
        self._kept += 1
        while (self._held > self._budget or self._kept > _MAX_KEPT) and self._evict(node):
            pass

    def loose_at(self, icount: int) -> Loose | None:
        """Return the last node at or before a position for another tree, None where it is one of the trace's."""
        pages: dict[int, bytes] = {}
        at = node = self.nearest(icount)
        if isinstance(node, FileNode) or node is self.root:
            return None
        while isinstance(at, MemoryNode) and at.parent is not None:
            pages = at.contents | pages
            at = at.parent
        return Loose(node.icount, node.next_input, at.icount, node.rolling, node.state(), pages)

    def adopt(self, loose: Loose) -> None:
        """Add a node of another tree."""
        parent = self._file_at.get(loose.base, self.root)
        if parent.icount == loose.base:
            self.add(
                MemoryNode(loose.icount, loose.next_input, parent, loose.rolling, loose.state, loose.pages)
            )

    def _evict(self, keep: MemoryNode) -> bool:
        """Drop one node in memory, its children taking over its differences. False if there is none to drop."""
        mine = [n for n in self._nodes if isinstance(n, MemoryNode) and n is not keep and n is not self.root]
        if not mine:
            return False
        victim = min(mine, key=lambda n: n.used)
        self._nodes.remove(victim)
        self._held -= len(victim.contents)
        self._kept -= 1
        for node in self._nodes:
            if isinstance(node, MemoryNode) and node.parent is victim:
                before = len(node.contents)
                node.contents = victim.contents | node.contents
                node.parent = victim.parent
                self._held += len(node.contents) - before
        return True
