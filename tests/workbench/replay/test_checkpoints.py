"""Pages of a trace in memory: a second machine's cache looks into the first one's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from workbench.replay.checkpoints import BlobCache


class Pages:
    """A trace that counts what is read of it."""

    def __init__(self) -> None:
        self.read: list[bytes] = []

    def blobs(self, names: Sequence[bytes]) -> dict[bytes, bytes]:
        self.read += names
        return {name: name * 2 for name in names}

    def blob(self, name: bytes) -> bytes:
        return self.blobs([name])[name]


def test_a_second_cache_reads_what_the_first_does_not_hold() -> None:
    trace = Pages()
    first = BlobCache(cast("Any", trace), 4)
    second = BlobCache(cast("Any", trace), 4, first=first)
    first.fetch([b"a", b"b"])
    trace.read.clear()
    second.fetch([b"a", b"b", b"c", b"d"])
    assert trace.read == [b"c", b"d"]
    assert [second.page(name) for name in (b"a", b"c", b"d")] == [b"aa", b"cc", b"dd"]
    assert trace.read == [b"c", b"d"]
    for name in (b"e", b"f", b"g", b"h"):  # the first gives up what the second found there
        first.page(name)
    assert second.page(b"a") == b"aa"
    assert trace.read[-1] == b"a"
