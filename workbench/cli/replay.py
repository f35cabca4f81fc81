"""``workbench replay``: run a trace again, and prove that it is the same run."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import click

from workbench.cli.machineopts import backend_option
from workbench.errors import EXIT_DONE, EXIT_INTERRUPTED

if TYPE_CHECKING:
    from traces.reader import TraceReader
    from workbench.replay.replayer import Replayer


class TracePositions:
    """What a position means in a trace that is replayed from its start."""

    def __init__(self, reader: TraceReader, backend: str) -> None:
        self._reader = reader
        self.cursor = self.start = reader.start_icount
        self._backend = backend
        self.end = reader.final_icount

    def bookmark_position(self, name: str) -> int | None:
        """Return where a bookmark is, or None."""
        return next((mark.icount for mark in self._reader.bookmarks() if mark.name == name), None)

    def input_position(self, input_id: int) -> int | None:
        """Return where an input came, or None."""
        return next((row.icount for row in self._reader.inputs(input_id, 1) if row.id == input_id), None)

    def console_position(self, text: str) -> int | None:
        """Return where the console shows a text for the first time, or None."""
        from workbench.replay.consolesearch import ConsoleSearch

        return next(iter(ConsoleSearch(self._reader).positions(text.encode())), None)

    def vtime_position(self, vtime_ns: int) -> int:
        """Return the first position at or after a virtual time; found by replaying."""
        from workbench.session import Session

        with Session.open(self._reader.path, self._backend) as session:
            return session.vtime_position(vtime_ns)


@click.command()
@click.argument("trace")
@click.option(
    "--to", metavar="POS", help="Stop at a position: a step's number, 50%, 1.25s, @bookmark, input:42."
)
@click.option("--verify", is_flag=True, help="Check every digest; a difference is exit code 4.")
@click.option("--from", "origin", metavar="POS", help="Begin at the last checkpoint at or before a position.")
@click.option("--from-each", is_flag=True, help="Verify once from each checkpoint, too.")
@backend_option
def replay(
    trace: str, to: str | None, verify: bool, origin: str | None, from_each: bool, backend: str
) -> int:
    """Run a trace again and print the console; with --verify, check every digest."""
    from traces.position import parse_position
    from traces.reader import TraceReader
    from workbench import output
    from workbench.replay.errors import Diverged

    with TraceReader.open(trace) as reader:
        reader.prefetch_images()  # while the replayer's modules are loaded
        positions = TracePositions(reader, backend)
        target = None if to is None else parse_position(to, positions)
        starts: list[int | None] = [None]
        if origin is not None:
            starts = [checkpoint_at(reader, parse_position(origin, positions))]
        if from_each:
            starts += [row.id for row in reader.checkpoints()]
        digests = steps = 0
        for index, start in enumerate(starts):
            try:
                more = _replay_once(reader, backend, start, target, verify, print_console=index == 0)
            except Diverged:
                output.note(f"workbench: 'workbench trace verify {trace}' finds out why, and writes a report")
                raise
            if more is None:
                return EXIT_INTERRUPTED
            digests, steps = digests + more[0], steps + more[1]
    if verify:
        click.echo(f"verified: {digests} digests, {steps} steps")
    return EXIT_DONE


def checkpoint_at(reader: TraceReader, position: int) -> int | None:
    """Return the last checkpoint at or before a position, None where there is none but the start."""
    before = [row.id for row in reader.checkpoints() if row.icount <= position]
    return before[-1] if before else None


def _replay_once(
    reader: TraceReader,
    backend: str,
    start: int | None,
    target: int | None,
    verify: bool,
    print_console: bool,
) -> tuple[int, int] | None:
    """Replay from a checkpoint; return digests and steps, or None where it was interrupted."""
    from workbench.replay.replayer import Replayer

    printer = ConsolePrinter()
    listener = printer.write if print_console else None
    with (
        Replayer(reader, backend, from_checkpoint=start, console=listener) as replayer,
        interrupts_to(replayer),
    ):
        try:
            began = replayer.icount
            if target is not None and target < began:
                replayer.goto(target)
                began = target
            if verify and target is None:
                done = replayer.verify()
                whole, result = done.icount >= reader.final_icount, (done.digests, done.steps)
            else:
                before = replayer.playback.compared
                whole = replayer.run_to(reader.final_icount if target is None else target)
                result = (replayer.playback.compared - before, replayer.icount - began)
        finally:
            printer.end_line()
    return result if whole else None


class ConsolePrinter:
    """Prints the guest's output as it comes, to stdout."""

    def __init__(self) -> None:
        self._last = b"\n"

    def write(self, port: str, data: bytes, icount: int) -> None:
        """Print what the guest printed."""
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        self._last = data[-1:] or self._last

    def end_line(self) -> None:
        """Begin a new line, if the guest did not."""
        if self._last not in (b"\n", b"\r"):
            sys.stdout.buffer.write(b"\n")
            sys.stdout.buffer.flush()


@contextmanager
def interrupts_to(replayer: Replayer) -> Iterator[None]:
    """Make Ctrl-C end a replay."""

    def stop(number: int, frame: FrameType | None) -> None:
        replayer.interrupt()

    previous: Callable[[int, FrameType | None], object] | int | None = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
