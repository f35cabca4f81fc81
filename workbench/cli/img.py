"""``workbench img``: disk images, with the options and the JSON of qemu-img. Thin pairs of ``machine.block.tools``."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import click

from workbench.cli.formats import Fmt, format_options

if TYPE_CHECKING:
    from machine.block.graph import Graph

FORMAT = click.option(
    "-f", "image_format", metavar="FORMAT", help="The image's format; without it, it is probed."
)
SHARE = click.option("-U", "share", is_flag=True, help="Open beside a program that writes to the image.")
OUTPUT = click.option(
    "--output", "output_as", type=click.Choice(["human", "json"]), help="As --text or --json."
)
QUIET = click.option("-q", "quiet", is_flag=True, help="Print nothing but errors.")
PROGRESS = click.option("-p", "progress", is_flag=True, help="Show progress on a terminal.")


_CACHES = click.Choice(["none", "directsync", "writethrough", "writeback", "unsafe"])
CACHE = click.option("-t", "cache", type=_CACHES, help="How the host caches what is written.")
SOURCE_CACHE = click.option("-T", "source_cache", type=_CACHES, help="How the host caches what is read.")


def run_on_graph(work: Callable[[Graph], Coroutine[Any, Any, Any]]) -> Any:
    """Do the work on a graph of its own and close everything."""
    from machine.block.graph import Graph

    graph = Graph()
    try:
        return graph.run(work(graph))
    finally:
        graph.run(graph.close())


def json_if(fmt: Fmt, wanted: str | None) -> Fmt:
    """Return the format that qemu-img's ``--output`` or our own options ask for."""
    return "json" if wanted == "json" else fmt


def pairs_of(options: tuple[str, ...]) -> dict[str, Any]:
    """Return the pairs of all ``-o`` options."""
    from machine.block.options import parse_keyvals

    return {key: value for text in options for key, value in parse_keyvals(text).items()}


def shower(wanted: bool) -> Callable[[int, int], None] | None:
    from workbench import output

    show = output.progress_printer() if wanted else None
    return (lambda done, total: show(f"({done / max(1, total):.1%})")) if show is not None else None


@click.group()
def img() -> None:
    """Disk images: what qemu-img does, with its options."""


@img.command()
@click.option("-f", "fmt", default="raw", metavar="FORMAT", help="raw or qcow2.")
@click.option(
    "-b", "backing", metavar="FILE", help="Backing file; relative names start at the image's folder."
)
@click.option("-F", "backing_fmt", metavar="FORMAT", help="The backing file's format.")
@click.option("-u", "unsafe", is_flag=True, help="Don't open the backing file.")
@click.option(
    "-o", "options", multiple=True, metavar="K=V,…", help="cluster_size, compat, refcount_bits and so on."
)
@QUIET
@click.argument("filename", required=False)
@click.argument("size", required=False)
def create(
    fmt: str, backing: str | None, backing_fmt: str | None, unsafe: bool, options: tuple[str, ...], quiet: bool,
    filename: str | None, size: str | None,
) -> None:  # fmt: skip
    """Make a new image of SIZE bytes (with suffixes k, M, G, T). ``-o help`` lists the options of a format."""
    from machine.block import tools
    from machine.block.options import parse_size
    from workbench import output
    from workbench.cli import imgtext

    if "help" in options or "?" in options:
        output.emit(output.Text(imgtext.options_text(fmt)))
        return
    if filename is None:
        raise click.UsageError("the FILENAME of the image is missing")
    wanted = None if size is None else parse_size(size)
    made = run_on_graph(
        lambda graph: tools.create(
            graph, filename, fmt, wanted, backing=backing, backing_format=backing_fmt, unsafe=unsafe,
            options=pairs_of(options),
        )
    )  # fmt: skip
    if not quiet:
        output.emit(output.Text(imgtext.formatting_text(filename, fmt, made, pairs_of(options))))


@img.command()
@FORMAT
@SHARE
@OUTPUT
@click.option("--backing-chain", "chain", is_flag=True, help="The image and everything below it.")
@click.option("--image-opts", "image_opts", is_flag=True, help="FILENAME is key=value options.")
@click.argument("filename")
@format_options
def info(
    image_format: str | None,
    share: bool,
    output_as: str | None,
    chain: bool,
    image_opts: bool,
    filename: str,
    fmt: Fmt,
) -> None:
    """Tell what an image is."""
    from machine.block import tools
    from workbench import output
    from workbench.cli import imgtext

    found = run_on_graph(
        lambda graph: tools.info(
            graph, filename, image_format, chain=chain, force_share=share, image_opts=image_opts
        )
    )
    fmt = json_if(fmt, output_as)
    if fmt == "json":
        output.emit(output.Text("", found if chain else found[0]), fmt)
        return
    if fmt == "text":
        output.emit(output.Text("\n\n".join(imgtext.info_text(one) for one in found)))
        return
    for one in found:
        output.emit(output.Record(_flat(one)), fmt)


def _flat(info: dict[str, Any]) -> dict[str, Any]:
    """Return the information as one level of names, for people."""
    rows = {key: value for key, value in info.items() if key not in ("format-specific", "snapshots")}
    rows.update(info.get("format-specific", {}).get("data", {}))
    for snapshot in info.get("snapshots", ()):
        rows[f"snapshot {snapshot['id']}"] = snapshot["name"]
    return rows


@img.command()
@FORMAT
@OUTPUT
@QUIET
@SHARE
@SOURCE_CACHE
@click.option("-r", "repair", type=click.Choice(["leaks", "all"]), help="Repair leaks, or everything.")
@click.argument("filename")
@format_options
def check(
    image_format: str | None, output_as: str | None, quiet: bool, share: bool, source_cache: str | None,
    repair: str | None, filename: str, fmt: Fmt,
) -> None:  # fmt: skip
    """Check an image: exit status 0 clean, 1 the check failed, 2 corrupt, 3 leaks, 63 the format has no check."""
    from machine.block import tools
    from machine.block.errors import UnsupportedError
    from workbench import output
    from workbench.cli import imgtext

    try:
        result = run_on_graph(
            lambda graph: tools.check(
                graph, filename, image_format, repair=repair or "", force_share=share, cache=source_cache
            )
        )
    except UnsupportedError as error:
        output.note(str(error))
        raise click.exceptions.Exit(63) from None
    names = (
        "corruptions", "leaks", "check_errors", "corruptions_fixed", "leaks_fixed", "total_clusters",
        "allocated_clusters", "compressed_clusters", "fragmented_clusters", "image_end_offset",
    )  # fmt: skip
    record = {name.replace("_", "-"): getattr(result, name) for name in names}
    fmt = json_if(fmt, output_as)
    if not quiet:
        for line in result.messages:
            output.note(line)
        if fmt == "text":
            if result.leaks_fixed or result.corruptions_fixed:
                output.emit(output.Text(imgtext.repaired_text(result)))
            output.emit(output.Text(imgtext.check_text(result)))
        else:
            output.emit(output.Record({"filename": filename, "format": "qcow2", **record}), fmt)
    code = 1 if result.check_errors else 2 if result.corruptions else 3 if result.leaks else 0
    raise click.exceptions.Exit(code)


@img.command()
@click.option("-f", "source_format", metavar="FORMAT", help="The source's format.")
@click.option("-O", "target_format", default="raw", metavar="FORMAT", help="The target's format.")
@click.option("-c", "compress", is_flag=True, help="Compress (qcow2).")
@click.option(
    "-S", "sparse", metavar="SIZE", help="Runs of zeroes at least this long (4k) are left out; 0 writes all."
)
@click.option("-n", "no_create", is_flag=True, help="The target exists.")
@click.option("--target-is-zero", is_flag=True, help="With -n: the target reads as zeroes.")
@click.option("-B", "backing", metavar="FILE", help="Backing file of the target.")
@click.option("-F", "backing_fmt", metavar="FORMAT", help="The backing file's format.")
@click.option("-l", "snapshot", metavar="NAME", help="An internal snapshot of the source.")
@click.option("-o", "options", multiple=True, metavar="K=V,…", help="Options of the target, as for create.")
@click.option("-m", "coroutines", default=8, metavar="N", help="Pieces in flight, 1 to 16.")
@click.option("-W", "out_of_order", is_flag=True, help="Write pieces as they come.")
@click.option(
    "-C", "offload", is_flag=True, help="Let the host copy where it can; zeroes are not looked for."
)
@click.option("--salvage", is_flag=True, help="What can't be read becomes zeroes, with a warning.")
@click.option("--bitmaps", is_flag=True, help="Copy the source's bitmaps too.")
@click.option("--skip-broken-bitmaps", is_flag=True, help="With --bitmaps: leave out those that are broken.")
@SHARE
@QUIET
@PROGRESS
@CACHE
@SOURCE_CACHE
@click.argument("sources", nargs=-1, required=True)
@click.argument("target")
def convert(
    source_format: str | None, target_format: str, compress: bool, sparse: str | None, no_create: bool,
    target_is_zero: bool, backing: str | None, backing_fmt: str | None, snapshot: str | None,
    options: tuple[str, ...], coroutines: int, out_of_order: bool, offload: bool, salvage: bool,
    bitmaps: bool, skip_broken_bitmaps: bool, share: bool, quiet: bool, progress: bool, cache: str | None,
    source_cache: str | None, sources: tuple[str, ...], target: str,
) -> None:  # fmt: skip
    """Copy images, one behind the other, into a new one."""
    from machine.block import convert as converting
    from machine.block.options import parse_size
    from workbench import output

    run_on_graph(
        lambda graph: converting.convert(
            graph, list(sources), target, source_format=source_format, target_format=target_format,
            options=pairs_of(options), compress=compress, no_create=no_create,
            sparse_bytes=None if sparse is None else parse_size(sparse),
            target_is_zero=target_is_zero, backing=backing, backing_format=backing_fmt,
            snapshot=snapshot and snapshot.removeprefix("snapshot.name="), force_share=share,
            progress=shower(progress and not quiet), coroutines=coroutines, out_of_order=out_of_order,
            salvage=(lambda text: output.note(f"warning: {text}")) if salvage else None,
            copy_bitmaps=bitmaps, skip_broken_bitmaps=skip_broken_bitmaps, offload=offload,
            cache=cache or "unsafe", source_cache=source_cache or "writeback",
        )
    )  # fmt: skip


@img.command("map")
@FORMAT
@SHARE
@OUTPUT
@click.option("-s", "--start-offset", "start", default="0", metavar="SIZE", help="Where to begin.")
@click.option("-l", "--max-length", "length", metavar="SIZE", help="How much of the disk to map.")
@click.argument("filename")
@format_options
def map_(
    image_format: str | None, share: bool, output_as: str | None, start: str, length: str | None, filename: str,
    fmt: Fmt,
) -> None:  # fmt: skip
    """List what is allocated where."""
    from machine.block import tools
    from machine.block.options import parse_size
    from workbench import output
    from workbench.cli import imgtext

    runs = run_on_graph(
        lambda graph: tools.map_image(
            graph, filename, image_format, force_share=share, start=parse_size(start),
            length=None if length is None else parse_size(length),
        )
    )  # fmt: skip
    fmt = json_if(fmt, output_as)
    if fmt == "text":
        output.emit(output.Text(imgtext.map_text(filename, runs)))
        return
    for run in runs:
        run.pop("filename", None)
    if fmt == "json":
        output.emit(output.Text("", runs), fmt)
        return
    columns = ("start", "length", "depth", "present", "zero", "data", "offset")
    output.emit(output.Table(columns, [[run.get(c) for c in columns] for run in runs], {"start": "hex"}), fmt)


@img.command()
@click.option("-f", "first_format", metavar="FORMAT", help="The first image's format.")
@click.option("-F", "second_format", metavar="FORMAT", help="The second image's format.")
@click.option("-s", "strict", is_flag=True, help="Another size or allocation is a difference.")
@SHARE
@QUIET
@PROGRESS
@SOURCE_CACHE
@click.argument("first")
@click.argument("second")
def compare(
    first_format: str | None, second_format: str | None, strict: bool, share: bool, quiet: bool, progress: bool,
    source_cache: str | None, first: str, second: str,
) -> None:  # fmt: skip
    """Compare two images: exit status 0 the same, 1 different, 2 not opened, 3 no block status, 4 not read."""
    from machine.block import tools
    from machine.block.errors import BlockError, StatusError
    from workbench import output

    opened = False

    async def work(graph: Graph) -> tools.Comparison:
        nonlocal opened
        how: dict[str, Any] = {"force_share": share, "cache": source_cache or "writeback"}
        left = await tools.open_image(graph, first, first_format, **how)
        right = await tools.open_image(graph, second, second_format, **how)
        opened = True
        return await tools.compare(graph, left, right, strict=strict, progress=shower(progress and not quiet))

    try:
        result = run_on_graph(work)
    except BlockError as error:
        output.note(f"workbench: error: {error}")
        raise click.exceptions.Exit(3 if isinstance(error, StatusError) else 4 if opened else 2) from None
    if not quiet:
        if result.sizes_differ and not strict:
            output.emit(output.Text("Warning: Image size mismatch!"))
        output.emit(output.Text(str(result)))
    raise click.exceptions.Exit(0 if result.offset is None else 1)


@img.command()
@FORMAT
@SHARE
@QUIET
@click.option("-l", "listing", is_flag=True, help="List (the default).")
@click.option("-c", "make", metavar="NAME", help="Create.")
@click.option("-a", "use", metavar="NAME", help="Apply: go back to it.")
@click.option("-d", "drop", metavar="NAME", help="Delete.")
@click.argument("filename")
@format_options
def snapshot(
    image_format: str | None,
    share: bool,
    quiet: bool,
    listing: bool,
    make: str | None,
    use: str | None,
    drop: str | None,
    filename: str,
    fmt: Fmt,
) -> None:
    """List, create, apply or delete internal snapshots."""
    from machine.block import tools
    from workbench import output
    from workbench.cli import imgtext

    chosen = [(a, t) for a, t in (("create", make), ("apply", use), ("delete", drop)) if t is not None]
    if len(chosen) + listing > 1:
        raise click.UsageError("give one of -l, -c, -a, -d")
    action, tag = chosen[0] if chosen else ("list", "")
    sec, nsec = divmod(time.time_ns(), 1_000_000_000)
    rows = run_on_graph(
        lambda graph: tools.snapshot(
            graph, filename, image_format, action, tag, sec=sec, nsec=nsec, force_share=share
        )
    )
    if action == "list" and fmt == "text":
        output.emit(output.Text(imgtext.snapshots_text(rows)))
    elif action == "list":
        columns = ("id", "name", "vm-state-size", "date-sec", "icount")
        output.emit(output.Table(columns, [[row.get(c) for c in columns] for row in rows]), fmt)


@img.command(context_settings={"ignore_unknown_options": True})
@FORMAT
@QUIET
@click.option("--shrink", is_flag=True, help="Allow a smaller size: what lies behind it is lost.")
@click.option("--preallocation", default="off", help="off, metadata, falloc or full, for new space.")
@click.argument("filename")
@click.argument("size")
def resize(
    image_format: str | None, quiet: bool, shrink: bool, preallocation: str, filename: str, size: str
) -> None:
    """Set the size, or change it by +SIZE or -SIZE."""
    from machine.block import tools
    from workbench import output

    run_on_graph(
        lambda graph: tools.resize(graph, filename, size, image_format, shrink=shrink, prealloc=preallocation)
    )
    if not quiet:
        output.emit(output.Text("Image resized."))
