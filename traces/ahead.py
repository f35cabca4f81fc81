"""A trace's images: read once, and ahead of whoever wants them; a machine may start while they are checked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from .errors import TraceError


class ImagesAhead:
    """Images by the hashes that name them; what was read stays, and is what is checked.

    Args:
        read: returns an image's contents, not yet held against the hash. Raises TraceError.
        check: returns contents if they are what a hash names. Raises TraceError.
    """

    def __init__(self, read: Callable[[bytes], bytes], check: Callable[[bytes, bytes], bytes]) -> None:
        self._read, self._check = read, check
        self._contents: dict[bytes, bytes] = {}
        #: those of ``_contents`` that may be damaged
        self._doubtful: list[bytes] = []
        #: set once the thread has read an image, or can't
        self._tried: dict[bytes, threading.Event] = {}
        self._thread: threading.Thread | None = None
        #: held by whoever is not the thread
        self._lock = threading.Lock()

    def prefetch(self, names: Sequence[bytes]) -> None:
        """Begin to read and check images in a thread."""
        with self._lock:
            self._join()
            wanted = [name for name in dict.fromkeys(names) if name not in self._contents]
            self._tried = {name: threading.Event() for name in wanted}
            self._thread = threading.Thread(target=self._fetch, args=(self._tried,))
            self._thread.start()

    def contents(self, name: bytes) -> bytes:
        """Return an image, checked. Raises TraceError: it is missing or damaged."""
        with self._lock:
            self._join()
            if name not in self._contents:
                self._load(name)
            if name in self._doubtful:
                self._settle(name)
            return self._contents[name]

    def unchecked(self, name: bytes) -> bytes:
        """Return an image whose check may not have ended: ``check`` tells. Raises TraceError: it can't be read."""
        tried = self._tried.get(name)
        if tried is not None:
            tried.wait()
        found = self._contents.get(name)
        return self.contents(name) if found is None else found

    def check(self) -> None:
        """Wait until all that was read is checked. Raises TraceError: some of it is damaged."""
        if self._thread is not None or self._doubtful:
            with self._lock:
                self._join()
                for name in tuple(self._doubtful):
                    self._settle(name)

    def close(self) -> None:
        """Wait for the thread; what it found is told by ``check``."""
        with self._lock:
            self._join()

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _load(self, name: bytes) -> None:
        data = self._read(name)
        self._doubtful.append(name)
        self._contents[name] = data

    def _settle(self, name: bytes) -> None:
        self._check(self._contents[name], name)
        self._doubtful.remove(name)

    def _fetch(self, wanted: Mapping[bytes, threading.Event]) -> None:
        # what goes wrong here comes again where the image is asked for
        for name, tried in wanted.items():
            try:
                with suppress(TraceError, MemoryError):
                    self._load(name)
            finally:
                tried.set()
        for name in tuple(self._doubtful):
            with suppress(TraceError):
                self._settle(name)
