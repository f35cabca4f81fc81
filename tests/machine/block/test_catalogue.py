"""Every number of the catalogue has a test that names it, and the table in the status document names every number."""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from pathlib import Path

TESTS = Path(__file__).parents[2]
STATUS = TESTS.parent / "docs/adr/0010-storage-status.md"
#: Series of numbers and how many each has; block.md has no N9.
SERIES = {"t": 36, "c": 12, "r": 13, "p": 16, "j": 16, "i": 18, "n": 14, "d": 10}
LETTERS = [f"r_{letter}" for letter in "abcdef"]
MISSING = {"n9"}
NOT_BUILT = {"i16": "LUKS"}
#: Tests of a folder outside of this one count too: the machine's are D.
FOLDERS = ("machine/block", "machine", "machine/hw", "workbench/replay", "e2e")


def catalogue() -> set[str]:
    numbers = {f"{series}{n}" for series, last in SERIES.items() for n in range(1, last + 1)}
    return (numbers | set(LETTERS)) - MISSING


def named(function: str) -> set[str]:
    """Return the numbers in a test's name: ``test_j1_j9_…`` has two, ``test_c1_to_c7_…`` a range of them."""
    words = function.split("_")[1:]
    found = {word for word in words if re.fullmatch(r"[a-z]\d+", word) and word[0] in SERIES}
    found |= {f"r_{b}" for a, b in pairwise(words) if a == "r" and re.fullmatch(r"[a-f]", b)}
    for low, word, high in zip(words, words[1:], words[2:], strict=False):
        if word == "to" and {low, high} <= found:
            found |= {f"{low[0]}{n}" for n in range(int(low[1:]), int(high[1:]))}
    return found


def find_tests(path: Path) -> list[ast.FunctionDef]:
    tree = ast.parse(path.read_text())
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]


def test_every_number_of_the_catalogue_has_a_test_that_names_it() -> None:
    functions = [
        f for folder in FOLDERS for path in (TESTS / folder).glob("test_*.py") for f in find_tests(path)
    ]
    found = {number for function in functions for number in named(function.name)}
    assert found >= catalogue() - set(NOT_BUILT), sorted(catalogue() - set(NOT_BUILT) - found)
    assert not found & set(NOT_BUILT)
    for function in functions:
        if named(function.name) & catalogue():
            assert any(isinstance(n, ast.Assert | ast.With | ast.Call) for n in ast.walk(function))


def test_the_status_document_has_every_number_and_no_other() -> None:
    rows = re.findall(r"^\| ([^|]+) \|", STATUS.read_text().split("## Catalogue")[1], re.MULTILINE)
    found: set[str] = set()
    for row in rows:
        for low, high in re.findall(r"\b([A-Z]-?[a-z\d]+)(?: to ([A-Z]\d+))?", row):
            first = low.lower().replace("-", "_")
            if high:
                found |= {f"{first[0]}{n}" for n in range(int(first[1:]), int(high[1:]) + 1)}
            else:
                found.add(first)
    assert found - {"number"} == catalogue()
