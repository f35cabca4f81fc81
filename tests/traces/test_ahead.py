"""Images that are read ahead: what was read is what is checked, and damage is told to whoever must know."""

from __future__ import annotations

import threading

import pytest

from traces.ahead import ImagesAhead
from traces.blobs import blob_hash, check
from traces.errors import TraceError

GOOD, OTHER = b"good" * 1000, b"other" * 1000
NAME, BAD = blob_hash(GOOD), blob_hash(b"what it should have been")


def images(held: dict[bytes, bytes], gate: threading.Event | None = None) -> ImagesAhead:
    """Return images of which none is checked before a gate opens."""

    def read(name: bytes) -> bytes:
        if name not in held:
            raise TraceError("missing")
        return held[name]

    def held_against(data: bytes, name: bytes) -> bytes:
        if gate is not None:
            assert gate.wait(60)
        return check(data, name, "t")

    return ImagesAhead(read, held_against)


def test_an_image_is_there_before_it_is_checked() -> None:
    gate = threading.Event()
    ahead = images({NAME: GOOD}, gate)
    ahead.prefetch([NAME])
    assert ahead.unchecked(NAME) == GOOD
    gate.set()
    ahead.check()
    assert ahead.contents(NAME) is ahead.unchecked(NAME)
    ahead.close()


def test_damage_is_told_each_time_and_does_not_hide_another_image() -> None:
    ahead = images({NAME: GOOD, BAD: OTHER})
    ahead.prefetch([BAD, NAME])
    assert ahead.unchecked(BAD) == OTHER
    for _ in range(2):
        with pytest.raises(TraceError, match="does not match its hash"):
            ahead.check()
        with pytest.raises(TraceError, match="does not match its hash"):
            ahead.contents(BAD)
    assert ahead.contents(NAME) == GOOD


def test_what_is_checked_is_what_was_handed_out() -> None:
    """A second reading that is right says nothing about the contents that a machine was built of."""
    held = {NAME: OTHER}
    ahead = images(held)
    ahead.prefetch([NAME])
    assert ahead.unchecked(NAME) == OTHER
    held[NAME] = GOOD
    with pytest.raises(TraceError, match="does not match its hash"):
        ahead.check()


def test_an_image_that_nobody_read_ahead_is_checked_at_once() -> None:
    with pytest.raises(TraceError, match="does not match its hash"):
        images({BAD: OTHER}).unchecked(BAD)


def test_a_missing_image_is_told_to_whoever_asks_and_to_nobody_else() -> None:
    ahead = images({NAME: GOOD})
    ahead.prefetch([BAD, NAME])
    ahead.check()
    with pytest.raises(TraceError, match="missing"):
        ahead.unchecked(BAD)
    assert ahead.contents(NAME) == GOOD
