"""``workbench bench``: how fast, as ratios against the peer on the same work."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from workbench.bench.kernels import KERNELS

LINUX = ("boot", "shell")
COSTS = ("smp4", "start-up", "compile")
OTHERS = ("native", *COSTS, *LINUX, "timetravel", "queries", "repl", "storage")
BENCHMARKS = ("all", "kernels", "switches", *OTHERS, *KERNELS)


@click.command()
@click.argument("name", type=click.Choice(BENCHMARKS), default="all")
@click.option(
    "--rounds", type=click.IntRange(1, 100), default=5, show_default=True, help="Interleaved rounds."
)
@click.option(
    "--switches",
    is_flag=True,
    help="What each switch of the translator is worth on a kernel; NAME `switches` is all of them.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def bench(name: str, rounds: int, switches: bool, as_json: bool) -> None:
    """Run benchmarks, with QEMU beside where it is installed.

    Times are of whole processes, start and stop in them; `start` is those alone. A ratio is the peer's
    time over ours: above 1, ours is faster. CPU time is what holds on a host with other work; net is CPU time
    less what `start` takes. Where valgrind is
    installed, host/guest is the number of host instructions that a guest instruction takes. At the end each
    figure is held against what is wanted of it, by the clock and by CPU time.
    """
    from workbench import output
    from workbench.bench.limits import judge
    from workbench.bench.measure import BenchError
    from workbench.bench.tables import tables

    switches = switches or name == "switches"
    whole = ("all", "kernels", "switches")
    kernels = list(KERNELS) if name in whole else [k for k in KERNELS if k == name]
    others = [k for k in OTHERS if name in ("all", k)]
    if switches and kernels in ([], ["start"]):
        raise click.UsageError("--switches goes with a kernel that works, or with `kernels`")
    results, rows = [], []
    for result in _measure(kernels, [] if switches else others, rounds, switches):
        results.append(result)
        rows += [] if "error" in result else judge(result)
        for table in [] if as_json else tables(result):
            output.emit(table)
    if as_json:
        output.emit(output.Record({"results": results, "wanted": rows}), "json")
    else:
        _conclude(rows)
    failed = [result["benchmark"] for result in results if "error" in result]
    if failed:
        raise BenchError(f"without a result: {', '.join(failed)}; what each lacks is said above")


def _measure(kernels: list[str], others: list[str], rounds: int, switches: bool) -> Iterator[dict[str, Any]]:
    """Yield each result when it is there: all of them take minutes."""
    from workbench import output
    from workbench.bench import bare, boot, costs, count, native, queries, storage, timetravel, waiting
    from workbench.bench import switches as switched
    from workbench.bench.measure import BenchError

    if kernels and switches:
        worked = [k for k in kernels if k != "start"]
        yield switched.run(worked, switched.switch_names(), rounds, output.note)
    elif kernels:
        result = bare.run(kernels, rounds, output.note)
        counted = count.run(kernels, output.note)
        for name, found in result["kernels"].items():
            found["host_per_guest"] = counted.get(name)
        yield result
    with tempfile.TemporaryDirectory(prefix="workbench-bench-") as folder:
        work = Path(folder)
        runs: dict[str, Callable[[], dict[str, Any]]] = {
            "native": lambda: native.run(list(KERNELS), rounds, output.note),
            "smp4": lambda: costs.run_smp(rounds, output.note),
            "start-up": lambda: costs.run_start(rounds, work, output.note),
            "compile": lambda: costs.run_compile(output.note),
            "boot": lambda: boot.run("boot", rounds, work, output.note),
            "shell": lambda: boot.run("shell", rounds, work, output.note),
            "timetravel": lambda: timetravel.run(work, output.note),
            "queries": lambda: queries.run(work, output.note),
            "repl": lambda: waiting.run(work, output.note),
            "storage": lambda: storage.run(rounds, work, output.note),
        }
        for name in others:
            try:
                yield runs[name]()
            except BenchError as error:  # the others take minutes, and are worth having
                output.note(f"bench {name}: {error}")
                yield {"benchmark": name, "error": str(error)}


def _conclude(rows: list[dict[str, Any]]) -> None:
    """Print each figure with what is wanted of it."""
    from workbench import output

    if not rows:
        return
    columns = ("figure", "wanted", "wall", "cpu", "met", "met by cpu")
    output.emit(output.Table(columns, [tuple(row[c] for c in columns) for row in rows]))
    met = sum(row["met"] for row in rows)
    by_cpu = sum(row["met"] if row["met by cpu"] is None else row["met by cpu"] for row in rows)
    output.note(f"{met} of {len(rows)} figures are as wanted; {by_cpu} if times are of CPU")
