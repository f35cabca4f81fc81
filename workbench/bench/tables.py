"""What the results of benchmarks look like: as tables, for a terminal and for docs/performance.md.

``python -m workbench.bench.tables RESULTS.json…`` prints those of ``workbench bench --json`` as Markdown;
with ``--page FILE`` it puts each between that page's ``<!-- bench NAME -->`` and ``<!-- end -->`` instead.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.output import Table, cell

_LINUX = ("wall_s", "cpu_s", "spread", "peak_mib", "mips", "rounds")


def tables(result: Mapping[str, Any]) -> list[Table]:
    """Return a benchmark's result as tables, none for one that failed.

    Args:
        result: of one benchmark, as ``workbench bench --json`` has it.
    """
    if "error" in result:
        return []
    name = result["benchmark"]
    if name in _BY_NAME:
        return list(_BY_NAME[name](result))
    if name == "storage":
        columns = ("value", "is to be", "unit", "met")
        shown = [(what, *(figure[c] for c in columns)) for what, figure in result["figures"].items()]
        return [Table((name, *columns), shown)]
    figures = [(k, v["value"], v["at_most"], v["unit"], v["met"]) for k, v in result["figures"].items()]
    return [Table((name, "value", "at most", "unit", "met"), figures)]


def _linux(result: Mapping[str, Any]) -> list[Table]:
    figures = {
        k: v | {"mips": v["mips"] or None} for k, v in result["figures"].items()
    }  # not all tell their steps
    rows = [(k, *(v[c] for c in _LINUX)) for k, v in figures.items()]
    ratios = [(k, v, result["cpu_ratios"][k]) for k, v in result["ratios"].items()]
    return [Table((result["benchmark"], *_LINUX), rows), Table(("ratio", "wall", "cpu"), ratios)]


def _kernels(result: Mapping[str, Any]) -> list[Table]:
    kernels = result["kernels"]
    peers = list(next(iter(kernels.values()))["ratios"])
    columns = ["kernel", "wall_s", "cpu_s", "spread", "cpu_mips", "host/guest"]
    columns += [f"{p} {what}" for p in peers for what in ("wall_s", "cpu_s", "ratio", "cpu ratio", "net")]
    rows = []
    for name, found in kernels.items():
        ours = found["figures"]["ours"]
        row = [name, *(ours[c] for c in columns[1:5]), found["host_per_guest"]]
        for peer in peers:
            theirs = found["figures"][peer]
            row += [theirs["wall_s"], theirs["cpu_s"], found["ratios"][peer], found["cpu_ratios"][peer]]
            row.append(found["net_ratios"][peer])
        rows.append(tuple(row))
    return [Table(tuple(columns), rows)]


def _switches(result: Mapping[str, Any]) -> list[Table]:
    """A switch a row, a kernel a column: CPU time, then host instructions, with it off over with all on."""
    kernels = result["kernels"]
    switches = list(next(iter(kernels.values()))["off"])
    shown = []
    for what, base, title in (("cpu", "cpu_s", "CPU time"), ("count", "host_per_guest", "host instructions")):
        if all(found[base] is None for found in kernels.values()):
            continue
        rows = [(s, *(found["off"][s][what] for found in kernels.values())) for s in switches]
        rows.append((f"all on: {base}", *(found[base] for found in kernels.values())))
        shown.append(Table((f"{title} without", *kernels), rows))
    return shown


def _native(result: Mapping[str, Any]) -> list[Table]:
    kernels = result["kernels"]
    peers = list(next(iter(kernels.values()))["times"])
    columns = ("kernel", "native", *(c for peer in peers for c in (peer, f"{peer} / native")))
    return [
        Table(
            columns,
            [
                (name, f["cpu_s"]["native"], *(v for p in peers for v in (f["cpu_s"][p], f["times"][p])))
                for name, f in kernels.items()
            ],
        )
    ]


_BY_NAME = {
    "kernels": _kernels,
    "switches": _switches,
    "native": _native,
    "boot": _linux,
    "shell": _linux,
}


def markdown(table: Table) -> str:
    """Return a table as Markdown has it."""
    lines = [table.columns, ["---"] * len(table.columns)]
    lines += [[cell(v).replace("|", "\\|") for v in row] for row in table.rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def fill(page: str, results: Sequence[Mapping[str, Any]]) -> str:
    """Put results between a page's marks; those that the page has no mark for are left out.

    Returns:
        the page. Tables between marks without a result stay.
    """
    for result in results:
        mark = f"<!-- bench {result['benchmark']} -->\n"
        text = mark + "\n" + "\n".join(map(markdown, tables(result))) + "\n<!-- end -->"
        if "error" not in result:
            page = re.sub(re.escape(mark) + ".*?<!-- end -->", lambda _, text=text: text, page, flags=re.S)  # type: ignore[misc]
    return page


def main(argv: Sequence[str] | None = None) -> None:
    """Print results as Markdown, or put them into a page."""
    parser = argparse.ArgumentParser(description="Results of `workbench bench --json` as Markdown.")
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--page", type=Path, help="a page with marks, to be filled")
    given = parser.parse_args(argv)
    results = [result for path in given.results for result in json.loads(path.read_text())["results"]]
    if given.page is None:
        for result in results:
            marked = f"<!-- bench {result['benchmark']} -->\n<!-- end -->\n"
            sys.stdout.write(fill(marked, [result]) + "\n")
    else:
        given.page.write_text(fill(given.page.read_text(), results))


if __name__ == "__main__":
    main()
