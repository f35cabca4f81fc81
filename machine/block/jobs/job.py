"""The life cycle of a job: states, verbs, error policies, rate limit, grouped completion."""

from __future__ import annotations

import errno
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING

from machine.block.backend import BlockBackend
from machine.block.errors import BlockError, JobError
from machine.block.flags import Perm
from machine.block.node import Node
from machine.block.sched import CoQueue, Task

if TYPE_CHECKING:
    from machine.block.graph import Graph

SLICE_NS = 100_000_000


class JobState(StrEnum):
    """Where a job is in its life."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    READY = "ready"
    STANDBY = "standby"
    WAITING = "waiting"
    PENDING = "pending"
    ABORTING = "aborting"
    CONCLUDED = "concluded"
    NULL = "null"


S = JobState
_LIVE = frozenset({S.CREATED, S.RUNNING, S.PAUSED, S.READY, S.STANDBY})
#: Which verb is allowed in which states.
VERBS: dict[str, frozenset[JobState]] = {
    "cancel": _LIVE | {S.WAITING, S.PENDING},
    "pause": _LIVE,
    "resume": _LIVE,
    "set-speed": _LIVE,
    "complete": frozenset({S.READY, S.STANDBY}),
    "finalize": frozenset({S.PENDING}),
    "dismiss": frozenset({S.CONCLUDED}),
}
_ERROR_POLICIES = ("report", "ignore", "stop", "enospc")


class JobCancelled(Exception):
    """Raised at a pause point after ``cancel``."""


class Transaction:
    """Jobs that end together: none is finalised before all are done, one failure fails all."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.aborting = False

    def start(self) -> None:
        """Start all jobs; none begins if one of them was started already."""
        for job in self.jobs:
            if job.state is not S.CREATED:
                raise JobError(errno.EPERM, f"{job.name} was started already")
        for job in self.jobs:
            job.start()


class Job:
    """A job. Subclasses implement ``run`` and may implement ``prepare``, ``commit``, ``abort``, ``clean``.

    Args:
        job_id: None for an internal job, which no query shows.
        speed: bytes a second, 0 for no limit.
        on_source_error, on_target_error: report, ignore, stop or enospc.
    """

    kind = ""
    cancel_is_success = False

    def __init__(
        self,
        graph: Graph,
        job_id: str | None,
        *,
        speed: int = 0,
        on_source_error: str = "report",
        on_target_error: str = "report",
        auto_finalize: bool = True,
        auto_dismiss: bool = True,
        transaction: Transaction | None = None,
    ) -> None:
        if job_id is not None and any(j.id == job_id for j in graph.jobs):
            raise JobError(errno.EEXIST, f"job '{job_id}' exists already")
        for policy in (on_source_error, on_target_error):
            if policy not in _ERROR_POLICIES:
                raise JobError(
                    errno.EINVAL, f"error policy '{policy}' is unknown: {', '.join(_ERROR_POLICIES)}"
                )
        self.graph = graph
        self.sched = graph.sched
        self.id = job_id
        self.name = f"job {job_id or self.kind}"
        self.state = S.CREATED
        self.speed = 0
        self.on_source_error = on_source_error
        self.on_target_error = on_target_error
        self.auto_finalize = auto_finalize
        self.auto_dismiss = auto_dismiss
        self.transaction = transaction if transaction is not None else Transaction()
        self.transaction.jobs.append(self)
        self.events: list[tuple[str, str]] = []
        self.on_event: Callable[[Job, str, str], None] | None = None
        self.error: BlockError | None = None
        self.cancelled = False
        self.force_cancelled = False
        self.progress = 0
        self.total = 0
        self.exempt_from_drain = False
        self._pauses = 0
        self._user_paused = False
        self._should_complete = False
        self._idling = False
        self._changed = CoQueue(self.sched, f"state of {self.name}")
        self._backends: list[BlockBackend] = []
        self._task: Task[None] | None = None
        self._slice_start = 0
        self._slice_bytes = 0
        graph.jobs.append(self)
        self.set_speed(speed)

    # What subclasses do.

    async def run(self) -> None:
        """Do the work; call ``pause_point`` between steps."""
        raise NotImplementedError

    async def settle(self) -> None:
        """Wait for copies in flight; called before the job stands still."""

    async def prepare(self) -> None:
        """Last step that may fail, after all jobs of the transaction are done."""

    def commit(self) -> None:
        """The job succeeded."""

    def abort(self) -> None:
        """The job failed or was cancelled."""

    async def clean(self) -> None:
        """Always called at the end."""

    def unmake(self) -> None:
        """The job was made and will never start: let go of what its making took."""

    # State.

    def emit(self, event: str, detail: str = "") -> None:
        """Record an event and tell the listener."""
        self.events.append((event, detail))
        if self.on_event is not None:
            self.on_event(self, event, detail)

    def _to(self, state: JobState) -> None:
        if state is not self.state:
            self.state = state
            self.emit("JOB_STATUS_CHANGE", state.value)
        self._changed.wake_all()

    def _verb(self, verb: str) -> None:
        if self.state not in VERBS[verb]:
            raise JobError(errno.EPERM, f"{self.name} in state '{self.state}' can't accept '{verb}'")

    @property
    def busy(self) -> bool:
        """Whether the job may issue requests before its next pause point."""
        if self._idling or self.exempt_from_drain:
            return False
        return self.state in (S.RUNNING, S.READY, S.ABORTING)

    @property
    def alive(self) -> bool:
        """Whether the job was neither cancelled nor has begun to end."""
        return self.state in _LIVE and not self.cancelled

    def attach(self, node: Node, perm: Perm, shared: Perm = Perm.ALL, name: str = "") -> BlockBackend:
        """Return a backend on a node that pauses this job while the node is drained."""
        backend = BlockBackend(
            self.graph, name or f"{self.name} on {node.name}", perm, shared, queue_when_drained=False
        )
        backend.on_quiesce = self._drain
        backend.job = self
        try:
            backend.attach(node)
        except BlockError:
            backend.close()
            raise
        self._backends.append(backend)
        return backend

    def _drain(self, begin: bool) -> None:
        self._pauses += 1 if begin else -1
        self._changed.wake_all()

    async def wait_quiet(self) -> None:
        """Wait until the job is paused or over; for draining."""
        while self.busy:
            await self._changed.wait()

    def notify(self) -> None:
        """Something the job may be idle for has happened."""
        if self._idling:
            self._changed.wake_all()

    # Verbs.

    def start(self) -> None:
        """Begin; the job runs as a task of its own."""
        if self.state is not S.CREATED:
            raise JobError(errno.EPERM, f"{self.name} was started already")
        self._to(S.RUNNING)
        self._task = self.sched.spawn(self._main(), self.name)

    def withdraw(self) -> None:
        """Forget a job that was not started, as if it had never been made."""
        if self.state is not S.CREATED:
            raise JobError(errno.EPERM, f"{self.name} was started already")
        self.unmake()
        for backend in self._backends:
            backend.close()
        self.transaction.jobs.remove(self)
        self._forget()

    def cancel(self, force: bool = False) -> None:
        """Ask the job to end. A ready mirror without ``force`` ends with a consistent target."""
        self._verb("cancel")
        if self.state in (S.WAITING, S.PENDING):
            self.cancelled = self.force_cancelled = True
            self.sched.spawn(self._abort_all(self.transaction), f"abort {self.name}")
            return
        self.cancelled = True
        self.force_cancelled = self.force_cancelled or force
        self._user_paused = False
        if self.state is S.CREATED:
            self.start()
        self._changed.wake_all()

    def pause(self) -> None:
        """Stop at the next pause point until ``resume``."""
        self._verb("pause")
        if self._user_paused:
            raise JobError(errno.EPERM, f"{self.name} is paused already")
        self._user_paused = True

    def resume(self) -> None:
        """Undo ``pause``."""
        self._verb("resume")
        if not self._user_paused:
            raise JobError(errno.EPERM, f"{self.name} is not paused")
        self._user_paused = False
        self._changed.wake_all()

    def complete(self) -> None:
        """Ask a ready job to finish."""
        self._verb("complete")
        self._should_complete = True
        self._changed.wake_all()

    def set_speed(self, speed: int) -> None:
        """Set the rate limit in bytes a second; 0 is none."""
        if self.state is not S.CREATED:
            self._verb("set-speed")
        if not 0 <= speed < 1 << 63:
            raise JobError(errno.EINVAL, f"speed {speed} is out of range: expected 0 to 2^63-1")
        self.speed = speed
        self._changed.wake_all()

    def finalize(self) -> None:
        """Let pending jobs of the transaction take effect."""
        self._verb("finalize")
        self.sched.spawn(self._finalize_all(), f"finalize {self.name}")

    def dismiss(self) -> None:
        """Forget a concluded job."""
        self._verb("dismiss")
        self._forget()

    async def end(self) -> None:
        """Cancel the job by force, wherever it stands, and wait until it is over."""
        if self.state in VERBS["cancel"]:
            self.cancel(force=True)
        await self.wait()

    async def wait(self) -> None:
        """Wait until the job is concluded (or gone)."""
        while self.state not in (S.CONCLUDED, S.NULL):
            await self._changed.wait()

    async def wait_for(self, *states: JobState) -> None:
        """Wait until the job is in one of the states, or over."""
        while self.state not in (*states, S.CONCLUDED, S.NULL):
            await self._changed.wait()

    # Running.

    async def pause_point(self) -> None:
        """Let other tasks run; stop here while paused or drained.

        Raises:
            JobCancelled: the job was cancelled.
        """
        await self.sched.yield_now()
        while self._stands():
            await self.settle()
            if not self._stands():
                break
            before = self.state
            self._to(S.STANDBY if before in (S.READY, S.STANDBY) else S.PAUSED)
            await self._changed.wait()
            self._to(S.READY if self.state is S.STANDBY else S.RUNNING)
        if self.cancelled and (self.state is not S.READY or self.force_cancelled):
            raise JobCancelled

    def _stands(self) -> bool:
        return bool((self._pauses or self._user_paused) and not (self.cancelled and not self._pauses))

    async def idle(self) -> None:
        """Wait for a change of state (a verb, a drain) at a pause point."""
        if not (self.cancelled or self._pauses or self._user_paused or self._should_complete):
            self._idling = True
            self._changed.wake_all()
            try:
                await self._changed.wait()
            finally:
                self._idling = False
        await self.pause_point()

    async def rate_limit(self, done: int) -> None:
        """Account ``done`` bytes; sleep into the next 100 ms slice when this one is used up."""
        self.progress += done
        if not self.speed:
            return
        now = self.sched.clock.now_ns()
        if now - self._slice_start >= SLICE_NS:
            self._slice_start, self._slice_bytes = now, 0
        self._slice_bytes += done
        quota = max(1, self.speed * SLICE_NS // 1_000_000_000)
        if self._slice_bytes > quota and not self.cancelled:
            slices = -(-self._slice_bytes // quota)
            await self.sched.sleep(self._slice_start + slices * SLICE_NS - now)

    def on_error(self, error: BlockError, *, reading: bool) -> str:
        """Return what to do about an error: ``report``, ``ignore`` or ``stop`` (the job is paused then)."""
        policy = self.on_source_error if reading else self.on_target_error
        if policy == "enospc":
            policy = "stop" if error.errno == errno.ENOSPC else "report"
        self.emit("BLOCK_JOB_ERROR", policy)
        if policy == "stop":
            self._user_paused = True
        return policy

    def ready(self) -> None:
        """Source and target agree; the job can be completed."""
        self._to(S.READY)
        self.emit("BLOCK_JOB_READY")

    async def _main(self) -> None:
        try:
            await self.pause_point()
            await self.run()
        except JobCancelled:
            self.cancelled = True
        except BlockError as error:
            self.error = error
        group = self.transaction
        if self.error is not None or (self.cancelled and not self._cancelled_cleanly()):
            await self._abort_all(group)
            return
        self._to(S.WAITING)
        if all(j.state is S.WAITING for j in group.jobs):
            for job in group.jobs:
                job._to(S.PENDING)
                if not job.auto_finalize:
                    job.emit("BLOCK_JOB_PENDING")
            if all(j.auto_finalize for j in group.jobs):
                await self._finalize_all()

    def _cancelled_cleanly(self) -> bool:
        return self.cancel_is_success and not self.force_cancelled

    async def _finalize_all(self) -> None:
        group = self.transaction
        try:
            for job in group.jobs:
                await job.prepare()
        except BlockError as error:
            self.error = error
            await self._abort_all(group)
            return
        for job in group.jobs:
            job.commit()
            await job._conclude()

    async def _abort_all(self, group: Transaction) -> None:
        if group.aborting:
            if self.state not in (S.ABORTING, S.CONCLUDED, S.NULL):
                self._to(S.ABORTING)
                self.abort()
                await self._conclude()
            return
        group.aborting = True
        for job in group.jobs:
            if job is self or job.state in (S.CONCLUDED, S.NULL):
                continue
            if job.state in _LIVE:
                job.cancel(force=True)
                await job.wait()
            else:
                job.cancelled = True
                job._to(S.ABORTING)
                job.abort()
                await job._conclude()
        self._to(S.ABORTING)
        self.abort()
        await self._conclude()

    async def _conclude(self) -> None:
        await self.clean()
        for backend in self._backends:
            backend.close()
        self.emit("BLOCK_JOB_CANCELLED" if self.cancelled and self.error is None else "BLOCK_JOB_COMPLETED")
        self._to(S.CONCLUDED)
        if self.auto_dismiss:
            self._forget()

    def _forget(self) -> None:
        self._to(S.NULL)
        if self in self.graph.jobs:
            self.graph.jobs.remove(self)


def query_jobs(graph: Graph) -> list[Job]:
    """Return the jobs a user may see."""
    return [job for job in graph.jobs if job.id is not None]
