"""Replaying on a cluster of dask.distributed, an extra, for traces and fleets that outgrow a host.

Each worker opens the trace by the path that is given here, so it must be on a file system that all of them have. The
harvest comes back in the run's order, so the rows are those of any other way to replay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final

from workbench.errors import InputError, MissingToolError, WorkbenchError

from .harvest import Harvest, Job, Take, deliver, harvest_here

#: Stretches that a worker replays in one go: opening a trace costs about as much as replaying 10^8 steps.
_TOGETHER: Final = 4
#: Pieces that are out at a time for each worker, so that no more of the harvest is held than is soon stored.
_AHEAD: Final = 2
_CONNECT_S: Final = "10s"


class Cluster:
    """An executor (``shards.Executor``) on the workers of a scheduler.

    Args:
        address: the scheduler's, as ``tcp://host:8786``.

    Raises:
        MissingToolError: dask.distributed is not installed. InputError: no scheduler answers there.
    """

    def __init__(self, address: str) -> None:
        try:
            import distributed
        except ImportError:
            raise MissingToolError(
                "a cluster needs dask.distributed: pip install 'workbench[dask]'"
            ) from None
        connect: Any = distributed.Client
        try:
            self._client: Any = connect(address, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(f"no dask scheduler answers at {address}: {error}") from None

    def close(self) -> None:
        """End the connection; the cluster goes on."""
        self._client.close()

    def run(self, job: Job, stretches: Sequence[tuple[int, int]], take: Take) -> Iterator[Harvest]:
        """Yield the harvest of stretches, in order. Raises WorkbenchError: a worker failed, or there is none."""
        workers = len(self._client.scheduler_info()["workers"])
        if not workers:
            raise WorkbenchError("the dask cluster has no workers")
        size = max(1, min(_TOGETHER, len(stretches) // workers))
        pieces = iter([list(stretches[i : i + size]) for i in range(0, len(stretches), size)])
        out: deque[Any] = deque()
        try:
            while True:
                while len(out) < workers * _AHEAD and (piece := next(pieces, None)) is not None:
                    out.append(self._client.submit(_harvest, job, piece, pure=False))
                if not out:
                    return
                yield from deliver(self._gather(out.popleft()), take)
        finally:
            for future in out:
                future.cancel()

    def _gather(self, future: Any) -> list[Harvest]:
        try:
            found: list[Harvest] = future.result()
            return found
        except WorkbenchError:
            raise
        # whatever went wrong there, of the trace or of the cluster, is told here
        except Exception as error:  # noqa: BLE001
            raise WorkbenchError(f"a worker of the cluster failed: {type(error).__name__}: {error}") from None


def _harvest(job: Job, stretches: list[tuple[int, int]]) -> list[Harvest]:
    return list(harvest_here(job, stretches))
