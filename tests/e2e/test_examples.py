"""Every example runs, as its own first lines say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
#: What is run besides the traces that a fixture makes, and what it must print.
RUNS = {
    "bisect_state.py": (("demo.trace", "ticks", "5"), r"step [\d,]+ at trap_handle\+0x\w+ makes ticks 5"),
    "last_calls.py": (("demo.trace", "pool_put", "3"), r"(?m)(^ +[\d,]+  pool_put from .*\n){3}"),
    "flaky_boots.py": (("2",), r"\d of 2 boots failed"),
    "dap_client.py": (("demo.trace",), r"pool\.c:56\n$"),
}
#: Examples that are folders, and the tests that run them.
FOLDERS = {
    "emacs": "tests/e2e/editor.el",
    "plugin": "tests/workbench/test_plugins.py",
    "vscode": "tests/e2e/test_editors.py",
}


@pytest.fixture(scope="module")
def folder(panic_trace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("examples")
    shutil.copy(panic_trace, made / "demo.trace")
    return made


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(RUNS)
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(FOLDERS)
    assert all(name in (ROOT / test).read_text() for name, test in FOLDERS.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(RUNS))
def test_example_does_what_it_says(name: str, folder: Path) -> None:
    arguments, expected = RUNS[name]
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(expected, done.stdout), done.stdout
