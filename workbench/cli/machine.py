"""``workbench run`` and ``workbench record``: machines that run live."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from workbench.cli.group import MachineCommand
from workbench.cli.machineopts import backend_option, build_machine, machine_options, take_machine
from workbench.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_NO, EXIT_TIMEOUT

if TYPE_CHECKING:
    from workbench.replay.recorder import Recorder, RecordResult
    from workbench.runner import Runner, RunResult
    from workbench.terminal import HostConsole, Key

KEYS_HELP = "\r\nCtrl-A x: end · Ctrl-A c: debug the machine as it stands · Ctrl-A Ctrl-A: send Ctrl-A\r\n"
#: The reason of a run that the user ended by Ctrl-A x.
ENDED = "ended"


def end_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that end a run."""
    for option in reversed(
        (
            click.option(
                "--until", metavar="REGEX", help="End when the console matches; without a match, exit 1."
            ),
            click.option("--fail", metavar="REGEX", help="End with exit 1 when the console matches."),
            click.option("--steps", metavar="N", type=click.IntRange(1, 1 << 62), help="End after N steps."),
            click.option(
                "--timeout", metavar="S", type=click.FloatRange(0), help="End after S seconds, exit 124."
            ),
            click.option("--no-input", is_flag=True, help="Take no console input from here."),
        )
    ):
        function = option(function)
    return function


@click.command(cls=MachineCommand)
@click.option("-o", "--output", "out", required=True, metavar="TRACE", help="Where the trace goes.")
@machine_options
@end_options
@backend_option
def record(out: str, **options: Any) -> int:
    """Run a machine with a trace.

    Its console is this terminal: Ctrl-A x ends, Ctrl-A c opens the REPL on the machine as it stands, Ctrl-A Ctrl-A
    sends Ctrl-A. What is piped in is console input, too, unless --no-input.
    """
    return run_machine(out, options)


@click.command(cls=MachineCommand)
@machine_options
@end_options
@backend_option
def run(**options: Any) -> int:
    """Run a machine without a trace."""
    return run_machine(None, options)


def run_machine(out: str | None, options: dict[str, Any]) -> int:
    """Run a machine, with a trace where ``out`` names one; return the exit code that its end means."""
    from workbench.terminal import HostConsole

    module = "workbench.runner" if out is None else "workbench.replay.recorder"
    loading = threading.Thread(target=_load, args=(module,))
    loading.start()  # while the images are read
    machine = take_machine(options)
    takes_input = not options["no_input"]
    config, images = build_machine(machine, idle="ask" if takes_input else "jump")
    loading.join()
    console = HostConsole(takes_input)
    source = console if takes_input else None
    live: Recorder | Runner
    if out is None:
        from workbench.runner import Runner

        live = Runner(config, images, source=source, echo=console.write, backend=options["backend"])
    else:
        from workbench.replay.recorder import Recorder

        live = recorder = Recorder(
            config,
            images,
            out,
            paths=image_paths(machine),
            source=source,
            echo=console.write,
            backend=options["backend"],
        )
        recorder.on_pause = lambda: debug_now(recorder, console, options["backend"])
        recorder.on_end = recorder.board.engine.close  # giving RAM back takes as long as the last pages do
    console.on_key = lambda key: on_key(key, live, console)
    with console, interrupts_to(live):
        ended = live.run(options["until"], options["fail"], options["steps"], options["timeout"])
    return report(ended, out, options["until"])


def _load(module: str) -> None:
    with suppress(Exception):  # whoever needs the module is told
        import_module(module)


def image_paths(machine: dict[str, Any]) -> dict[str, str]:
    """Return where the images came from, by role."""
    given = {role: machine[role] for role in ("kernel", "initrd", "bios", "dtb")}
    return {
        role: str(Path(path).absolute())
        for role, path in given.items()
        if path and not (role == "bios" and path in ("builtin", "none"))
    }


@contextmanager
def interrupts_to(live: Recorder | Runner) -> Iterator[None]:
    """Make Ctrl-C and a plain kill end the run in order, with the trace closed."""

    def stop(number: int, frame: FrameType | None) -> None:
        live.interrupt("interrupted")

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = [signal.signal(number, stop) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)


def on_key(key: Key, live: Recorder | Runner, console: HostConsole) -> None:
    """Do what an escape key asks for; without a trace there is nothing to debug, so c helps."""
    from workbench.runner import Runner
    from workbench.terminal import Key

    if key is Key.END:
        live.interrupt(ENDED)
    elif key is Key.HELP or isinstance(live, Runner):
        console.write(KEYS_HELP.encode())
    else:
        live.pause()


def debug_now(recorder: Recorder, console: HostConsole, backend: str) -> None:
    """Open the REPL on a recording that stands still: backwards in what was recorded, forwards it goes on."""
    from workbench.output import note
    from workbench.repl.app import App
    from workbench.session import Session

    console.cooked()
    recorder.on_end = None  # who looks around may look at the machine when it has ended
    note(f"\n{recorder.path}: the machine stands still; 'quit' goes on with the recording")
    try:
        with Session.attach(recorder, backend) as session:
            App(session).run()
    finally:
        note("the recording goes on" if recorder.recording else "the recording has ended")
        console.raw()


def report(ended: RecordResult | RunResult, out: str | None, until: str | None) -> int:
    """Tell how a run ended, and return the exit code that it means."""
    from workbench.output import note, printable

    reasons = {
        "poweroff": "the guest switched off",
        "reboot": "the guest asked for a reboot",
        "fail": f"the guest failed with code {ended.code}",
        "halted": "every hart waits, and nothing can wake one",
        "steps": "--steps reached",
        "until": f"--until matched {printable(ended.matched)!r}",
        "fail_pattern": f"--fail matched {printable(ended.matched)!r}",
        "timeout": "--timeout passed",
        "interrupted": "interrupted",
        ENDED: "ended by Ctrl-A x",
    }
    what = f"recorded {out}" if out else "ran"
    why = reasons.get(ended.reason, ended.reason)
    note(f"workbench: {what}: {ended.icount:_} steps, {ended.vtime_ns / 1e9:.6f} s of virtual time; {why}")
    if ended.reason == "timeout":
        return EXIT_TIMEOUT
    if ended.reason == "interrupted":
        return EXIT_INTERRUPTED
    if ended.reason in ("fail", "fail_pattern"):
        return EXIT_NO
    if until is not None and ended.reason != "until":
        note(f"workbench: --until {until!r} was not met")
        return EXIT_NO
    return EXIT_DONE
