"""The disks of a packed trace: what the run read of them, cluster by cluster."""

from __future__ import annotations

from collections.abc import Callable

from traces.reader import TraceReader


def packed_clusters(trace: TraceReader, name: str) -> Callable[[int], bytes | None] | None:
    """Return what reads a drive's base clusters from a trace; None: the trace is not packed, the file is needed.

    The function returns None for a cluster that the recording did not read, and raises TraceError.
    """
    if f"packed:{name}" not in trace.meta:
        return None
    clusters = trace.disk_reads(name)

    def read(cluster: int) -> bytes | None:
        blob = clusters.get(cluster)
        return None if blob is None else trace.blob(blob)

    return read
