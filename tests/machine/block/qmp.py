"""A QEMU program of the host as a peer: commands over QMP on its standard input and output."""

from __future__ import annotations

import json
import subprocess
from types import TracebackType
from typing import Any

SYSTEM = ["qemu-system-riscv64", "-M", "none", "-nodefaults", "-nographic", "-S", "-qmp", "stdio"]
DAEMON = ["qemu-storage-daemon", "--chardev", "stdio,id=c", "--monitor", "chardev=c"]


class Qmp:
    """A program that speaks QMP; ends with the ``with`` block."""

    def __init__(self, *command: str) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
        )
        self.events: list[dict[str, Any]] = []
        self._receive()
        self("qmp_capabilities")

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line.startswith("{"):
                message: dict[str, Any] = json.loads(line)
                return message
        raise AssertionError(f"{self._process.args!r}: ended with {self._process.wait(10)}")

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Return the answer: a dict with ``return`` or ``error``."""
        assert self._process.stdin is not None
        names = {key.replace("_", "-"): value for key, value in arguments.items()}
        self._process.stdin.write(json.dumps({"execute": command, "arguments": names}) + "\n")
        self._process.stdin.flush()
        while "event" in (message := self._receive()):
            self.events.append(message)
        return message

    def __call__(self, command: str, **arguments: Any) -> Any:
        """Return what a command returns; it has to succeed."""
        answer = self.ask(command, **arguments)
        assert "return" in answer, f"{command}: {answer}"
        return answer["return"]

    def io(self, disk: str, command: str) -> str:
        """Run a qemu-io command on a disk and return what it prints, empty if all is well."""
        line = f'qemu-io {disk} "{command}"'
        return str(self("human-monitor-command", **{"command-line": line})).strip()

    def wait_event(self, name: str) -> dict[str, Any]:
        """Return the next event of that name."""
        while True:
            found = next((event for event in self.events if event["event"] == name), None)
            if found is not None:
                self.events.remove(found)
                return found
            self.events.append(self._receive())

    def __enter__(self) -> Qmp:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.communicate(timeout=10)
