"""The pages, by name: each is made of declarations, so that it can't say anything else than the code does."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from workbench.reference.commandline import cli_page, man_page
from workbench.reference.markdown import prose, table, text_of

_MADE: Final = "<!-- made by `make docs`; what it says is said in the code -->\n"


def pages() -> dict[str, str]:
    """Return the pages' texts by their files' names."""
    made: dict[str, Callable[[], str]] = {
        "commands.md": commands_page,
        "command-line.md": cli_page,
        "tables.md": tables_page,
        "devices.md": devices_page,
        "instructions.md": instructions_page,
    }
    return {name: f"{_MADE}{make()}" for name, make in made.items()} | {"workbench.1": man_page()}


def commands_page() -> str:
    """The REPL's commands, by group."""
    from workbench.repl.registry import GROUPS, all_commands

    out = [
        "# Commands of the REPL",
        "",
        "They serve the REPL, `workbench debug T -c`, gdb's `monitor` and an editor's debug console. A unique",
        "beginning of a name is enough. `--json`, `--csv` and `--table` at a line's end say how the result is given,",
        "`--python` prints the library's calls instead, `| PROGRAM` and `> FILE` take it elsewhere.",
    ]
    for group, title in GROUPS.items():
        out += ["", f"## {title}"]
        for entry in all_commands().commands:
            if entry.group != group:
                continue
            out += ["", f"### {entry.name}", "", f"    {entry.name} {entry.usage}".rstrip()]
            if entry.aliases:
                out += ["", f"Also: {', '.join(f'`{alias}`' for alias in entry.aliases)}."]
            out += ["", *prose(entry.help)]
            if entry.touches_host:
                out += ["", "For the REPL alone: it touches the host."]
    return text_of(out)


def tables_page() -> str:
    """The tables that SQL can ask: recorded ones, and lazy ones that are filled by replaying."""
    from traces.queries import declared
    from traces.schema import migrate

    database = sqlite3.connect(":memory:")
    migrate(database)
    out = [
        "# Tables",
        "",
        "What `workbench query T SQL` and the REPL's `sql` read. Addresses are signed, as SQLite's integers are.",
        "",
        "## Lazy tables",
        "",
        "They are filled by replaying the run, as far as a query needs them; the rows stay in the trace.",
    ]
    lazy = {
        name: query for name, query in declared().items() if query.function.__module__.startswith("traces.")
    }
    for name, query in sorted(lazy.items()):
        out += ["", f"### {name}", "", *prose(inspect.cleandoc(query.function.__doc__ or "")), ""]
        out += table(("column", "type"), _columns(database, name))
    out += ["", "## Recorded tables and views"]
    rows = database.execute(
        "SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY name"
    )
    for name, kind in rows.fetchall():
        if name not in lazy and not name.startswith("sqlite_"):
            out += ["", f"### {name}" + (" (view)" if kind == "view" else ""), ""]
            out += table(("column", "type"), _columns(database, name))
    database.close()
    return text_of(out)


def _columns(database: sqlite3.Connection, table: str) -> list[tuple[str, str]]:
    return [(row[1], row[2].lower()) for row in database.execute(f'PRAGMA table_info("{table}")')]


def devices_page() -> str:
    """The devices of the board, with their registers."""
    from machine.hw.registers import registers_of

    out = ["# Devices", "", "Offsets are in bytes from a device's base; registers are little endian."]
    for cls in sorted(_devices(), key=lambda each: each.__name__):
        doc = inspect.cleandoc(cls.__doc__ or "")
        module = importlib.import_module(cls.__module__)
        out += ["", f"## {cls.__name__}", "", f"`{cls.__module__.replace('.', '/')}.py`: "
                + (module.__doc__ or "").strip().partition("\n")[0], "", *prose(doc)]  # fmt: skip
        rows = [
            (f"{reg.offset:#x}", reg.name, str(reg.size), reg.access, _fields(reg), reg.doc)
            for reg in sorted(registers_of(cls), key=lambda reg: int(reg.offset))
        ]
        if rows:
            out += ["", *table(("offset", "register", "bytes", "access", "fields", "what"), rows)]
    return text_of(out)


def _devices() -> set[Any]:
    from machine import hw
    from machine.hw.device import Device

    for module in pkgutil.walk_packages(hw.__path__, "machine.hw."):
        importlib.import_module(module.name)

    def below(cls: Any) -> Iterator[Any]:
        for child in cls.__subclasses__():
            yield child
            yield from below(child)

    return {cls for cls in below(Device) if cls.__module__.startswith("machine.hw.")}


def _fields(register: Any) -> str:
    return ", ".join(
        f"{f.name} [{f.lo + f.bits - 1}:{f.lo}]" if f.bits > 1 else f"{f.name} [{f.lo}]"
        for f in register.fields
    )


def instructions_page() -> str:
    """The instructions that the translator knows, by extension."""
    from machine.tcg import decodetree

    folder = Path(decodetree.__file__).parent / "guest" / "riscv"
    listed = json.loads(decodetree.generate(sorted(folder.glob("*.decode")))["instructions.json"])
    out = ["# Instructions", "", f"{len(listed)} patterns, as the decoder's tables have them."]
    for extension in sorted({entry["extension"] for entry in listed}):
        rows = [
            (f"`{entry['template']}`", str(entry["width"]), f"`{entry['mask']:#x}`", f"`{entry['match']:#x}`")
            for entry in listed
            if entry["extension"] == extension
        ]
        out += ["", f"## {extension}", "", *table(("instruction", "bits", "mask", "match"), rows)]
    return text_of(out)
