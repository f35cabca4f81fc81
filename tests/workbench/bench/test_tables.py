"""Results of benchmarks as tables, and a page that is filled from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from workbench.bench.kernels import KERNELS
from workbench.bench.switches import switch_names
from workbench.bench.tables import fill, main, markdown, tables
from workbench.cli.bench import OTHERS

PAGE = (Path(__file__).parents[3] / "docs" / "performance.md").read_text()

SWITCHES: dict[str, Any] = {
    "benchmark": "switches",
    "steps_counted": 20,
    "kernels": {
        name: {
            "cpu_s": 0.5,
            "host_per_guest": counted,
            "off": {"jit": {"cpu": 10.5, "count": counted and 12.0}, "pin": {"cpu": 1.25, "count": counted}},
        }
        for name, counted in (("fib", 3.5), ("mix", 4.25))
    },
}
NATIVE: dict[str, Any] = {
    "benchmark": "native",
    "kernels": {
        "fib": {"cpu_s": {"ours": 0.4, "qemu": 1.9, "native": 0.2}, "times": {"ours": 2.0, "qemu": 9.5}}
    },
}


def test_a_switch_has_a_row_and_a_kernel_a_column_in_both_measures() -> None:
    times, counts = tables(SWITCHES)
    assert times.columns == ("CPU time without", "fib", "mix")
    assert counts.columns == ("host instructions without", "fib", "mix")
    assert times.rows == [("jit", 10.5, 10.5), ("pin", 1.25, 1.25), ("all on: cpu_s", 0.5, 0.5)]
    assert counts.rows[-1] == ("all on: host_per_guest", 3.5, 4.25)


def test_without_counts_there_is_no_table_of_them() -> None:
    uncounted = {k: v | {"host_per_guest": None} for k, v in SWITCHES["kernels"].items()}
    assert len(tables(SWITCHES | {"kernels": uncounted})) == 1


def test_the_native_time_stands_before_multiples_of_it() -> None:
    [table] = tables(NATIVE)
    assert table.columns == ("kernel", "native", "ours", "ours / native", "qemu", "qemu / native")
    assert table.rows == [("fib", 0.2, 0.4, 2.0, 1.9, 9.5)]


def test_a_failed_benchmark_has_no_table() -> None:
    assert tables({"benchmark": "boot", "error": "no guest"}) == []


def test_a_page_has_new_tables_between_its_marks_and_keeps_all_else() -> None:
    head, mark, rest = (
        "# A\n",
        "<!-- bench native -->\n",
        "<!-- end -->\nprose\n<!-- bench boot -->\nkept\n<!-- end -->\n",
    )
    page = f"{head}{mark}old | table\n{rest}"
    [table] = tables(NATIVE)
    filled = fill(page, [NATIVE, SWITCHES, {"benchmark": "boot", "error": "no guest"}])
    assert filled == f"{head}{mark}\n{markdown(table)}\n{rest}"
    assert fill(filled, [NATIVE]) == filled
    assert "| fib | 0.2 | 0.4 | 2 | 1.9 | 9.5 |" in filled


def test_the_page_of_the_documentation_has_a_mark_for_what_one_run_measures(tmp_path: Path) -> None:
    results, copy = tmp_path / "run.json", tmp_path / "page.md"
    results.write_text(json.dumps({"results": [NATIVE, SWITCHES]}))
    copy.write_text(PAGE)
    main([str(results), "--page", str(copy)])
    filled = copy.read_text()
    assert "| fib | 0.2 | 0.4 | 2 | 1.9 | 9.5 |" in filled and "| jit | 10.5 | 10.5 |" in filled
    for name in ("kernels", *OTHERS):
        assert f"<!-- bench {name} -->\n" in PAGE
    assert PAGE.count("<!-- bench ") == PAGE.count("<!-- end -->")


def table_of(head: str) -> list[list[str]]:
    """Return the cells of the page's table whose first row begins so, that row first."""
    lines = PAGE[PAGE.index(f"| {head} |") :].split("\n\n", 1)[0].splitlines()
    head_row, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return [head_row, *rows]


@pytest.mark.parametrize("head", ["CPU time without", "host instructions without"])
def test_the_page_has_every_switch_on_every_kernel_that_works(head: str) -> None:
    columns, *rows = table_of(head)
    assert set(columns[1:]) == set(KERNELS) - {"start"}
    assert [row[0] for row in rows[:-1]] == switch_names()
    assert all(float(cell) > 0 for row in rows for cell in row[1:])


def test_the_page_says_what_every_switch_does_and_has_every_kernel() -> None:
    assert {row[0] for row in table_of("switch")[1:]} == set(switch_names())
    assert [row[0] for row in table_of("kernel | wall_s")[1:]] == list(KERNELS)


def test_a_run_that_tells_no_steps_has_no_speed() -> None:
    figure = {"wall_s": 1.0, "cpu_s": 1.0, "spread": 0.0, "peak_mib": 1, "mips": 0, "rounds": 5}
    linux = {"benchmark": "boot", "figures": {"qemu": figure}, "ratios": {}, "cpu_ratios": {}}
    assert "| qemu | 1 | 1 | 0 | 1 | - | 5 |" in markdown(tables(linux)[0])
