"""Symbols kept between sessions: as they were, and never trusted blindly."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.symbolcache import cache_path, decode, encode, load, moved, save, slide
from workbench.symbols import Symbol, Symbols

names = st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1, max_size=8)
rows = st.lists(
    st.builds(
        Symbol,
        st.integers(0, (1 << 64) - 1),
        st.integers(0, (1 << 64) - 1),
        names,
        st.sampled_from(["func", "object", "other"]),
    ),
    max_size=20,
)


@given(rows)
def test_symbols_come_back_as_they_were(given_rows: list[Symbol]) -> None:
    before = Symbols(given_rows)
    after = decode(encode(before))
    assert after is not None
    assert list(after) == list(before)
    for row in given_rows:
        assert after.lookup(row.name) == before.lookup(row.name)
        assert after.find(row.address) == before.find(row.address)
    assert after.complete("") == before.complete("")


@given(rows, st.integers(0, 400), st.integers(0, 255))
def test_damage_gives_other_symbols_or_none_and_no_error(
    given_rows: list[Symbol], at: int, byte: int
) -> None:
    data = bytearray(encode(Symbols(given_rows)))
    data[at % len(data)] = byte
    for damaged in (bytes(data), bytes(data[:at])):
        found = decode(damaged)
        assert found is None or len(found) >= 0


def test_cache_is_found_by_the_images_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    known = Symbols([Symbol(16, 4, "start", "func")])
    assert load(b"\x01" * 16) is None
    save(b"\x01" * 16, known)
    again = load(b"\x01" * 16)
    assert again is not None and again.lookup("start") == 16
    assert load(b"\x02" * 16) is None
    assert [path.name for path in cache_path(b"").parent.iterdir()] == ["01" * 16 + ".symbols"]
    cache_path(b"\x01" * 16).write_bytes(b"nonsense")
    assert load(b"\x01" * 16) is None


def test_without_a_cache_folder_symbols_are_found_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    save(b"\x01" * 16, Symbols([Symbol(16, 4, "start", "func")]))
    assert load(b"\x01" * 16) is None


@pytest.mark.parametrize(
    ("stvec", "distance"),
    [
        (0xFFFF_FFFF_8000_1000, 0),
        (0xFFFF_FFFF_9020_1001, 0x1020_0000),
        (0x8000_1000, 0),
        (0xFFFF_FFFF_9020_1100, 0),
        ("nonsense", 0),
    ],
)
def test_kernel_that_moved_itself_is_found_by_its_trap_handler(stvec: Any, distance: int) -> None:
    known = Symbols([Symbol(0xFFFF_FFFF_8000_1000, 4, "handle_exception", "func")])
    trace: Any = SimpleNamespace(
        checkpoints=lambda: [SimpleNamespace(id=7)],
        checkpoint_state=lambda number: {"harts": [{"stvec": stvec}]} if number == 7 else {},
    )
    found = moved(known, slide(trace, known))
    assert found.lookup("handle_exception") == 0xFFFF_FFFF_8000_1000 + distance
    assert slide(trace, Symbols()) == 0
