"""``workbench hunt``: the runs it keeps are runs that fail, and they replay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from machine.hw.chaos import unpack_strike
from tests.e2e.test_builtin import run
from traces.reader import TraceReader

MACHINE = ("-m", "32M", "--runs", "24", "--fail", "panic:")


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_hunt_keeps_the_failing_runs(builtin_path: Path, tmp_path: Path, jobs: str) -> None:
    out = run("hunt", "-o", str(tmp_path), "--kernel", str(builtin_path), *MACHINE, "--jobs", jobs, "--json")
    found = json.loads(out)
    assert found and {row["trace"] for row in found} == {str(p) for p in tmp_path.glob("*.trace")}
    for row in found[:2]:
        assert "verified:" in run("replay", "--verify", row["trace"])


def test_a_minimal_run_fails_replays_and_has_no_choice_but_those_told(
    builtin_path: Path, tmp_path: Path
) -> None:
    options = ("--seed", "2", "--runs", "1", "--fail", "panic:", "--minimise", "--json")
    out = run("hunt", "-o", str(tmp_path), "--kernel", str(builtin_path), "-m", "32M", *options)
    (found,) = json.loads(out)
    assert 0 < len(found["choices"]) < found["of"]
    assert "verified:" in run("replay", "--verify", found["minimal"])
    assert "panic:" in run("trace", "console", found["minimal"])
    with TraceReader.open(Path(found["minimal"])) as trace:
        strikes = [(row.icount, unpack_strike(row.payload)) for row in trace.inputs() if row.kind == "strike"]
    stalls = [(icount, stall_ns) for icount, (_, stall_ns, _, _) in strikes if stall_ns]
    assert stalls == [(c["icount"], c["amount"]) for c in found["choices"] if c["what"] == "stall"]
    assert not any(quantum_steps for _, (_, _, quantum_steps, _) in strikes)


def test_hunt_that_finds_nothing_answers_no(builtin_path: Path, tmp_path: Path) -> None:
    options = (
        "--kernel",
        str(builtin_path),
        "--append",
        "safe",
        "-m",
        "32M",
        "--runs",
        "3",
        "--fail",
        "panic:",
    )
    run("hunt", "-o", str(tmp_path), *options, code=1)
    assert not list(tmp_path.iterdir()) or not list(tmp_path.glob("*.trace"))
