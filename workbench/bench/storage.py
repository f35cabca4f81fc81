"""Disk images: requests through the node graph, conversion, the NBD server and a guest's reads, as ratios of CPU time.

CPU time, user and system, of what does the work; where there is a peer, both take turns on the same data.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.bench.measure import BenchError, environment

if TYPE_CHECKING:
    from machine.block.graph import Graph
    from machine.block.node import Node

M, G = 1 << 20, 1 << 30
SEQUENTIAL = 128 * M
RANDOM_REQUESTS = 40_000
CONVERTED = G
SERVED = 512 * M
GUEST_DISK = 128 * M
_OURS = (sys.executable, "-m", "workbench")

#: figure to (limit, whether it is a lower one, unit)
LIMITS = {
    "raw, 1 MiB reads over pread": (0.6, True, "ratio"),
    "raw, 1 MiB writes over pwrite": (0.6, True, "ratio"),
    "qcow2, random 4 KiB reads": (60_000, True, "1/s"),
    "qcow2, random 4 KiB overwrites": (30_000, True, "1/s"),
    "convert raw to qcow2, over qemu-img": (2.0, False, "ratio"),
    "convert -c, over qemu-img": (1.5, False, "ratio"),
    "NBD server, qemu-nbd's time over ours": (0.4, True, "ratio"),
    "guest's dd, qcow2 over raw": (1.3, False, "ratio"),
}


def run(rounds: int, work: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure all figures, with what they are to be; those whose peer is not installed are left out."""
    found: dict[str, float] = {}
    for name, measure in (
        ("raw", _raw), ("qcow2", _qcow2), ("convert", _convert), ("NBD", _nbd), ("guest", _guest),
    ):  # fmt: skip
        progress(f"storage: {name}")
        found |= measure(rounds, work)
    figures = {}
    for name, value in found.items():
        limit, lower, unit = LIMITS[name]
        met = value >= limit if lower else value <= limit
        figures[name] = {
            "value": round(value, 3), "is to be": f"{'>=' if lower else '<='} {limit}", "unit": unit, "met": met,
        }  # fmt: skip
    return {"benchmark": "storage", "rounds": rounds, "figures": figures}


# requests


def _cpu(action: Callable[[], object]) -> float:
    before = time.process_time()
    action()
    return time.process_time() - before


@contextmanager
def _opened(path: Path, driver: str) -> Iterator[tuple[Graph, Node]]:
    from machine.block.graph import Graph

    graph = Graph()
    node = graph.run(graph.open(str(path), driver=driver))
    try:
        yield graph, node
    finally:
        graph.run(graph.close())


def _raw(rounds: int, work: Path) -> dict[str, float]:
    path = work / "sequential.raw"
    path.write_bytes(os.urandom(M) * (SEQUENTIAL // M))
    ratios: dict[str, list[float]] = {"reads over pread": [], "writes over pwrite": []}
    data, buffer = os.urandom(M), memoryview(bytearray(M))
    with _opened(path, "raw") as (graph, node):
        file = os.open(path, os.O_RDWR)

        async def read() -> None:
            for at in range(0, SEQUENTIAL, M):
                await node.pread(at, buffer)

        async def write() -> None:
            for at in range(0, SEQUENTIAL, M):
                await node.pwrite(at, data)

        for _ in range(rounds):
            plain = _cpu(lambda: [os.preadv(file, [buffer], at) for at in range(0, SEQUENTIAL, M)])
            ratios["reads over pread"].append(plain / _cpu(lambda: graph.run(read())))
            plain = _cpu(lambda: [os.pwrite(file, data, at) for at in range(0, SEQUENTIAL, M)])
            ratios["writes over pwrite"].append(plain / _cpu(lambda: graph.run(write())))
        os.close(file)
    path.unlink()
    return {f"raw, 1 MiB {name}": statistics.median(values) for name, values in ratios.items()}


def _qcow2(rounds: int, work: Path) -> dict[str, float]:
    path = work / "random.qcow2"
    _tool(work, "img", "create", "-q", "-f", "qcow2", str(path), str(SEQUENTIAL))
    rates: dict[str, list[float]] = {"reads": [], "overwrites": []}
    rnd, data, buffer = random.Random(1), os.urandom(4096), memoryview(bytearray(4096))
    with _opened(path, "qcow2") as (graph, node):

        async def fill() -> None:
            for at in range(0, SEQUENTIAL, M):
                await node.pwrite(at, os.urandom(M))

        async def read(places: Sequence[int]) -> None:
            for at in places:
                await node.pread(at, buffer)

        async def write(places: Sequence[int]) -> None:
            for at in places:
                await node.pwrite(at, data)

        graph.run(fill())
        for _ in range(rounds):
            places = [rnd.randrange(SEQUENTIAL // 4096) * 4096 for _ in range(RANDOM_REQUESTS)]
            for name, work_on in (("reads", read), ("overwrites", write)):
                rates[name].append(RANDOM_REQUESTS / _cpu(partial(graph.run, work_on(places))))
    path.unlink()
    return {f"qcow2, random 4 KiB {name}": statistics.median(values) for name, values in rates.items()}


# processes


def _environment(work: Path) -> dict[str, str]:
    return environment(str(work / "pycache"))


def _tool(work: Path, *arguments: str) -> None:
    subprocess.run([*_OURS, *arguments], check=True, capture_output=True, env=_environment(work))


def _children(work: Path, command: Sequence[str]) -> float:
    """Run a command and return its CPU time in seconds. Raises BenchError: it failed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, check=False, env=_environment(work))
    if done.returncode:
        raise BenchError(f"{command[0]} failed: {done.stderr.decode(errors='replace').splitlines()[-1:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _half_empty(path: Path, size: int) -> None:
    """Make a file of which every other 8 MiB are there: half of them random, half of text."""
    rnd = random.Random(2)
    with path.open("wb") as file:
        for at in range(0, size, 16 * M):
            file.seek(at)
            file.write(
                rnd.randbytes(4 * M) + b"".join(b"%d lines of text\n" % i for i in range(300_000))[: 4 * M]
            )
        file.truncate(size)


def _convert(rounds: int, work: Path) -> dict[str, float]:
    if shutil.which("qemu-img") is None:
        return {}
    source, target = work / "source.raw", work / "target.qcow2"
    _half_empty(source, CONVERTED)
    found = {}
    for name, extra, times in (
        ("convert raw to qcow2", (), rounds),
        ("convert -c", ("-c",), max(1, rounds // 3)),
    ):
        ratios = []
        for _ in range(times):
            how = ("convert", "-f", "raw", "-O", "qcow2", *extra, str(source), str(target))
            theirs = _children(work, ("qemu-img", *how))
            ratios.append(_children(work, (*_OURS, "img", *how)) / theirs)
        found[f"{name}, over qemu-img"] = statistics.median(ratios)
    for path in (source, target):
        path.unlink()
    return found


def _served(work: Path, command: Sequence[str], uri: str, socket: Path) -> float:
    """Return the CPU time that a server takes for one copy of its export."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    server = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_environment(work)
    )
    for _ in range(500):
        if socket.exists():
            break
        time.sleep(0.02)
    client = _children(work, ("nbdcopy", "--requests=16", "--connections=1", uri, "null:"))
    server.wait(60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    socket.unlink(missing_ok=True)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime - client


def _nbd(rounds: int, work: Path) -> dict[str, float]:
    if shutil.which("nbdcopy") is None or shutil.which("qemu-nbd") is None:
        return {}
    path, socket = work / "served.raw", work / "s.sock"
    path.write_bytes(os.urandom(M) * (SERVED // M))
    uri = f"nbd+unix:///?socket={socket}"
    ratios = []
    for _ in range(rounds):
        theirs = _served(work, ("qemu-nbd", "-r", "-f", "raw", "-k", str(socket), str(path)), uri, socket)
        serve = (*_OURS, "nbd", "serve", "-f", "raw", "-r", "--listen", f"unix:{socket}", str(path))
        ratios.append(theirs / _served(work, serve, uri, socket))
    path.unlink()
    return {"NBD server, qemu-nbd's time over ours": statistics.median(ratios)}


def _guest(rounds: int, work: Path) -> dict[str, float]:
    from workbench.guests.fetch import cached

    guest = cached("debian-riscv64")
    if guest is None:
        return {}
    raw, qcow2 = work / "guest.raw", work / "guest.qcow2"
    raw.write_bytes(os.urandom(M) * (GUEST_DISK // M))
    _tool(work, "img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(qcow2))
    dd = "dd if=/dev/vda of=/dev/null bs=1M"

    def seconds(script: str, path: Path, fmt: str) -> float:
        options = guest.options(f"console=ttyS0 wb.modules=all wb.sh={script}")
        drive = ("--drive", f"file={path},format={fmt},readonly=on")
        return _children(work, (*_OURS, "run", *options, *drive, "--no-input", "--timeout", "300"))

    ratios = []
    for _ in range(max(1, rounds // 3)):
        idle = seconds("true", raw, "raw")
        plain = seconds(f"{dd};{dd};{dd};{dd}", raw, "raw") - idle
        ratios.append((seconds(f"{dd};{dd};{dd};{dd}", qcow2, "qcow2") - idle) / plain)
    return {"guest's dd, qcow2 over raw": statistics.median(ratios)}
