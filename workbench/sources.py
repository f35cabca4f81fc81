"""The text of source files, found where the compiler had them, in this folder, or in folders that are given."""

from __future__ import annotations

from pathlib import Path

MAX_FILE_BYTES = 16 << 20


class Sources:
    """Source files by the names that line tables have for them.

    Args:
        folders: where files are looked for besides the place the compiler had them at.
    """

    def __init__(self, *folders: Path) -> None:
        self.folders = list(folders)
        self._texts: dict[str, list[str]] = {}

    def lines(self, file: str, first: int, last: int) -> list[tuple[int, str]]:
        """Return lines of a source file by number, from 1; none where the file is not found."""
        if file not in self._texts:
            self._texts[file] = self._read(file)
        text = self._texts[file]
        first = max(first, 1)
        return list(enumerate(text[first - 1 : max(last, 0)], first))

    def forget(self) -> None:
        """Look for the files anew: ``folders`` changed."""
        self._texts.clear()

    def _read(self, file: str) -> list[str]:
        """Read a file from where the compiler had it, or from a folder with ever less of its path."""
        path = Path(file)
        parts = [part for part in path.parts if part not in ("/", "..", ".")]
        found = [path] if path.is_absolute() else []
        found += [folder.joinpath(*parts[at:]) for folder in self.folders for at in range(len(parts))]
        for candidate in found:
            try:
                if candidate.is_file() and candidate.stat().st_size <= MAX_FILE_BYTES:
                    return candidate.read_text("utf-8", "replace").splitlines()
            except OSError:
                continue
        return []


def default_sources() -> Sources:
    """Return the files of this folder, and of the built-in guest in the package."""
    from workbench.guests import builtin

    return Sources(Path.cwd(), Path(builtin.__file__).parent)
