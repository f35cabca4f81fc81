"""What a run looks like to people: the flame graph and the report, each one file with nothing outside of it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.workbench.replay.guest import record
from workbench import Trace
from workbench.cli import run
from workbench.query.flamegraph import svg
from workbench.query.profile import folded
from workbench.query.report import html
from workbench.query.stacks import Stacks

SVG = "{http://www.w3.org/2000/svg}"
SECTIONS = ["run", "timeline", "console", "inputs", "traps", "system-calls", "hot-symbols"]


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trace]:
    path = tmp_path_factory.mktemp("report") / "<b>boot & more.trace"
    record(path)
    with Trace.open(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def report(trace: Trace) -> str:
    return html(trace)


def widths(text: str) -> dict[str, float]:
    """Return the widths of boxes by what their tooltips say."""
    out = {}
    for group in ElementTree.fromstring(text).iter(f"{SVG}g"):
        title, box = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        assert title is not None
        assert box is not None
        out[title.text or ""] = float(box.get("width", "0"))
    return out


def test_boxes_are_as_wide_as_their_share() -> None:
    boxes = widths(svg({"main;work": 75, "main": 5, "<idle>&": 20}))
    full = boxes["all: 100 steps, 100.00%"]
    assert boxes["main: 80 steps, 80.00%"] == pytest.approx(full * 0.8, abs=0.01)
    assert boxes["work: 75 steps, 75.00%"] == pytest.approx(full * 0.75, abs=0.01)
    assert boxes["<idle>&: 20 steps, 20.00%"] == pytest.approx(full * 0.2, abs=0.01)


def test_calls_of_one_name_on_one_stack_are_one_box_and_one_stack() -> None:
    stacks = Stacks(["a", "b", "b", "c"], [-1, 0, 0, 2], [1, 2, 3, 4])
    assert dict(stacks) == {"a": 1, "a;b": 5, "a;b;c": 4}
    assert svg(stacks) == svg(dict(stacks))
    assert "b: 9 steps, 90.00%" in widths(svg(stacks))


def test_the_tree_of_folded_stacks_folds_to_them() -> None:
    folded = {"a;b;a": 3, "b": 4, "a": 5, "a;b": 6}
    assert Stacks.of(folded) == folded
    assert sorted(Stacks.of(folded).totals()) == [3, 4, 9, 14]


def test_a_flame_graph_of_nothing_is_one() -> None:
    assert list(widths(svg({}))) == []


def test_flame_graph_of_a_run_holds_all_its_steps(trace: Trace) -> None:
    stacks = folded(trace, 0, trace.end)
    assert sum(stacks.values()) == trace.end
    assert svg(stacks) == svg(dict(stacks))
    assert f"all: {trace.end:,} steps, 100.00%" in widths(svg(stacks))


def test_the_report_loads_nothing_and_escapes_what_the_guest_says(report: str) -> None:
    assert "default-src 'none'" in report
    assert not re.search(r"<(script|link|img|iframe|object)\b|\b(src|href)=|url\(|@import", report)
    assert "<b>boot" not in report
    assert "&lt;b&gt;boot &amp; more.trace" in report
    assert re.findall(r'<section id="([\w-]+)">', report) == SECTIONS


def test_the_report_tells_what_the_tables_tell(trace: Trace, report: str) -> None:
    steps = trace.sql("select what, count(*) n from trap_list group by what order by n desc limit 1")[0]
    assert f'<td>{steps["what"]}</td><td class="n">{steps["n"]:,}</td>' in report
    for row in trace.trace.inputs():
        assert f'<td class="n">{row.icount:,}</td><td>{row.source}</td><td>{row.kind}</td>' in report
    printed = b"".join(row.data for row in trace.trace.console()).decode()
    assert printed.strip().splitlines()[-1][:20] in report


def test_commands_write_both(trace: Trace, tmp_path: Path) -> None:
    path = str(trace.trace.path)
    for command, name, head in (
        (["trace", "export", path, "--html", "--to", "20%", "-o"], "r.html", "<!DOCTYPE html>"),
        (["profile", path, "--to", "20%", "--flame"], "f.svg", "<svg "),
    ):
        assert run([*command, str(tmp_path / name)]) == 0
        assert (tmp_path / name).read_text().startswith(head)


@pytest.mark.slow
@pytest.mark.requires("chromium")
def test_a_browser_shows_the_report(report: str, tmp_path: Path) -> None:
    page, shot = tmp_path / "report.html", tmp_path / "shot.png"
    page.write_text(report)
    browser = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    done = subprocess.run(
        [*browser, "--enable-logging=stderr", "--dump-dom", page.as_uri()],
        capture_output=True,
        timeout=120,
        check=True,
    )
    shown = done.stdout.decode()
    assert re.findall(r'<section id="([\w-]+)">', shown) == SECTIONS
    assert shown.count("<rect") == report.count("<rect") > 10
    assert b"Content Security Policy" not in done.stderr  # the page's own policy refuses nothing of it
    subprocess.run(
        [*browser, f"--screenshot={shot}", page.as_uri()], capture_output=True, timeout=120, check=True
    )
    assert shot.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
