"""A machine that is moved through a trace: restored, run forward, held against the digests it passes.

The invariant: outside of a call, the machine is at the state *at* its position (docs/adr/0001-borders.md): on
first arrival there, before the inputs and deadlines of that position, and nothing of how it got there shows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import fields
from itertools import islice
from typing import Any, Final

from machine.config import SEMANTICS, Images, MachineConfig
from machine.inputs import Input
from machine.tcg.pageset import PageSet
from machine.tcg.ramfold import RamFold
from traces.blobs import blob_hash
from traces.errors import TraceError
from traces.reader import TraceReader
from workbench.errors import WorkbenchError

from .checkpoints import ZERO_PAGE, BlobCache, CheckpointTree, MemoryNode, Node
from .digest import RollingDigest, canonical_json, whole_digest
from .digestchecks import DigestChecks
from .errors import Diverged
from .gates import ReplayGate
from .interventions import apply_write
from .packed import Clusters, packed_clusters
from .parts import PAGE_BYTES, BoardFactory, BoardLike, BoardStop, build_board, open_drives, reason_name
from .resetpages import ResetPages

#: Budgets of a twin: for pages of checkpoints in memory, in bytes, and of the trace, in pages.
_TWINS_TREE: Final = (64 << 20,)
_TWINS_PAGES: Final = (8192,)
#: Pages whose contents are put together and compared with RAM at once: they stay in the processor's cache.
_RESTORED_AT_ONCE: Final = 64

#: Where most of what is loaded goes, a kernel behind firmware, in bytes of RAM; and how much is thought of ahead.
_IMAGES_AT: Final = 2 << 20
_IMAGES_MOST: Final = 64 << 20

#: Takes the guest's output while it is replayed: (port, data, icount).
ConsoleListener = Callable[[str, bytes, int], None]


class Playback:
    """The machine of a trace.

    Args:
        trace: an open trace; it stays the caller's.
        backend: ``jit`` or ``interp``.
        board_factory: builds the board.
        like: another machine of the trace; what never changes is shared with it, and caches are small.
        disks: returns what reads a drive's base clusters, None for a drive that is a file; as the trace has it.

    Raises:
        TraceError: the trace holds no machine that this software can run. MachineError: it can't be built.
        Diverged: the machine asks for other inputs at reset.

    Replay: consumes inputs; checks every rolling digest that it passes.
    """

    def __init__(
        self,
        trace: TraceReader,
        backend: str = "jit",
        board_factory: BoardFactory = build_board,
        like: Playback | None = None,
        disks: Callable[[str], Clusters | None] | None = None,
    ) -> None:
        self.trace = trace
        self.backend, self.board_factory = backend, board_factory
        self.start, self.end = trace.start_icount, trace.final_icount
        self.config = trace_config(trace)
        self.console: ConsoleListener | None = None
        self.gate = ReplayGate(trace)
        self.gate.apply = self._write
        self._twin = like is not None
        packed = disks or (lambda name: packed_clusters(trace, name))
        _, self._drives = open_drives(self.config, self, packed=packed)
        self.board: BoardLike = board_factory(self.config, Images(), self.gate, self, self._drives, backend)
        if like is None:
            self._prepare_ram()  # images may still be on their way
        self._images: Images = trace_images(trace, checked=False) if like is None else like._images
        self.board.images = self._images
        try:
            self.board.reset()
        except Exception:
            trace.check_images()  # a machine that can't be built of a damaged image
            raise
        dirty = self.board.engine.dirty_pages()
        #: RAM after reset
        self._initial: Mapping[int, bytes] = (
            ResetPages(self._images, dirty, self.board.engine.ram) if like is None else like._initial
        )
        self._digests = {row.icount: row for row in trace.digests() if row.icount <= self.end}
        self._stops = sorted(self._digests)
        self._root = MemoryNode(0, self.gate.next_id, None, frozenset(), self.board.save_state(), {})
        self.tree = self._new_tree()
        self._blobs: BlobCache = (
            BlobCache(trace) if like is None else BlobCache(trace, *_TWINS_PAGES, first=like._blobs)
        )
        self.tree.add_file(self._blobs, set(self._digests))
        self._base: Node = self._root
        n_pages = self.board.engine.ram_pages
        #: pages that were written since the machine was at ``_base``
        self._since_base = PageSet(n_pages)
        #: and since the last rolling digest, None where that is not known
        self._rolling: PageSet | None = PageSet(n_pages)
        #: over RAM, as of the last ``whole``
        self.fold = RamFold(n_pages)
        #: pages that ``fold`` has not taken as they are
        self._stale = dirty
        self._kept: dict[bytes, bytes] = {} if like is None else like._kept
        #: positions whose rolling digests are not compared: their rows are suspected themselves
        self.excused: set[int] = set()
        self._checks = DigestChecks(trace, self.gate)
        #: whether a run is to stop; set by ``interrupt``, cleared by whoever begins a motion
        self.interrupted = False
        #: whether the machine shows a write that is only taken with the next step
        self.touched = False
        if self.start:
            self.restore(self.tree.nearest(self.start))
            if self.icount != self.start:
                raise TraceError(
                    f"{trace.path}: damaged: no checkpoint where its history begins ({self.start})"
                )

    def _prepare_ram(self) -> None:
        size = min(sum(max(0, row.size) for row in self.trace.images()), _IMAGES_MOST)
        self.board.engine.prepare_ram(_IMAGES_AT // PAGE_BYTES, size // PAGE_BYTES)

    @property
    def compared(self) -> int:
        """How many rolling digests were compared."""
        return self._checks.compared

    def close(self) -> None:
        """Free the machine."""
        self._checks.close()
        self.board.engine.close()
        for node in self._drives.values():
            node.close()

    def twin(self) -> Playback:
        """Return another machine of the same trace, at its start, for another thread."""
        return Playback(self.trace, self.backend, self.board_factory, self)

    @property
    def icount(self) -> int:
        """The machine's position."""
        return self.board.icount

    def extend(self) -> None:
        """Take notice of what a recording has committed since."""
        self.trace.refresh()
        known = len(self._stops)
        self.end = self.trace.final_icount
        self._digests = {row.icount: row for row in self.trace.digests() if row.icount <= self.end}
        if len(self._digests) != known:
            self._stops = sorted(self._digests)
        if self.tree.misses(self.trace):
            self._replant()
        self.tree.add_file(self._blobs, set(self._digests))
        self.gate.extend()

    def touch(self, item: Input) -> None:
        """Show a write at the present position, which the trace has there. Raises EvalError, MemoryAccessError."""
        apply_write(self.board, item)
        self.touched = True

    def _write(self, item: Input) -> None:
        try:
            apply_write(self.board, item)
        except WorkbenchError as e:
            raise TraceError(
                f"{self.trace.path}: damaged: a debugger's write at {self.icount}: {e}"
            ) from None

    # the console sink and the drives' store, as the board sees them

    def write(self, port: str, data: bytes, icount: int, vtime_ns: int) -> None:
        """Hand the guest's output on to whoever listens."""
        if self.console is not None:
            self.trace.check_images()
            self.console(port, data, icount)

    def put(self, data: bytes) -> bytes:
        """Keep a disk overlay's contents; returns their hash."""
        name = blob_hash(data)
        self._kept[name] = data
        return name

    def get(self, digest: bytes) -> bytes:
        """Return a disk overlay's contents. Raises TraceError."""
        data = self._kept.get(digest)
        return self.trace.blob(digest) if data is None else data

    # moving

    def restore(self, node: Node) -> None:
        """Put the machine into a checkpoint's state; only pages that differ are written.

        Raises:
            TraceError: the checkpoint is damaged.
        """
        self.trace.check_images()
        self._collect()
        self.touched = False
        board = self.board
        touched = self.tree.difference(self._base, node).union(self._since_base)
        contents, limit = self.tree.contents_of(node, touched), board.engine.ram_pages
        while part := list(islice(contents, _RESTORED_AT_ONCE)):
            wrong = [index for index, data in part if not 0 <= index < limit or len(data) != PAGE_BYTES]
            if wrong:
                raise TraceError(f"{self.trace.path}: damaged: a checkpoint has RAM page {wrong[0]}")
            indexes, pages = zip(*part, strict=True)
            self._stale.update(board.load_ram_pages(indexes, b"".join(pages)))
        try:
            board.load_state(node.state())
        except (ValueError, KeyError, TypeError) as e:
            raise TraceError(
                f"{self.trace.path}: damaged: the checkpoint at {node.icount} is no state of this machine ({e})"
            ) from None
        if board.icount != node.icount:
            raise TraceError(
                f"{self.trace.path}: damaged: the checkpoint at {node.icount} is of {board.icount}"
            )
        board.engine.dirty_pages()
        self.gate.seek(node.next_input)
        self._differ_from(node)
        self._rolling = None if node.rolling is None else PageSet(self._stale.n_pages, node.rolling)

    def interrupt(self) -> None:
        """Stop a run soon; may be called from a signal handler or another thread."""
        self.interrupted = True
        self.board.interrupt()

    def run_to(self, target: int, breakpoints: bool = False) -> BoardStop | None:
        """Run forward, comparing every rolling digest on the way.

        Args:
            target: a position not before the present one, at most ``end``.
            breakpoints: the engine has some that may stop the run.

        Returns:
            None on arrival, or the board's stop: a breakpoint, or an interruption. The state may then be past
            what is taken at its position (``settled``).

        Raises:
            Diverged: a digest differs, another input is asked for, or the machine ends before its time.
            TraceError: an image that was being checked meanwhile is damaged.
        """
        try:
            stop = self._run_to(target, breakpoints)
        except Diverged as found:
            self._checks.settle()  # one that is under way is of a position before
            raise found.after(self.gate.last_good) from None
        else:
            self._checks.settle()
            return stop
        finally:
            self.trace.check_images()

    def _run_to(self, target: int, breakpoints: bool) -> BoardStop | None:
        while self.icount < target:
            at = bisect_right(self._stops, self.icount)
            leg = min(target, self._stops[at]) if at < len(self._stops) else target
            stop = self.board.run(leg)
            name = reason_name(stop)
            if name == "interrupted" and not self.interrupted:
                continue  # an interrupt of a motion that had ended already
            if name == "interrupted" or (name == "breakpoint" and breakpoints):
                if self.icount == leg and not self.settled:
                    self._arrived()
                return stop
            if name != "until":
                what = f"the machine ended ({name}), the recording went on to {self.end}"
                raise Diverged(what, self.gate.last_good, self.icount)
            self._arrived()
        return None

    def run_from(self, icount: int) -> None:
        """Go to a position by the nearest checkpoint before it. Raises Diverged."""
        self.restore(self.tree.nearest(icount))
        self.run_to(icount)

    def stop_comparing(self) -> None:
        """Look at no digest any more: for finding out where a run that differs goes."""
        self._digests, self._stops = {}, []

    @property
    def settled(self) -> bool:
        """Whether inputs and deadlines of the present position were taken already."""
        return self.touched or self.gate.last_due == self.icount

    def run_off_the_end(self) -> BoardStop:
        """From the final position, let the machine take what ended it there."""
        return self.board.run(self.icount + 1)

    def keep(self) -> MemoryNode:
        """Make a checkpoint of the present state in memory."""
        self._collect()
        pages = {i: bytes(self.board.ram_page(i)) for i in self._since_base}
        rolling = None if self._rolling is None else frozenset(self._rolling)
        state = self.board.save_state()
        node = MemoryNode(self.icount, self.gate.next_id, self._base, rolling, state, pages)
        self.tree.add(node)
        self._differ_from(node)
        return node

    def digest(self) -> bytes:
        """Return the digest of the whole state at the present position."""
        return self.whole()[0]

    def whole(self) -> tuple[bytes, dict[str, Any]]:
        """Return the digest of the whole state, and the state without RAM that went into it."""
        self.trace.check_images()
        self._collect()
        self.fold.take(self._stale.numbers(), self.board.engine.ram)
        self._stale.clear()
        state = self.board.save_state()
        return whole_digest(canonical_json(state), self.fold.value), state

    def _new_tree(self) -> CheckpointTree:
        return CheckpointTree(self._initial, self._root, *(_TWINS_TREE if self._twin else ()))

    def _replant(self) -> None:
        """Begin a new tree: the old one's differences lean on checkpoints that the trace has no more."""
        self._collect()
        self.tree = self._new_tree()
        self._base = self.tree.root
        self._since_base = PageSet(
            self._stale.n_pages,
            [
                page
                for page in range(self._stale.n_pages)
                if self.board.ram_page(page) != self._initial.get(page, ZERO_PAGE)
            ],
        )

    def _differ_from(self, node: Node) -> None:
        """Note that the machine is as a checkpoint has it."""
        self._base = node
        self._since_base.clear()

    def _collect(self) -> None:
        dirty = self.board.engine.dirty_pages()
        self._since_base |= dirty
        self._stale |= dirty
        if self._rolling is not None:
            self._rolling |= dirty

    def _arrived(self) -> None:
        """Have this position's rolling digest compared, if it has one; differences start anew at a checkpoint."""
        row = self._digests.get(self.icount)
        if row is None:
            return
        self._collect()
        if self._rolling is not None and self.icount not in self.excused:
            self._checks.begin(row, RollingDigest(self.board.engine, self.config.harts, self._rolling))
        self._rolling = PageSet(self._stale.n_pages)
        node = self.tree.file_at(self.icount)
        if node is not None:
            self._differ_from(node)


def trace_config(trace: TraceReader) -> MachineConfig:
    """Return the machine of a trace.

    Raises:
        TraceError: it is of other semantics, or no machine.
    """
    if trace.meta.get("semantics") != str(SEMANTICS):
        raise TraceError(
            f"{trace.path}: was recorded by a machine of semantics {trace.meta.get('semantics', 'unknown')},"
            f" this one has {SEMANTICS}; replay it with the workbench that recorded it"
        )
    try:
        return MachineConfig.from_json(trace.config)
    except (TypeError, ValueError, AttributeError) as e:
        raise TraceError(f"{trace.path}: damaged: its config is no machine ({e})") from None


def trace_images(trace: TraceReader, *, checked: bool = True) -> Images:
    """Return what a trace's machine was loaded with. Raises TraceError: it holds only the hash of one.

    Args:
        checked: see ``TraceReader.image``.
    """
    return Images(**{field.name: trace.image(field.name, checked=checked) or b"" for field in fields(Images)})
