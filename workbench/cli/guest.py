"""``workbench guest`` and ``workbench demo``: guests to boot."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from workbench.cli.formats import Fmt, format_options


@click.group()
def guest() -> None:
    """Real guests from Debian's archive: list, fetch."""


@guest.command("list")
@format_options
def list_(fmt: Fmt) -> None:
    """List the guests, and which of them are here."""
    from workbench import output
    from workbench.guests.fetch import list_guests

    rows = list_guests()
    columns = tuple(rows[0]) if rows else ()
    output.emit(output.Table(columns, [tuple(row.values()) for row in rows], empty="No guests."), fmt)


@guest.command("fetch")
@click.argument("name")
@click.option("--mirror", metavar="URL", help="Debian archive to take it from, instead of the system's.")
@click.option("--suite", metavar="NAME", help="Release to take it from.")
@click.option("--kernel-file", type=Path, metavar="FILE", help="This kernel, and no apt.")
@click.option("--busybox-file", type=Path, metavar="FILE", help="This static busybox, and no apt.")
@click.option("--refresh", is_flag=True, help="Fetch again what is here.")
@click.option("--debug", "debug", is_flag=True, help="Its kernel's debug information: tells the size.")
@click.option("--yes", is_flag=True, help="With --debug: fetch it.")
@click.option("--json", "as_json", is_flag=True, help="Print files and options as one JSON document.")
def fetch_(
    name: str,
    mirror: str | None,
    suite: str | None,
    kernel_file: Path | None,
    busybox_file: Path | None,
    refresh: bool,
    debug: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Fetch a guest through the system's own apt; print the options that boot it."""
    from workbench import output
    from workbench.guests.fetch import fetch

    if debug:
        fetch_debug(name, mirror, yes)
        return
    found = fetch(
        name,
        mirror=mirror,
        suite=suite,
        kernel_file=kernel_file,
        busybox_file=busybox_file,
        refresh=refresh,
        progress=output.note,
    )
    options = found.options()
    if as_json:
        fields = {
            "name": name,
            "folder": str(found.folder),
            "options": options,
            "system_map": str(found.system_map),
        }
        output.emit(output.Record(fields), "json")
        return
    output.emit(output.Text(shlex.join(options)))
    output.note(f"record its boot:  {found.command()}")
    if found.system_map.exists():
        output.note(
            f"debug it:         workbench debug boot.trace --symbols {shlex.quote(str(found.system_map))}"
        )


def fetch_debug(name: str, mirror: str | None, yes: bool) -> None:
    """Tell how large a guest's debug information is; fetch it where that was agreed to."""
    from workbench import output
    from workbench.guests.debug import DebugPackage

    package = DebugPackage(name, mirror)
    if not yes:
        output.emit(output.Text(str(package.offer())))
        output.note(f"fetch it:  workbench guest fetch {name} --debug --yes")
        return
    path = package.fetch(output.note)
    output.emit(output.Text(str(path)))
    output.note(f"use it:  workbench debug boot.trace --symbols {shlex.quote(str(path))}")


@click.command()
@click.option("--batch", is_flag=True, help="Print what was found, and end.")
def demo(batch: bool) -> int:
    """Hunt the built-in guest's flaky boot, record the failing run, open it at the failure."""
    from workbench.guests.demo import run

    return int(run(batch=batch) or 0)
