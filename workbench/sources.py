"""The text of source files, found where the compiler had them, in this folder, or in folders that are given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

MAX_FILE_BYTES = 16 << 20


class Sources:
    """Source files by the names that line tables have for them.

    Args:
        folders: where files are looked for besides the place the compiler had them at.

    Attributes:
        substitutions: beginnings of the compiler's paths, and what stands in their place here, the latest first.
    """

    def __init__(self, *folders: Path) -> None:
        self.folders = list(folders)
        self.substitutions: list[tuple[str, str]] = []
        self._texts: dict[str, list[str]] = {}
        self._found: dict[str, Path | None] = {}

    def lines(self, file: str, first: int, last: int) -> list[tuple[int, str]]:
        """Return lines of a source file by number, from 1; none where the file is not found."""
        if file not in self._texts:
            self._texts[file] = self._read(file)
        text = self._texts[file]
        first = max(first, 1)
        return list(enumerate(text[first - 1 : max(last, 0)], first))

    def substitute(self, old: str, new: str) -> None:
        """Look for files whose path begins with ``old`` at ``new`` instead; nothing for ``new`` ends that."""
        self.substitutions = [pair for pair in self.substitutions if pair[0] != old]
        if new:
            self.substitutions.insert(0, (old, new))
        self.forget()

    def forget(self) -> None:
        """Look for the files anew: ``folders`` changed."""
        self._texts.clear()
        self._found.clear()

    def find(self, file: str) -> Path | None:
        """Return where a file is: as substituted, as the compiler had it, or in a folder with ever less of its path."""
        if file not in self._found:
            self._found[file] = next((path for path in self._candidates(file) if _usable(path)), None)
        return self._found[file]

    def _candidates(self, file: str) -> Iterator[Path]:
        for old, new in self.substitutions:
            if file == old or file.startswith(old.rstrip("/") + "/"):
                yield Path(new).expanduser() / file[len(old) :].lstrip("/")
        path = Path(file)
        if path.is_absolute():
            yield path
        parts = [part for part in path.parts if part not in ("/", "..", ".")]
        for folder in self.folders:
            for at in range(len(parts)):
                yield folder.joinpath(*parts[at:])

    def _read(self, file: str) -> list[str]:
        found = self.find(file)
        try:
            return [] if found is None else found.read_text("utf-8", "replace").splitlines()
        except OSError:
            return []


def _usable(path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size <= MAX_FILE_BYTES
    except OSError:
        return False


def default_sources() -> Sources:
    """Return the files of this folder, and of the built-in guest in the package."""
    from workbench.guests import builtin

    return Sources(Path.cwd(), Path(builtin.__file__).parent)
