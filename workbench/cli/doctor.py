"""``workbench doctor``: what is installed, what is missing, and the command that mends it."""

from __future__ import annotations

import importlib
import platform
import shutil
import sys
from dataclasses import dataclass

import click

from workbench.cli.formats import Fmt, format_options
from workbench.errors import EXIT_DONE, EXIT_TOOL


@dataclass(frozen=True)
class Check:
    """One thing that was looked for; ``needed`` says whether anything works without it."""

    name: str
    found: str
    needed: bool
    used_for: str
    mend: str

    @property
    def state(self) -> str:
        """Return ok, missing (needed) or absent (of use, not needed)."""
        return "ok" if self.found else ("missing" if self.needed else "absent")


_PACKAGES = (
    ("click", True, "the command line", "pip install click"),
    ("cffi", True, "the translator's border", "pip install cffi"),
    ("prompt_toolkit", True, "the REPL", "pip install prompt_toolkit"),
    ("pygments", True, "colours of the REPL", "pip install pygments"),
    ("capstone", True, "disassembly", "pip install capstone"),
    ("elftools", True, "symbols of ELF files", "pip install pyelftools"),
    ("sqlite_utils", True, "traces", "pip install sqlite-utils"),
    ("zstandard", True, "compressed kernels and traces", "pip install zstandard"),
)
_TOOLS = (
    (("gcc", "cc", "clang"), "building the translator", "apt install gcc"),
    (("gdb-multiarch", "riscv64-linux-gnu-gdb"), "attaching gdb", "apt install gdb-multiarch"),
    (("riscv64-linux-gnu-gcc",), "rebuilding the built-in guest", "apt install gcc-riscv64-linux-gnu"),
    (("apt-get",), "guest fetch", "use a Debian system, or supply the guest's files by hand"),
    (("qemu-system-riscv64",), "comparing speed with QEMU", "apt install qemu-system-misc"),
    (("sqlite3",), "opening traces in SQLite's shell", "apt install sqlite3"),
)


def run_checks() -> list[Check]:
    """Return what was looked for and found, the needed things first."""
    wanted = sys.version_info >= (3, 11)
    python = platform.python_version() if wanted else ""
    checks = [Check("python >= 3.11", python, True, "everything", "install python3.11 or newer"), _core()]
    checks += [Check(name, _package(name), needed, use, mend) for name, needed, use, mend in _PACKAGES]
    for names, use, mend in _TOOLS:
        found = next((path for path in map(shutil.which, names) if path), "")
        checks.append(Check(names[0], found, False, use, mend))
    return checks


def _package(name: str) -> str:
    try:
        importlib.import_module(name)
    except ImportError:
        return ""
    from importlib.metadata import packages_distributions, version  # costs a third of `workbench --help`

    owners = packages_distributions().get(name, [])
    return version(owners[0]) if owners else "installed"


def _core() -> Check:
    found = ""
    try:
        from machine.tcg.engine import Engine

        found = (
            "built, JIT and interpreter" if getattr(Engine, "has_jit", True) else "built, interpreter only"
        )
    except ImportError:
        found = ""
    return Check("translator core", found, True, "running machines", "make build")


@click.command()
@format_options
def doctor(fmt: Fmt) -> int:
    """Tell what is installed and what is missing, with the command that mends it."""
    from workbench import output

    checks = run_checks()
    rows = [(c.name, c.state, c.found or None, c.used_for, "" if c.found else c.mend) for c in checks]
    output.emit(output.Table(("what", "state", "found", "used for", "mend"), rows), fmt)
    return EXIT_TOOL if any(c.state == "missing" for c in checks) else EXIT_DONE
