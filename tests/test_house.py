"""The house keeps its own promises: two commands, no host names, small files, recipes that touch what they say."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = {".py", ".c", ".h", ".inc", ".decode", ".S", ".ld", ".md", ".toml", ".sh", ".cfg", ""}
#: Generated or measured otherwise.
SKIPPED = ("machine/tcg/_core.c", "docs/adr/0001-borders.md")


def tracked() -> list[Path]:
    try:
        listed = subprocess.run(
            ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split("\n")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed if name and name not in SKIPPED]
    return [path for path in paths if path.is_file() and path.suffix in TEXT]


def test_readme_has_exactly_two_make_commands() -> None:
    commands = re.findall(r"^    (make \S+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert commands == ["make demo", "make test"]


def test_no_file_names_a_mirror_or_package_index() -> None:
    hosts = re.compile(
        r"(deb\.debian|ftp\.\w+\.debian|snapshot\.debian|pypi|pythonhosted)\.org", re.IGNORECASE
    )
    this = Path(__file__)
    found = [
        str(path) for path in tracked() if path != this and hosts.search(path.read_text(errors="replace"))
    ]
    assert found == []


def test_every_relative_link_of_the_docs_leads_somewhere() -> None:
    broken = []
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []


def test_paths_that_the_recipes_name_exist() -> None:
    text = (ROOT / "docs/adding.md").read_text()
    named = set(re.findall(r"`((?:machine|traces|workbench|tests|docs)/[\w./]+)`", text))
    assert len(named) >= 8
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("name", ["mulhsu", "sraiw", "divuw", "fsgnjx_d"])
def test_an_instruction_is_a_line_of_a_table_and_a_translation(name: str) -> None:
    """The recipe for an instruction touches two places; tests may name it as often as they like."""
    word = re.compile(rf"\b(trans_)?{name}\b")
    suffixes = {".c", ".h", ".inc", ".decode", ".py"}
    files = [path for path in (ROOT / "machine/tcg").rglob("*") if path.suffix in suffixes]
    sources = [path for path in files if "_build" not in path.parts and path.name != "_core.c"]
    naming = {path.name for path in sources if word.search(path.read_text(errors="replace"))}
    assert "insn32.decode" in naming
    assert len([file for file in naming if file.startswith("trans_")]) == 1
    assert len(naming) == 2, naming


@pytest.mark.parametrize("device", ["goldfish_rtc", "finisher"])
def test_a_device_is_its_file_and_a_line_of_one_board(device: str) -> None:
    module = re.compile(rf"\b{device} import [A-Z]")
    users = [path for path in (ROOT / "machine").rglob("*.py") if module.search(path.read_text())]
    assert len(users) == 1, users


def test_every_make_target_of_the_docs_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"^    make ([a-z-]+)", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE))
    assert named and named <= targets
