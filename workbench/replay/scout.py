"""A second machine of a session's trace, in a thread of its own: it helps to search.

While the C core runs, the thread holds no lock of the interpreter's, so both machines run at once. Memory is bounded:
RAM as far as the guest uses it, translated code, and small caches; images and RAM's contents after reset are shared.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from machine.errors import MachineError
from workbench.errors import WorkbenchError

from .plan import Plan
from .playback import Playback


class Scout:
    """The helper of one playback. The machine is made when it is first needed.

    Args:
        first: the session's machine. search: takes part in a plan with a machine.
    """

    def __init__(self, first: Playback, search: Callable[[Playback, Plan], None]) -> None:
        self._first = first
        self._search = search
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="scout")
        self._playback: Playback | None = None
        self._useless = False
        self._job: Future[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether the machine is there."""
        return self._playback is not None

    def begin(self, plan: Plan) -> None:
        """Take part in a plan, unless that has begun."""
        if self._job is None and not self._useless:
            self._job = self._pool.submit(self._run, plan)

    def wait(self) -> None:
        """Wait until there is nothing left to do in the plan. Raises what the search raised."""
        if self._job is not None:
            self._job.result()

    def leave(self) -> None:
        """Leave the plan, which is closed; what goes on is over soon."""
        self.interrupt()
        self._job = None

    def interrupt(self) -> None:
        """Stop soon; from any thread or a signal handler."""
        playback = self._playback  # the thread may give it up meanwhile
        if playback is not None:
            playback.interrupt()

    def close(self) -> None:
        """Free the machine; whatever it does is over then."""
        self.interrupt()
        self._pool.shutdown(wait=True)
        if self._playback is not None:
            self._playback.close()
            self._playback = None

    def _run(self, plan: Plan) -> None:
        if self._playback is None and not self._useless:
            try:
                self._playback = self._first.twin()
            except (WorkbenchError, MachineError, OSError, MemoryError):
                self._useless = True  # the session's machine finds the same alone
        playback = self._playback
        if playback is None:
            return
        try:
            playback.interrupted = False
            if playback.end != self._first.end:
                playback.extend()
            self._search(playback, plan)
        except BaseException:
            self._playback = None  # whatever state it is in, nothing is built on it
            playback.close()
            raise
