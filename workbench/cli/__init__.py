"""The command line: ``workbench COMMAND``. What it promises is written in the manual's page of commands.

Every command is a thin pair of a library call. A command's module is imported when it is asked for, and nothing
heavy before it runs, so that ``workbench --help`` answers at once and a recording begins at once.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import click

from workbench import __version__
from workbench.cli import stdio
from workbench.cli.group import WorkbenchGroup
from workbench.errors import (
    EXIT_BUG,
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    OutputError,
    exit_code_of,
    one_line,
)

#: Objects made, less those given back, before the collector looks for cycles; Python's own value is 700.
_GC_ALLOCATIONS = 50_000


@click.group(
    cls=WorkbenchGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="workbench %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Record whole machines, replay them exactly, debug them backwards."""
    if context.invoked_subcommand is None:
        from workbench.repl.app import App

        context.exit(App(None).run())


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code; every error becomes one line on stderr."""
    try:
        result = cli.main(
            args=None if arguments is None else list(arguments), prog_name="workbench", standalone_mode=False
        )
        sys.stdout.flush()
    except click.exceptions.Exit as error:
        return error.exit_code
    except (KeyboardInterrupt, click.exceptions.Abort):
        return _fail("interrupted", EXIT_INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as error:
        sys.stderr.write(error.format_message() + "\n")
        return EXIT_USAGE
    except click.ClickException as error:
        _show_traceback()
        return _fail(_usage_text(error), EXIT_USAGE)
    except BrokenPipeError:  # the reader of our output went away (``| head``): end quietly
        stdio.drop_output()
        return EXIT_DONE
    # the end of the line for every error: expected ones carry their exit code, others are our bugs
    except Exception as error:  # noqa: BLE001
        _show_traceback()
        if isinstance(error, OutputError):
            stdio.drop_output()
        code = exit_code_of(error)
        if code is not None:
            return _fail(one_line(error), code)
        return _fail(f"bug: {type(error).__name__}: {one_line(error)}; --debug shows where", EXIT_BUG)
    return result if isinstance(result, int) else EXIT_DONE


def main() -> None:
    """Run the process's command line and end the process.

    Of a short run's time a tenth went into collecting the garbage of imports, which leave none, and another into
    taking the interpreter apart at the end. So the collector waits for more, and the process ends as soon as its exit
    functions have run and its output is out, unless threads, a debugger or a profiler still want something.
    """
    gc.set_threshold(_GC_ALLOCATIONS, *gc.get_threshold()[1:])
    stdio.prepare()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _unwind)
    code = run()
    if threading.active_count() > 1 or sys.gettrace() or sys.getprofile() or sys.flags.interactive:
        sys.exit(code)
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, OutputError):
        code = code or EXIT_BUG  # what the interpreter's own last flush would have said
    os._exit(code)


def _unwind(number: int, frame: FrameType | None) -> NoReturn:
    """A plain kill ends the process in order: what is half done is put away."""
    raise SystemExit(EXIT_INTERRUPTED)


def _fail(text: str, code: int) -> int:
    sys.stderr.write(f"workbench: error: {text}\n")
    return code


def _usage_text(error: click.ClickException) -> str:
    text = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    hint = f"; '{context.command_path} --help' has the options" if context is not None else ""
    return text.rstrip(".") + hint


def _show_traceback() -> None:
    if os.environ.get("WORKBENCH_DEBUG"):
        import traceback

        traceback.print_exc()


#: Commands by the module that has them, in the order in which ``--help`` tells of them.
_COMMANDS = {
    "machine": "record run",
    "replay": "replay",
    "debug": "debug gdbserver gdb",
    "dap": "dap",
    "query": "query profile",
    "trace": "trace",
    "hunt": "hunt",
    "guest": "demo guest",
    "imgtools": "img",
    "nbd": "nbd",
    "replicate": "replicate",
    "bench": "bench",
    "doctor": "doctor",
    "manual": "completion man",
}

for _module, _names in _COMMANDS.items():
    cli.declare(f"{__name__}.{_module}", _names.split())
