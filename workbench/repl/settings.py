"""The user's configuration: ``config.toml`` and ``startup`` in workbench's XDG configuration folder."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from workbench.errors import InputError

KEYS: Final = ("emacs", "vi")
#: What has a colour on a terminal, and prompt_toolkit's word for it where nothing is configured.
COLOURS: Final = {
    "heading": "ansibrightblack",
    "current": "ansibrightgreen",
    "changed": "ansibrightred",
    "symbol": "ansiyellow",
    "mnemonic": "ansicyan",
    "address": "",
}
#: What hooks run after.
HAPPENINGS: Final = ("stop", "input", "bookmark")


@dataclass(frozen=True)
class Settings:
    """What is configured.

    Args:
        keys: ``emacs`` or ``vi``. panes: shown after a stop, None for the usual ones. panes_to: a terminal's file.
        pager: what shows long results. colours: by COLOURS' names. aliases: first words, and what they stand for.
        hooks: lines by what they run after.
    """

    keys: str = "emacs"
    panes: tuple[str, ...] | None = None
    panes_to: str = ""
    pager: str = "less -FRX"
    colours: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    hooks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def config_folder() -> Path:
    """Return workbench's folder of configuration: under ``XDG_CONFIG_HOME``, or ``~/.config``."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "workbench"


def load_settings() -> Settings:
    """Return what ``config.toml`` says; without one, the defaults.

    Raises:
        InputError: it can't be read, is no TOML, or says what means nothing.
    """
    path = config_folder() / "config.toml"
    if not path.is_file():
        return Settings()
    try:
        data = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: can't be read: {error}") from None
    return parse_settings(data, str(path))


def parse_settings(data: Mapping[str, Any], where: str) -> Settings:
    """Return the settings of a TOML document. Raises InputError: a name or a value that means nothing."""
    from workbench.repl.panes import PANES

    known = {"repl", "colours", "aliases", "hooks"}
    _only(data, known, where)
    repl = _section(data, "repl", where)
    _only(repl, {"keys", "panes", "panes_to", "pager"}, f"{where}: repl")
    panes = repl.get("panes")
    return Settings(
        keys=_one_of(repl.get("keys", "emacs"), KEYS, f"{where}: repl.keys"),
        panes=None if panes is None else _texts(panes, f"{where}: repl.panes", tuple(PANES)),
        panes_to=_text(repl.get("panes_to", ""), f"{where}: repl.panes_to"),
        pager=_text(repl.get("pager", Settings.pager), f"{where}: repl.pager"),
        colours=_named_texts(data, "colours", where, tuple(COLOURS)),
        aliases=_named_texts(data, "aliases", where),
        hooks={
            name: _texts(lines, f"{where}: hooks.{name}")
            for name, lines in _only(
                _section(data, "hooks", where), set(HAPPENINGS), f"{where}: hooks"
            ).items()
        },
    )


def _section(data: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    found = data.get(name, {})
    if not isinstance(found, Mapping):
        raise InputError(f"{where}: [{name}] was expected to be a table")
    return found


def _only(data: Mapping[str, Any], known: set[str], where: str) -> Mapping[str, Any]:
    unknown = sorted(set(data) - known)
    if unknown:
        raise InputError(f"{where}: {unknown[0]!r} means nothing; there are {', '.join(sorted(known))}")
    return data


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where}: a text was expected")
    return value


def _one_of(value: Any, known: tuple[str, ...], where: str) -> str:
    if value not in known:
        raise InputError(f"{where}: {value!r} means nothing; there are {', '.join(known)}")
    return str(value)


def _texts(value: Any, where: str, known: tuple[str, ...] = ()) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise InputError(f"{where}: a list of texts was expected")
    return tuple(_one_of(each, known, where) if known else each for each in value)


def _named_texts(
    data: Mapping[str, Any], name: str, where: str, known: tuple[str, ...] = ()
) -> dict[str, str]:
    section = _section(data, name, where)
    if known:
        _only(section, set(known), f"{where}: {name}")
    return {key: _text(value, f"{where}: {name}.{key}") for key, value in section.items()}
