"""Bad files: one line, exit code 3, nothing written."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from traces.blobs import blob_hash
from traces.errors import TraceError, TraceWriteError
from traces.pagesets import PageList
from traces.reader import QueryError, TraceReader
from traces.schema import FORMAT
from traces.writer import TraceWriter


def fill(writer: TraceWriter, pages: int = 6) -> None:
    writer.set_meta("semantics", 1)
    writer.set_config("harts", 1)
    writer.add_image("kernel", "kernel", b"kernel" * 1000, "/boot/Image")
    for i in range(20):
        writer.add_input(i * 10, i * 10, 0, "uart0", "rx", bytes([i]) * 3)
        writer.add_console(i * 10, i * 10, "uart0", f"line {i}\n".encode())
    parent = None
    for n in range(4):
        contents = [bytes([n, p]) * 2048 for p in range(n, pages)]
        names = [blob_hash(data) for data in contents]
        writer.add_pages(b"".join(names), b"".join(contents), range(len(contents)))
        held = PageList.of(zip(range(n, pages), names, strict=True))
        parent = writer.add_checkpoint(n * 100, n * 100, parent, b'{"n": %d}' % n, bytes(32), held)
    writer.add_digest(250, bytes(32), b"[1]")
    writer.bookmark("panic", 99, "why")


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "t.trace"
    writer = TraceWriter.create(path)
    fill(writer)
    writer.close(400)
    return path


def listing(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_a_closed_trace_is_one_file_and_reads_back(trace: Path) -> None:
    assert [p.name for p in trace.parent.iterdir()] == ["t.trace"]
    before = listing(trace.parent)
    with TraceReader.open(trace, semantics=1) as t:
        assert t.clean
        assert t.final_icount == 400
        assert t.image("kernel") == b"kernel" * 1000
        assert [i.payload for i in t.inputs(5, 2)] == [bytes([4]) * 3, bytes([5]) * 3]
        assert t.checkpoint_state(3) == {"n": 2}
        assert t.blob(t.checkpoint_pages(4)[0]) == bytes([0, 0]) * 2048
        assert t.blob(t.checkpoint_pages(4)[5]) == bytes([3, 5]) * 2048
        assert [(b.name, b.icount) for b in t.bookmarks()] == [("panic", 99)]
        assert b"".join(c.data for c in t.console(0, 30)) == b"line 0\nline 1\nline 2\n"
        assert t.verify() > 10
    assert listing(trace.parent) == before


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def text_file(path: Path) -> None:
    path.write_text("not a trace at all\n" * 100)


def other_database(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("create table x (y)")
    db.close()


def newer(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute(f"pragma user_version = {FORMAT + 7}")
    db.close()


def no_inputs(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.executescript(
            "pragma foreign_keys=off; drop view input_list; drop view input_summary; drop table inputs"
        )
    db.close()


def bad_position(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("update meta set value = '-3' where key = 'final_icount'")
    db.close()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


BAD: list[tuple[Callable[[Path], None], str]] = [
    (Path.unlink, "no such trace"),
    (directory, "is a directory"),
    (empty, "is empty"),
    (text_file, "not an SQLite file"),
    (other_database, "not a trace"),
    (cut, "cut short"),
    (newer, f"format {FORMAT + 7}"),
    (no_inputs, "'inputs' is missing"),
    (bad_position, "final_icount"),
]


@pytest.mark.parametrize(("damage", "says"), BAD, ids=[says for _, says in BAD])
def test_a_bad_file_is_one_line_with_exit_code_3(
    trace: Path, damage: Callable[[Path], None], says: str
) -> None:
    damage(trace)
    before = listing(trace.parent)
    with pytest.raises(TraceError) as caught:
        TraceReader.open(trace)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3
    assert listing(trace.parent) == before


def test_other_semantics_are_refused_with_both_numbers(trace: Path) -> None:
    with pytest.raises(TraceError, match=r"semantics 1, this one has 9"):
        TraceReader.open(trace, semantics=9)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 0.9999), bit=st.integers(0, 7))
def test_a_flipped_bit_is_an_error_or_changes_nothing(
    trace: Path, tmp_path_factory: pytest.TempPathFactory, where: float, bit: int
) -> None:
    path = tmp_path_factory.mktemp("flip") / "t.trace"
    data = bytearray(trace.read_bytes())
    data[int(where * len(data))] ^= 1 << bit
    path.write_bytes(data)
    try:
        with TraceReader.open(path) as t:
            t.verify()
            inputs = [(i.icount, i.payload) for i in t.inputs()]
            pages = t.checkpoint_pages(4)
    except TraceError as e:
        assert "\n" not in str(e)
        return
    assert inputs == [(i * 10, bytes([i]) * 3) for i in range(20)]
    assert {p: len(h) for p, h in pages.items()} == dict.fromkeys(range(6), 32)


def test_dropping_checkpoints_keeps_every_other_one_whole(trace: Path, tmp_path: Path) -> None:
    path = tmp_path / "thin.trace"
    writer = TraceWriter.create(path)
    fill(writer)
    held = writer.checkpoint_bytes
    writer.drop_checkpoint(2)
    writer.drop_checkpoint(3)
    assert writer.checkpoint_bytes < held
    with pytest.raises(TraceError):
        writer.drop_checkpoint(1)
    writer.close(400)
    with TraceReader.open(path) as thin, TraceReader.open(trace) as full:
        assert thin.checkpoint_pages(4) == full.checkpoint_pages(4)
        assert [c.id for c in thin.checkpoints()] == [1, 4]
        thin.verify()


def test_a_trace_is_replaced_and_another_file_is_not(trace: Path, tmp_path: Path) -> None:
    TraceWriter.create(trace).close(7)
    with TraceReader.open(trace) as t:
        assert t.final_icount == 7
    letter = tmp_path / "letter.txt"
    letter.write_text("dear reader")
    with pytest.raises(TraceWriteError, match="not a trace"):
        TraceWriter.create(letter)
    assert letter.read_text() == "dear reader"
    with pytest.raises(TraceWriteError, match="there is no folder"):
        TraceWriter.create(tmp_path / "none" / "t.trace")


def test_a_trace_that_is_being_recorded_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "live.trace"
    writer = TraceWriter.create(path)
    fill(writer)
    late = TraceWriter.create(path)
    writer.commit()
    with pytest.raises(TraceWriteError, match="in use"):
        TraceWriter.create(path)
    with pytest.raises(TraceWriteError, match="in use"):
        late.commit()
    late.abandon()
    writer.close(400)
    assert list(listing(tmp_path)) == ["live.trace"]


def test_a_trace_has_no_name_before_its_first_commit(trace: Path) -> None:
    """A recorder that was killed before its first commit left a file that opened and could not be replayed."""
    before = trace.read_bytes()
    writer = TraceWriter.create(trace)
    fill(writer)
    assert not writer.tick()
    assert trace.read_bytes() == before
    writer.abandon()
    assert list(listing(trace.parent)) == [trace.name]
    writer = TraceWriter.create(trace)
    fill(writer)
    writer.commit()
    with TraceReader.open(trace) as t:
        assert not t.clean
        assert t.image("kernel") == b"kernel" * 1000
    writer.close(400)
    assert list(listing(trace.parent)) == [trace.name]


def test_what_killed_recorders_left_goes(tmp_path: Path) -> None:
    path = tmp_path / "t[1].trace"
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    left = tmp_path / f".t[1].trace.{int(dead.stdout)}.0.new"
    kept = [tmp_path / f".t[1].trace.{os.getppid()}.0.new", tmp_path / f".t1.trace.{int(dead.stdout)}.0.new"]
    for each in (left, *kept):
        each.write_bytes(b"")
    TraceWriter.create(path).close(0)
    assert set(listing(tmp_path)) == {path.name, *(each.name for each in kept)}


def test_a_live_trace_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "live.trace"
    writer = TraceWriter.create(path)
    fill(writer)
    writer.commit()
    with TraceReader.open(path) as t:
        assert not t.clean
        assert t.input_count() == 20
    writer.close(400)
    with TraceReader.open(path) as t:
        assert t.clean


KILLED = """
import os, signal, sys
from traces.writer import TraceWriter
w = TraceWriter.create(sys.argv[1])
for i in range(100):
    w.add_input(i, i, 0, "uart0", "rx", b"x")
w.progress(100)
w.commit()
w.add_input(200, 200, 0, "uart0", "rx", b"lost")
w.progress(201)
os.kill(os.getpid(), signal.SIGKILL)
"""


CHANGES = """
import os, signal, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA cache_size = 1")  # changes go into the file before they are committed
db.execute("BEGIN IMMEDIATE")
for statement in sys.argv[2:]:
    db.execute(statement)
os.kill(os.getpid(), signal.SIGKILL)
"""
MANY_BOOKMARKS = (
    "INSERT INTO bookmarks SELECT 'b' || key, value, hex(zeroblob(4000)) FROM json_each('["
    + "1," * 400
    + "1]')"
)


@pytest.mark.parametrize(
    "changes",
    [("UPDATE bookmarks SET note = 'another'", MANY_BOOKMARKS), ("DELETE FROM inputs", MANY_BOOKMARKS)],
)
def test_who_was_killed_while_changing_a_trace_leaves_it_as_it_was(
    trace: Path, changes: tuple[str, ...]
) -> None:
    """Its end sets the mode of a trace's file so: a recorder that was killed there left one that nobody could open."""
    subprocess.run([sys.executable, "-c", CHANGES, str(trace), *changes], check=False, timeout=60)
    before = listing(trace.parent)
    assert len(before["t.trace-journal"]) > 512
    with TraceReader.open(trace, semantics=1) as t:
        assert t.verify()
        assert [(m.name, m.icount, m.note) for m in t.bookmarks()] == [("panic", 99, "why")]
        assert len(list(t.inputs())) == 20
    assert listing(trace.parent) == before


@pytest.mark.parametrize("shm", ["with index", "without index", "read-only"])
def test_a_killed_recorder_leaves_what_it_committed(tmp_path: Path, shm: str) -> None:
    path = tmp_path / "killed.trace"
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=root, check=False)
    if shm == "without index":
        path.with_name("killed.trace-shm").unlink()
    if shm == "read-only":
        for each in tmp_path.iterdir():
            each.chmod(0o444)
    before = listing(tmp_path)
    with TraceReader.open(path) as t:
        assert not t.clean
        assert t.final_icount == 100
        assert t.input_count() == 100
    assert listing(tmp_path) == before


def test_a_full_disk_keeps_what_was_committed(tmp_path: Path) -> None:
    path = tmp_path / "full.trace"
    writer = TraceWriter.create(path)
    fill(writer)
    writer.commit()
    writer._db.execute("COMMIT")
    writer._db.execute("PRAGMA max_page_count = 60")
    writer._db.execute("BEGIN IMMEDIATE")
    with pytest.raises(TraceWriteError, match="disk is full") as caught:
        for i in range(2000):
            writer.add_blob(os.urandom(4000) + bytes([i % 256]))
    assert caught.value.exit_code == 3
    writer.abandon()
    with TraceReader.open(path) as t:
        assert not t.clean
        assert t.input_count() == 20


def test_a_wal_header_without_a_log_opens_without_writing(trace: Path) -> None:
    with sqlite3.connect(trace) as db:
        db.execute("pragma journal_mode = wal")
        copy = shutil.copy(trace, trace.with_name("copy.trace"))
    db.close()
    before = set(trace.parent.iterdir())
    with TraceReader.open(copy) as t:
        assert t.final_icount == 400
    assert {p for p in trace.parent.iterdir() if "copy" in p.name} == {p for p in before if "copy" in p.name}


@pytest.mark.parametrize(
    "text",
    [
        "delete from inputs",
        "attach '{x}' as o",
        "create table z (a)",
        "selec 1",
        "select 1; select 2",
        "pragma x=1;x",
    ],
)
def test_sql_can_only_read(trace: Path, tmp_path: Path, text: str) -> None:
    with TraceReader.open(trace) as t:
        with pytest.raises(QueryError):
            t.sql(text.format(x=tmp_path / "new.db"))
        assert t.sql("select count(*) n from inputs") == (["n"], [(20,)])
    assert not (tmp_path / "new.db").exists()


_NO_ROOM = """
import resource, sqlite3, sys
from traces.schema import migrate
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode = OFF").fetchone()
db.execute("PRAGMA cache_size = 1").fetchone()
resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384))
try:
    migrate(db)
except sqlite3.Error as error:
    print(error)
"""


def test_a_disk_that_is_full_before_the_tables_are_made_is_told_as_that(tmp_path: Path) -> None:
    """SQLite ends the transaction by itself then, and the message was that there was none to roll back."""
    command = [sys.executable, "-c", _NO_ROOM, str(tmp_path / "x.trace")]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told and "rollback" not in told


def test_images_that_are_read_ahead_are_those_that_are_asked_for(trace: Path) -> None:
    with TraceReader.open(trace, semantics=1) as t:
        t.prefetch_images()
        t.prefetch_images()
        assert t.image("kernel") == b"kernel" * 1000
        assert t.image("initrd") is None
    with TraceReader.open(trace, semantics=1) as t:
        t.prefetch_images()


def test_damage_of_an_image_that_is_read_ahead_is_told_to_whoever_asks(trace: Path) -> None:
    db = sqlite3.connect(trace)
    changed = db.execute("UPDATE blobs SET codec = 'raw', data = zeroblob(size) WHERE size = 6000").rowcount
    db.commit()
    db.close()
    assert changed == 1
    with TraceReader.open(trace, semantics=1) as t:
        t.prefetch_images()
        for _ in range(2):
            with pytest.raises(TraceError, match="does not match its hash"):
                t.image("kernel")
