"""``workbench doctor``: what is installed, what is missing, and the command that mends it."""

from __future__ import annotations

import importlib
import os
import platform
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from workbench.cli.formats import Fmt, format_options
from workbench.errors import EXIT_DONE, EXIT_TOOL, one_line


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
    (("tmux", "screen"), "panes on another terminal", "apt install tmux"),
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
    return [*checks, *_guests(), *_folders(), *_plugins()]


def _guests() -> list[Check]:
    from workbench.guests import fetch

    out = []
    for name in fetch.GUESTS:
        guest = fetch.cached(name)
        found = "" if guest is None else str(guest.manifest.get("kernel", "here"))
        out.append(Check(f"guest {name}", found, False, "booting Linux", f"workbench guest fetch {name}"))
    return out


def _folders() -> list[Check]:
    """Tell which folders can be written: the cache of guests, and the one this is run in."""
    from workbench.guests.fetch import cache_folder

    out = []
    for name, folder, use in (
        ("cache folder", cache_folder(), "fetched guests"),
        ("this folder", Path.cwd(), "traces that are recorded here"),
    ):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(there).free >> 20
        found = f"{folder}, {free} MiB free" if os.access(there, os.W_OK) else ""
        out.append(Check(name, found, False, use, f"chmod u+w {shlex.quote(str(there))}"))
    return out


def _plugins() -> list[Check]:
    """Tell which plug-ins are installed, each imported by itself."""
    from workbench.plugins import installed

    out = []
    for plugin in installed():
        mend = f"pip uninstall {plugin.package}"
        # whatever a plug-in stumbles over means that it can't be used
        try:
            importlib.import_module(plugin.module.partition(":")[0])
            found = plugin.package
        except Exception as error:  # noqa: BLE001
            found, mend = "", f"{type(error).__name__}: {one_line(error)}; {mend}"
        out.append(Check(f"plug-in {plugin.name}", found, True, "what it adds", mend))
    return out


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
        from machine.config import SEMANTICS
        from machine.tcg.engine import PAGE_SIZE, Engine

        nobody: Any = None  # is asked: nothing runs
        with Engine(ram_base=0, ram_size=PAGE_SIZE, host=nobody, builtin_sbi=False) as engine:
            kinds = "JIT and interpreter" if engine.translator.has_jit else "interpreter only"
        found = f"built, {kinds}, semantics {SEMANTICS}"
    # none, or one that was built from other sources: machine.tcg.sources tells when it is loaded
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
