"""Helpers for tests of qcow2 images."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from machine.block.drivers.file import create_file
from machine.block.graph import Graph
from machine.block.qcow2.create import CreateOptions, create
from machine.block.qcow2.node import Qcow2Node


def make_image(path: Path, **options: Any) -> None:
    """Write an empty image with our own code."""
    graph = Graph()

    async def main() -> None:
        create_file(str(path))
        file = await graph.open({"driver": "file", "filename": str(path), "cache": {"no-flush": True}})
        await create(graph, file, CreateOptions(**options))
        await graph.close_node(file)

    graph.run(main())


def open_image(graph: Graph, path: Path, **options: Any) -> Qcow2Node:
    """Open an image writable, without host flushes."""
    spec = {"driver": "qcow2", "cache": {"no-flush": True}, "file": {"driver": "file", "filename": str(path)}}
    node = graph.run(graph.open({**spec, **options}))
    assert isinstance(node, Qcow2Node)
    return node


def memory_image(graph: Graph, **options: Any) -> Qcow2Node:
    """Return an image that lives in a memory node named ``disk``."""

    async def main() -> Qcow2Node:
        file = await graph.open({"driver": "memory", "node-name": "disk"})
        file.monitor_owned = True
        await create(graph, file, CreateOptions(**options))
        node = await graph.open({"driver": "qcow2", "discard": "unmap", "file": "disk"})
        assert isinstance(node, Qcow2Node)
        return node

    return graph.run(main())


def qemu_img(*args: str | Path, ok: tuple[int, ...] = (0,)) -> str:
    """Run qemu-img and return its output; the exit status has to be one of ``ok``."""
    result = subprocess.run(
        ["qemu-img", *map(str, args)], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode in ok, f"{args}: {result.returncode} {result.stdout}{result.stderr}"
    return result.stdout


def qemu_io(path: str | Path, *commands: str, fmt: str = "qcow2") -> str:
    """Run qemu-io commands on an image."""
    args = ["qemu-io", "-f", fmt, str(path)]
    for command in commands:
        args += ["-c", command]
    result = subprocess.run(args, capture_output=True, text=True, timeout=60, check=True)
    assert "failed" not in result.stdout, result.stdout
    return result.stdout


def qemu_json(*args: str | Path, ok: tuple[int, ...] = (0,)) -> Any:
    """Run qemu-img with JSON output."""
    return json.loads(qemu_img(*args[:1], "--output=json", *args[1:], ok=ok))
