"""``workbench debug`` and ``workbench gdbserver``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workbench.cli.group import MachineCommand
from workbench.cli.machineopts import backend_option, machine_options, take_machine
from workbench.errors import InputError, UsageError

if TYPE_CHECKING:
    from workbench.session import Session

symbols_option = click.option(
    "--symbols",
    multiple=True,
    type=Path,
    metavar="FILE",
    help="Symbols from an ELF file or a System.map, a module's file or a folder of them; repeatable.",
)


def open_session(trace: str, backend: str, symbols: tuple[Path, ...]) -> Session:
    """Return a session on a trace, with the symbols of more files."""
    from workbench.output import note
    from workbench.session import Session

    session = Session.open(trace, backend=backend)
    try:
        for path in symbols:
            session.add_symbol_file(path)
        for line in session.remarks:
            note(f"workbench: {line}")
    except BaseException:
        session.close()
        raise
    return session


@click.command()
@click.argument("trace")
@click.option("-c", "commands", multiple=True, metavar="CMD", help="Run a command, and end; repeatable.")
@click.option("-x", "script", metavar="FILE", help="Run the commands of a file, and end.")
@backend_option
@symbols_option
def debug(
    trace: str, commands: tuple[str, ...], script: str | None, backend: str, symbols: tuple[Path, ...]
) -> int:
    """Open the REPL on a trace; with -c or -x, run the commands and end."""
    from workbench.repl.app import App, run_commands

    lines = _script_lines(script) + list(commands)
    session = open_session(trace, backend, symbols)
    with session:
        if lines or script is not None:
            run_commands(session, lines)
            return 0
        return App(session).run()


def _script_lines(path: str | None) -> list[str]:
    if path is None:
        return []
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"script {path}: can't be read: {error}") from None
    return [line for line in text.splitlines() if line.strip()]


@click.command(cls=MachineCommand)
@click.argument("trace", required=False)
@click.option(
    "-o", "--output", "out", metavar="TRACE", help="Record a machine, by its options, into a trace."
)
@machine_options
@click.option(
    "--listen", default="127.0.0.1:1234", metavar="HOST:PORT", show_default=True, help="Where gdb comes."
)
@click.option("--once", is_flag=True, help="End when the first gdb has gone.")
@backend_option
@symbols_option
def gdbserver(
    trace: str | None,
    out: str | None,
    listen: str,
    once: bool,
    backend: str,
    symbols: tuple[Path, ...],
    **options: Any,
) -> None:
    """Wait for gdb, on a trace or on a live recording: 'target remote HOST:PORT' attaches.

    Both ways: 'gdbserver boot.trace' goes forwards and backwards in a recorded run; 'gdbserver -o boot.trace
    --kernel …' records while gdb continues, stands still while it looks, and goes backwards in what was recorded.
    """
    machine = take_machine(options)
    host, port = parse_listen(listen)
    if trace is not None and out is None:
        with open_session(trace, backend, symbols) as session:
            serve_gdb(session, host, port, once)
        return
    if trace is not None or out is None:
        raise UsageError("gdbserver takes a TRACE to replay, or -o TRACE and a machine's options to record")
    from workbench.cli.live import live_session

    with live_session(out, machine, backend, symbols) as session:
        serve_gdb(session, host, port, once)


def serve_gdb(session: Session, host: str, port: int, once: bool) -> None:
    """Serve a session to one gdb after the other."""
    from workbench import output
    from workbench.gdbstub.server import Server
    from workbench.repl.shell import Shell

    with Server(session, host, port, monitor=Shell(session).monitor) as server:
        output.note(f"listening on {server.address}")
        server.serve(once=once)


def parse_listen(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``, ``:PORT`` or ``PORT``; without a host, the loopback.

    Raises:
        UsageError: when it is none of these.
    """
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"--listen {text}: expected HOST:PORT, as 127.0.0.1:1234")
    return host.strip("[]") or "127.0.0.1", int(port)


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("trace")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[GDB OPTIONS]…")
@click.option(
    "--gdb", "program", metavar="PROGRAM", help="The gdb to run; one that knows riscv is looked for."
)
@backend_option
@symbols_option
def gdb(
    trace: str, arguments: tuple[str, ...], program: str | None, backend: str, symbols: tuple[Path, ...]
) -> int:
    """Start gdb on a trace, attached and with symbols; its options may follow.

    Beside gdb's own commands there are 'goto POSITION', 'when', and 'wb COMMAND' for every command of the REPL.
    """
    from workbench.gdbstub.launch import run_gdb
    from workbench.repl.shell import Shell

    with open_session(trace, backend, symbols) as session:
        return run_gdb(session, Shell(session).monitor, program, arguments)
