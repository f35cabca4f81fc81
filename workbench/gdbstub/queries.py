"""What gdb asks about and settles: features, documents, threads, ``monitor``, the end of the connection."""

from __future__ import annotations

from collections.abc import Callable
from xml.sax.saxutils import quoteattr

from workbench.gdbstub.link import (
    ERROR_ARGUMENT,
    MAX_MEMORY_BYTES,
    Link,
    Meaning,
    bytes_of,
    number_of,
    pair_of,
)
from workbench.gdbstub.packets import MAX_PAYLOAD
from workbench.gdbstub.symbolfile import PATH, SymbolFileServer
from workbench.peek import PAGE

#: What lldb is told that there are; the engine takes 256 probes, and a watchpoint of both kinds is two.
_MAX_WATCHPOINTS = 128
#: Most pages that lldb is told of at once.
_MAX_REGION_PAGES = 1024
NO_NON_STOP = b"E.non-stop mode is not supported: the machine of a trace moves as a whole"
#: What lldb asks first: riscv64, little endian.
_HOST = (
    f"triple:{b'riscv64-unknown-unknown-elf'.hex()};endian:little;ptrsize:8;"
    "watchpoint_exceptions_received:before;"
)
_OFFERS = (
    "qXfer:features:read+;qXfer:threads:read+;qXfer:memory-map:read+;QStartNoAckMode+;ReverseStep+;"
    "ReverseContinue+;vContSupported+;swbreak+;hwbreak+;ConditionalBreakpoints+;QNonStop-"
)
#: Addresses are virtual, and which are mapped changes from step to step: all are to be tried.
_MEMORY_MAP = (
    b'<?xml version="1.0"?>\n<!DOCTYPE memory-map PUBLIC "+//IDN gnu.org//DTD GDB Memory Map V1.0//EN"\n'
    b'  "http://sourceware.org/gdb/gdb-memory-map.dtd">\n<memory-map>\n'
    b'  <memory type="ram" start="0x0" length="0x8000000000000000"/>\n'
    b'  <memory type="ram" start="0x8000000000000000" length="0x8000000000000000"/>\n</memory-map>\n'
)


class Detached(Exception):
    """gdb is leaving; ``ends_server`` where it killed."""

    def __init__(self, reply: bytes | None, ends_server: bool) -> None:
        super().__init__()
        self.reply = reply
        self.ends_server = ends_server


class Queries:
    """Everything that neither moves the cursor nor touches the state.

    Args:
        link: the connection.
        monitor: runs a line of ``monitor`` and returns its text.
        file: the symbols that gdb is given.
    """

    def __init__(self, link: Link, monitor: Callable[[str], str], file: SymbolFileServer) -> None:
        self._link = link
        self._monitor = monitor
        self._file = file
        self.no_ack = False

    def packets(self) -> dict[str, Meaning]:
        """Return the meanings by the packet's name."""
        return {
            "qSupported": self.supported,
            "qXfer:": self.transfer,
            "qRcmd,": self.command,
            "qThreadExtraInfo,": self.thread_name,
            "qfThreadInfo": self.threads_first,
            "qsThreadInfo": lambda text: b"l",
            "qAttached": lambda text: b"1",
            "qSymbol": lambda text: b"OK",
            "qHostInfo": lambda text: _HOST.encode(),
            "qProcessInfo": lambda text: f"pid:1;{_HOST}".encode(),
            "qC": lambda text: b"" if text else b"QC%x" % (self._link.hart + 1),
            "qMemoryRegionInfo:": self.region,
            "qWatchpointSupportInfo": lambda text: b"num:%d;" % _MAX_WATCHPOINTS,
            "qqemu.Supported": lambda text: b"PhyMemMode",
            "qqemu.PhyMemMode": lambda text: b"%d" % self._link.physical,
            "Qqemu.PhyMemMode:": self.set_physical,
            "QStartNoAckMode": self.start_no_ack,
            "QNonStop:": lambda text: b"OK" if text == "0" else NO_NON_STOP,
            "vFile:": self._file.handle,
            "H": self.select,
            "T": self.is_alive,
            "D": self.detach,
            "k": self.kill,
            "vKill": lambda text: self.kill(text, b"OK"),
        }

    def supported(self, text: str) -> bytes:
        """``qSupported``: what gdb can do is noted, what we can do is told."""
        self._link.features = frozenset(text.removeprefix(":").split(";"))
        files = "qXfer:exec-file:read+;" if self._file.data() else ""
        return f"PacketSize={MAX_PAYLOAD:x};{files}{_OFFERS}".encode()

    def transfer(self, text: str) -> bytes:
        """``qXfer:object:read:annex:offset,length``: a part of a document."""
        try:
            kind, verb, annex, span = text.split(":")
        except ValueError:
            return ERROR_ARGUMENT
        if verb != "read":
            return b""
        document: bytes | None
        if kind == "features":
            document = self._link.target.document(annex)
        elif kind == "threads":
            document = self._thread_document()
        elif kind == "memory-map":
            document = _MEMORY_MAP
        elif kind == "exec-file" and self._file.data():
            document = PATH.encode()
        else:
            return b""
        if document is None:
            return b"E00"
        offset, length = pair_of(span)
        part = document[offset : offset + min(length, MAX_MEMORY_BYTES)]
        return (b"l" if offset + len(part) >= len(document) else b"m") + part

    def _thread_document(self) -> bytes:
        rows = "".join(
            f'<thread id="{hart + 1:x}" core="{hart}" name={quoteattr(f"hart {hart}")}/>'
            for hart in range(self._link.session.harts)
        )
        return f'<?xml version="1.0"?>\n<threads>{rows}</threads>\n'.encode()

    def region(self, text: str) -> bytes:
        """``qMemoryRegionInfo:addr``: lldb asks what may be done at an address, and up to where the same may be."""
        first = number_of(text) & ~(PAGE - 1)
        self._link.session.hart = self._link.hart
        may, pages = self._permissions(first), 1
        most = min(_MAX_REGION_PAGES, ((1 << 64) - first) // PAGE)
        while pages < most and self._permissions(first + pages * PAGE) == may:
            pages += 1
        shown = f"permissions:{may};" if may else ""
        return f"start:{first:x};size:{pages * PAGE:x};{shown}".encode()

    def _permissions(self, page: int) -> str:
        link = self._link
        if not link.peek.read(page, 1, link.physical):
            return ""
        return (
            "rwx"
            if link.physical
            else "".join(a for a in "rwx" if link.session.translate(page, a) is not None)
        )

    def command(self, text: str) -> bytes:
        """``qRcmd,hex``: a ``monitor`` command; its output goes to gdb's console."""
        link = self._link
        line = bytes_of(text).decode("utf-8", "replace")
        link.session.hart = link.hart
        shown = link.run_motion(lambda: self._monitor(line))
        link.print("Interrupted.\n" if shown is None else shown)
        link.hart = link.session.hart
        return b"OK"

    def set_physical(self, text: str) -> bytes:
        """``Qqemu.PhyMemMode:0|1``: whether addresses of memory and of new watchpoints are physical."""
        if text not in ("0", "1"):
            return ERROR_ARGUMENT
        self._link.physical = text == "1"
        return b"OK"

    def start_no_ack(self, text: str) -> bytes:
        """``QStartNoAckMode``: the connection is reliable; no more + and -."""
        self.no_ack = True
        return b"OK"

    # -- threads

    def select(self, text: str) -> bytes:
        """``Hg``, ``Hc``: the thread of later packets; 0 and -1 mean any."""
        if text[:1] not in ("g", "c"):
            return ERROR_ARGUMENT
        hart = self._link.thread(text[1:])
        if hart is not None and text[0] == "g":
            self._link.hart = hart
        return b"OK"

    def is_alive(self, text: str) -> bytes:
        """``T thread``: harts are always there."""
        return ERROR_ARGUMENT if self._link.thread(text) is None else b"OK"

    def threads_first(self, text: str) -> bytes:
        """``qfThreadInfo``: all of them in one."""
        return b"m" + ",".join(f"{hart + 1:x}" for hart in range(self._link.session.harts)).encode()

    def thread_name(self, text: str) -> bytes:
        """``qThreadExtraInfo,thread``: what ``info threads`` shows beside it."""
        return f"hart {self._link.thread(text) or 0}".encode().hex().encode()

    # -- leaving

    def detach(self, text: str) -> bytes:
        """``D``: gdb leaves, the server stays."""
        raise Detached(b"OK", ends_server=False)

    def kill(self, text: str, reply: bytes | None = None) -> bytes:
        """``k``, ``vKill``: gdb leaves and ends the server."""
        raise Detached(reply, ends_server=True)
