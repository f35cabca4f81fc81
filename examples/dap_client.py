"""A debug adapter's client: finds why the built-in guest panics, from its end backwards to the guilty line.

Run it as ``python examples/dap_client.py demo.trace``; ``workbench demo --batch`` makes that trace.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, BinaryIO


class Client:
    """Speaks to an adapter that it starts."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.sequence = 0
        self.events: list[dict[str, Any]] = []

    def received(self, message: dict[str, Any]) -> None:
        """See every message that the adapter sends."""

    def read(self) -> dict[str, Any]:
        """Return the next message."""
        stream: BinaryIO = self.process.stdout  # type: ignore[assignment]
        size = 0
        while line := stream.readline().strip():
            size = int(line.partition(b":")[2])
        message: dict[str, Any] = json.loads(stream.read(size))
        self.received(message)
        return message

    def send(self, command: str, **arguments: Any) -> int:
        """Send a request and return its number."""
        self.sequence += 1
        message = {"seq": self.sequence, "type": "request", "command": command, "arguments": arguments}
        body = json.dumps(message).encode()
        stream: BinaryIO = self.process.stdin  # type: ignore[assignment]
        stream.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        stream.flush()
        return self.sequence

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Send a request and return the body of its response."""
        number = self.send(command, **arguments)
        while (message := self.read()).get("request_seq") != number:
            self.events.append(message)
        if not message["success"]:
            raise RuntimeError(f"{command}: {message['message']}")
        return message.get("body", {})

    def event(self, name: str) -> dict[str, Any]:
        """Return the body of the next event of a name."""
        while True:
            message = self.events.pop(0) if self.events else self.read()
            if message.get("event") == name:
                return message.get("body", {})

    def move(self, command: str, **arguments: Any) -> tuple[str, dict[str, Any]]:
        """Move the machine; return why it stopped, and the innermost frame."""
        self.ask(command, threadId=1, **arguments)
        stopped = self.event("stopped")
        return stopped["reason"], self.frames()[0]

    def frames(self) -> list[dict[str, Any]]:
        """Return the frames."""
        return self.ask("stackTrace", threadId=1)["stackFrames"]

    def value(self, expression: str, frame: dict[str, Any]) -> str:
        """Return the value of an expression in a frame."""
        return self.ask("evaluate", expression=expression, frameId=frame["id"], context="watch")["result"]

    def watch(self, expression: str, frame: dict[str, Any], condition: str = "") -> None:
        """Stop at writes to where an expression lies, and at nothing else."""
        self.ask("setFunctionBreakpoints", breakpoints=[])
        info = self.ask("dataBreakpointInfo", name=expression, frameId=frame["id"])
        point = {"dataId": info["dataId"], "accessType": "write", "condition": condition}
        self.ask("setDataBreakpoints", breakpoints=[point])


def find_bug(client: Client, trace: str) -> tuple[str, int]:
    """Return file and line of the store that broke the guest."""
    client.ask("initialize", adapterID="workbench", linesStartAt1=True)
    client.ask("launch", trace=trace, stopAt="end")
    client.event("initialized")
    client.ask("setFunctionBreakpoints", breakpoints=[{"name": "panic"}])
    client.ask("configurationDone")
    client.event("stopped")

    reason, frame = client.move("reverseContinue")
    print(f"{reason}: {frame['name']}, called from:")
    caller = client.frames()[1]
    print(f"  {caller['name']} {caller['source']['name']}:{caller['line']}")
    record = int(client.value("tick_queue.first", caller).split()[0], 0)
    print(f"The tick record {record:#x} has the wrong magic. Who wrote it?")

    client.watch(f"((struct buffer *){record:#x})->magic", caller)
    reason, frame = client.move("reverseContinue")
    print(f"{reason}: {frame['name']} {frame['source']['name']}:{frame['line']}")
    print("A driver was given a buffer that the tick queue still has. Who put it on the free list?")

    client.watch("pool.free", frame, condition=f"*(u64 *)$value == {record:#x}")
    while True:
        reason, frame = client.move("reverseContinue")
        if "pool_get" not in frame["name"]:  # who takes a buffer only uncovers what lay there
            break
    print(f"{reason}: {frame['name']} {frame['source']['name']}:{frame['line']}")
    owner = client.value(f"((struct buffer *){record:#x})->owner", frame)
    print(
        f"Behind buffer {client.value('buffer', frame)} it puts one whose owner is {owner}, the tick queue."
    )
    print(client.ask("evaluate", expression="info line", context="repl")["result"])
    return frame["source"]["path"], frame["line"]


if __name__ == "__main__":
    found = find_bug(Client([sys.executable, "-m", "workbench", "dap"]), sys.argv[1])
    print(f"{found[0]}:{found[1]}")
