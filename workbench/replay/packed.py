"""Disks as a trace has them: what the run read of them, cluster by cluster."""

from __future__ import annotations

from collections.abc import Callable

from traces.reader import TraceReader

Clusters = Callable[[int], bytes | None]


def packed_clusters(trace: TraceReader, name: str) -> Clusters | None:
    """Return what reads a drive's base clusters from a trace; None: the trace is not packed, the file is needed."""
    return clusters_of(trace, name) if f"packed:{name}" in trace.meta else None


def clusters_of(trace: TraceReader, name: str) -> Clusters:
    """Return what reads a drive's base clusters from a trace, packed or not.

    The function returns None for a cluster that the recording did not read, and raises TraceError.
    """
    clusters = trace.disk_reads(name)

    def read(cluster: int) -> bytes | None:
        blob = clusters.get(cluster)
        return None if blob is None else trace.blob(blob)

    return read
