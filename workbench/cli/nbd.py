"""``workbench nbd``: serve an image over the network, and list what a server exports."""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING, Any

import click

from workbench.cli.formats import Fmt, format_options

if TYPE_CHECKING:
    from machine.block.graph import Graph


@click.group()
def nbd() -> None:
    """Network block devices: serve and list."""


@nbd.command()
@click.option("--listen", default="127.0.0.1:10809", metavar="HOST:PORT|unix:PATH", help="Where to listen.")
@click.option(
    "-k", "--socket", "path", metavar="PATH", help="Listen on a Unix socket; as --listen unix:PATH."
)
@click.option("-p", "--port", type=click.IntRange(1, 65535), help="Listen on this port of 127.0.0.1.")
@click.option("-f", "image_format", metavar="FORMAT", help="The image's format.")
@click.option(
    "-s", "--snapshot", is_flag=True, help="Writes go to a temporary file; the image stays as it is."
)
@click.option("-x", "--export", default="", metavar="NAME", help="The export's name.")
@click.option("-D", "--description", default="", help="A description of the export.")
@click.option("-r", "--readonly", is_flag=True, help="Refuse writes.")
@click.option("-e", "--shared", default=64, help="Clients at the same time.")
@click.option("-t", "--persistent", is_flag=True, help="Go on when the last client has left.")
@click.option("-B", "--bitmap", multiple=True, metavar="NAME", help="Offer a dirty bitmap.")
@click.option("-A", "--allocation-depth", is_flag=True, help="Offer the allocation depth.")
@click.option(
    "--tls-creds",
    "--tls",
    metavar="FOLDER",
    help="Require TLS with ca-cert.pem, server-cert.pem, server-key.pem.",
)
@click.argument("filename")
def serve(
    listen: str, path: str | None, port: int | None, image_format: str | None, snapshot: bool, export: str,
    description: str, readonly: bool, shared: int, persistent: bool, bitmap: tuple[str, ...],
    allocation_depth: bool, tls_creds: str | None, filename: str,
) -> None:  # fmt: skip
    """Serve an image until interrupted (without --persistent: until the first client has left)."""
    from machine.block import hostio, tools
    from machine.block.graph import Graph
    from machine.block.nbd.server import Export, NbdServer
    from workbench import output

    if path is not None and port is not None:
        raise click.UsageError("-k and -p are two places to listen: give one")
    listen = f"unix:{path}" if path is not None else f"127.0.0.1:{port}" if port is not None else listen
    graph = Graph(hostio.host_scheduler())
    context = hostio.tls_context(tls_creds, server=True) if tls_creds else None

    async def work() -> None:
        if snapshot:
            node = await tools.open_beside(graph, filename, image_format, discard="unmap")
        else:
            node = await tools.open_image(
                graph, filename, image_format, writable=not readonly, discard="unmap"
            )
        server = NbdServer(graph, tls=context, max_clients=shared)
        server.add(
            Export(
                graph, node, export, writable=not readonly, description=description, bitmaps=bitmap,
                allocation_depth=allocation_depth,
            )
        )  # fmt: skip
        sock = hostio.listen(listen)
        output.note(f"serving {filename} on {listen}")
        server.listen(sock)
        try:
            await _until_told(graph, server, persistent)
        finally:
            await server.stop()
            sock.close()

    try:
        graph.run(work())
    finally:
        graph.run(graph.close())


async def _until_told(graph: Graph, server: Any, persistent: bool) -> None:
    """Wait for SIGINT or SIGTERM, or for the first client's end."""
    from machine.block.hostio import SocketPoller

    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    handlers = {n: signal.signal(n, lambda *_: None) for n in (signal.SIGINT, signal.SIGTERM)}

    async def one_client() -> None:
        await server.wait_served(1)
        theirs.send(b"\0")

    try:
        if not persistent:
            graph.sched.spawn(one_client(), "first client")
        await SocketPoller.of(graph.sched).wait(ours.fileno())
    finally:
        signal.set_wakeup_fd(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        ours.close()
        theirs.close()


@nbd.command("list")
@click.argument("uri")
@format_options
def list_(uri: str, fmt: Fmt) -> None:
    """List the exports of a server: nbd://HOST:PORT, nbd+unix:///?socket=PATH, nbds://…"""
    from machine.block.graph import Graph
    from machine.block.hostio import tls_context
    from machine.block.nbd.client import list_exports
    from machine.block.options import parse_nbd_uri
    from workbench import output

    options = parse_nbd_uri(uri)
    context = tls_context(str(options["tls-creds"]), server=False) if "tls-creds" in options else None
    graph = Graph()
    rows = graph.run(list_exports(graph.sched, options["server"], context))
    output.emit(output.Table(("export", "description"), rows, empty="no exports"), fmt)
