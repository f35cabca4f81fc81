"""SQL over a trace: fills the lazy tables that a statement reads, then runs it, read-only.

Beside SQLite's functions there are ``sym(address)``, ``addr('name+0x10')``, ``hex(number)``, ``disasm(pc)``,
``line(pc)``, ``task_at(icount[, hart])`` and ``vtime(icount)``. Addresses in tables are signed, as SQLite's
integers are; a hexadecimal number in SQL is too, so ``where pc = 0xffffffff80000000`` is right.
"""

from __future__ import annotations

import re
import sqlite3
from bisect import bisect_right
from collections.abc import Callable
from typing import Any, Final

from traces.lazy import LAZY_TABLES, Want
from traces.queries import declared
from traces.queries.base import NEVER, signed
from traces.queries.memory import want_mem
from traces.queries.tasks import want_calls
from traces.reader import QueryError
from workbench.kernel.pagetable import GuestMemory
from workbench.lines import Lines
from workbench.output import Style, Table
from workbench.plugins import load

from .errors import QueryRefused
from .fill import Filler
from .names import CSR_NUMBERS
from .pushdown import Args, Limits, find_limits

#: Columns that hold addresses, and read best in hex.
ADDRESSES: Final = frozenset("pc target epc tval vaddr paddr address".split())
_FOLLOWED: Final = frozenset(("calls", "traps", "syscalls"))
_BLOCKED_PRAGMAS: Final = frozenset(("query_only", "writable_schema", "trusted_schema"))
_FAR: Final = 1 << 62
#: Operations of SQLite after which it looks whether it is interrupted: a millisecond or so.
_OPCODES_A_LOOK: Final = 20_000

Machine = Callable[[], Any]


class Sql:
    """SQL on one trace.

    Args:
        filler: of the trace. machine: gives an engine whose memory holds the code, for ``disasm``.
        lines: gives the source lines that are known, for ``line``.
    """

    def __init__(self, filler: Filler, machine: Machine, lines: Callable[[], Lines] = Lines) -> None:
        load()
        self.filler = filler
        self._lines = lines
        self._machine = machine
        self._anchors: list[tuple[int, int]] = []
        self._switches: dict[int, tuple[list[int], list[str]]] = {}
        #: what a function of ours failed with: SQLite only tells that one did
        self._why = ""
        self._prepared: sqlite3.Connection | None = None

    def run(self, text: str, args: Args = ()) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Return columns and rows of one statement that reads.

        Raises:
            QueryError: it is wrong SQL, or writes. QueryRefused: it would need absurdly many rows.
        """
        try:
            text.encode()
        except UnicodeEncodeError:
            raise QueryError("sql: the statement is not UTF-8; is the terminal's locale?") from None
        tables, functions = self._reads(text, args)
        lazy = tables & set(declared())
        limits = find_limits(text, self.address, args) if len(lazy) == 1 else Limits()
        for table in sorted(lazy):
            self._ensure(table, limits)
        if "task_at" in functions and self.filler.ensure(Want("switches")).steps:
            self._switches = {}
        return self.run_ready(text, args)

    def run_ready(self, text: str, args: Args = ()) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Return columns and rows of a statement whose tables are filled already. Raises QueryError.

        Ctrl-C ends it with KeyboardInterrupt.
        """
        db = self._connection()
        db.set_authorizer(_authorise)
        try:
            cursor = db.execute(text, args)
            return [d[0] for d in cursor.description or ()], cursor.fetchall()
        except (sqlite3.Error, sqlite3.Warning) as e:
            if getattr(e, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
                raise KeyboardInterrupt from None
            why, self._why = self._why or str(e), ""
            raise QueryError(f"sql: {why}") from None
        finally:
            db.set_authorizer(None)

    def table(self, text: str, args: Args = ()) -> Table:
        """Return a statement's rows to be shown: addresses unsigned, in hex."""
        columns, rows = self.run(text, args)
        places = [i for i, name in enumerate(columns) if name.lower() in ADDRESSES]
        styles: dict[str, Style] = {columns[i]: "hex16" for i in places}
        shown = []
        for row in rows:
            values = list(row)
            for i in places:
                if isinstance(values[i], int):
                    values[i] &= NEVER
            shown.append(values)
        return Table(tuple(columns), shown, styles, empty="No rows.")

    # what must be there

    def _reads(self, text: str, args: Args) -> tuple[set[str], set[str]]:
        tables: set[str] = set()
        functions: set[str] = set()

        def look(action: int, one: str | None, two: str | None, *rest: str | None) -> int:
            if action == sqlite3.SQLITE_READ and one:
                tables.add(one.lower())
            elif action == sqlite3.SQLITE_FUNCTION and two:
                functions.add(two.lower())
            return _authorise(action, one, two)

        if re.match(r"\s*(explain|pragma)\b", text, re.I):
            return tables, functions
        self.filler.store.bring_up()
        self._make_tables(text)
        db = self._connection()
        db.set_authorizer(look)
        try:
            db.execute(f"EXPLAIN QUERY PLAN {text}", args).fetchall()
        except (sqlite3.Error, sqlite3.Warning) as e:
            raise QueryError(f"sql: {e}") from None
        finally:
            db.set_authorizer(None)
        return tables, functions

    def _make_tables(self, text: str) -> None:
        """Make the tables of plug-ins' queries that a statement names: the schema does not know them."""
        for name, query in declared().items():
            if name not in LAZY_TABLES and re.search(rf"\b{re.escape(name)}\b", text, re.I):
                self.filler.store.make_table(name, query.columns)

    def _ensure(self, table: str, limits: Limits) -> None:
        low, high = limits.ranges.get("icount", (0, _FAR))
        name = limits.texts.get("symbol") if table == "calls" else None
        seek = None if name is None else f"symbol = '{name}'"
        self.filler.ensure(self._want(table, limits), max(low, 0), min(high, _FAR) + 1, seek)

    def _want(self, table: str, limits: Limits) -> Want:
        if table == "calls":
            return self._want_calls(limits)
        if table == "mem":
            op = {"r": "r", "w": "w"}.get(limits.texts.get("op", ""), "")
            for name in ("paddr", "vaddr"):
                if name in limits.ranges:
                    # an access that begins a little lower may reach into the range
                    low, high = limits.ranges[name]
                    return want_mem(op, **{name: (low & NEVER, high & NEVER)})
            return want_mem(op)
        if table == "csr" and limits.texts.get("csr", "") in CSR_NUMBERS:
            number = CSR_NUMBERS[limits.texts["csr"]]
            return Want("csr", (("number", [number, number]),), "csr = ?", (limits.texts["csr"],))
        return Want(table, follows=table in _FOLLOWED)

    def _want_calls(self, limits: Limits) -> Want:
        low, high = limits.ranges.get("target", (0, 1))
        if low == high:
            return want_calls(low & NEVER)
        name = limits.texts.get("symbol")
        if name is None:
            return want_calls()
        symbols = self.filler.symbols
        address = symbols.lookup(name)
        if address is None:
            raise QueryRefused(f"no symbol {name!r}; 'info symbols PREFIX' lists them")
        if symbols.format(address) != name:
            raise QueryRefused(f"{name!r} is the same place as {symbols.format(address)!r}; ask for that one")
        return want_calls(address)

    # functions

    def _connection(self) -> sqlite3.Connection:
        db = self.filler.store.reader()
        if db is not self._prepared:
            self._prepared = db
            # in the call, Python runs the signals' handlers; what they raise makes SQLite stop
            db.set_progress_handler(lambda: 0, _OPCODES_A_LOOK)
            for name, count, function in (
                ("sym", 1, self._sym),
                ("addr", 1, self._addr),
                ("hex", 1, _hex),
                ("disasm", 1, self._disasm),
                ("line", 1, self._line),
                ("task_at", -1, self._task_at),
                ("vtime", 1, self.vtime),
            ):
                db.create_function(name, count, function)
        return db

    def _sym(self, address: int | None) -> str | None:
        return None if address is None else self.filler.symbols.format(address & NEVER)

    def _addr(self, text: str) -> int:
        try:
            return self.address(text)
        except QueryRefused as error:
            self._why = str(error)
            raise

    def address(self, text: str) -> int:
        """Return the signed address of ``name`` or ``name+0x10``. Raises QueryRefused: there is none."""
        name, plus, offset = text.partition("+")
        found = self.filler.symbols.lookup(name.strip())
        try:
            if found is not None:
                return signed(found + (int(offset, 0) if plus else 0))
        except ValueError:
            pass
        raise QueryRefused(f"no symbol for addr({text!r}); 'info symbols PREFIX' lists them")

    def _disasm(self, pc: int | None) -> str | None:
        if pc is None:
            return None
        engine = self._machine()
        for hart in range(engine.harts):
            memory = GuestMemory(engine, engine.get_reg(hart, "satp"))
            paddr = memory.translate(pc & NEVER)
            if paddr is not None:
                try:
                    code = engine.read_phys(paddr, min(4, 4096 - paddr % 4096))
                except (ValueError, OverflowError):
                    continue
                return str(engine.disasm(code, pc & NEVER)[1])
        return None

    def _line(self, pc: int | None) -> str | None:
        """Return ``file:line`` of code; None where no debug file tells."""
        found = None if pc is None else self._lines().at(pc & NEVER)
        return None if found is None else f"{found.file}:{found.line}"

    def _task_at(self, icount: int, hart: int = 0) -> str:
        """Return ``pid/comm`` of the task that a hart ran at a position."""
        if not self._switches:
            for at, of, pid, comm in self.filler.store.read(
                "SELECT icount, hart, next_pid, next_comm FROM switches ORDER BY icount"
            ):
                places, names = self._switches.setdefault(of, ([], []))
                places.append(at)
                names.append(f"{pid}/{comm}")
        places, names = self._switches.get(hart, ([], []))
        at = bisect_right(places, icount) - 1
        return names[at] if at >= 0 else "0/swapper"

    def vtime(self, icount: int) -> int:
        """Return the virtual time of a position in ns; where a hart idled nearby, the earliest it can be."""
        per_step = int(self.filler.trace.config.get("ns_per_step", 1))
        if not self._anchors:
            tables = ("checkpoints", "inputs", "console")
            found = {r for t in tables for r in self.filler.store.read(f"SELECT icount, vtime_ns FROM {t}")}
            self._anchors = sorted({(0, 0), *found})
        at = bisect_right(self._anchors, (icount, _FAR)) - 1
        known, vtime_ns = self._anchors[max(at, 0)]
        return vtime_ns + (icount - known) * per_step


def _hex(value: Any) -> str | None:
    """Return a number in hex; texts and blobs as SQLite's own ``hex`` has them."""
    if value is None:
        return None
    if isinstance(value, int):
        return f"{value & NEVER:#x}"
    raw = value if isinstance(value, bytes) else str(value).encode()
    return raw.hex().upper()


def _authorise(action: int, one: str | None = None, two: str | None = None, *_: str | None) -> int:
    if action in (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH):
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_PRAGMA and (one or "").lower() in _BLOCKED_PRAGMAS and two is not None:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK
