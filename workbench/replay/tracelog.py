"""The thread that writes a recording's trace, so that hashing, compressing and SQLite stay off the guest's path.

The recorder copies pages and puts rows into a queue; this thread owns the SQLite connection. The queue keeps the
order, so when ``progress`` is written, every input before that position is in the file. When writing fails the
first error is kept and raised at the recorder's next call; what was committed before stays.

Rows do not wake the thread: it looks for them every ``_LOOK_S``, so that many cost one change of threads. A
checkpoint's pages, and whoever waits, ring for it.

Pages come as snapshots, which the thread reads while the guest runs on; what of them waits for a slow disk is
bounded, since a guest that changes too many before they are read waits.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from machine.inputs import Input
from machine.tcg.pagediff import LoadedImage
from machine.tcg.ramfold import RamFold
from traces.blobs import blob_hash
from traces.errors import TraceError, TraceWriteError
from traces.pagesets import Based, PageList
from traces.writer import TraceWriter

from .digest import RollingDigest, canonical_json, whole_digest
from .parts import PAGE_BYTES
from .thinning import choose_victim

#: Checkpoints that may wait to be written; the recorder waits for the disk beyond that.
_MAX_WAITING: Final = 3
#: Pages that are read, named and compressed together: half a MiB stays in the host's caches.
_BUFFER_PAGES: Final = 128

#: Rows that may wait to be written, and how many of them the thread is woken for.
_MAX_ROWS: Final = 1 << 14
_MANY_ROWS: Final = 1 << 10
#: How often the thread looks for rows, in seconds; ``COMMIT_S`` is a little less than two of these.
_LOOK_S: Final = 0.1

#: How long the recorder sleeps while the thread has too much to do, in seconds.
_WAIT_S: Final = 0.005

#: One thing to do for the writer's thread.
_Item = tuple[Callable[..., Any], tuple[Any, ...]]


class Pages(Protocol):
    """Contents of RAM pages that are read once, a part at a time: ``machine.tcg.snapshot.PageSnapshot``."""

    def read(self, out: memoryview) -> Sequence[int]:
        """Return the next pages; their contents lie in ``out``, one behind the other."""

    def close(self) -> None:
        """Let go of what has not been read."""


class TraceLog:
    """Writes a trace from a thread. Every method may raise TraceWriteError, for an earlier failure too.

    Args:
        writer: a new trace; belongs to this object until ``close``.
        fold: over RAM of zeros; ``head`` and ``after_reset`` take what it holds after reset, which the first
            checkpoint's differences start from. Belongs to this object.
        budget_bytes: most that RAM pages of checkpoints may take in the file.
        max_checkpoints: most checkpoints kept.
    """

    def __init__(self, writer: TraceWriter, fold: RamFold, budget_bytes: int, max_checkpoints: int) -> None:
        self._writer = writer
        self._budget_bytes = budget_bytes
        self._max_checkpoints = max_checkpoints
        self._items: deque[_Item] = deque()
        self._bell = threading.Event()
        self._closing = False
        self._final: int | None = None  # position, where the trace is to be ended as clean
        self._room = threading.Semaphore(_MAX_WAITING)
        self._error: Exception | None = None
        #: the hash of an image in the trace, and the image that pages are kept as the difference from;
        #: belongs to the writer's thread
        self.loaded: tuple[bytes, LoadedImage] | None = None
        #: over RAM; belongs to the writer's thread
        self.fold = fold
        self._buffer = memoryview(bytearray(_BUFFER_PAGES * PAGE_BYTES))
        self._changed = PageList()
        self._kept: list[tuple[int, int]] = []
        self._places: list[int] = []
        self._overlay: dict[bytes, bytes] = {}
        self._thread = threading.Thread(target=self._work, name="trace writer", daemon=True)
        self._thread.start()

    # from the recorder's thread

    def input(self, icount: int, vtime_ns: int, given: Input, asked: bool) -> None:
        """Log an input."""
        self._put(
            self._writer.add_input,
            icount,
            vtime_ns,
            given.hart,
            given.source,
            given.kind,
            given.payload,
            asked,
        )

    def console(self, icount: int, vtime_ns: int, port: str, data: bytes) -> None:
        """Add console output."""
        self._put(self._writer.add_console, icount, vtime_ns, port, data)

    def bookmark(self, name: str, icount: int, note: str) -> None:
        """Name a position."""
        self._put(self._bookmark, name, icount, note)

    def digest(self, icount: int, rolling: RollingDigest) -> None:
        """Add a rolling digest, which is worked out here."""
        self._put(self._digest, icount, rolling)
        self._ring()

    def progress(self, icount: int) -> None:
        """Say that all inputs before this position have been logged."""
        self._put(self._writer.progress, icount)

    def set_meta(self, key: str, value: str | int) -> None:
        """Set a ``meta`` row."""
        self._put(self._writer.set_meta, key, value)

    def disk_read(self, drive: str, cluster: int, data: bytes) -> None:
        """Keep a cluster of a base image that the run touched."""
        self._put(self._writer.add_disk_read, drive, cluster, data)
        self._ring()

    def head(self, write: Callable[[TraceWriter], None]) -> None:
        """Write what is known before the first step; it waits for ``publish``."""
        self._put(write, self._writer)
        self._ring()

    def after_reset(self, pages: Pages) -> None:
        """Take what pages hold before the first step, but for those whose contents ``head`` knows."""
        self._put(self._read, pages, self._fold_in)

    def publish(self) -> None:
        """Give the trace its name: all that its replay begins with has been added."""
        self._put(self._writer.commit)
        self._ring()

    def checkpoint(
        self,
        icount: int,
        vtime_ns: int,
        state: dict[str, Any],
        pages: Pages,
        next_input: int,
    ) -> None:
        """Add a checkpoint of the pages that were written since the last one; waits if the disk lags behind."""
        while not self._room.acquire(timeout=0.5):
            self._check()
        self._put(self._read, pages, self._take)
        self._put(self._checkpoint, icount, vtime_ns, state, next_input)
        self._ring()

    def end_digest(self, state: dict[str, Any], pages: Pages) -> None:
        """Note the digest of the state in which the machine ended, behind its last position's own inputs."""
        self._put(self._read, pages, self._fold_in)
        self._put(self._end_digest, state)

    def flush(self) -> None:
        """Write what is queued and commit it; returns when a reader sees it."""
        done = threading.Event()
        self._put(self._writer.commit)
        self._put(done.set)
        self._ring()
        while not done.wait(0.1):
            self._check()

    def close(self, final_icount: int, meanwhile: Callable[[], None] | None = None) -> None:
        """Write what is queued and end the trace as clean; ``meanwhile`` is called while the thread does so."""
        self._final = final_icount
        self._closing = True
        self._ring()
        if meanwhile is not None:
            meanwhile()
        self._stop()
        self._check()

    def abandon(self) -> None:
        """Write what is queued and leave the trace unclean."""
        try:
            self._stop()
            if self._error is None and self._final is None:
                self._writer.commit()
        finally:
            self._writer.abandon()

    # a block node's store of overlay contents

    def put(self, data: bytes) -> bytes:
        """Keep a disk overlay's contents; returns their hash."""
        name = blob_hash(data)
        if name not in self._overlay:
            self._overlay[name] = b""
            self._put(self._writer.add_blob, data)
            self._ring()
        return name

    def get(self, digest: bytes) -> bytes:
        """A recording never restores. Raises KeyError."""
        raise KeyError(digest.hex())

    def _stop(self) -> None:
        self._closing = True
        self._ring()
        self._thread.join()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _put(self, function: Callable[..., Any], *args: Any) -> None:
        """Leave something for the thread to do; waits for it if there is too much."""
        self._check()
        self._items.append((function, args))
        waiting = len(self._items)
        if waiting % _MANY_ROWS == 0:
            self._ring()
        while len(self._items) > _MAX_ROWS:
            time.sleep(_WAIT_S)
            self._check()

    def _ring(self) -> None:
        self._bell.set()

    # in the writer's thread

    def _work(self) -> None:
        closing = False
        while not closing:
            self._bell.wait(_LOOK_S)
            self._bell.clear()
            closing = self._closing  # nothing is left behind what has been asked for then
            while self._items:
                self._do(*self._items.popleft())
                self._do(self._writer.tick, ())
            self._do(self._writer.tick, ())
        if self._final is not None:
            self._do(self._writer.close, (self._final,))

    def _do(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if self._error is not None:
            return
        try:
            function(*args)
        except TraceError as e:
            self._error = e
        except Exception as e:  # noqa: BLE001 - handed to the recorder's thread, which raises it
            self._error = TraceWriteError(f"{self._writer.path}: writing failed: {type(e).__name__}: {e}")

    def _bookmark(self, name: str, icount: int, note: str) -> None:
        self._places.append(icount)
        self._writer.bookmark(name, icount, note)

    def _digest(self, icount: int, rolling: RollingDigest) -> None:
        self._writer.add_digest(icount, *rolling.work_out())

    def _read(self, snapshot: Pages, take: Callable[[Sequence[int], memoryview], None]) -> None:
        try:
            pages = snapshot.read(self._buffer)
            if pages:
                take(pages, self._buffer)
                self._items.appendleft((self._read, (snapshot, take)))  # commits come between
        except BaseException:
            snapshot.close()  # a guest may wait for it, and the error holds on to it
            raise

    def _take(self, pages: Sequence[int], buffer: memoryview) -> None:
        taken = self.fold.take_copies(pages, buffer)
        based = None
        if self.loaded is not None:
            name, image = self.loaded
            based = Based(name, image.subtract(pages, taken.at, buffer))
        self._writer.add_pages(taken.names, buffer, taken.at, based)
        self._changed.numbers.extend(pages[at] for at in taken.at)
        self._changed.names += taken.names

    def _fold_in(self, pages: Sequence[int], buffer: memoryview) -> None:
        self.fold.take_copies(pages, buffer)

    def _checkpoint(self, icount: int, vtime_ns: int, state: dict[str, Any], next_input: int) -> None:
        try:
            changed, self._changed = self._changed, PageList()
            document = canonical_json(state)
            digest = whole_digest(document, self.fold.value)
            parent = self._kept[-1][1] if self._kept else None
            args = (icount, vtime_ns, parent, document, digest, changed, next_input)
            self._kept.append((icount, self._writer.add_checkpoint(*args)))
            self._thin()
        finally:
            self._room.release()

    def _end_digest(self, state: dict[str, Any]) -> None:
        self._writer.set_meta("end_digest", whole_digest(canonical_json(state), self.fold.value).hex())

    def _thin(self) -> None:
        while len(self._kept) > self._max_checkpoints or self._writer.checkpoint_bytes > self._budget_bytes:
            at = choose_victim([icount for icount, _ in self._kept], self._places)
            if at is None:
                return
            self._writer.drop_checkpoint(self._kept.pop(at)[1])
