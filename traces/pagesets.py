"""Pages of RAM in a trace: stored many at a time, found by the hash of each, listed by checkpoint.

A set is up to ``SET_PAGES`` pages in one compressed frame: neighbours in RAM resemble each other, and one row costs
what one page's would. A list says what pages a checkpoint differs from its parent in, and the hashes of their
contents; a page whose contents are in some set is stored no second time. A page of the kernel is mostly as it was
loaded, so what a set holds of it may be the difference (XOR) from bytes of that image.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import zlib
from array import array
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

import zstandard

from . import blobs
from .errors import TraceError

#: Bytes of a RAM page.
PAGE_BYTES: Final = 4096
#: Pages of a set: more make it no smaller, and whoever wants one page decompresses all.
SET_PAGES: Final = 64
#: No set has more; a row that claims so is refused before anything is allocated.
MAX_SET_PAGES: Final = 4096
#: The place of a page that differs from no image's.
NOWHERE: Final = (1 << 64) - 1
#: Entries of one row of a list.
LIST_PAGES: Final = 512
_HASH: Final = 32
#: Of decompressed sets that a reader keeps.
_OPEN_SETS: Final = 64

#: Runs one SQL statement.
Run = Callable[[str, tuple[Any, ...]], sqlite3.Cursor]
#: Runs one SQL statement that reads, and returns its rows.
Rows = Callable[[str, tuple[Any, ...]], list[Any]]


_SET: Final = "SELECT * FROM page_sets WHERE id = ?"


class Based(NamedTuple):
    """What stored pages differ from: each is its contents XORed with bytes of an image.

    Args:
        image: the hash of the blob.
        places: for each page the offset there, NOWHERE for a page that is stored as it is.
    """

    image: bytes
    places: Sequence[int]


class PageList:
    """Which pages a checkpoint differs in: their numbers, ascending, and their contents' hashes behind each other."""

    __slots__ = ("names", "numbers")

    def __init__(self) -> None:
        self.numbers = array("I")
        self.names = bytearray()

    @classmethod
    def of(cls, pages: Iterable[tuple[int, bytes]]) -> PageList:
        """Return the list of some ``(page, hash)``, in any order."""
        made = cls()
        for page, name in sorted(pages):
            made.numbers.append(page)
            made.names += name
        return made


def xor(a: bytes, b: bytes) -> bytes:
    """Return the difference of two pages, or a page from another and the difference."""
    return (int.from_bytes(a, "little") ^ int.from_bytes(b, "little")).to_bytes(len(a), "little")


def _based(columns: Sequence[Any], count: int, where: str) -> Based | None:
    """Return what a row's last columns say, which an older trace has not. Raises TraceError: damaged."""
    if not columns or columns[0] is None:
        return None
    try:
        places = json.loads(columns[1])
    except (ValueError, RecursionError):
        places = None
    if (
        not isinstance(places, list)
        or len(places) != count
        or not all(place is None or (isinstance(place, int) and place >= 0) for place in places)
    ):
        raise TraceError(f"{where}: damaged: the places of a page set are no list")
    return Based(columns[0], [NOWHERE if place is None else place for place in places])


def list_rows(checkpoint_id: int, pages: PageList) -> Iterator[tuple[int, int, str, bytes, int]]:
    """Yield the rows of ``page_lists`` that say which pages a checkpoint differs in, and their hashes."""
    for part, start in enumerate(range(0, len(pages.numbers), LIST_PAGES)):
        end = start + LIST_PAGES
        text = _json(pages.numbers[start:end].tolist())
        hashes = bytes(pages.names[start * _HASH : end * _HASH])
        yield checkpoint_id, part, text, hashes, _crc(text, hashes)


def _json(numbers: list[Any]) -> str:
    return json.dumps(numbers, separators=(",", ":"))


def read_list(rows: Rows, checkpoint_id: int, where: str) -> dict[int, bytes]:
    """Return ``{page: hash}`` of a checkpoint's rows of ``page_lists``. Raises TraceError: damaged."""
    pages: dict[int, bytes] = {}
    for text, hashes, crc in rows(
        "SELECT pages, hashes, crc FROM page_lists WHERE checkpoint_id = ? ORDER BY part", (checkpoint_id,)
    ):
        try:
            numbers = json.loads(text) if _crc(text, hashes) == crc else None
        except (ValueError, RecursionError):
            numbers = None
        names = _split(hashes)
        if (
            not isinstance(numbers, list)
            or len(numbers) != len(names)
            or not all(isinstance(n, int) and n >= 0 for n in numbers)
        ):
            raise TraceError(f"{where}: damaged: the pages of checkpoint {checkpoint_id} are no list")
        pages.update(zip(numbers, names, strict=True))
    return pages


def _crc(text: str, hashes: bytes) -> int:
    return zlib.crc32(hashes, zlib.crc32(text.encode()))


def _split(hashes: bytes) -> list[bytes]:
    return [hashes[at : at + _HASH] for at in range(0, len(hashes), _HASH)]


def _joined(hashes: bytes, which: Sequence[int]) -> bytes:
    """Return some of the hashes, by their places, ascending."""
    if len(which) == which[-1] + 1 - which[0]:
        return hashes[which[0] * _HASH : (which[-1] + 1) * _HASH]
    return b"".join([hashes[n * _HASH : (n + 1) * _HASH] for n in which])


class PageWriter:
    """The pages of a trace that is being recorded; one thread uses it at a time.

    Args:
        run: runs SQL on the trace.
        where: the trace's name, for messages.
    """

    def __init__(self, run: Run, where: str) -> None:
        self._run = run
        self._where = where
        self._zstd = zstandard.ZstdCompressor(level=blobs.LEVEL)
        self._set_of: dict[bytes, int] = {}
        self._uses: Counter[bytes] | None = None  # not counted before something is dropped
        self._waiting: list[bytes] = []  # of names: stored for a checkpoint that is to come
        self._sets = 0
        self._room = memoryview(bytearray(SET_PAGES * PAGE_BYTES))
        #: bytes of all sets in the file
        self.stored_bytes = 0

    def add(
        self,
        names: bytes,
        data: bytes | bytearray | memoryview,
        at: Sequence[int],
        based: Based | None = None,
    ) -> None:
        """Store contents once, for a list that is to come; ``TraceWriter.add_pages`` has the arguments."""
        self._waiting.append(names)
        set_of = self._set_of
        new: list[int] = []
        first = self._sets + 1
        for n, name in enumerate(_split(names)):
            if name not in set_of:
                set_of[name] = first + len(new) // SET_PAGES
                new.append(n)
        view = memoryview(data)
        for number, start in enumerate(range(0, len(new), SET_PAGES), first):
            part = new[start : start + SET_PAGES]
            contents = self._gather(view, [at[n] for n in part])
            places = None if based is None else Based(based.image, [based.places[n] for n in part])
            self._store(number, _joined(names, part), contents, places)

    def _gather(self, data: memoryview, at: Sequence[int]) -> memoryview:
        """Return pages at some places of ``data`` one behind the other, until the next call; most lie so already."""
        runs = [n for n in range(len(at)) if n == 0 or at[n] != at[n - 1] + 1] + [len(at)]
        if len(runs) == 2:
            return data[at[0] * PAGE_BYTES : (at[0] + len(at)) * PAGE_BYTES]
        for start, end in pairwise(runs):
            run = data[at[start] * PAGE_BYTES : (at[start] + end - start) * PAGE_BYTES]
            self._room[start * PAGE_BYTES : end * PAGE_BYTES] = run
        return self._room[: len(at) * PAGE_BYTES]

    def add_list(self, checkpoint_id: int, pages: PageList) -> None:
        """Say which pages a checkpoint differs in, and the hashes of their contents."""
        self._waiting.clear()
        self._write(checkpoint_id, pages)

    def drop_list(self, checkpoint_id: int, heirs: Iterable[int]) -> None:
        """Remove a checkpoint's pages; each heir's list takes over those that it has not itself."""
        if self._uses is None:
            self._uses = Counter()
            for (hashes,) in self._run("SELECT hashes FROM page_lists", ()):
                self._uses.update(_split(hashes))
        mine = self._list(checkpoint_id)
        for heir in heirs:
            theirs = self._list(heir)
            self._uses.subtract(theirs.values())
            self._remove(heir)
            self._write(heir, PageList.of((mine | theirs).items()))
        self._uses.subtract(mine.values())
        self._remove(checkpoint_id)
        self._sweep(mine.values(), self._uses)

    def _list(self, checkpoint_id: int) -> dict[int, bytes]:
        return read_list(lambda sql, args: self._run(sql, args).fetchall(), checkpoint_id, self._where)

    def _write(self, checkpoint_id: int, pages: PageList) -> None:
        if self._uses is not None:
            self._uses.update(_split(bytes(pages.names)))
        for row in list_rows(checkpoint_id, pages):
            self._run("INSERT INTO page_lists VALUES (?, ?, ?, ?, ?)", row)

    def _remove(self, checkpoint_id: int) -> None:
        self._run("DELETE FROM page_lists WHERE checkpoint_id = ?", (checkpoint_id,))

    def _sweep(self, names: Iterable[bytes], uses: Counter[bytes]) -> None:
        """Give back the room of contents that are in no list, once they are a quarter of their set."""
        waiting = {name for some in self._waiting for name in _split(some)}
        dead = {name for name in names if uses[name] <= 0 and name not in waiting}
        for number in sorted({self._set_of[name] for name in dead if name in self._set_of}):
            _, hashes, codec, stored, *rest = self._run(_SET, (number,)).fetchone()
            held = _split(hashes)
            based = _based(rest, len(held), self._where)
            live = [n for n, name in enumerate(held) if uses[name] > 0 or name in waiting]
            if 4 * len(live) > 3 * len(held):
                continue
            contents = blobs.unpack(codec, stored, len(held) * PAGE_BYTES, self._where)
            self._run("DELETE FROM page_sets WHERE id = ?", (number,))
            self.stored_bytes -= len(stored)
            for name in held:
                del self._set_of[name]
                if uses[name] <= 0:
                    del uses[name]
            if live:
                moved = self._sets + 1
                self._set_of.update(dict.fromkeys([held[n] for n in live], moved))
                pages = [contents[n * PAGE_BYTES : (n + 1) * PAGE_BYTES] for n in live]
                places = None if based is None else Based(based.image, [based.places[n] for n in live])
                self._store(moved, _joined(hashes, live), b"".join(pages), places)

    def _store(self, number: int, names: bytes, contents: bytes | memoryview, based: Based | None) -> None:
        """Write a set under a number that is above all others'."""
        squeezed = self._zstd.compress(contents)
        codec, stored = ("zstd", squeezed) if len(squeezed) < len(contents) else ("raw", contents)
        self._sets = number
        base, places = None, ""
        if based is not None and any(place != NOWHERE for place in based.places):
            base, places = based.image, _json([None if p == NOWHERE else p for p in based.places])
        self._run(
            "INSERT INTO page_sets VALUES (?, ?, ?, ?, ?, ?)",
            (number, names, codec, stored, base, places),
        )
        self.stored_bytes += len(stored)


class PageReader:
    """The pages of a trace by their hashes, each held against its own. Several threads may use one.

    Args:
        rows: runs SQL on the trace.
        image: returns an image's contents by its hash.
        where: the trace's name, for messages.
    """

    def __init__(self, rows: Rows, image: Callable[[bytes], bytes], where: str) -> None:
        self._rows = rows
        self._image = image
        self._where = where
        self._lock = threading.Lock()
        self._place: dict[bytes, tuple[int, int]] = {}
        self._scanned = 0
        self._open: OrderedDict[int, dict[bytes, bytes]] = OrderedDict()

    def find(self, names: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the contents of those of the hashes that are in a set. Raises TraceError: damaged."""
        with self._lock:
            out: dict[bytes, bytes] = {}
            for _ in range(2):  # a recorder may have added sets, and moved what was in others
                wanted: dict[int, list[bytes]] = {}
                for name in names:
                    if name not in out and name in self._place:
                        wanted.setdefault(self._place[name][0], []).append(name)
                for number in sorted(wanted):
                    out.update(self._take(number, wanted[number]))
                if all(name in out for name in names):
                    break
                self._scan()
            return out

    def based(self, name: bytes) -> tuple[bytes, int] | None:
        """Return the image that a page is stored as the difference from, and where there; None: as it is."""
        with self._lock:
            number, at = self._place.get(name, (0, 0))
            for _, hashes, _, _, *rest in self._rows(_SET, (number,)):
                found = _based(rest, len(hashes) // _HASH, self._where)
                if found is not None and at < len(found.places):
                    place = found.places[at]
                    return None if place == NOWHERE else (found.image, place)
            return None

    def names(self) -> set[bytes]:
        """Return the hashes of all pages that are stored."""
        with self._lock:
            self._scan()
            return set(self._place)

    def verify(self) -> int:
        """Read every set and check every page. Returns their number; raises TraceError for the first damage."""
        with self._lock:
            numbers = [row[0] for row in self._rows("SELECT id FROM page_sets ORDER BY id", ())]
            return sum(len(self._take(number, None)) for number in numbers)

    def _scan(self) -> None:
        for number, hashes in self._rows(
            "SELECT id, hashes FROM page_sets WHERE id > ? ORDER BY id", (self._scanned,)
        ):
            self._scanned = number
            for at, name in enumerate(_split(hashes)):
                self._place[name] = number, at

    def _take(self, number: int, wanted: list[bytes] | None) -> dict[bytes, bytes]:
        """Return what of a set is wanted, None for all of it; a set that has gone has nothing."""
        held = self._set(number)
        return {
            name: blobs.check(held[name], name, self._where)
            for name in (held if wanted is None else wanted)
            if name in held
        }

    def _set(self, number: int) -> dict[bytes, bytes]:
        """Return the contents of a set's pages by their hashes, not yet checked."""
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        rows = self._rows(_SET, (number,))
        if not rows:
            return {}
        _, hashes, codec, stored, *rest = rows[0]
        names = _split(hashes)
        if len(names) > MAX_SET_PAGES or len(hashes) % _HASH:
            raise TraceError(
                f"{self._where}: damaged: page set {number} claims {len(hashes)} bytes of hashes"
            )
        contents = blobs.unpack(codec, stored, len(names) * PAGE_BYTES, self._where)
        based = _based(rest, len(names), self._where)
        pages = [contents[at : at + PAGE_BYTES] for at in range(0, len(contents), PAGE_BYTES)]
        found = dict(zip(names, pages if based is None else self._whole(pages, based), strict=True))
        self._open[number] = found
        if len(self._open) > _OPEN_SETS:
            self._open.popitem(last=False)
        return found

    def _whole(self, pages: list[bytes], based: Based) -> Iterator[bytes]:
        image = self._image(based.image)
        for page, place in zip(pages, based.places, strict=True):
            if place == NOWHERE:
                yield page
                continue
            known = image[place : place + PAGE_BYTES]
            if len(known) != PAGE_BYTES:
                raise TraceError(f"{self._where}: damaged: a page set has a place outside of its image")
            yield xor(page, known)
