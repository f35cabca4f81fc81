"""``workbench replicate``: try replication by hand, with a process for each side."""

from __future__ import annotations

import sys
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from machine.block.graph import Graph
    from machine.block.replica import Replica


@click.group()
def replicate() -> None:
    """Replication of a disk by hand: start a secondary, then a primary; each takes commands on its input.

    Commands: start, checkpoint, status, stop, failover, quit, and read, write, discard, flush, map of the I/O shell.
    """


def _talk(graph: Graph, side: AbstractAsyncContextManager[Replica]) -> None:
    from machine.block import hostio, replica
    from workbench import output

    async def work() -> None:
        async with side as opened:
            lines = hostio.LineReader(graph.sched, sys.stdin.fileno())
            await replica.converse(opened, lines, lambda text: output.emit(output.Text(text)))

    try:
        graph.run(work())
    finally:
        graph.run(graph.close())


@replicate.command()
@click.option("-f", "image_format", metavar="FORMAT", help="The disk's format.")
@click.option(
    "--hidden", required=True, metavar="FILE", help="qcow2 file for the hidden disk; made if missing."
)
@click.option(
    "--active", required=True, metavar="FILE", help="qcow2 file for the active disk; made if missing."
)
@click.option(
    "--listen", default="127.0.0.1:10809", metavar="HOST:PORT|unix:PATH", help="Where the primary connects."
)
@click.argument("disk")
def secondary(image_format: str | None, hidden: str, active: str, listen: str, disk: str) -> None:
    """The side that stands by: shows its guest the last checkpoint."""
    from machine.block import hostio, replica
    from machine.block.graph import Graph

    graph = Graph(hostio.host_scheduler())
    _talk(graph, replica.secondary(graph, disk, hidden, active, listen, driver=image_format))


@replicate.command()
@click.option("-f", "image_format", metavar="FORMAT", help="The disk's format.")
@click.option("--peer", required=True, metavar="URI", help="The secondary's export: nbd://HOST:PORT/disk.")
@click.argument("disk")
def primary(image_format: str | None, peer: str, disk: str) -> None:
    """The side whose guest runs: its writes go to both disks."""
    from machine.block import hostio, replica
    from machine.block.graph import Graph

    graph = Graph(hostio.host_scheduler())
    _talk(graph, replica.primary(graph, disk, peer, driver=image_format))
