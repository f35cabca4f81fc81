"""``workbench img rebase|commit|hash|measure|dd|bitmap|amend|bench``: the rest of qemu-img, on the library."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from workbench.cli.formats import Fmt, format_options
from workbench.cli.img import (
    CACHE,
    FORMAT,
    OUTPUT,
    PROGRESS,
    QUIET,
    SHARE,
    SOURCE_CACHE,
    img,
    json_if,
    pairs_of,
    run_on_graph,
    shower,
)

if TYPE_CHECKING:
    from machine.block.graph import Graph
    from machine.block.measure import Sizes

#: The group, with all its commands.
__all__ = ["img"]

F = TypeVar("F", bound=Callable[..., Any])


@img.command()
@FORMAT
@SHARE
@OUTPUT
@click.option("-O", "target_format", default="raw", metavar="FORMAT", help="The format to measure for.")
@click.option("-o", "options", multiple=True, metavar="K=V,…", help="Options of the target, as for create.")
@click.option("-l", "snapshot", metavar="NAME", help="An internal snapshot of the image.")
@click.option("--size", metavar="SIZE", help="Of an image that is to be made, instead of FILENAME.")
@click.argument("filename", required=False)
@format_options
def measure(
    image_format: str | None, share: bool, output_as: str | None, target_format: str, options: tuple[str, ...],
    snapshot: str | None, size: str | None, filename: str | None, fmt: Fmt,
) -> None:  # fmt: skip
    """Tell how many bytes the file of an image will need."""
    from machine.block import convert, tools
    from machine.block import measure as measuring
    from machine.block.options import parse_size
    from machine.block.qcow2.create import create_options
    from workbench import output

    if (size is None) == (filename is None):
        raise click.UsageError("give either FILENAME or --size")
    if target_format not in ("raw", "qcow2"):
        raise click.UsageError(f"can't measure format {target_format!r}: expected raw or qcow2")

    async def work(graph: Graph) -> Sizes:
        node = None
        if filename is not None:
            node = await tools.open_image(graph, filename, image_format, force_share=share)
            if snapshot is not None:
                await convert.show_snapshot(node, snapshot.removeprefix("snapshot.name="))
        wanted = create_options(pairs_of(options), parse_size(size) if size else 0)
        return await measuring.measure(target_format, wanted, node)

    found = run_on_graph(work)
    record: dict[str, Any] = {"required": found.required, "fully-allocated": found.fully_allocated}
    if found.bitmaps is not None:
        record["bitmaps"] = found.bitmaps
    fmt = json_if(fmt, output_as)
    if fmt == "json":
        output.emit(output.Text("", record), fmt)
        return
    names = {
        "required": "required size",
        "fully-allocated": "fully allocated size",
        "bitmaps": "bitmaps size",
    }
    told = {names[key]: value for key, value in record.items()}
    if fmt == "text":
        output.emit(output.Text("\n".join(f"{name}: {value}" for name, value in told.items())))
    else:
        output.emit(output.Record(told), fmt)


@img.command()
@FORMAT
@SHARE
@click.option("-O", "target_format", default="raw", metavar="FORMAT", help="The new image's format.")
@click.argument("operands", nargs=-1, required=True, metavar="if=FILE of=FILE [bs=SIZE] [count=N] [skip=N]")
def dd(image_format: str | None, share: bool, target_format: str, operands: tuple[str, ...]) -> None:
    """Copy blocks of an image into a new one."""
    from machine.block import imgops
    from machine.block.options import parse_size

    values: dict[str, str] = {}
    for operand in operands:
        key, equals, value = operand.partition("=")
        if key not in ("if", "of", "bs", "count", "skip") or not equals or key in values:
            raise click.UsageError(f"{operand!r}: expected each of if=, of=, bs=, count=, skip= at most once")
        values[key] = value
    if "if" not in values or "of" not in values:
        raise click.UsageError("if=FILE and of=FILE are needed")
    run_on_graph(
        lambda graph: imgops.dd(
            graph, values["if"], values["of"], source_format=image_format, target_format=target_format,
            block=parse_size(values.get("bs", "512")),
            count=parse_size(values["count"]) if "count" in values else None,
            skip=parse_size(values.get("skip", "0")), force_share=share,
        )
    )  # fmt: skip


def _in_order(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Collect the actions as they are given: click calls back in the order of the command line."""
    done: list[tuple[str, str]] = context.meta.setdefault("bitmap-actions", [])
    if value:
        done += [
            (parameter.human_readable_name, each) for each in (value if isinstance(value, tuple) else ("",))
        ]


def _action(name: str, text: str) -> Callable[[F], F]:
    return click.option(f"--{name}", name, is_flag=True, expose_value=False, callback=_in_order, help=text)


@img.command()
@FORMAT
@_action("add", "Make it.")
@_action("remove", "Forget it.")
@_action("clear", "Make it clean.")
@_action("enable", "Let it note writes.")
@_action("disable", "Let it note no writes.")
@click.option(
    "--merge", "merge", multiple=True, expose_value=False, callback=_in_order, metavar="SOURCE",
    help="Add what another bitmap has.",
)  # fmt: skip
@click.option("-g", "granularity", default="0", metavar="SIZE", help="With --add: bytes that one bit is for.")
@click.option("-b", "source", metavar="FILE", help="With --merge: the image of the other bitmaps.")
@click.option("-F", "source_format", metavar="FORMAT", help="That image's format.")
@click.argument("filename")
@click.argument("bitmap")
@click.pass_context
def bitmap(
    context: click.Context, image_format: str | None, granularity: str, source: str | None,
    source_format: str | None, filename: str, bitmap: str,
) -> None:  # fmt: skip
    """Change a persistent bitmap: the actions in their order, all or none."""
    from machine.block import imgops
    from machine.block.options import parse_size

    actions = context.meta.get("bitmap-actions", [])
    run_on_graph(
        lambda graph: imgops.change_bitmap(
            graph, filename, bitmap, actions, fmt=image_format, granularity=parse_size(granularity),
            source=source, source_format=source_format,
        )
    )  # fmt: skip


@img.command()
@FORMAT
@QUIET
@click.option(
    "-o", "options", multiple=True, required=True, metavar="K=V,…",
    help="compat, lazy_refcounts, refcount_bits, backing_file, backing_fmt, size.",
)  # fmt: skip
@click.argument("filename")
def amend(image_format: str | None, quiet: bool, options: tuple[str, ...], filename: str) -> None:
    """Change what a qcow2 image is, in place."""
    from machine.block import imgops

    run_on_graph(lambda graph: imgops.amend(graph, filename, pairs_of(options), fmt=image_format))


@img.command()
@FORMAT
@QUIET
@click.option("-c", "count", default=75_000, metavar="N", help="Requests.")
@click.option("-d", "depth", default=64, metavar="N", help="Requests in flight.")
@click.option("-s", "size", default="4k", metavar="SIZE", help="Bytes of a request.")
@click.option("-S", "step", default="0", metavar="SIZE", help="From one to the next; 0: a request's size.")
@click.option("-o", "offset", default="0", metavar="SIZE", help="Of the first.")
@click.option("-w", "write", is_flag=True, help="Write instead of read.")
@click.option("--pattern", default=0, metavar="BYTE", help="What is written.")
@click.option("--flush-interval", default=0, metavar="N", help="Flush after every Nth request.")
@click.argument("filename")
def bench(
    image_format: str | None, quiet: bool, count: int, depth: int, size: str, step: str, offset: str, write: bool,
    pattern: int, flush_interval: int, filename: str,
) -> None:  # fmt: skip
    """Send requests to an image and tell how long they took."""
    from machine.block import imgops
    from machine.block.options import parse_size
    from workbench import output

    if not quiet:
        what, each = "write" if write else "read", parse_size(size)
        place = f"starting at offset {parse_size(offset)}, step size {parse_size(step) or each}"
        text = f"Sending {count} {what} requests, {each} bytes each, {depth} in parallel ({place})"
        output.emit(output.Text(text))
    began = time.monotonic()
    run_on_graph(
        lambda graph: imgops.requests(
            graph, filename, fmt=image_format, count=count, depth=depth, size=parse_size(size),
            step=parse_size(step), offset=parse_size(offset), write=write, pattern=pattern,
            flush_interval=flush_interval,
        )
    )  # fmt: skip
    if not quiet:
        output.emit(output.Text(f"Run completed in {time.monotonic() - began:.3f} seconds."))


@img.command()
@FORMAT
@SHARE
@QUIET
@PROGRESS
@CACHE
@SOURCE_CACHE
@click.option("-b", "backing", metavar="FILE", help="The new backing file; empty for none.")
@click.option("-F", "backing_fmt", metavar="FORMAT", help="Its format.")
@click.option("-u", "unsafe", is_flag=True, help="Only rewrite the name: the data must fit already.")
@click.argument("filename")
def rebase(
    image_format: str | None, share: bool, quiet: bool, progress: bool, cache: str | None,
    source_cache: str | None, backing: str | None, backing_fmt: str | None, unsafe: bool, filename: str,
) -> None:  # fmt: skip
    """Give an overlay another backing file; what differs is copied into the overlay."""
    from machine.block import tools

    if backing is None and not unsafe:
        raise click.UsageError(
            "give the new backing file with -b, or -u to only drop the name of the old one"
        )

    run_on_graph(
        lambda graph: tools.rebase(
            graph, filename, image_format, backing or None, backing_fmt, unsafe=unsafe, force_share=share,
            cache=cache or "writeback", source_cache=source_cache or "writeback",
            progress=shower(progress and not quiet),
        )
    )  # fmt: skip


@img.command()
@FORMAT
@QUIET
@PROGRESS
@CACHE
@click.option("-b", "base", metavar="FILE", help="Commit to this image of the backing chain; implies -d.")
@click.option("-d", "keep", is_flag=True, help="Don't empty the overlay afterwards.")
@click.argument("filename")
def commit(
    image_format: str | None, quiet: bool, progress: bool, cache: str | None, base: str | None, keep: bool,
    filename: str,
) -> None:  # fmt: skip
    """Write an overlay's data into its backing file."""
    from machine.block import tools
    from workbench import output

    shown = shower(progress and not quiet)
    run_on_graph(
        lambda graph: tools.commit(
            graph,
            filename,
            image_format,
            base_name=base,
            keep=keep,
            progress=shown,
            cache=cache or "writeback",
        )
    )
    if not quiet:
        output.emit(output.Text("Image committed."))


@img.command("hash")
@FORMAT
@SHARE
@click.argument("filename")
def hash_(image_format: str | None, share: bool, filename: str) -> None:
    """Print the content root: the same for the same disk in any format."""
    from machine.block import tools
    from machine.block.content import content_root
    from workbench import output

    async def work(graph: Graph) -> str:
        return await content_root(await tools.open_image(graph, filename, image_format, force_share=share))

    output.emit(output.Text(run_on_graph(work)))
