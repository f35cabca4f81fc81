"""Editors: what is shipped for them says what the adapter takes, and one of them goes backwards by it."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.dap.launching import LAUNCH, Launching

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "examples" / "vscode" / "package.json"
DAP_MODE = Path("/usr/share/emacs/site-lisp/elpa-src")


def test_the_manifest_and_the_guide_have_what_launch_takes() -> None:
    (debugger,) = json.loads(MANIFEST.read_text())["contributes"]["debuggers"]
    offered = debugger["configurationAttributes"]["launch"]["properties"]
    assert set(offered) == set(LAUNCH)
    assert (MANIFEST.parent / debugger["program"]).is_file() and debugger["runtime"] == "python3"
    assert offered["backend"]["enum"] == ["jit", "interp"]
    (begin,) = debugger["initialConfigurations"]
    assert set(begin) - {"type", "request", "name"} <= set(offered) and begin["type"] == debugger["type"]
    asked = re.findall(r'arguments\.\w+\("(\w+)"', inspect.getsource(Launching.launch))
    assert set(asked) - {"program"} == set(LAUNCH)
    table = (ROOT / "docs" / "guide-scripts.md").read_text().partition("## Editors")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(LAUNCH)


@pytest.mark.slow
@pytest.mark.requires("emacs")
def test_emacs_goes_back_to_a_breakpoint_and_steps_from_it(panic_trace: Path, tmp_path: Path) -> None:
    """Emacs, with dap-mode, opens a trace at its end, goes back to a line, to the line before, and forwards again."""
    assert list(DAP_MODE.glob("dap-mode-*")), "the package elpa-dap-mode is missing"
    trace = Path(shutil.copy(panic_trace, tmp_path / "demo.trace"))
    source = ROOT / "workbench" / "guests" / "builtin" / "pool.c"
    line = next(
        n
        for n, text in enumerate(source.read_text().splitlines(), 1)
        if text.strip().endswith("&pool.free = buffer;")
    )
    program = tmp_path / "workbench"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m workbench "$@"\n')
    program.chmod(0o755)
    done = subprocess.run(
        ["emacs", "--batch", "-l", str(ROOT / "tests/e2e/editor.el"), program, trace, source, str(line)],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    shown = [text for text in done.stdout.splitlines() if " at " in text]
    assert done.returncode == 0 and len(shown) == 4, done.stdout + done.stderr
    assert shown[0].startswith("opened: shutdown")
    assert "put_on_free_list" in shown[1] and shown[1].endswith(f"pool.c:{line}")
    assert shown[2].startswith("workbench-dap-step-back: ") and not shown[2].endswith(f":{line}")
    assert shown[3].endswith(f"pool.c:{line}")
