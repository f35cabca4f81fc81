"""Law 5: nothing under machine/ asks the host for anything, but for images in the places named here."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

MACHINE = Path(__file__).resolve().parents[2] / "machine"
#: What builds the core, or looks before there is a machine whether it was built, and the block layer, whose scheduler
#: stands behind the gate, are not part of a running machine.
OUTSIDE = ("tcg/build.py", "tcg/decodetree.py", "tcg/sources.py", "block/")
FORBIDDEN = {
    *("time", "datetime", "random", "secrets", "uuid", "socket", "select", "selectors", "ssl", "asyncio"),
    *(
        "threading",
        "_thread",
        "multiprocessing",
        "concurrent",
        "subprocess",
        "signal",
        "platform",
        "os",
        "sys",
    ),
    *(
        "tempfile",
        "shutil",
        "getpass",
        "locale",
        "resource",
        "requests",
        "urllib",
        "http",
        "sqlite3",
        "pathlib",
        "io",
    ),
}
#: Files that read images, and the module by which they name them.
ALLOWED = {"hw/rawdisk.py": {"pathlib"}}
FORBIDDEN_CALLS = {"open", "input", "id", "hash", "print", "exec", "eval", "__import__"}


def modules() -> list[Path]:
    found = sorted(MACHINE.rglob("*.py"))
    return [p for p in found if not p.relative_to(MACHINE).as_posix().startswith(OUTSIDE)]


def imported(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def test_there_are_modules_to_check() -> None:
    names = {p.relative_to(MACHINE).as_posix() for p in modules()}
    assert {"board.py", "clock.py", "hw/uart16550.py", "hw/virtio/rng.py", "tcg/engine.py"} <= names


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(MACHINE).as_posix())
def test_module_imports_no_host_facility(path: Path) -> None:
    allowed = ALLOWED.get(path.relative_to(MACHINE).as_posix(), set())
    assert imported(ast.parse(path.read_text())) & FORBIDDEN <= allowed


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(MACHINE).as_posix())
def test_module_calls_nothing_that_depends_on_the_host(path: Path) -> None:
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & FORBIDDEN_CALLS


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(MACHINE).as_posix())
def test_module_computes_no_virtual_time_in_floating_point(path: Path) -> None:
    """Law 9. True division is for messages to people only: none stands outside a formatted string."""
    tree = ast.parse(path.read_text())
    inside = {
        id_node for text in ast.walk(tree) if isinstance(text, ast.JoinedStr) for id_node in ast.walk(text)
    }
    divisions = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div) and node not in inside
    ]
    assert not divisions, f"{path}: true division in lines {divisions}"
