"""Options of nodes: nested dicts, dotted keys, json: names and URIs become one form; unknown ones are
refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from machine.block.errors import OptionError

Options = dict[str, Any]
_SUFFIXES = {
    "": 1,
    "b": 1,
    "k": 1 << 10,
    "m": 1 << 20,
    "g": 1 << 30,
    "t": 1 << 40,
    "p": 1 << 50,
    "e": 1 << 60,
}


def parse_size(text: str | int) -> int:
    """Return bytes of ``64k``, ``1.5G``, ``0x200`` or a number; sizes are powers of 1024.

    Raises:
        OptionError: not a size, negative, or 2^63 and above.
    """
    if isinstance(text, int):
        value = text
    else:
        body = text.strip().lower()
        suffix = "" if body.startswith("0x") or not body or body[-1] not in "bkmgtpe" else body[-1]
        number = body[: len(body) - len(suffix)]
        try:
            value = int(number, 0) if "." not in number else -1
            if "." in number:
                whole, _, part = number.partition(".")
                value = int(whole or "0") * _SUFFIXES[suffix]
                value += int(part or "0") * _SUFFIXES[suffix] // 10 ** len(part)
            else:
                value *= _SUFFIXES[suffix]
        except (ValueError, KeyError):
            raise OptionError(
                f"'{text}' is not a size: expected a number with an optional K, M, G, T, P, E"
            ) from None
    if not 0 <= value < 1 << 63:
        raise OptionError(f"size {text} is out of range: expected 0 to 2^63-1 bytes")
    return value


def parse_bool(value: object, name: str) -> bool:
    """Return the bool of on/off, yes/no, true/false."""
    if isinstance(value, bool):
        return value
    known = {
        "on": True,
        "yes": True,
        "true": True,
        "y": True,
        "off": False,
        "no": False,
        "false": False,
        "n": False,
    }
    try:
        return known[str(value).lower()]
    except KeyError:
        raise OptionError(f"option {name}: '{value}' is not on or off") from None


def nest(flat: Mapping[str, Any]) -> Options:
    """Turn ``{"file.driver": "raw"}`` into ``{"file": {"driver": "raw"}}``; nested values stay."""
    result: Options = {}
    for key, value in flat.items():
        *path, last = key.split(".")
        here = result
        for part in path:
            step = here.setdefault(part, {})
            if not isinstance(step, dict):
                raise OptionError(f"option {key}: '{part}' is a value and a group at once")
            here = step
        nested = nest(value) if isinstance(value, Mapping) else value
        if isinstance(nested, dict) and isinstance(here.get(last), dict):
            here[last].update(nested)
        elif last in here and here[last] != nested:
            raise OptionError(f"option {key} is given twice")
        else:
            here[last] = nested
    return result


def parse_keyvals(text: str) -> Options:
    """Parse ``driver=qcow2,file.filename=x``; a comma in a value is doubled."""
    flat: Options = {}
    for piece in text.replace(",,", "\0").split(","):
        if piece:
            key, sep, value = piece.partition("=")
            flat[key] = value.replace("\0", ",") if sep else "on"
    return nest(flat)


def from_filename(name: str) -> Options:
    """Return the options a file name stands for: a path, ``json:{…}``, or an nbd URI.

    Raises:
        OptionError: a json: name that is no object, or an unknown URI scheme.
    """
    if name.startswith("json:"):
        try:
            data = json.loads(name[5:])
        except (ValueError, RecursionError) as error:
            raise OptionError(f"file name is no valid json: {error}") from None
        if not isinstance(data, dict):
            raise OptionError("json: file name must hold an object")
        return nest(data)
    scheme, sep, _ = name.partition(":")
    if sep and scheme in ("nbd", "nbd+unix", "nbds", "nbds+unix", "nbd+tcp"):
        return parse_nbd_uri(name)
    if sep and scheme == "file":
        return {"driver": "file", "filename": name[5:].removeprefix("//") if name[5:7] == "//" else name[5:]}
    if sep and scheme in ("null-co", "null-aio", "memory"):
        return {"driver": scheme}
    return {"driver": "file", "filename": name}


def parse_nbd_uri(uri: str) -> Options:
    """Return node options of an ``nbd://``, ``nbds://``, ``nbd+unix://`` URI, or of
    ``nbd:HOST:PORT[:exportname=N]``."""
    if not uri.partition(":")[2].startswith("//"):
        head, _, export = uri.partition(":exportname=")
        parts = head.split(":")
        if len(parts) == 3 and parts[1] == "unix":
            return {"driver": "nbd", "server": {"type": "unix", "path": parts[2]}, "export": export}
        if len(parts) != 3:
            raise OptionError(f"'{uri}': expected nbd:HOST:PORT or nbd:unix:PATH")
        return {
            "driver": "nbd",
            "server": {"type": "inet", "host": parts[1], "port": parts[2]},
            "export": export,
        }
    try:
        url = urlsplit(uri)
        port = url.port
    except ValueError as error:
        raise OptionError(f"'{uri}' is not a URI: {error}") from None
    query = parse_qs(url.query)
    options: Options = {"driver": "nbd", "export": unquote(url.path.removeprefix("/"))}
    if url.scheme.endswith("+unix"):
        if "socket" not in query:
            raise OptionError(f"'{uri}': a unix URI needs ?socket=PATH")
        options["server"] = {"type": "unix", "path": query["socket"][0]}
    else:
        if not url.hostname:
            raise OptionError(f"'{uri}': host is missing")
        options["server"] = {"type": "inet", "host": url.hostname, "port": str(port or 10809)}
    if url.scheme.startswith("nbds"):
        options["tls"] = True
        if "tls-certificates" in query:
            options["tls-creds"] = query["tls-certificates"][0]
    return options


def resolve_backing(overlay: str, backing: str) -> str:
    """Return where a backing name points: relative paths start at the overlay's folder."""
    scheme = backing.partition(":")[0]
    if backing.startswith("json:") or Path(backing).is_absolute() or (":" in backing and "/" not in scheme):
        return backing
    return str(Path(overlay).parent / backing)


class OptionReader:
    """Takes options one by one; ``finish`` refuses what nobody took."""

    def __init__(self, options: Mapping[str, Any], where: str) -> None:
        self._left = dict(options)
        self.where = where

    def take(self, name: str, default: Any = None) -> Any:
        """Return an option's raw value."""
        return self._left.pop(name, default)

    def text(self, name: str, default: str | None = None) -> str:
        """Return a string; an OptionError if it is missing and there is no default."""
        value = self._left.pop(name, default)
        if value is None or isinstance(value, dict | list):
            raise OptionError(f"{self.where}: option '{name}' is missing or not a string")
        return str(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """Return a bool."""
        return parse_bool(self._left.pop(name, default), name)

    def size(self, name: str, default: int) -> int:
        """Return a size in bytes."""
        return parse_size(self._left.pop(name, default))

    def choice(self, name: str, allowed: tuple[str, ...], default: str) -> str:
        """Return one of the allowed words."""
        value = str(self._left.pop(name, default))
        if value not in allowed:
            raise OptionError(
                f"{self.where}: option '{name}' is '{value}', expected one of {', '.join(allowed)}"
            )
        return value

    def items(self, name: str) -> list[Any]:
        """Return a list given as a list or as a dict with keys 0, 1, …."""
        value = self._left.pop(name, [])
        if isinstance(value, dict):
            value = [value[k] for k in sorted(value, key=lambda k: (len(str(k)), str(k)))]
        if not isinstance(value, list):
            raise OptionError(f"{self.where}: option '{name}' must be a list")
        return value

    def finish(self) -> None:
        """Raise OptionError if an option was not understood."""
        if self._left:
            raise OptionError(f"{self.where}: unknown option '{next(iter(self._left))}'")
