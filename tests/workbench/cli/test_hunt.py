"""``workbench hunt``: the runs it keeps are runs that fail, and they replay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.test_builtin import run

MACHINE = ("-m", "32M", "--runs", "24", "--fail", "panic:")


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_hunt_keeps_the_failing_runs(builtin_path: Path, tmp_path: Path, jobs: str) -> None:
    out = run("hunt", "-o", str(tmp_path), "--kernel", str(builtin_path), *MACHINE, "--jobs", jobs, "--json")
    found = json.loads(out)
    assert found and {row["trace"] for row in found} == {str(p) for p in tmp_path.glob("*.trace")}
    for row in found[:2]:
        assert "verified:" in run("replay", "--verify", row["trace"])


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
