"""``workbench bench``: how fast, as ratios against the peer on the same work."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from workbench.bench.kernels import KERNELS

LINUX = ("boot", "shell")
BENCHMARKS = ("all", "kernels", *LINUX, "timetravel", *KERNELS)
_COLUMNS = ("wall_s", "cpu_s", "spread", "peak_mib", "mips", "rounds")


@click.command()
@click.argument("name", type=click.Choice(BENCHMARKS), default="all")
@click.option(
    "--rounds", type=click.IntRange(1, 100), default=5, show_default=True, help="Interleaved rounds."
)
@click.option("--switches", is_flag=True, help="What each switch of the translator is worth, on the kernels.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def bench(name: str, rounds: int, switches: bool, as_json: bool) -> None:
    """Run benchmarks, with QEMU beside where it is installed.

    Times are of whole processes, start and stop in them; `start` is those alone. A ratio is the peer's
    time over ours: above 1, ours is faster. CPU time is what holds on a host with other work.
    """
    from workbench import output

    kernels = list(KERNELS) if name in ("all", "kernels") else [k for k in KERNELS if k == name]
    linux = [k for k in (*LINUX, "timetravel") if name in ("all", k)]
    if switches and not kernels:
        raise click.UsageError("--switches goes with kernels")
    results = []
    for result in _measure(kernels, [] if switches else linux, rounds, switches):
        results.append(result)
        for table in [] if as_json else _tables(result):
            output.emit(table)
    if as_json:
        output.emit(output.Record({"results": results}), "json")


def _measure(kernels: list[str], linux: list[str], rounds: int, switches: bool) -> Iterator[dict[str, Any]]:
    """Yield each result when it is there: all of them take minutes."""
    from workbench import output
    from workbench.bench import bare, boot, timetravel

    if kernels and switches:
        yield bare.run_switches(kernels, bare.switch_names(), rounds, output.note)
    elif kernels:
        yield bare.run(kernels, rounds, output.note)
    with tempfile.TemporaryDirectory(prefix="workbench-bench-") as work:
        for name in linux:
            if name == "timetravel":
                yield timetravel.run(Path(work), output.note)
            else:
                yield boot.run(name, rounds, Path(work), output.note)


def _tables(result: dict[str, Any]) -> list[Any]:
    """Return what a result looks like as text."""
    from workbench.output import Table

    if result["benchmark"] == "timetravel":
        figures = [(k, v["value"], v["at_most"], v["unit"], v["met"]) for k, v in result["figures"].items()]
        return [Table(("timetravel", "value", "at most", "unit", "met"), figures)]
    if result["benchmark"] == "switches":
        rows = [(k, v["cpu_s"], *v["off"].values()) for k, v in result["kernels"].items()]
        names = next(iter(result["kernels"].values()))["off"]
        return [Table(("kernel", "cpu_s", *(f"no {n}" for n in names)), rows)]
    if result["benchmark"] == "kernels":
        return [_kernel_table(result["kernels"])]
    rows = [(k, *(v[c] for c in _COLUMNS)) for k, v in result["figures"].items()]
    return [
        Table((result["benchmark"], *_COLUMNS), rows),
        Table(
            ("ratio", "wall", "cpu"),
            [(k, v, result["cpu_ratios"][k]) for k, v in result["ratios"].items()],
        ),
    ]


def _kernel_table(kernels: dict[str, Any]) -> Any:
    from workbench.output import Table

    peers = list(next(iter(kernels.values()))["ratios"])
    columns = ["kernel", "wall_s", "cpu_s", "spread", "mips"]
    columns += [f"{p} {what}" for p in peers for what in ("wall_s", "cpu_s", "ratio", "cpu ratio")]
    rows = []
    for name, found in kernels.items():
        ours = found["figures"]["ours"]
        row = [name, ours["wall_s"], ours["cpu_s"], ours["spread"], ours["mips"]]
        for peer in peers:
            theirs = found["figures"][peer]
            row += [theirs["wall_s"], theirs["cpu_s"], found["ratios"][peer], found["cpu_ratios"][peer]]
        rows.append(tuple(row))
    return Table(tuple(columns), rows)
