"""A client for the adapter's tests: every message, both ways, is checked against the published schema."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import debugpy
import jsonschema

from workbench.cli.dap import ReplConsole
from workbench.dap.server import Connection

ROOT = Path(__file__).parents[3]
_SCHEMA = "_vendored/pydevd/_pydevd_bundle/_debug_adapter/debugProtocol.json"


@cache
def schema() -> dict[str, Any]:
    """Return the published schema of the protocol, which debugpy carries."""
    found: dict[str, Any] = json.loads((Path(debugpy.__file__).parent / _SCHEMA).read_text())
    return found


@cache
def validator(name: str) -> Any:
    """Return what checks a message against one definition of the schema."""
    return jsonschema.Draft4Validator({**schema(), "$ref": f"#/definitions/{name}", "oneOf": []})


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def check(message: dict[str, Any]) -> str:
    """Check a message; return the definition that it was checked against."""
    kind = message["type"]
    if kind == "event":
        name = f"{_capital(message['event'])}Event"
    elif kind == "request":
        name = f"{_capital(message['command'])}Request"
    else:
        name = f"{_capital(message['command'])}Response" if message["success"] else "ErrorResponse"
    assert name in schema()["definitions"], name
    errors = [error.message for error in validator(name).iter_errors(message)]
    assert not errors, (name, message, errors)
    return name


def example_client() -> Any:
    """Return the client of the examples."""
    spec = importlib.util.spec_from_file_location("dap_client", ROOT / "examples/dap_client.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Checked(example_client().Client):  # type: ignore[misc]
    """The examples' client on an adapter of this process, with every message checked."""

    def __init__(self) -> None:
        mine, theirs = socket.socketpair()
        mine.settimeout(60)
        self.socket, self.sequence = mine, 0
        self.events: list[dict[str, Any]] = []
        self.checked: list[str] = []
        self.output: list[str] = []
        self.checks_requests = True
        self.process = _Streams(mine)
        self._thread = threading.Thread(target=_serve, args=(theirs,), daemon=True)
        self._thread.start()

    def received(self, message: dict[str, Any]) -> None:
        self.checked.append(check(message))
        if message.get("event") == "output":
            self.output.append(message["body"]["output"])

    def send(self, command: str, **arguments: Any) -> int:
        if self.checks_requests:
            check({"seq": 1, "type": "request", "command": command, "arguments": arguments})
        return int(super().send(command, **arguments))

    def raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def failure(self, command: str, **arguments: Any) -> str:
        """Send a request, which may be none of the protocol's, and return why it failed."""
        self.checks_requests = False
        try:
            super().ask(command, **arguments)
        except RuntimeError as error:
            return str(error)
        finally:
            self.checks_requests = True
        raise AssertionError(f"{command} did not fail")

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)
        self._thread.join(30)
        assert not self._thread.is_alive()
        self.process.close()
        self.socket.close()


class _Streams:
    """A socket as the streams of a process."""

    def __init__(self, of: socket.socket) -> None:
        self.stdin, self.stdout = of.makefile("wb"), of.makefile("rb")

    def close(self) -> None:
        self.stdin.close()
        self.stdout.close()


def _serve(of: socket.socket) -> None:
    from workbench.errors import InputError

    read: Callable[[], bytes] = lambda: of.recv(os.sysconf("SC_PAGESIZE"))  # noqa: E731
    with of:
        try:
            Connection(read, of.sendall, ReplConsole).run()
        except InputError:
            return
