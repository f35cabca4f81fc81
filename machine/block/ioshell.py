"""An I/O shell on one disk, for tests and for looking by hand; commands are named as in qemu-io."""

from __future__ import annotations

import os
import shlex
from collections.abc import Awaitable, Callable
from typing import Any

from machine.block import flags as F
from machine.block.backend import BlockBackend
from machine.block.drivers.blkdebug import BlkdebugNode
from machine.block.errors import BlockError, OptionError
from machine.block.flags import Perm
from machine.block.graph import Graph
from machine.block.node import Node, status_above
from machine.block.options import parse_size
from machine.block.sched import Task

MAX_REQUEST = 1 << 30


class IoShell:
    """Runs commands on a node; each returns the lines it has to say.

    Commands: read, write, aio_read, aio_write (with -P PATTERN, -z, -u, -c, -f, -q, -v), aio_flush, discard,
    flush, truncate, map, alloc, length, info, break, wait_break, resume, remove_break, sleep (ms), reopen (-r or -w),
    abort (end the process at once, with nothing written back).
    """

    def __init__(self, graph: Graph, node: Node, name: str = "io") -> None:
        self.graph = graph
        self._perm = Perm.CONSISTENT_READ | (Perm.NONE if node.read_only else Perm.WRITE)
        self.backend = BlockBackend(graph, name, self._perm)
        self.backend.attach(node)
        self._tasks: list[Task[list[str]]] = []

    def run(self, line: str) -> list[str]:
        """Run one command line.

        Raises:
            OptionError: an unknown command or wrong arguments. BlockError: what the request met.
        """
        words = self.split(line)
        if words and words[0].startswith("aio_") and words[0] != "aio_flush":
            task = self.graph.sched.spawn(self._command(words[0][4:], words[1:]), line)
            self._tasks.append(task)
            self.graph.sched.settle()
            return []
        return self.graph.run(self.execute(line))

    async def execute(self, line: str) -> list[str]:
        """As ``run``, from inside a task and without the aio commands."""
        words = self.split(line)
        return await self._command(words[0], words[1:]) if words else []

    @staticmethod
    def split(line: str) -> list[str]:
        """Return a line's words."""
        try:
            return shlex.split(line)
        except ValueError as error:
            raise OptionError(f"'{line}': {error}") from None

    def close(self) -> None:
        """Wait for what is in flight and let go of the node."""
        self.graph.run(self._join())
        self.backend.close()

    async def _join(self) -> list[str]:
        tasks, self._tasks = self._tasks, []
        lines: list[str] = []
        for task in tasks:
            lines += await task.join()
        return lines

    async def _command(self, name: str, words: list[str]) -> list[str]:
        commands: dict[str, Callable[[list[str]], Awaitable[list[str]]]] = {
            "read": self._read,
            "write": self._write,
            "discard": self._discard,
            "flush": self._flush,
            "truncate": self._truncate,
            "map": self._map,
            "alloc": self._alloc,
            "length": self._length,
            "info": self._info,
            "sleep": self._sleep,
            "reopen": self._reopen,
            "abort": self._abort,
            "break": self._break,
            "wait_break": self._break,
            "resume": self._break,
            "remove_break": self._break,
        }
        if name == "aio_flush":
            return await self._join()
        if name not in commands:
            raise OptionError(f"unknown command '{name}': expected one of {', '.join(commands)}")
        if commands[name] == self._break:
            words = [name, *words]
        return await commands[name](words)

    @staticmethod
    def _parse(words: list[str], switches: str) -> tuple[dict[str, Any], int, int]:
        given: dict[str, Any] = {}
        rest: list[str] = []
        pending = iter(words)
        for word in pending:
            if not word.startswith("-") or len(word) != 2:
                rest.append(word)
            elif word[1] == "P" and "P" in switches:
                value = int(next(pending, "-1"), 0)
                if not 0 <= value <= 255:
                    raise OptionError("a pattern is a byte, 0 to 255")
                given["P"] = value
            elif word[1] in switches:
                given[word[1]] = True
            else:
                raise OptionError(f"unknown switch {word}")
        if len(rest) != 2:
            raise OptionError("expected an offset and a length")
        offset, length = parse_size(rest[0]), parse_size(rest[1])
        if length > MAX_REQUEST:
            raise OptionError(f"length {length} is too large for one request")
        return given, offset, length

    async def _read(self, words: list[str]) -> list[str]:
        given, offset, length = self._parse(words, "Pqv")
        data = await self.backend.read(offset, length)
        lines = [] if "q" in given else [f"read {length}/{length} bytes at offset {offset}"]
        if "P" in given and data != bytes([given["P"]]) * length:
            at = next(i for i, byte in enumerate(data) if byte != given["P"])
            raise BlockError(5, f"Pattern verification failed at offset {offset + at}, {length} bytes")
        if "v" in given:
            lines += [f"{offset + at:08x}:  {data[at : at + 16].hex(' ')}" for at in range(0, length, 16)]
        return lines

    async def _write(self, words: list[str]) -> list[str]:
        given, offset, length = self._parse(words, "Pqzucf")
        flags = (F.FUA if "f" in given else 0) | (F.MAY_UNMAP if "u" in given else 0)
        if "z" in given:
            if "P" in given or "c" in given:
                raise OptionError("-z excludes -P and -c")
            await self.backend.write_zeroes(offset, length, flags)
        else:
            data = bytes([given.get("P", 0xCD)]) * length
            await self.backend.write(offset, data, flags | (F.COMPRESSED if "c" in given else 0))
        return [] if "q" in given else [f"wrote {length}/{length} bytes at offset {offset}"]

    async def _discard(self, words: list[str]) -> list[str]:
        given, offset, length = self._parse(words, "q")
        await self.backend.discard(offset, length)
        return [] if "q" in given else [f"discard {length}/{length} bytes at offset {offset}"]

    async def _flush(self, words: list[str]) -> list[str]:
        await self.backend.flush()
        return []

    async def _truncate(self, words: list[str]) -> list[str]:
        if len(words) != 1:
            raise OptionError("truncate: expected a size")
        self.backend.set_perm(self._perm | Perm.RESIZE, Perm.ALL)
        try:
            await self.backend.truncate(parse_size(words[0]))
        finally:
            self.backend.set_perm(self._perm, Perm.ALL)
        return []

    async def _map(self, words: list[str]) -> list[str]:
        lines, offset, node = [], 0, self.backend.node
        while offset < node.size_bytes:
            status, _ = await status_above(node, None, offset, node.size_bytes - offset)
            word = "allocated" if status.flags & F.ST_ALLOCATED else "not allocated"
            lines.append(f"{status.length:#x} bytes {word} at offset {offset:#x}")
            offset += status.length
        return lines

    async def _alloc(self, words: list[str]) -> list[str]:
        _, offset, length = self._parse(words if len(words) > 1 else [*words, "1"], "")
        end, held, at = offset + length, 0, offset
        while at < end:
            status = await self.backend.node.block_status(at, end - at)
            if not status.length:
                break
            held += status.length if status.flags & F.ST_ALLOCATED else 0
            at += status.length
        return [f"{held}/{length} bytes allocated at offset {offset}"]

    async def _length(self, words: list[str]) -> list[str]:
        return [str(self.backend.size_bytes)]

    async def _info(self, words: list[str]) -> list[str]:
        node = self.backend.node
        return [f"format name: {node.driver}", f"cluster size: {node.cluster_bytes()}"]

    async def _sleep(self, words: list[str]) -> list[str]:
        await self.graph.sched.sleep(int(words[0]) * 1_000_000)
        return []

    async def _reopen(self, words: list[str]) -> list[str]:
        if words not in (["-r"], ["-w"]):
            raise OptionError("reopen: expected -r or -w")
        read_only = words == ["-r"]
        self._perm = Perm.CONSISTENT_READ | (Perm.NONE if read_only else Perm.WRITE)
        if read_only:
            self.backend.set_perm(self._perm, Perm.ALL)
        await self.graph.reopen([(self.backend.node, read_only)])
        self.backend.set_perm(self._perm, Perm.ALL)
        return []

    async def _abort(self, words: list[str]) -> list[str]:
        os.abort()

    async def _break(self, words: list[str]) -> list[str]:
        verb, *rest = words
        node: Node | None = self.backend.node
        while node is not None and not isinstance(node, BlkdebugNode):
            node = node.debug_node or node.filtered or node.child("file")
        if node is None:
            raise OptionError(f"{verb}: there is no blkdebug node below")
        if len(rest) != (2 if verb == "break" else 1):
            raise OptionError(f"{verb}: expected {'an event and a tag' if verb == 'break' else 'a tag'}")
        if verb == "break":
            node.set_break(rest[0], rest[1])
        elif verb == "wait_break":
            await node.wait_break(rest[0])
        elif verb == "resume":
            node.resume(rest[0])
        else:
            node.remove_break(rest[0])
        return []
