"""What Datasette shows of a trace beside its rows: what each table and column is, and questions that are ready to run.

workbench trace metadata boot.trace > metadata.json
datasette boot.trace --metadata metadata.json
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from .queries.base import QUERIES, find_query

_TABLES: Final = {
    "meta": "Of the trace itself: format, semantics, host, title, parent of a branch, final position.",
    "config": "The machine: harts, memory, devices, clock, seed.",
    "images": "What was loaded, and from where.",
    "blobs": "Contents by hash, compressed: images, disk clusters.",
    "inputs": "Every input that came from outside, in order. A replay answers from here.",
    "checkpoints": "Full states; RAM as what differs from the parent's.",
    "page_lists": "The pages of RAM that differ from the parent's, and their hashes; checkpoint_pages has them by row.",
    "page_sets": "Contents of pages of RAM, many to a row, compressed.",
    "digests": "Rolling digests, which a replay compares.",
    "disk_reads": "Clusters of disk images that the run read.",
    "console": "What the guest printed, by position.",
    "bookmarks": "Named positions.",
    "coverage": "Which intervals of which query table are filled, so far.",
}
_COLUMNS: Final = {
    "icount": "the position: steps since the machine began",
    "ret_icount": "the position of the return, empty where none came",
    "vtime_ns": "virtual time in ns",
    "hart": "the hardware thread",
    "pc": "address of the instruction, as a signed number",
    "priv": "0 user, 1 supervisor, 3 machine",
    "vaddr": "virtual address",
    "paddr": "physical address",
    "depth": "open calls of the same stack",
    "steps": "steps from its begin to its end",
}
_QUERIES: Final = {
    "hot_functions": (
        "Functions by the steps from call to return",
        "SELECT * FROM call_cost ORDER BY steps DESC LIMIT 50",
    ),
    "longest_traps": ("Traps by duration", "SELECT * FROM trap_list ORDER BY steps DESC LIMIT 50"),
    "system_calls_by_name": (
        "System calls: how many, how many failed",
        "SELECT name, count(*) AS calls, sum(ret < 0) AS failed FROM syscalls GROUP BY name ORDER BY calls DESC",
    ),
    "busiest_tasks": (
        "Tasks by the steps that they had a hart",
        "SELECT pid, max(comm) AS comm, sum(ends - begins) AS steps FROM turns GROUP BY pid ORDER BY steps DESC",
    ),
    "devices": (
        "Accesses to devices",
        "SELECT device, op, count(*) AS accesses FROM mmio GROUP BY device, op ORDER BY accesses DESC",
    ),
}


def metadata(trace: str | Path, title: str = "") -> dict[str, Any]:
    """Return Datasette's metadata of a trace.

    Args:
        trace: the file; Datasette calls a database by its name without the suffix. title: of the run.
    """
    find_query("calls")  # so that all of them are declared
    tables = {name: _table(text) for name, text in _TABLES.items()}
    for name, query in sorted(QUERIES.items()):
        function = query.function
        tables[name] = _table((getattr(function, "__doc__", "") or "").partition("\n")[0], query.columns)
    for table in (
        "insns",
        "mem",
        "calls",
        "traps",
        "syscalls",
        "mmio",
        "csr",
        "switches",
        "dma",
        "console",
        "inputs",
    ):
        tables[table]["sort"] = "icount"
    name = Path(trace).stem
    return {
        "title": title or name,
        "description": "A recorded run of a machine. Query tables hold what was asked for so far: see coverage.",
        "databases": {
            name: {
                "tables": tables,
                "queries": {key: {"title": text, "sql": sql} for key, (text, sql) in _QUERIES.items()},
            }
        },
    }


def _table(text: str, columns: tuple[str, ...] = ()) -> dict[str, Any]:
    known = {column: _COLUMNS[column] for column in columns if column in _COLUMNS}
    return {"description": text} | ({"columns": known} if known else {})
