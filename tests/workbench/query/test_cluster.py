"""Replaying on a cluster: the rows are those of this host, and what fails there is told here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.workbench.replay.guest import record
from traces.lazy import Want
from traces.reader import TraceReader
from workbench.errors import InputError, MissingToolError, WorkbenchError
from workbench.query.cluster import Cluster
from workbench.query.fill import Filler
from workbench.symbolcache import trace_symbols

TABLES = ("calls", "traps", "csr", "mmio", "syscalls")


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    import distributed

    start: Any = distributed.LocalCluster
    with start(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cluster") / "boot.trace"
    record(path)
    return path


def rows(path: Path, table: str, **how: Any) -> list[tuple[Any, ...]]:
    path.with_name(path.name + ".q").unlink(missing_ok=True)
    with TraceReader.open(path) as trace:
        filler = Filler(trace, lambda: trace_symbols(trace), writable=False, **how)
        try:
            filler.ensure(Want(table, follows=table in ("calls", "traps", "syscalls")))
            return filler.store.read(f"SELECT * FROM {table} ORDER BY icount, rowid")
        finally:
            filler.close()


@pytest.mark.slow
@pytest.mark.requires("python:distributed")
def test_rows_are_the_same_on_a_cluster(run: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # many short stretches, so that calls and traps are open where they meet
    monkeypatch.setattr("workbench.query.fill._STRETCH_ROWS", 2000)
    cluster = Cluster(scheduler)
    try:
        for table in TABLES:
            here = rows(run, table, jobs=1)
            assert rows(run, table, executor=cluster) == here
            assert here
    finally:
        cluster.close()


@pytest.mark.slow
@pytest.mark.requires("python:distributed")
def test_what_a_worker_fails_with_is_told(run: Path, scheduler: str) -> None:
    cluster = Cluster(scheduler)
    try:
        with TraceReader.open(run) as trace:
            filler = Filler(trace, lambda: trace_symbols(trace), writable=False, executor=cluster)
            with pytest.raises(WorkbenchError, match="__switch_to"):
                filler.ensure(Want("switches"))
            filler.close()
    finally:
        cluster.close()


@pytest.mark.slow
@pytest.mark.requires("python:distributed")
def test_a_cluster_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.query.cluster._CONNECT_S", "1s")
    with pytest.raises(InputError, match="no dask scheduler answers at tcp://127"):
        Cluster("tcp://127.0.0.1:1")


def test_without_dask_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingToolError, match=r"pip install 'workbench\[dask\]'"):
        Cluster("tcp://127.0.0.1:1")
