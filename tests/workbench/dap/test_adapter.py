"""The debug adapter, through a client that checks every message against the published schema."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path
from typing import Any

from tests.workbench.dap.harness import Checked, example_client, schema
from workbench.cli.dap import ReplConsole
from workbench.dap.adapter import Adapter
from workbench.dap.launching import CAPABILITIES
from workbench.guests import builtin

POOL = Path(builtin.__file__).parent / "pool.c"


def line_of(text: str) -> int:
    """Return the line of pool.c that has a text."""
    return next(i for i, line in enumerate(POOL.read_text().splitlines(), 1) if text in line)


def scope(client: Checked, name: str, level: int = 0) -> dict[str, dict[str, Any]]:
    """Return the variables of a scope of a frame, by name."""
    frame = client.frames()[level]
    scopes = client.ask("scopes", frameId=frame["id"])["scopes"]
    (found,) = [each for each in scopes if each["name"] == name]
    return children(client, found)


def children(client: Checked, of: dict[str, Any]) -> dict[str, dict[str, Any]]:
    rows = client.ask("variables", variablesReference=of["variablesReference"])["variables"]
    return {row["name"]: row for row in rows}


def at_panic(client: Checked) -> None:
    client.ask("setFunctionBreakpoints", breakpoints=[{"name": "panic"}])
    assert client.move("reverseContinue")[0] == "function breakpoint"
    client.ask("setFunctionBreakpoints", breakpoints=[])


def test_client_finds_the_guilty_line_backwards(client: Checked, panic_trace: Path) -> None:
    path, line = example_client().find_bug(client, str(panic_trace))
    assert Path(path).samefile(POOL)
    assert line == line_of("*(struct buffer *volatile *)&pool.free = buffer;")
    assert {"StoppedEvent", "StackTraceResponse", "SetDataBreakpointsResponse"} <= set(client.checked)


def test_every_request_and_capability_is_of_the_protocol() -> None:
    adapter = Adapter(lambda message: None, ReplConsole)
    known = schema()["definitions"]
    requests = {name[: -len("Request")].lower() for name in known if name.endswith("Request")}
    assert {name.lower() for name in adapter.requests} <= requests
    named = {
        "supportsGotoTargetsRequest": "gotoTargets",
        "supportsStepBack": "stepBack",
        "supportsRestartFrame": "restartFrame",
        "supportsDataBreakpoints": "setDataBreakpoints",
    }
    for capability, value in CAPABILITIES.items():
        name = named.get(capability, capability.removeprefix("supports").removesuffix("Request"))
        name = name[:1].lower() + name[1:]
        if capability.endswith("Request") and value:
            assert name in adapter.requests, capability


def test_steps_back_by_line_and_by_instruction(launched: Checked) -> None:
    at_panic(launched)
    before = launched.frames()[0]["instructionPointerReference"]
    reason, frame = launched.move("stepBack", granularity="instruction")
    assert reason == "step" and frame["instructionPointerReference"] != before
    assert launched.move("stepIn", granularity="instruction")[1]["instructionPointerReference"] == before
    reason, frame = launched.move("stepBack", granularity="line")
    assert reason == "step" and frame["source"]["name"] == "pool.c"
    assert frame["line"] == line_of('panic("tick record')


def test_both_ends_of_history_say_so(launched: Checked) -> None:
    reason, _ = launched.move("continue")
    assert reason == "end"
    assert launched.move("reverseContinue")[0] == "start"
    assert any("hart 0" in each["name"] for each in launched.ask("threads")["threads"])


def test_locals_registers_and_csrs_of_a_frame(launched: Checked) -> None:
    test = line_of("tick_queue.first = buffer->next;")
    launched.ask("setBreakpoints", source={"path": str(POOL)}, breakpoints=[{"line": test}])
    assert launched.move("reverseContinue")[0] == "breakpoint"
    variables = scope(launched, "Locals")
    buffer = variables["buffer"]
    assert buffer["type"] == "struct buffer *"
    parts = children(launched, buffer)
    assert parts["magic"]["value"] == str(0x4B434954)  # TICK
    words = children(launched, parts["words"])
    assert len(words) == parts["words"]["indexedVariables"] == 12
    launched.ask("setBreakpoints", source={"path": str(POOL)}, breakpoints=[])
    launched.ask("setFunctionBreakpoints", breakpoints=[{"name": "panic"}])
    launched.move("continue")
    registers = scope(launched, "Registers")
    assert "panic" in registers["pc"]["value"] and "ra" in registers
    assert scope(launched, "CSRs")["scause"]["value"].startswith("0x8")
    assert scope(launched, "Registers", level=1)["a0"]["value"] == "<not kept>"


def test_line_breakpoints_take_conditions_and_hits_and_may_log(launched: Checked) -> None:
    source = {"path": str(POOL)}
    free = line_of("buffer->owner = OWNER_FREE;")
    (point,) = launched.ask(
        "setBreakpoints", source=source, breakpoints=[{"line": free, "hitCondition": "3"}]
    )["breakpoints"]
    assert point["verified"] and point["line"] >= free
    launched.ask("restart")
    assert launched.event("stopped")["reason"] == "entry"
    reason, frame = launched.move("continue")
    assert reason == "breakpoint" and frame["source"]["name"] == "pool.c"
    launched.ask(
        "setBreakpoints", source=source, breakpoints=[{"line": free, "logMessage": "owner {buffer->owner}"}]
    )
    launched.output.clear()
    assert launched.move("continue")[0] == "end"
    assert "owner 1\n" in launched.output and "owner 2\n" in launched.output
    (point,) = launched.ask("setBreakpoints", source={"path": "/nowhere/x.c"}, breakpoints=[{"line": 1}])[
        "breakpoints"
    ]
    assert not point["verified"] and "no code comes from" in point["message"]
    lines = launched.ask("breakpointLocations", source=source, line=1, endLine=free)["breakpoints"]
    assert lines


def test_instructions_and_happenings_stop_too(launched: Checked) -> None:
    at_panic(launched)
    address = launched.frames()[0]["instructionPointerReference"]
    launched.ask("restart")
    launched.event("stopped")
    points = launched.ask("setInstructionBreakpoints", breakpoints=[{"instructionReference": address}])
    assert points["breakpoints"][0]["verified"]
    assert launched.move("continue")[0] == "instruction breakpoint"
    launched.ask("setInstructionBreakpoints", breakpoints=[])
    launched.ask("setExceptionBreakpoints", filters=["interrupt"])
    reason, _ = launched.move("reverseContinue")
    assert reason == "exception"


def test_goes_to_a_line_in_either_direction(launched: Checked) -> None:
    at_panic(launched)
    line = line_of("pool.free = buffer->next;")
    targets = launched.ask("gotoTargets", source={"path": str(POOL)}, line=line)["targets"]
    back = next(target for target in targets if "back" in target["label"])
    reason, frame = launched.move("goto", targetId=back["id"])
    assert reason == "goto" and frame["line"] == line


def test_memory_and_code_are_read(launched: Checked) -> None:
    at_panic(launched)
    pc = launched.frames()[0]["instructionPointerReference"]
    memory = launched.ask("readMemory", memoryReference=pc, count=16)
    assert len(base64.b64decode(memory["data"])) == 16
    assert launched.ask("readMemory", memoryReference="0x10", count=8)["unreadableBytes"] == 8
    rows = launched.ask("disassemble", memoryReference=pc, instructionOffset=-4, instructionCount=9)
    addresses = [row["address"] for row in rows["instructions"]]
    assert len(addresses) == 9 and addresses[4] == pc
    assert rows["instructions"][4]["symbol"] == "panic"
    none = launched.ask("disassemble", memoryReference="0x10", instructionCount=3)["instructions"]
    assert [row["presentationHint"] for row in none] == ["invalid"] * 3


def test_console_is_the_repl_and_says_where_the_machine_went(launched: Checked) -> None:
    result = launched.ask("evaluate", expression="where", context="repl")["result"]
    assert result.startswith("position ")
    launched.ask("evaluate", expression="goto 50%", context="repl")
    assert launched.event("stopped")["reason"] == "goto"
    assert "no command" in launched.failure("evaluate", expression="nonsense", context="repl")
    assert "for the REPL alone" in launched.failure("evaluate", expression="py 1", context="repl")
    found = launched.ask("completions", text="reverse-c", column=10)["targets"]
    assert found == [{"label": "reverse-continue", "start": 0, "length": 9}]


def test_writing_opens_a_branch_and_leaves_the_trace(
    client: Checked, panic_trace: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.trace"
    shutil.copy(panic_trace, own)
    client.ask("initialize", adapterID="workbench", supportsInvalidatedEvent=True)
    client.ask("launch", trace=str(own), stopAt="50%")
    client.ask("configurationDone")
    client.event("stopped")
    frame = client.frames()[0]
    scopes = client.ask("scopes", frameId=frame["id"])["scopes"]
    registers = next(each for each in scopes if each["name"] == "Registers")
    client.ask(
        "setVariable", variablesReference=registers["variablesReference"], name="a5", value="0x1234567"
    )
    client.event("invalidated")
    assert [path.name for path in tmp_path.glob("*branch*")]
    frame = client.frames()[0]
    assert client.value("$a5", frame).startswith("0x1234567")


def test_pause_ends_a_motion(launched: Checked) -> None:
    launched.ask("setDataBreakpoints", breakpoints=[])
    launched.ask("restart")
    launched.event("stopped")
    number = launched.send("continue", threadId=1)
    pause = launched.send("pause", threadId=1)
    stopped = launched.event("stopped")
    assert stopped["reason"] in ("pause", "end")  # a short run may be over before the pause is read
    assert pause == number + 1
    assert launched.ask("evaluate", expression="where", context="repl")["result"]


def test_refusals_are_one_line_each(client: Checked, launched: Checked, tmp_path: Path) -> None:
    assert "not known here" in client.failure("stepInTargets", frameId=1)
    assert "another position" in client.failure("variables", variablesReference=77)
    assert "expected" in client.failure("stackTrace", threadId="one")
    assert "harts 0 to 0" in client.failure("stackTrace", threadId=9)
    assert "number was expected" in client.failure("readMemory", memoryReference="x", count=1)
    assert "base64" in client.failure("writeMemory", memoryReference="0x80200000", data="*")
    assert "granularity" in client.failure("next", threadId=1, granularity="mile")
    (tmp_path / "no.trace").write_text("no")
    assert client.failure("launch", trace=str(tmp_path / "no.trace"))


def test_nothing_works_before_a_launch(client: Checked) -> None:
    client.ask("initialize", adapterID="workbench")
    assert "'launch' opens one" in client.failure("stackTrace", threadId=1)
    assert client.ask("threads")["threads"] == []
    client.ask("disconnect")
