"""The worked questions of docs/queries.md, executed as they stand there, on a boot of Debian's kernel."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from machine.config import Images, MachineConfig
from machine.images import unpack
from tests.workbench.gdbstub.test_gdb import positions, run_gdb
from workbench import Trace
from workbench.guests.fetch import Guest
from workbench.kernel.dmesg import messages
from workbench.kernel.errors import KernelError
from workbench.kernel.symbols import pack, symbols_in_memory
from workbench.kernel.symbols import unpack as unpack_symbols
from workbench.query.api import Moment
from workbench.replay.recorder import Recorder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PAGE = Path(__file__).parents[3] / "docs" / "queries.md"
_BLOCK = re.compile(r"^## (\d+)\. .*?^```(sql|python)\n(.*?)^```", re.M | re.S)
BLOCKS = {int(number): (language, text) for number, language, text in _BLOCK.findall(PAGE.read_text())}
STEPS = 1_500_000_000


@pytest.fixture(scope="module")
def boot(tmp_path_factory: pytest.TempPathFactory, debian_guest: Guest) -> Iterator[Trace]:
    path = tmp_path_factory.mktemp("questions") / "boot.trace"
    config = MachineConfig(
        memory_bytes=512 << 20, append="console=ttyS0 wb.poweroff", seed=1, options={"entropy": "seed"}
    )
    images = Images(
        kernel=unpack(debian_guest.kernel.read_bytes(), "kernel"), initrd=debian_guest.initrd.read_bytes()
    )
    recorder = Recorder(config, images, path)
    assert recorder.run(steps=STEPS, timeout_s=600).reason == "poweroff"
    recorder.board.engine.close()
    with Trace.open(path) as t:
        yield t


def ask(t: Trace, number: int) -> Any:
    language, text = BLOCKS[number]
    if language == "sql":
        return t.sql(text)
    names: dict[str, Any] = {"t": t}
    exec(text, names)
    return names["answer"]


def test_the_page_has_twelve() -> None:
    assert sorted(BLOCKS) == list(range(1, 13))


def test_who_enabled_the_interrupt(boot: Trace) -> None:
    rows = ask(boot, 1)
    who = {row["enabled"]: row["who"] for row in rows}
    assert who["0x20"].startswith("riscv_intc_irq_unmask")  # the timer's bit
    for row in rows:
        boot.goto(row["icount"])
        before = boot.reg("sie")
        boot.goto(row["icount"] + 1)
        assert boot.reg("sie") & ~before == int(row["enabled"], 16)


def test_longest_time_with_interrupts_off(boot: Trace) -> None:
    worst = ask(boot, 2)[0]
    assert worst["steps"] > 1000
    boot.goto(worst["icount"] + 1)
    assert boot.reg("sstatus") & 2 == 0
    boot.goto(worst["icount"] + worst["steps"])
    assert boot.reg("sstatus") & 2 == 0
    boot.stepi()
    assert boot.reg("sstatus") & 2 == 2


def test_slowest_initcall(boot: Trace) -> None:
    rows = ask(boot, 3)
    # which of the two is slower depends on the jitter that the one measures
    assert {"load_system_certificate_list", "jent_mod_init"} <= {row["initcall"] for row in rows[:3]}
    call = boot.sql(
        "select icount, pc, ret_icount, a0 from calls where symbol = 'do_one_initcall'"
        " order by ret_icount - icount desc limit 1"
    )[0]
    assert boot.symbols.format(call["a0"] & (1 << 64) - 1) == rows[0]["initcall"]
    boot.goto(call["icount"])
    sp = boot.reg("sp")
    boot.goto(call["ret_icount"] + 1)
    assert (boot.reg("sp"), boot.reg("pc") - (call["pc"] & (1 << 64) - 1) in (2, 4)) == (sp, True)
    assert rows[0]["steps"] > rows[-1]["steps"] > 0
    assert len(rows) == 10


def test_last_write_to_the_device(boot: Trace) -> None:
    row = ask(boot, 4)[0]
    # 0x5555 is the finisher's word for "power off"
    assert (row["offset"], row["value"]) == (0, 0x5555)
    assert boot.end - row["icount"] < 5


def test_last_writer_of_a_variable(boot: Trace) -> None:
    icount, who, value = ask(boot, 5)
    assert who.startswith("tick_do_update_jiffies64")
    jiffies = boot.sym("jiffies")
    boot.goto(icount)
    assert boot.kernel.memory.word(jiffies) != value
    boot.goto(icount + 1)
    assert boot.kernel.memory.word(jiffies) == value
    boot.goto("end")
    assert boot.kernel.memory.word(jiffies) == value


@pytest.mark.parametrize("cursor", ["start", "50%", "end"])
def test_history_of_a_variable(boot: Trace, cursor: str) -> None:
    """The same from everywhere: at the start no page tables are there, and the first store has a physical address."""
    boot.goto(cursor)
    values = [value for _, value, _ in ask(boot, 6)]
    # cleared with all of .bss; then scheduling, freeing initmem, running, then power off: enum system_states
    assert values[0] == 0
    assert values == sorted(values)
    assert set(values) >= {1, 2, 3, 5}


def test_history_has_writer_task_and_stack(boot: Trace) -> None:
    boot.goto("99%")
    here = boot.cursor
    ticks = list(boot.history("jiffies"))
    assert len(ticks) > 100
    # set once by the loader's image, then counted by the tick
    assert [b.value - a.value for a, b in zip(ticks[-50:], ticks[-49:], strict=False)] == [1] * 49
    assert {v.symbol.partition("+")[0] for v in ticks[-50:]} == {"tick_do_update_jiffies64"}
    assert all("/" in v.task for v in ticks[-50:])
    stack = ticks[-1].stack()
    assert stack[0].startswith("tick_do_update_jiffies64")
    assert any("tick_" in frame or "hrtimer" in frame for frame in stack[1:])
    states = list(boot.history("init_task.__state"))
    assert {v.value for v in states} <= {0, 1, 2, 0x402}
    assert boot.cursor == here


def test_files_that_process_1_opened(boot: Trace) -> None:
    paths = [row["path"] for row in ask(boot, 7)]
    assert "/proc/cmdline" in paths  # its script reads the command line


def test_programs_that_ran(boot: Trace) -> None:
    programs = [str(row["program"]).rpartition("/")[2] for row in ask(boot, 8) if row["ret"] == 0]
    assert programs.count("mount") >= 1 or "busybox" in programs
    # the script mounts three file systems, and powers off in the end
    mounted = boot.sql(
        "select json_extract(args, '$[1]') d, ret from syscalls where name = 'mount' order by icount"
    )
    assert [(row["d"], row["ret"]) for row in mounted] == [("/proc", 0), ("/sys", 0), ("/dev", 0)]
    last = boot.sql(
        "select name, hex(json_extract(args, '$[2]')) w, ret from syscalls order by icount desc limit 1"
    )
    assert last == [{"name": "reboot", "w": "0x4321fedc", "ret": None}]


def test_mounts_are_those_that_the_script_made(boot: Trace) -> None:
    asked = boot.sql(
        "select icount, json_extract(args, '$[1]') path, json_extract(args, '$[2]') type from syscalls"
        " where name = 'mount' and ret = 0 order by icount"
    )
    assert [(m.path, m.type) for m in boot.at("99%").mounts()] == [
        ("/", "rootfs"),
        *((row["path"], row["type"]) for row in asked),
    ]
    before = boot.at(asked[0]["icount"]).mounts()
    assert [m.path for m in before] == ["/"]


@pytest.mark.requires("python:drgn")
def test_drgn_sees_the_kernel_at_any_position(boot: Trace) -> None:
    import drgn

    moment = boot.at("99%")
    prog = moment.drgn()
    task = prog["init_task"]
    assert task.comm.string_() == b"swapper/0"
    offset = boot.kernel.types.offset("task_struct", "tasks")
    found, at = {}, task.tasks.next.value_() - offset
    while at != boot.sym("init_task"):
        each = drgn.Object(prog, "struct task_struct", address=at)
        found[each.pid.value_()] = each.comm.string_().decode()
        at = each.tasks.next.value_() - offset
    ours = {t.pid: t.comm for t in moment.ps() if t.pid and t.pid == t.tgid}
    assert found == ours
    child = drgn.Object(prog, "struct task_struct *", value=moment.kernel.find_task(1).address)
    assert child.real_parent.comm.string_() == b"swapper/0"
    assert prog.symbol(boot.sym("jiffies")).name in ("jiffies", "jiffies_64")
    earlier = boot.at("50%").drgn()
    assert earlier["jiffies"].value_() < boot.at("99%").drgn()["jiffies"].value_()
    with pytest.raises(drgn.FaultError):
        earlier.read(0x10, 8)


def test_longest_page_faults(boot: Trace) -> None:
    rows = ask(boot, 9)
    assert [row["steps"] for row in rows] == sorted((row["steps"] for row in rows), reverse=True)
    fault = rows[0]
    boot.goto(fault["icount"] + 1)
    assert boot.reg("stval") == int(fault["address"], 16)
    assert boot.reg("scause") == fault["cause"]


def test_who_allocated_the_object(boot: Trace) -> None:
    icount, name = ask(boot, 10)
    assert 0 < icount < boot.end
    assert name.startswith(("copy_process", "dup_task_struct", "kernel_clone"))


def test_log_before_the_console(boot: Trace) -> None:
    log = ask(boot, 11)
    assert log.startswith("[    0.000000] ")
    assert "Linux version" in log
    # the console's driver prints what was logged: the log has at least the console's first line
    text = b"".join(row.data for row in boot.trace.console()).decode(errors="replace").replace("\r", "")
    assert log.splitlines()[0] in text


def test_the_log_in_memory_is_what_the_console_printed(boot: Trace) -> None:
    kernel = boot.at("end").kernel
    printed = b"".join(row.data for row in boot.trace.console()).decode(errors="replace").replace("\r", "")
    shown = [line for line in printed.splitlines() if line.startswith("[")]
    logged = [line for m in messages(kernel) if m.level < 7 for line in str(m).splitlines()]
    assert shown == logged


def test_symbols_are_found_in_memory_without_any_file(boot: Trace) -> None:
    boot.goto("90%")
    of_image = set(boot.symbols)
    assert set(symbols_in_memory(boot.board.engine)) == of_image
    assert set(unpack_symbols(pack(boot.symbols))) == of_image
    boot.goto(0)
    assert boot.reg("stvec") == 0


def test_busiest_task(boot: Trace) -> None:
    rows = ask(boot, 12)
    assert rows[0]["steps"] > boot.end // 10
    assert sum(row["steps"] for row in rows) <= boot.end
    for row in rows[:2]:
        switch = boot.switches.where(next_pid=row["pid"]).last()
        boot.goto(switch.icount + 200)
        assert boot.kernel.task(boot.kernel.current(0)).pid == row["pid"]


def test_origin_of_a_constant(boot: Trace) -> None:
    boot.goto("99%")
    found = boot.origin(boot.sym("system_state"), 4)
    assert [(source.kind, source.value) for _, source in found.walk()] == [("store", 3), ("immediate", 3)]
    assert boot.symbols.format(found.pc or 0).startswith("kernel_init")  # SYSTEM_RUNNING


def test_origin_of_a_name_is_a_text_in_the_kernel(boot: Trace) -> None:
    """Process 1 has its name from "/init", a text of the kernel's, by way of strscpy and memcpy."""
    boot.goto("99%")
    task = boot.kernel.find_task(1)
    comm = task.address + boot.kernel.types.offset("task_struct", "comm")
    found = boot.origin(comm, 4)
    assert found.value.to_bytes(4, "little") == b"init"
    assert {end.kind for end in found.ends} == {"start"}
    places = sorted(int(end.what.rpartition(" ")[2], 16) for end in found.ends)
    assert boot.read_phys(places[0] - 1, 5) == b"/init"


@pytest.mark.requires("gdb-multiarch")
def test_last_writer_is_the_one_that_gdb_finds(boot: Trace) -> None:
    """A hardware watchpoint of a stock gdb, backwards from the end."""
    boot.goto("end")
    for name, size in (("jiffies", 8), ("system_state", 4)):
        address = boot.sym(name)
        ours = boot.last_write(address, size)
        assert ours is not None
        kind = {8: "long", 4: "int"}[size]
        # gdb goes a little past the store; so backwards over it, then by single steps to where memory changes
        value = f"*({kind} *){address:#x}"
        script = ["goto end", f"watch {value}", "reverse-continue", "delete", f"set $held = {value}"]
        script += [
            "set $n = 0",
            f"while {value} == $held && $n < 9",
            "stepi",
            "set $n = $n + 1",
            "end",
            "when",
        ]
        text = run_gdb(boot.trace.path, script, timeout=600)
        assert int(positions(text)[-1].replace("_", "")) == ours.icount + 1, text


def test_a_kernel_that_lies_does_no_harm(boot: Trace) -> None:
    """Random words in what is read of the kernel: every question ends, with an answer or with an error of its own."""
    choose = random.Random(5)
    # a clean look first, so that all symbols and types are known
    kernel = boot.at("90%").kernel
    tasks = [task.address for task in kernel.tasks()]
    areas = [*tasks, *(kernel.symbol(name) for name in ("prb", "init_task", "modules"))]
    ring = kernel.memory.word(kernel.symbol("prb"))
    areas.append(ring)
    root = (boot.reg("satp") & (1 << 44) - 1) << 12
    engine, errors = boot.board.engine, 0
    questions = (
        lambda m: m.dmesg(), lambda m: m.ps(), lambda m: m.mounts(), lambda m: m.bt(), lambda m: m.p("init_task"),
        lambda m: list(m.kernel.modules()), lambda m: list(m.kernel.memory.areas(0, 1 << 63)),
    )  # fmt: skip
    for round_ in range(40):
        moment = boot.at("90%")
        for _ in range(60):
            place = choose.choice(areas) + 8 * choose.randrange(200)
            paddr = moment.kernel.memory.translate(place)
            word = choose.choice((0, choose.getrandbits(64), choose.choice(areas), (1 << 64) - 1))
            if paddr is not None:
                engine.write_phys(paddr, word.to_bytes(8, "little"))
        if round_ % 4 == 3:
            engine.write_phys(root + 8 * choose.randrange(512), choose.getrandbits(64).to_bytes(8, "little"))
        for question in questions:
            try:
                question(Moment(boot))
            except KernelError:
                errors += 1
        boot.goto(0)
    assert errors > 20
    assert [task.address for task in boot.at("90%").ps()] == tasks


def test_tasks_are_those_that_ran(boot: Trace) -> None:
    moment = boot.at("99%")
    tasks = {task.pid: task.comm for task in moment.ps()}
    assert tasks[0] == "swapper/0"
    assert tasks[1] == "init"
    assert tasks[2] == "kthreadd"
    for row in boot.sql("select distinct next_pid pid from switches"):
        assert row["pid"] >= 0
    assert moment.p("init_task.comm") == "swapper/0"
    assert moment.p("task->pid") == moment.task.pid
