"""Time travel from end to end: one session in gdb and in the REPL, a branch that heals a boot, two runs that part."""

from __future__ import annotations

import hashlib
import itertools
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


def workbench(*arguments: object, code: int | None = 0, timeout: float = 300) -> str:
    command = [sys.executable, "-m", "workbench", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
    assert code in (None, done.returncode), f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def kernel(builtin_image: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("timetravel") / "builtin.elf"
    path.write_bytes(builtin_image)
    return path


def boot(kernel: Path, name: str, *options: object) -> tuple[Path, bool]:
    """Record a boot; return the trace, and whether it went well."""
    out = kernel.with_name(name)
    text = workbench("record", "-o", out, "--kernel", kernel, "-m", "32M", "--no-input", *options, code=None)
    return out, "the guest switched off" in text


# what it must show, 1: a scripted session in stock gdb and the same in the REPL


@dataclass(frozen=True)
class Step:
    """One command in both languages."""

    gdb: str
    repl: str

    @classmethod
    def same(cls, line: str) -> Step:
        return cls(line, line)


def session(variable: str, back: str) -> list[Step]:
    """Go to a variable's last writer, backwards by ``back`` and out of the function, and forwards to the end."""
    return [
        Step.same("goto end"),
        Step("monitor digest", "digest"),
        Step(f"watch *(long*)&{variable}", f"watch {variable}"),
        Step.same("reverse-continue"),
        Step("when", "where"),
        Step("delete", "delete"),
        *[Step.same(back), Step("when", "where")] * 2,
        Step.same("reverse-finish"),
        Step("when", "where"),
        Step.same("continue"),
        Step("when", "where"),
        Step("monitor digest", "digest"),
    ]


def in_gdb(trace: Path, steps: Sequence[Step]) -> str:
    script = trace.with_suffix(".gdb")
    lines = ["set width 0", "set confirm off", *(step.gdb for step in steps)]
    script.write_text("\n".join(lines) + "\n")
    return workbench("gdb", trace, "-nx", "-batch", "-x", script)


def in_repl(trace: Path, steps: Sequence[Step]) -> str:
    return workbench("debug", trace, *(part for step in steps for part in ("-c", step.repl)))


def digests(text: str) -> list[str]:
    return re.findall(r"\b[0-9a-f]{64}\b", text)


def positions(text: str) -> list[int]:
    """Return where the cursor is said to be; the REPL's motions say it as well as ``where``, gdb's do not."""
    return [int(n.replace("_", "")) for n in re.findall(r"position ([\d_]+) of", text)]


def check_session(trace: Path, variable: str, back: str) -> tuple[str, str]:
    steps = session(variable, back)
    gdb, repl = in_gdb(trace, steps), in_repl(trace, steps)
    assert len(digests(gdb)) == 2, gdb
    assert len(set(digests(gdb) + digests(repl))) == 1, gdb + repl
    # gdb's own goto shows the position, and each `when`; the REPL every motion
    end, *places = positions(gdb)
    theirs = positions(repl)
    assert theirs[0] == end
    assert places == theirs[2::2], gdb + repl
    writer, one, two, call, last = places
    assert call < two < one < writer < end == last
    return gdb, repl


@pytest.mark.requires("gdb-multiarch")
def test_one_session_in_gdb_and_in_the_repl_by_source_lines(kernel: Path) -> None:
    trace, _ = boot(kernel, "lines.trace", "--append", "safe", "--seed", 3)
    gdb, repl = check_session(trace, "ticks", "reverse-step")
    for text in (gdb, repl):
        assert re.search(r"trap\.c", text), text


@pytest.mark.slow
@pytest.mark.requires("gdb-multiarch")
def test_one_session_in_gdb_and_in_the_repl_on_linux(debian_guest: Any, tmp_path: Path) -> None:
    """Debian's kernel comes without line tables, so its backward steps are instructions."""
    trace = tmp_path / "linux.trace"
    files = ("--kernel", debian_guest.folder / "Image", "--initrd", debian_guest.folder / "initrd.cpio.gz")
    workbench("record", "-o", trace, *files, "--append", "console=ttyS0 wb.poweroff", "--no-input")
    gdb, _ = check_session(trace, "jiffies_64", "reverse-stepi")
    assert "tick_do_update_jiffies64" in gdb
    text = in_gdb(
        trace, [Step.same("goto end"), Step.same("bt")]
    )  # out of the last system call, to user space
    assert re.search(r"in handle_exception \(\)\n#\d+ +0x0000[0-9a-f]+ in \?\? \(\)", text), text
    assert "PC not saved" not in text


# what it must show, 4 and 5: the interrupt that is to blame


def boot_with_seed(kernel: Path, name: str, fails: bool) -> Path:
    """Record with seed after seed until the race with the timer is lost, or is not."""
    for seed in range(1, 40):
        out, went_well = boot(kernel, name, "--seed", seed)
        if went_well is not fails:
            return out
    pytest.fail(f"no boot of 39 {'failed' if fails else 'succeeded'}")


@pytest.fixture(scope="module")
def bad(kernel: Path) -> Path:
    return boot_with_seed(kernel, "bad.trace", fails=True)


@pytest.mark.slow
def test_a_branch_without_the_guilty_interrupt_boots(bad: Path) -> None:
    before = hashlib.sha256(bad.read_bytes()).digest()
    catch = ("-c", "catch interrupt 5", "-c", "goto end")
    interrupts = workbench("debug", bad, *catch, *("-c", "rc") * 60).count("supervisor timer interrupt, tval")
    assert 2 < interrupts < 60
    # a tick that comes later moves those behind it, and one of these may lose the race instead: so more than one delay
    for number, steps in itertools.product(range(interrupts, 0, -1), (500, 300, 2000)):
        change = ("-c", f"delay-interrupt {steps}", "-c", "delete", "-c", "continue", "-c", "console 5")
        text = workbench("debug", bad, *catch, "-c", f"rc {number}", *change)
        assert f"{steps} steps later: interrupt 5" in text
        if "panic" not in text:
            break
    assert "powering off" in text and "panic" not in text
    name = re.findall(r"bad\.branch\d+\.trace", workbench("trace", "branches", bad))[-1]
    assert "verified:" in workbench("replay", "--verify", bad.with_name(name))
    parted = workbench("trace", "diff", bad, bad.with_name(name), code=1)
    assert re.search(r"bad\.trace: .*supervisor timer interrupt", parted), parted
    in_branch = workbench(
        "debug", bad.with_name(name), "-c", "branch diff", "-c", "branch parent", "-c", "branch list"
    )
    assert re.search(r"bad\.trace: .*supervisor timer interrupt", in_branch), in_branch
    assert name in in_branch.splitlines()[-1]
    assert hashlib.sha256(bad.read_bytes()).digest() == before


@pytest.mark.slow
def test_a_good_and_a_bad_boot_part_at_an_interrupt(bad: Path, kernel: Path) -> None:
    good = boot_with_seed(kernel, "good.trace", fails=False)
    text = workbench("trace", "diff", bad, good, code=1)
    named = text.partition("the first interrupt or exception that is not the same:")[2]
    at = {}
    for name in ("bad.trace", "good.trace"):
        found = re.search(rf"{name}: ([\d_]+): supervisor timer interrupt on hart 0 at 0x", named)
        assert found, text
        at[name] = int(found[1].replace("_", ""))
    assert at["bad.trace"] != at["good.trace"]
    shown = workbench("debug", bad, "-c", "catch interrupt", "-c", f"goto {at['bad.trace']}", "-c", "c")
    assert re.search(rf"position {at['bad.trace'] + 1:_} of", shown), shown
