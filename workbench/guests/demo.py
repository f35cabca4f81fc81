"""The demo: hunt the built-in guest's flaky boot, then go backwards from its panic to its cause.

What is found is found in the trace, with the library's own means: nothing here knows which seed fails, where,
or why. It knows what a sound pool looks like (``pool.c``, ``kernel.h``), as the guest's author would.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from machine.config import Images, MachineConfig
from workbench.disasm import Disassembler
from workbench.errors import AnswerNo
from workbench.guests import builtin
from workbench.replay.recorder import Recorder, RecordLimits
from workbench.session import Session

TRACE_NAME = "demo.trace"
MAX_BOOTS = 1000
MEMORY_BYTES = 32 << 20
MAX_STEPS = 50_000_000

#: struct buffer of kernel.h: offsets of its first fields, its owners, and more than there are buffers.
_NEXT, _OWNER, _MAGIC = 0, 8, 16
_FREE, _TICK = 0, 2
#: Steps in which ``pool_get`` takes a buffer off the free list, once it has marked it.
_TAKEN_OFF = 4
_MAX_LIST = 256


@dataclass(frozen=True, slots=True)
class Boot:
    """A recorded boot that failed."""

    seed: int
    tried: int
    trace: Path
    steps: int


@dataclass(frozen=True, slots=True)
class Place:
    """A position, and the instruction that is the next step there."""

    icount: int
    symbol: str
    text: str


@dataclass(frozen=True, slots=True)
class Finding:
    """How the boot came to fail, from its end to its beginning.

    Args:
        message: what the kernel panicked with. panic: where. damage: the store over the tick record.
        cause: the store that put a buffer in use on the free list. interrupt: the tick's trap entry
            before it, and interrupted: where it found the machine. buffer: the buffer's address.
    """

    message: str
    panic: Place
    damage: Place
    cause: Place
    interrupt: Place
    interrupted: str
    buffer: int


def run(batch: bool, out: TextIO | None = None) -> int:
    """Run the demo.

    Args:
        batch: end after the report; else open the REPL at the store that broke the state.
        out: where the report goes, standard output by default.

    Raises:
        AnswerNo: no boot failed.

    Replay: records, then replays what it recorded. The seeds go from 0 up, so every demo is the same.
    """
    stream = out or sys.stdout

    def say(text: str = "") -> None:
        stream.write(text + "\n")
        stream.flush()

    began = time.monotonic()
    say("Booting the built-in guest, a small kernel that fails now and then, until it does.")
    boot = hunt(Path(TRACE_NAME))
    say(f"Seed {boot.seed} fails, after {boot.tried - 1} boots that did not; its run is {boot.trace}.")
    say()
    with Session.open(boot.trace) as session:
        finding = investigate(session)
        for line in report(boot, finding):
            say(line)
        say(f"({time.monotonic() - began:.1f} s)")
        if batch:
            return 0
        from workbench.repl.app import App

        session.goto(finding.cause.icount)
        return App(session).run()


def hunt(path: Path, first_seed: int = 0, boots: int = MAX_BOOTS) -> Boot:
    """Record boots with one seed after the other until one panics; its trace stays at ``path``.

    Raises:
        AnswerNo: none of them failed.
    """
    image = builtin.read_image()
    for seed in range(first_seed, first_seed + boots):
        config = MachineConfig(memory_bytes=MEMORY_BYTES, seed=seed, options={"entropy": "seed"})
        limits = RecordLimits(rolling_steps=1 << 18, checkpoint_every=1)
        title = f"built-in guest, seed {seed}"
        recorder = Recorder(config, Images(kernel=image), path, title=title, limits=limits)
        result = recorder.run(steps=MAX_STEPS)
        recorder.board.engine.close()
        if result.reason == "fail":
            return Boot(seed, seed - first_seed + 1, path, result.icount)
    path.unlink(missing_ok=True)
    raise AnswerNo(f"demo: none of {boots} boots failed; try more seeds")


def investigate(session: Session) -> Finding:
    """Go backwards from the panic to its cause."""
    symbols = session.symbols
    session.goto("end")
    at_panic = _reverse_to(session, "panic")
    message = _panic_message(session)
    broken = first_bad(session, session.start, at_panic.icount, _stays_sound)
    cause = _place(session, broken - 1)
    session.goto(broken)
    buffer = _wrongly_free(session)
    damage = first_bad(session, broken, at_panic.icount, lambda s: _word(s, buffer + _OWNER) == _TICK)
    damage = first_bad(session, damage, at_panic.icount, _unchanged(session, damage, buffer + _MAGIC))
    session.goto(cause.icount)
    interrupt = _reverse_to(session, "trap_entry")
    interrupted = symbols.format(session.reg("sepc"))
    return Finding(message, at_panic, _place(session, damage - 1), cause, interrupt, interrupted, buffer)


def first_bad(session: Session, good: int, bad: int, is_good: Callable[[Session], bool]) -> int:
    """Return the first position in (good, bad] whose state is not good, by bisection.

    Args:
        good, bad: positions where the state is good, and is not; from where it turns bad it stays so.
        is_good: looks at the machine at the session's cursor.
    """
    while bad - good > 1:
        middle = (good + bad) // 2
        session.goto(middle)
        if is_good(session):
            good = middle
        else:
            bad = middle
    return bad


def pool_is_sound(session: Session) -> bool:
    """Tell whether every buffer on the free list is free, and every one of the tick queue the queue's."""
    free = _list(session, "pool")
    queued = _list(session, "tick_queue")
    return all(_word(session, b + _OWNER) == _FREE for b in free) and all(
        _word(session, b + _OWNER) == _TICK for b in queued
    )


def _stays_sound(session: Session) -> bool:
    """The same, but for the moment in which a buffer has its new owner and is still on the free list."""
    if pool_is_sound(session):
        return True
    session.stepi(_TAKEN_OFF)
    return pool_is_sound(session)


def _wrongly_free(session: Session) -> int:
    """Return the buffer on the free list that is not free."""
    return next(b for b in _list(session, "pool") if _word(session, b + _OWNER) != _FREE)


def _unchanged(session: Session, since: int, address: int) -> Callable[[Session], bool]:
    session.goto(since)
    value = _word(session, address)
    return lambda s: _word(s, address) == value


def _list(session: Session, head: str) -> list[int]:
    """Return the buffers of a list whose head is the first word at a symbol."""
    found: list[int] = []
    buffer = _word(session, session.eval(head))
    while buffer and len(found) < _MAX_LIST:
        found.append(buffer)
        buffer = _word(session, buffer + _NEXT)
    return found


def _word(session: Session, address: int) -> int:
    # The kernel is mapped one to one, and U-mode does not see it: physical addresses always work.
    return int.from_bytes(session.read_phys(address, 8), "little")


def _reverse_to(session: Session, symbol: str) -> Place:
    """Go back to the last time that a function was entered."""
    point = session.add_breakpoint(session.eval(symbol))
    stop = session.reverse_cont()
    session.delete_breakpoint(point.number)
    if stop.reason != "breakpoint":
        raise AnswerNo(f"demo: the boot never came to {symbol}")
    return _place(session, stop.icount)


def _place(session: Session, icount: int) -> Place:
    session.goto(icount)
    pc = session.reg("pc")
    instruction = Disassembler().decode(session.read_mem(pc, 4), pc)
    return Place(icount, session.symbols.format(pc), instruction.text if instruction else "?")


def _panic_message(session: Session) -> str:
    console = b"".join(row.data for row in session.trace.console())
    match = re.search(rb"panic: [^\r\n]*", console)
    return match.group(0).decode("ascii", "replace") if match else "panic"


def report(boot: Boot, finding: Finding) -> list[str]:
    """Return the report's lines."""

    def row(place: Place, text: str) -> str:
        return f"{place.icount:>12,}  {place.symbol:<22} {place.text:<22} {text}"

    trace, cause = boot.trace, finding.cause.icount
    return [
        f"{finding.message}",
        "",
        "Backwards from there, by positions (steps since reset):",
        "",
        row(finding.panic, "the panic"),
        row(finding.damage, "overwrites the tick record"),
        row(finding.cause, "<- broke the state"),
        row(finding.interrupt, f"timer, in {finding.interrupted}"),
        "",
        f"{finding.cause.symbol.split('+')[0]} had loaded the head of the free list when the tick came. Its",
        f"handler took that very buffer, {finding.buffer:#x}, for its record. The store then put the old",
        "head back behind a buffer of its own, so the record's buffer was free and in use at once. The",
        "next driver got it and wrote its descriptor over the record; tickd found the damage",
        f"{finding.panic.icount - cause:,} steps after the store. The load and the store need interrupts off",
        "around them, as pool_get has them: workbench/guests/builtin/pool.c.",
        "",
        "To see it yourself:",
        f"  workbench debug {trace} -c 'goto {cause}' -c where -c si -c 'x/2gx {finding.buffer:#x}'",
        f"  workbench debug {trace} -c 'goto {finding.interrupt.icount}' -c 'p $sepc' -c rsi -c bt",
        f"  workbench replay --verify {trace}",
    ]
