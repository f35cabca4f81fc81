"""Replication of a disk between two machines, primary and secondary side (block.md section 9).

On the secondary: replication node -> active disk -> hidden disk -> secondary disk. The primary's writes reach the
secondary disk through an export; an internal backup copies what they overwrite into the hidden disk, so that the
node keeps showing the last checkpoint with the guest's own writes over it.

Every read that can reach the secondary disk through the hidden one holds the backup's COW range: that is done by
a guard node between active and hidden, so that the fills of partial writes into the active disk hold it as well.
"""

from __future__ import annotations

import errno
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from machine.block import flags as F
from machine.block.drivers.raw import PassNode
from machine.block.errors import BlockError, OptionError, UnsupportedError
from machine.block.flags import Perm, Role, Status
from machine.block.jobs.backup import BackupJob
from machine.block.jobs.job import JobState
from machine.block.jobs.mirror import MirrorJob
from machine.block.node import Buffer, Edge, Node, is_allocated_above
from machine.block.options import OptionReader
from machine.block.sched import Task

if TYPE_CHECKING:
    from machine.block.graph import Graph


class ReplicationState(StrEnum):
    """Where a node is in its life."""

    NONE = "none"
    RUNNING = "running"
    FAILOVER = "failover"
    FAILOVER_FAILED = "failover-failed"
    DONE = "done"


R = ReplicationState
STEP = 1 << 20


class ReplicationGuardNode(PassNode):
    """Sits between active and hidden while replication runs: reads through it exclude copies before write."""

    driver = "replication-guard"
    job: BackupJob | None = None

    async def drv_read(self, offset: int, buf: memoryview, flags: int) -> None:
        if self.job is None:
            await self.lower.pread(offset, buf, flags & F.NO_SERIALISING)
            return
        async with self.job.cow_range(offset, len(buf), shared=True):
            await self.lower.pread(offset, buf, flags & F.NO_SERIALISING)


class ReplicationNode(PassNode):
    """Options: ``mode`` primary or secondary; ``top-id`` (secondary only): the name of the guest's root; ``file``;
    ``guest-discard`` ignore, or zero: with ``discard=unmap``, what the guest discards reads as zeroes."""

    driver = "replication"
    supports_fua = False

    async def drv_open(self, options: OptionReader) -> None:
        mode = options.take("mode")
        if mode not in ("primary", "secondary"):
            raise OptionError(f"replication: mode is {mode!r}, expected primary or secondary")
        top = options.take("top-id")
        if (mode == "secondary") != (top is not None):
            raise OptionError("replication: top-id is needed by mode secondary, and only by it")
        self.mode, self.top_id = mode, top
        self._discard_zeroes = options.choice("guest-discard", ("ignore", "zero"), "ignore") == "zero"
        self.state = R.NONE
        self.error: BlockError | None = None
        self.commit_job: MirrorJob | None = None
        self._failover: Task[None] | None = None
        self._backup: BackupJob | None = None
        self._guard: ReplicationGuardNode | None = None
        self._made_writable: list[Node] = []
        self._blocked: Any = None
        self._parts: tuple[Node, Node, Node] | None = None
        await self.open_lower(options)
        self.graph.replications.append(self)

    async def drv_close(self) -> None:
        if self.state is R.RUNNING:
            await self.stop(False)
        elif self._failover is not None and self.commit_job is not None:
            await self.commit_job.end()
            await self._failover.join()
        self.graph.replications.remove(self)

    def drv_child_perm(self, edge: Edge, perm: Perm, shared: Perm) -> tuple[Perm, Perm]:
        taken = Perm.CONSISTENT_READ | (Perm.NONE if self.read_only else Perm.WRITE)
        return taken, Perm.CONSISTENT_READ | Perm.WRITE | Perm.WRITE_UNCHANGED

    # Requests.

    def _refuse(self, *, write: bool) -> None:
        primary = self.mode == "primary"
        if self.state is R.NONE or (primary and (not write or self.state is not R.RUNNING)):
            raise BlockError(errno.EIO, f"{self.name}: replication is {self.state} on the {self.mode}")

    async def drv_read(self, offset: int, buf: memoryview, flags: int) -> None:
        self._refuse(write=False)
        await super().drv_read(offset, buf, flags)

    async def drv_write(self, offset: int, data: Buffer, flags: int) -> None:
        self._refuse(write=True)
        if self.mode == "primary":
            try:
                await super().drv_write(offset, data, flags)
            except BlockError as error:
                self.error = error  # the guest goes on; whoever manages the pair asks get_error
            return
        if self.state is R.FAILOVER_FAILED:
            await self._write_after_failure(offset, memoryview(data), flags)
            return
        await super().drv_write(offset, data, flags)

    async def _write_after_failure(self, offset: int, view: memoryview, flags: int) -> None:
        """Write to active what active or hidden hold, the rest straight to the secondary disk."""
        if self._parts is None:
            raise BlockError(errno.EIO, f"{self.name}: failover failed")
        active, _, secondary = self._parts
        while len(view):
            held, length = await is_allocated_above(active, secondary, False, offset, len(view))
            await (active if held else secondary).pwrite(offset, view[:length], flags)
            offset, view = offset + length, view[length:]

    async def drv_zeroes(self, offset: int, length: int, flags: int) -> None:
        raise UnsupportedError  # zeroes travel as data

    async def drv_discard(self, offset: int, length: int) -> None:
        """Succeed without any effect; with ``guest-discard=zero``, write zeroes."""
        if self._discard_zeroes:
            for at in range(offset, offset + length, STEP):
                await self.drv_write(at, bytes(min(STEP, offset + length - at)), 0)

    async def drv_status(self, offset: int, length: int) -> Status:
        if self.mode == "primary" or self.state is R.NONE:
            return Status(F.ST_DATA, length)
        return await super().drv_status(offset, length)

    async def flush_children(self) -> None:
        try:
            await super().flush_children()
        except BlockError as error:
            if self.mode != "primary":
                raise
            self.error = error

    # Starting.

    async def start(self, mode: str) -> None:
        """Begin. The machine must not run meanwhile.

        Raises:
            BlockError: the reason; the node is as before.
        """
        if self.state in (R.DONE, R.FAILOVER):
            return
        if self.state is not R.NONE:
            raise BlockError(errno.EINVAL, f"{self.name}: replication is running or done")
        if mode != self.mode:
            raise BlockError(errno.EINVAL, f"{self.name}: wrong mode: expected {self.mode}, got {mode}")
        if mode == "primary":
            self.state = R.RUNNING
            self.error = None
            return
        active, hidden, secondary = self._find_parts()
        try:
            await self._prepare(active, hidden, secondary)
            self.state = R.RUNNING
            await self._checkpoint_secondary()
        except BlockError:
            self.state = R.NONE
            await self._undo()
            raise
        self.error = None

    def _find_parts(self) -> tuple[Node, Node, Node]:
        active = self.lower
        hidden = active.backing
        if hidden is None:
            raise BlockError(errno.EINVAL, f"{self.name}: the active disk has no backing file")
        secondary = hidden.backing
        if secondary is None:
            raise BlockError(errno.EINVAL, f"{self.name}: the hidden disk has no backing file")
        if not any(not isinstance(edge.owner, Node) for edge in secondary.parents):
            raise BlockError(errno.EINVAL, f"{self.name}: the secondary disk has no backend of its own")
        sizes = {active.size_bytes, hidden.size_bytes, secondary.size_bytes}
        if len(sizes) != 1:
            raise BlockError(errno.EINVAL, f"{self.name}: active, hidden and secondary disk differ in length")
        for node in (active, hidden):
            if type(node).drv_make_empty is Node.drv_make_empty:
                raise BlockError(errno.EINVAL, f"{self.name}: {node.name} can't be emptied: use qcow2")
        return active, hidden, secondary

    async def _prepare(self, active: Node, hidden: Node, secondary: Node) -> None:
        backend = next((b for b in self.graph.backends if b.name == self.top_id and b.edge is not None), None)
        top = backend.node if backend is not None else self.graph.nodes.get(str(self.top_id))
        if top is None or not self._contains(top):
            raise BlockError(errno.EINVAL, f"{self.name}: no top node '{self.top_id}' with this node in it")
        self._made_writable = [n for n in (hidden, secondary) if n.read_only]
        try:
            await self.graph.reopen([(n, False) for n in self._made_writable])
        except BlockError:
            self._made_writable = []
            raise
        if backend is not None:
            backend.blocked_reason = f"replication runs on {self.name}"
            self._blocked = backend
        job = BackupJob(self.graph, secondary, hidden, sync="none", job_id=None)
        job.on_cow_error = self._latch
        self._backup = job
        self._parts = (active, hidden, secondary)
        guard = ReplicationGuardNode(self.graph, self.graph.new_name(), read_only=True)
        self.graph.nodes[guard.name] = guard
        self.graph.link(guard, "file", hidden, Role.FILTERED | Role.PRIMARY)
        guard.size_bytes = hidden.size_bytes
        guard.job = job
        self._guard = guard
        self.graph.repoint([(active.children["backing"], guard)])
        job.start()

    def _contains(self, top: Node) -> bool:
        stack = [top]
        while stack:
            node = stack.pop()
            if node is self:
                return True
            stack.extend(edge.node for edge in node.children.values())
        return False

    def _latch(self, error: BlockError) -> None:
        self.error = error

    async def _undo(self) -> None:
        """Take down what start built; the chain is as it was before."""
        job, self._backup = self._backup, None
        if job is not None:
            if job.state not in (JobState.CONCLUDED, JobState.NULL):
                job.cancel()
            await job.wait()
        guard, self._guard = self._guard, None
        if guard is not None and not guard.closed:
            hidden = guard.lower
            edges = [(edge, hidden) for edge in tuple(guard.parents)]
            if edges:
                self.graph.repoint(edges)
            await self.graph.unref(guard)
        if self._blocked is not None:
            self._blocked.blocked_reason = ""
            self._blocked = None

    async def _restore_read_only(self) -> None:
        nodes, self._made_writable = self._made_writable, []
        for node in nodes:
            if not node.closed and not any(e.perm & Perm.WRITE for e in node.parents):
                await self.graph.reopen([(node, True)])

    # Checkpoint, errors, stop.

    async def do_checkpoint(self) -> None:
        """Make the secondary disk's present content the new base; empty active and hidden disk.

        Raises:
            BlockError: not running, the backup ended, or emptying failed: the node then refuses everything.
        """
        if self.mode == "primary" or self.state in (R.DONE, R.FAILOVER):
            return
        if self.state is not R.RUNNING:
            raise BlockError(
                errno.EINVAL, f"{self.name}: replication is {self.state}: no checkpoint is possible"
            )
        await self._checkpoint_secondary()

    async def _checkpoint_secondary(self) -> None:
        job, parts = self._backup, self._parts
        if job is None or parts is None or not job.alive:
            raise BlockError(errno.EINVAL, f"{self.name}: the backup job was cancelled unexpectedly")
        active, hidden, secondary = parts
        async with self.graph.drained(active, secondary):
            job.do_checkpoint()
            await active.make_empty()
            try:
                await hidden.make_empty()
            except BlockError as error:
                # Active is gone, hidden is not: what the guest would see is neither checkpoint.
                self.state = R.NONE
                self._latch(error)
                raise

    def get_error(self) -> None:
        """Raise BlockError if something failed since the last start, or if replication was never started."""
        if self.error is not None:
            raise BlockError(errno.EIO, f"{self.name}: I/O error occurred: {self.error.message}")
        if self.state is R.NONE:
            raise BlockError(errno.EINVAL, f"{self.name}: replication is not running")

    async def stop(self, failover: bool) -> None:
        """End replication. With ``failover`` the guest's view is committed into the secondary disk in the background.

        Raises:
            BlockError: not running; or the buffers could not be emptied.
        """
        if self.state in (R.DONE, R.FAILOVER):
            return
        if self.state is not R.RUNNING:
            raise BlockError(errno.EINVAL, f"{self.name}: replication is not running")
        if self.mode == "primary":
            self.state, self.error = R.DONE, None
            return
        if not failover:
            await self._checkpoint_secondary()
            await self._undo()
            await self._restore_read_only()
            self.state, self.error = R.DONE, None
            return
        assert self._parts is not None
        active, _, secondary = self._parts
        await self._undo()
        self.state = R.FAILOVER
        self.commit_job = MirrorJob(
            self.graph, active, secondary, active_commit=True, auto_complete=True, job_id=None
        )
        self.commit_job.start()
        self._failover = self.sched.spawn(self._await_commit(self.commit_job), f"failover of {self.name}")

    async def _await_commit(self, job: MirrorJob) -> None:
        await job.wait()
        if job.pivoted:
            self.state, self.error = R.DONE, None
            self._made_writable.clear()
        else:
            self.state = R.FAILOVER_FAILED
            self._latch(job.error or BlockError(errno.EIO, "the commit was cancelled"))

    async def wait_failover(self) -> None:
        """Wait until a failover under way has ended."""
        if self.commit_job is not None:
            await self.commit_job.wait()
            while self.state is R.FAILOVER:
                await self.sched.yield_now()


async def start_all(graph: Graph, mode: str) -> None:
    """Start every replication node, most recent first; stops at the first error."""
    for node in reversed(graph.replications):
        await node.start(mode)


async def do_checkpoint_all(graph: Graph) -> None:
    """Checkpoint every replication node."""
    for node in reversed(graph.replications):
        await node.do_checkpoint()


def get_error_all(graph: Graph) -> None:
    """Raise the first error of any replication node."""
    for node in reversed(graph.replications):
        node.get_error()


async def stop_all(graph: Graph, failover: bool) -> None:
    """Stop every replication node."""
    for node in reversed(graph.replications):
        await node.stop(failover)
