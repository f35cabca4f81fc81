"""The meaning of gdb's packets over a Session: one small method for each, in tables by prefix.

Threads are harts, numbered from 1. The state of a recorded run can't be written: those packets are
refused, and gdb's console is told why.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from workbench.errors import exit_code_of, one_line
from workbench.gdbstub.packets import MAX_PAYLOAD
from workbench.gdbstub.symbolfile import PATH, SymbolFileServer
from workbench.gdbstub.target import Target, encode

if TYPE_CHECKING:
    from workbench.session import Session

ERROR_ARGUMENT = b"E16"  # EINVAL, in hex as all errors are
ERROR_MEMORY = b"E14"  # EFAULT's decimal, what gdb users know from other stubs
REFUSED = "E.the state of a recorded run can't be written"
REFUSED_WHY = (
    "workbench: registers and memory of a recorded run can't be written: its history is what it is\n"
)
MAX_MEMORY_BYTES = (MAX_PAYLOAD - 8) // 2
SIGINT, SIGTRAP, SIGABRT = 2, 5, 6
_HEX = frozenset("0123456789abcdefABCDEF")

#: Runs a motion of the session so that Ctrl-C reaches it; None when Ctrl-C came first. The server gives one.
MotionRunner = Callable[[Callable[[], Any]], Any]
Reply = bytes | None


class Detached(Exception):
    """gdb is leaving; ``ends_server`` where it killed."""

    def __init__(self, reply: Reply, ends_server: bool) -> None:
        super().__init__()
        self.reply = reply
        self.ends_server = ends_server


class BadPacket(Exception):
    """A packet whose arguments mean nothing."""


class Handlers:
    """One connection's meaning.

    Args:
        session: what is debugged.
        monitor: runs a line of ``monitor`` and returns its text.
        send: sends a payload before the reply (console output).
        run_motion: runs a motion so that Ctrl-C reaches it.
        file: the symbols that gdb is given; made of the session's where None.
    """

    def __init__(
        self,
        session: Session,
        monitor: Callable[[str], str],
        send: Callable[[bytes], None],
        run_motion: MotionRunner = lambda motion: motion(),
        file: SymbolFileServer | None = None,
    ) -> None:
        self.session = session
        self.target = Target(session.board.engine.reg_names)
        self.no_ack = False
        self._file = file or SymbolFileServer(session.symbols)
        self._monitor = monitor
        self._send = send
        self._run_motion = run_motion
        self._hart = session.hart
        self._breakpoints: dict[tuple[str, int], int] = {}
        self._features: frozenset[str] = frozenset()
        self._console: list[str] = []
        self._last_stop = b"T%02xthread:%x;" % (SIGTRAP, self._hart + 1)

    def close(self) -> None:
        """Take away the breakpoints that this gdb set."""
        for number in self._breakpoints.values():
            self._delete(number)
        self._breakpoints.clear()

    def handle(self, data: bytes) -> bytes:
        """Return the reply to a packet; an empty one for what is not known here.

        Raises:
            Detached: when gdb leaves.
        """
        text = data.decode("latin-1")
        try:
            for prefix, method in _LONG.items():
                if text.startswith(prefix):
                    return method(self, text[len(prefix) :])
            method = _SHORT.get(text[:1], _unknown)
            return method(self, text[1:])
        except BadPacket:
            return ERROR_ARGUMENT
        # an expected error of the session, told as an errno; bugs go up to the server
        except Exception as error:
            if isinstance(error, Detached) or (
                exit_code_of(error) is None and not isinstance(error, ValueError)
            ):
                raise
            self._console.append(f"workbench: {one_line(error)}\n")
            return ERROR_ARGUMENT

    # -- registers and memory

    def read_registers(self, text: str) -> bytes:
        """``g``: the general registers, pc and the floating-point registers."""
        return b"".join(encode(register, self._value(register.engine)) for register in self.target.general)

    def read_register(self, text: str) -> bytes:
        """``p n``: one register, x's for one that has no value now."""
        register = self.target.by_number.get(_hex(text))
        if register is None:
            return ERROR_ARGUMENT
        try:
            return encode(register, self._value(register.engine))
        except (ValueError, KeyError):
            return b"x" * (register.bits // 4)

    def _value(self, source: str) -> int:
        return 0 if source == "x0" else int(self.session.board.engine.get_reg(self._hart, source))

    def read_memory(self, text: str) -> bytes:
        """``m addr,length``: through the current translation of the selected hart; as much as is readable."""
        address, length = _pair(text)
        length = min(length, MAX_MEMORY_BYTES)
        self.session.hart = self._hart
        data = bytearray()
        while len(data) < length:
            at = address + len(data)
            part = self._read(at, min(length - len(data), 4096 - (at & 4095)))
            if part is None:
                break
            data += part
        return data.hex().encode() if data or length == 0 else ERROR_MEMORY

    def _read(self, address: int, size: int) -> bytes | None:
        if not 0 <= address < 1 << 64:
            return None
        try:
            return bytes(self.session.read_mem(address, size))
        except ValueError:
            return None
        # the session's own error for an address that is not mapped
        except Exception as error:
            if exit_code_of(error) is None:
                raise
            return None

    def refuse_write(self, text: str) -> bytes:
        """``M X P G``: refused; gdb's console is told when it next may be."""
        if REFUSED_WHY not in self._console:
            self._console.append(REFUSED_WHY)
        return REFUSED.encode()

    # -- motions

    def continue_(self, text: str) -> bytes:
        """``c``, ``C sig``: forwards to a breakpoint or to the end of history."""
        return self._move(self.session.cont)

    def step(self, text: str) -> bytes:
        """``s``, ``S sig``: one step forwards."""
        return self._move(lambda: self.session.stepi(1))

    def backwards(self, text: str) -> bytes:
        """``bs`` and ``bc``: one step backwards; backwards to a breakpoint or to the start of history."""
        if text == "s":
            return self._move(lambda: self.session.reverse_stepi(1))
        if text == "c":
            return self._move(self.session.reverse_cont)
        return b""

    def vcont(self, text: str) -> bytes:
        """``vCont;action[:thread]…``: a step wins over a continue, as one machine moves as a whole."""
        actions = [part.partition(":")[0] for part in text.split(";") if part]
        if not actions or any(action[:1] not in ("c", "C", "s", "S", "t") for action in actions):
            return ERROR_ARGUMENT
        letters = {action[:1].lower() for action in actions}
        if letters == {"t"}:
            return b"OK"
        return self.step("") if "s" in letters else self.continue_("")

    def _move(self, motion: Callable[[], Any]) -> bytes:
        self._flush_console()
        try:
            stop = self._run_motion(motion)
        # a divergence or a damaged trace: gdb stops where it is and its console has the reason
        except Exception as error:
            if exit_code_of(error) is None:
                raise
            self._console.append(f"workbench: {one_line(error)}\n")
            self._flush_console()
            self._last_stop = b"T%02xthread:%x;" % (SIGABRT, self._hart + 1)
            return self._last_stop
        self._last_stop = self._stop_reply(stop)
        return self._last_stop

    def _stop_reply(self, stop: Any) -> bytes:
        if stop is None:
            return b"T%02xthread:%x;" % (SIGINT, self._hart + 1)
        self._hart = int(stop.hart)
        signal = SIGINT if stop.reason == "interrupted" else SIGTRAP
        reply = b"T%02xthread:%x;" % (signal, self._hart + 1)
        if stop.reason == "breakpoint":
            hardware = ("1", stop.pc) in self._breakpoints and ("0", stop.pc) not in self._breakpoints
            word = "hwbreak" if hardware else "swbreak"
            return reply + (f"{word}:;".encode() if f"{word}+" in self._features else b"")
        if stop.reason == "end":
            return reply + b"replaylog:end;"
        if stop.reason == "start":
            return reply + b"replaylog:begin;"
        return reply

    def _flush_console(self) -> None:
        for text in self._console:
            self._send(b"O" + text.encode().hex().encode())
        self._console.clear()

    # -- breakpoints

    def insert(self, text: str) -> bytes:
        """``Z0``, ``Z1``: a breakpoint; inserting one that is there is no error."""
        kind, address = _point(text)
        if kind not in ("0", "1"):
            return b""
        if (kind, address) not in self._breakpoints:
            self._breakpoints[kind, address] = self.session.add_breakpoint(address).number
        return b"OK"

    def remove(self, text: str) -> bytes:
        """``z0``, ``z1``: no breakpoint there any more."""
        kind, address = _point(text)
        if kind not in ("0", "1"):
            return b""
        number = self._breakpoints.pop((kind, address), None)
        if number is not None:
            self._delete(number)
        return b"OK"

    def _delete(self, number: int) -> None:
        """Delete a breakpoint of gdb's, which the user may have deleted through ``monitor``."""
        if any(point.number == number for point in self.session.breakpoints):
            self.session.delete_breakpoint(number)

    # -- threads

    def select(self, text: str) -> bytes:
        """``Hg``, ``Hc``: the thread of later packets; 0 and -1 mean any."""
        if text[:1] not in ("g", "c"):
            return ERROR_ARGUMENT
        number = self._thread(text[1:])
        if number is not None and text[0] == "g":
            self._hart = number
        return b"OK"

    def is_alive(self, text: str) -> bytes:
        """``T thread``: harts are always there."""
        return ERROR_ARGUMENT if self._thread(text) is None else b"OK"

    def _thread(self, text: str) -> int | None:
        """Return a thread's hart, None for any."""
        if text in ("0", "-1"):
            return None
        number = _hex(text) - 1
        if not 0 <= number < self.session.harts:
            raise BadPacket
        return number

    def threads_first(self, text: str) -> bytes:
        """``qfThreadInfo``: all of them in one."""
        return b"m" + ",".join(f"{hart + 1:x}" for hart in range(self.session.harts)).encode()

    def thread_name(self, text: str) -> bytes:
        """``qThreadExtraInfo,thread``: what ``info threads`` shows beside it."""
        hart = self._thread(text)
        return f"hart {hart or 0}".encode().hex().encode()

    # -- queries

    def supported(self, text: str) -> bytes:
        """``qSupported``: what gdb can do is noted, what we can do is told."""
        self._features = frozenset(text.removeprefix(":").split(";"))
        files = "qXfer:exec-file:read+;" if self._file.data() else ""
        return (
            f"PacketSize={MAX_PAYLOAD:x};{files}qXfer:features:read+;qXfer:threads:read+;QStartNoAckMode+;"
            "ReverseStep+;ReverseContinue+;vContSupported+;swbreak+;hwbreak+"
        ).encode()

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
            document = self.target.document(annex)
        elif kind == "threads":
            document = self._thread_document()
        elif kind == "exec-file" and self._file.data():
            document = PATH.encode()
        else:
            return b""
        if document is None:
            return b"E00"
        offset, length = _pair(span)
        part = document[offset : offset + min(length, MAX_MEMORY_BYTES)]
        return (b"l" if offset + len(part) >= len(document) else b"m") + part

    def _thread_document(self) -> bytes:
        rows = "".join(
            f'<thread id="{hart + 1:x}" name="hart {hart}"/>' for hart in range(self.session.harts)
        )
        return f'<?xml version="1.0"?>\n<threads>{rows}</threads>\n'.encode()

    def file(self, text: str) -> bytes:
        """``vFile:…``: the file of symbols that we offer as the executable."""
        return self._file.handle(text)

    def command(self, text: str) -> bytes:
        """``qRcmd,hex``: a ``monitor`` command; its output goes to gdb's console."""
        try:
            line = bytes.fromhex(text).decode("utf-8", "replace")
        except ValueError:
            return ERROR_ARGUMENT
        self.session.hart = self._hart
        shown = (self._run_motion(lambda: self._monitor(line)) or "Interrupted.\n").encode()
        for at in range(0, len(shown), MAX_MEMORY_BYTES):
            self._send(b"O" + shown[at : at + MAX_MEMORY_BYTES].hex().encode())
        self._hart = self.session.hart
        return b"OK"

    def start_no_ack(self, text: str) -> bytes:
        """``QStartNoAckMode``: the connection is reliable; no more + and -."""
        self.no_ack = True
        return b"OK"

    def detach(self, text: str) -> bytes:
        """``D``: gdb leaves, the server stays."""
        raise Detached(b"OK", ends_server=False)

    def kill(self, text: str) -> bytes:
        """``k``: gdb leaves and ends the server."""
        raise Detached(None, ends_server=True)

    def last_stop(self, text: str) -> bytes:
        """``?``: why it stands."""
        return self._last_stop


def _unknown(handlers: Handlers, text: str) -> bytes:
    return b""


def _constant(reply: bytes) -> Callable[[Handlers, str], bytes]:
    return lambda handlers, text: reply


_LONG: dict[str, Callable[[Handlers, str], bytes]] = {
    "qSupported": Handlers.supported,
    "qXfer:": Handlers.transfer,
    "qRcmd,": Handlers.command,
    "qThreadExtraInfo,": Handlers.thread_name,
    "qfThreadInfo": Handlers.threads_first,
    "qsThreadInfo": _constant(b"l"),
    "qAttached": _constant(b"1"),
    "qSymbol": _constant(b"OK"),
    "qC": lambda handlers, text: b"" if text else b"QC%x" % (handlers.session.hart + 1),
    "QStartNoAckMode": Handlers.start_no_ack,
    "vFile:": Handlers.file,
    "vCont?": _constant(b"vCont;c;C;s;S;t"),
    "vCont;": Handlers.vcont,
    "vKill": lambda handlers, text: _raise_killed(),
}
_SHORT: dict[str, Callable[[Handlers, str], bytes]] = {
    "?": Handlers.last_stop,
    "g": Handlers.read_registers,
    "p": Handlers.read_register,
    "m": Handlers.read_memory,
    "G": Handlers.refuse_write,
    "P": Handlers.refuse_write,
    "M": Handlers.refuse_write,
    "X": Handlers.refuse_write,
    "c": Handlers.continue_,
    "C": Handlers.continue_,
    "s": Handlers.step,
    "S": Handlers.step,
    "b": Handlers.backwards,
    "Z": Handlers.insert,
    "z": Handlers.remove,
    "H": Handlers.select,
    "T": Handlers.is_alive,
    "D": Handlers.detach,
    "k": Handlers.kill,
}


def _raise_killed() -> bytes:
    raise Detached(b"OK", ends_server=True)


def _hex(text: str) -> int:
    """Return a number of at most 64 bits. Raises BadPacket for what is none."""
    if not 0 < len(text) <= 16 or not set(text) <= _HEX:
        raise BadPacket
    return int(text, 16)


def _pair(text: str) -> tuple[int, int]:
    first, comma, second = text.partition(",")
    if not comma:
        raise BadPacket
    return _hex(first), _hex(second)


def _point(text: str) -> tuple[str, int]:
    """Return kind and address of ``kind,address,size[;conditions]``."""
    parts = text.partition(";")[0].split(",")
    if len(parts) != 3:
        raise BadPacket
    _hex(parts[2])
    return parts[0], _hex(parts[1])
