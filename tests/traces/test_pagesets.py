"""Pages of RAM, many to a row: found by hash, stored once, given back when no checkpoint has them."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from traces import pagesets, schema
from traces.blobs import BlobPacker, blob_hash, pack_state
from traces.copying import trim_trace
from traces.errors import TraceError
from traces.reader import TraceReader
from traces.writer import TraceWriter


def page(number: int) -> bytes:
    return random.Random(number).randbytes(64) * 64


def checkpoint(writer: TraceWriter, icount: int, parent: int | None, contents: dict[int, bytes]) -> int:
    """Add a checkpoint that differs from its parent in these pages."""
    names = {index: blob_hash(data) for index, data in contents.items()}
    writer.add_pages(b"".join(names.values()), b"".join(contents.values()), range(len(contents)))
    return writer.add_checkpoint(
        icount, icount, parent, b"{}", bytes(32), pagesets.PageList.of(names.items())
    )


def contents_at(trace: TraceReader, checkpoint_id: int) -> dict[int, bytes]:
    names = trace.checkpoint_pages(checkpoint_id)
    found = trace.blobs(list(names.values()))
    return {index: found[name] for index, name in names.items()}


def count(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def test_contents_are_stored_once_and_found_by_their_hash(tmp_path: Path) -> None:
    path = tmp_path / "t.trace"
    first = {index: page(index) for index in range(3 * pagesets.SET_PAGES + 5)}
    second = {index + 7: data for index, data in first.items()} | {900: page(900)}
    with TraceWriter.create(path) as writer:
        root = checkpoint(writer, 0, None, {})
        one = checkpoint(writer, 10, root, first)
        stored = writer.checkpoint_bytes
        two = checkpoint(writer, 20, one, second)
        assert 0 < writer.checkpoint_bytes - stored < pagesets.PAGE_BYTES
        writer.close(20)
    assert count(path, "page_sets") == 5
    with TraceReader.open(path) as trace:
        assert contents_at(trace, one) == first
        assert contents_at(trace, two) == first | second
        assert trace.blob(blob_hash(page(3))) == page(3)
        rows = trace.sql("SELECT page, hash FROM checkpoint_pages WHERE checkpoint_id = ?", (two,))[1]
        assert dict(rows) == trace.checkpoint_diff(two)
        listed = trace.sql("SELECT pages, stored_bytes FROM checkpoint_list ORDER BY id")[1]
        assert listed[1] == (len(first), stored)
        assert sum(row[1] for row in listed) == writer.checkpoint_bytes
        assert trace.verify() == len(first) + 1


def test_what_no_checkpoint_has_any_more_gives_its_room_back(tmp_path: Path) -> None:
    """The room of contents that another page still has stays, wherever their set goes."""
    path = tmp_path / "t.trace"
    with TraceWriter.create(path) as writer:
        root = checkpoint(writer, 0, None, {})
        parent = root
        expected: dict[int, bytes] = {}
        for turn in range(1, 9):
            changed = {index: page(1000 * turn + index) for index in range(turn, 100)}
            changed[200 + turn] = changed[50]  # stays after page 50 has changed
            expected |= changed
            parent = checkpoint(writer, 10 * turn, parent, changed)
        for victim in range(2, parent):
            before = writer.checkpoint_bytes
            writer.drop_checkpoint(victim)
            assert writer.checkpoint_bytes < before
        writer.close(100)
    with TraceReader.open(path) as trace:
        assert contents_at(trace, parent) == expected
        assert trace.verify() <= len({*expected.values()}) * 4 // 3 + 1
        listed = trace.sql("SELECT sum(stored_bytes) FROM checkpoint_list")[1][0][0]
        assert listed == trace.sql("SELECT sum(length(data)) FROM page_sets")[1][0][0]


def test_a_reader_finds_pages_that_a_recorder_has_moved(tmp_path: Path) -> None:
    path = tmp_path / "t.trace"
    with TraceWriter.create(path) as writer:
        one = checkpoint(writer, 0, None, {})
        two = checkpoint(writer, 10, one, {index: page(index) for index in range(60)})
        writer.commit()
        with TraceReader.open(path) as trace:
            assert trace.blob(blob_hash(page(55))) == page(55)
            assert len(contents_at(trace, two)) == 60
            three = checkpoint(writer, 20, two, {index: page(500 + index) for index in range(50)})
            writer.drop_checkpoint(two)
            writer.commit()
            trace._pages._open.clear()  # type: ignore[union-attr]  # as if many others had been asked for
            assert trace.blob(blob_hash(page(55))) == page(55)
            assert contents_at(trace, three)[3] == page(503)
            with pytest.raises(TraceError, match="missing"):
                trace.blob(blob_hash(page(5)))
        writer.close(20)


def assert_refused(path: Path, damage: str, says: str) -> None:
    """Damage a trace by an SQL statement, and see that its verification tells in one line."""
    with closing(sqlite3.connect(path)) as db:
        db.execute(damage)
        db.commit()
    with TraceReader.open(path) as trace, pytest.raises(TraceError, match=says) as caught:
        trace.verify()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("UPDATE page_lists SET pages = replace(pages, '[0,1', '[0,2')", "are no list"),
        ("UPDATE page_lists SET pages = '{}', crc = 0", "are no list"),
        ("UPDATE page_lists SET hashes = zeroblob(64)", "are no list"),
        ("DELETE FROM page_sets", "page 0 of checkpoint 2 is missing"),
        ("UPDATE page_sets SET hashes = CAST(hashes || hashes AS BLOB)", "size"),
        ("UPDATE page_sets SET hashes = zeroblob(32 * 5000)", "missing"),
        ("UPDATE page_sets SET codec = 'raw', data = zeroblob(length(hashes) * 128)", "hash"),
        ("UPDATE page_sets SET codec = 'else'", "codec"),
        ("UPDATE page_sets SET data = zeroblob(100)", "decompress"),
    ],
)
def test_damaged_pages_are_told(damage: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "t.trace"
    with TraceWriter.create(path) as writer:
        checkpoint(writer, 10, checkpoint(writer, 0, None, {}), {index: page(index) for index in range(10)})
        writer.close(10)
    assert_refused(path, damage, says)


def test_a_set_of_too_many_pages_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.trace"
    TraceWriter.create(path).close(0)
    with closing(sqlite3.connect(path)) as db:
        db.execute(
            "INSERT INTO page_sets (id, hashes, codec, data) VALUES (1, zeroblob(32 * 4097), 'raw', x'')"
        )
        db.commit()
    with TraceReader.open(path) as trace, pytest.raises(TraceError, match="claims"):
        trace.verify()


IMAGE = b"".join(page(n) for n in range(80))


def patched(number: int) -> bytes:
    """Return a page of the image with a few words of it written."""
    data = bytearray(IMAGE[number * 4096 : (number + 1) * 4096])
    for at in range(number, 4096, 512):
        data[at] ^= number + 1
    return bytes(data)


def based_checkpoint(writer: TraceWriter, icount: int, parent: int, contents: dict[int, bytes]) -> int:
    """Add a checkpoint whose pages, but every fifth one, are kept as the difference from the image's."""
    names = {index: blob_hash(data) for index, data in contents.items()}
    places = [pagesets.NOWHERE if index % 5 == 4 else index % 80 * 4096 for index in contents]
    stored = [
        data if place == pagesets.NOWHERE else pagesets.xor(data, IMAGE[place : place + 4096])
        for place, data in zip(places, contents.values(), strict=True)
    ]
    based = pagesets.Based(blob_hash(IMAGE), places)
    writer.add_pages(b"".join(names.values()), b"".join(stored), range(len(stored)), based)
    return writer.add_checkpoint(
        icount, icount, parent, b"{}", bytes(32), pagesets.PageList.of(names.items())
    )


def image_trace(path: Path) -> tuple[dict[int, bytes], int]:
    """Write a trace with pages of an image, and one checkpoint given up; return the last one's contents and size."""
    with TraceWriter.create(path) as writer:
        writer.add_image("kernel", "kernel", IMAGE)
        root = checkpoint(writer, 0, None, {})
        first = {index: patched(index) for index in range(80)}
        one = based_checkpoint(writer, 10, root, first)
        second = {index: page(300 + index) for index in range(0, 80, 2)}
        two = based_checkpoint(writer, 20, one, second)
        writer.drop_checkpoint(one)
        size = writer.checkpoint_bytes
        writer.close(20)
    assert two == 3
    return first | second, size


def test_pages_of_an_image_are_kept_as_what_differs_from_it(tmp_path: Path) -> None:
    path = tmp_path / "t.trace"
    contents, _ = image_trace(path)
    with TraceReader.open(path) as trace:
        assert trace.page_based(blob_hash(patched(1))) is None  # not asked for yet
        assert contents_at(trace, 3) == contents
        assert trace.page_based(blob_hash(patched(1))) == (blob_hash(IMAGE), 4096)
        assert trace.page_based(blob_hash(patched(9))) is None
        trace.verify()


def test_a_copy_of_a_trace_keeps_them_so(tmp_path: Path) -> None:
    """A part of a trace was once larger than the whole."""
    path = tmp_path / "t.trace"
    contents, size = image_trace(path)
    with TraceReader.open(path) as trace:
        trim_trace(trace, tmp_path / "part.trace", 20, 20)
    with TraceReader.open(tmp_path / "part.trace") as part:
        assert contents_at(part, part.checkpoints()[-1].id) == contents
        part.verify()
        copied = part.sql("SELECT sum(length(data)) FROM page_sets")[1][0][0]
        assert copied < size * 1.1


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("UPDATE page_sets SET places = replace(places, 'null', '3')", "hash"),
        ("UPDATE page_sets SET places = replace(places, 'null', '-8')", "no list"),
        ("UPDATE page_sets SET places = replace(places, 'null', '1e3')", "no list"),
        ("UPDATE page_sets SET places = replace(places, 'null', '327600')", "outside of its image"),
        ("UPDATE page_sets SET places = '[0]'", "no list"),
        ("UPDATE page_sets SET places = '['", "no list"),
        ("UPDATE page_sets SET base = zeroblob(32)", "missing"),
        ("UPDATE page_sets SET base = NULL", "hash"),
    ],
)
def test_damaged_differences_are_told(damage: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "t.trace"
    image_trace(path)
    assert_refused(path, damage, says)


def test_a_trace_whose_pages_are_blobs_is_read_and_brought_up_to_date(tmp_path: Path) -> None:
    """Format 3 had a row for each page of a checkpoint."""
    path = tmp_path / "old.trace"
    contents = {index: page(index) for index in range(700)}
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for migration in schema.MIGRATIONS[:3]:
            migration(db)
        db.execute("PRAGMA user_version = 3")
        db.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        db.execute("INSERT INTO meta VALUES ('format', '3'), ('clean', '1'), ('final_icount', '10')")
        for number, parent in ((1, None), (2, 1)):
            values = (number, 10 * number - 10, 0, parent, pack_state(b"{}"), bytes(32), 1)
            db.execute("INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        for index, data in contents.items():
            packed = BlobPacker().pack(data)
            row = (packed.name, packed.size, packed.codec, packed.stored)
            db.execute("INSERT INTO blobs VALUES (?, ?, ?, ?)", row)
            db.execute("INSERT INTO checkpoint_pages VALUES (2, ?, ?)", (index, packed.name))
    with TraceReader.open(path) as trace:
        assert contents_at(trace, 2) == contents
        listed = trace.sql("SELECT pages, stored_bytes FROM checkpoint_list ORDER BY id")[1]
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        schema.migrate(db)
    with TraceReader.open(path) as trace:
        assert contents_at(trace, 2) == contents
        assert trace.sql("SELECT pages, stored_bytes FROM checkpoint_list ORDER BY id")[1] == listed
        assert trace.sql("SELECT count(*) FROM checkpoint_pages")[1] == [(700,)]
        assert trace.verify() == 700
