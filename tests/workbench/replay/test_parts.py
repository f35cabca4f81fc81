"""The small parts of record and replay, each by itself."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine.config import MachineConfig
from machine.inputs import Input
from traces.reader import TraceReader
from traces.writer import TraceWriter
from workbench.replay.checkpoints import ZERO_PAGE, CheckpointTree, MemoryNode, Node
from workbench.replay.digest import canonical_json
from workbench.replay.divergence import differences
from workbench.replay.errors import Diverged
from workbench.replay.gates import NEVER, RecordGate, ReplayGate
from workbench.replay.thinning import choose_victim
from workbench.replay.watch import ConsoleWatch, compile_pattern


def test_canonical_json_is_independent_of_order() -> None:
    assert canonical_json({"b": 1, "a": [2]}) == canonical_json({"a": [2], "b": 1}) == b'{"a":[2],"b":1}'


def test_thinning_leaves_gaps_that_grow_away_from_the_end() -> None:
    kept: list[int] = []
    for position in range(2000):
        kept.append(position)
        while len(kept) > 24:
            victim = choose_victim(kept)
            assert victim is not None
            assert 0 < victim < len(kept) - 1
            kept.pop(victim)
    assert kept[0] == 0
    assert kept[-4:] == [1996, 1997, 1998, 1999]
    gaps = [b - a for a, b in pairwise(kept)]
    assert gaps[0] > 4 * gaps[-1]
    assert choose_victim([0, 5]) is None


def test_thinning_spares_the_neighbourhood_of_a_bookmark() -> None:
    kept = list(range(0, 1000, 10))
    while len(kept) > 20:
        kept.pop(cast(int, choose_victim(kept, [300])))
    assert min(abs(k - 300) for k in kept) <= 10


@given(st.data())
def test_a_tree_of_differences_holds_every_state(data: st.DataObject) -> None:
    """RAM of 8 pages is written at random, kept, and compared after evictions folded nodes into one another."""
    initial = {0: b"\1" * 4096, 5: b"\2" * 4096}
    root = MemoryNode(0, 1, None, frozenset(), {}, {})
    tree = CheckpointTree(initial, root, budget_bytes=6 * 4096)
    states: dict[int, dict[int, bytes]] = {0: dict(initial)}
    nodes: dict[int, Node] = {0: root}
    for at in range(1, data.draw(st.integers(1, 12))):
        alive = [n for n in tree.positions() if n in nodes]
        parent = data.draw(st.sampled_from(alive))
        written = {p: bytes([at]) * 4096 for p in data.draw(st.sets(st.integers(0, 7), max_size=4))}
        states[at] = states[parent] | written
        node = MemoryNode(at, 1, nodes[parent], frozenset(), {}, dict(written))
        nodes[at] = node
        tree.add(node)
        assert at in tree.positions()
    for a in tree.positions():
        assert tree.nearest(a) is nodes[a]
        held = dict(tree.contents_of(nodes[a], range(8)))
        assert held == {p: states[a].get(p, ZERO_PAGE) for p in range(8)}
        for b in tree.positions():
            differ = {p for p in range(8) if states[a].get(p) != states[b].get(p)}
            assert differ <= tree.difference(nodes[a], nodes[b])


class Keys:
    at_end = False

    def __init__(self, *data: bytes) -> None:
        self.data = list(data)

    def poll(self, timeout_s: float = 0.0) -> bytes:
        if not self.data:
            self.at_end = True
            return b""
        return self.data.pop(0)


def test_a_recording_polls_once_at_a_position_and_again_after_an_ask() -> None:
    gate = RecordGate(MachineConfig(), source=Keys(b"a", b"b", b"c"))
    assert [i.payload for i in gate.due(5, 0)] == [b"a"]
    assert gate.due(5, 0) == []
    gate.ask("rtc", "wallclock", b"", 5, 0)
    assert [i.payload for i in gate.due(5, 0)] == [b"b"]
    assert gate.due(5, 0) == []
    assert [i.payload for i in gate.due(6, 0)] == [b"c"]


def test_idle_time_without_a_host_jumps_and_a_dead_machine_is_told() -> None:
    dead: list[bool] = []
    gate = RecordGate(MachineConfig(), on_dead=lambda: dead.append(True))
    answer = gate.ask("idle", "warp", (10_000).to_bytes(8, "little"), 1, 4_000)
    assert int.from_bytes(answer, "little") == 6_000
    assert gate.ask("idle", "warp", NEVER.to_bytes(8, "little"), 1, 0) == bytes(8)
    assert dead == [True]


def test_a_seed_makes_entropy_repeat() -> None:
    config = MachineConfig(seed=7, options={"entropy": "seed"})
    first = [RecordGate(config).ask("rng0", "entropy", (70).to_bytes(4, "little"), 0, 0) for _ in range(2)]
    assert first[0] == first[1]
    assert len(first[0]) == 70
    other = RecordGate(MachineConfig(seed=8, options={"entropy": "seed"}))
    assert other.ask("rng0", "entropy", (70).to_bytes(4, "little"), 0, 0) != first[0]


@pytest.fixture
def log(tmp_path: Path) -> Any:
    path = tmp_path / "t.trace"
    writer = TraceWriter.create(path)
    rows = [
        (0, "rtc", "wallclock", b"W" * 8, True),
        (10, "uart0", "rx", b"a", False),
        (10, "uart0", "rx", b"b", False),
        (10, "idle", "warp", bytes(8), True),
        (10, "uart0", "rx", b"c", False),
        (30, "rng0", "entropy", b"E", True),
    ]
    for icount, source, kind, payload, asked in rows:
        writer.add_input(icount, icount, 0, source, kind, payload, asked)
    writer.close(100)
    with TraceReader.open(path) as trace:
        yield trace


def test_a_replay_answers_in_the_order_of_the_log(log: TraceReader) -> None:
    gate = ReplayGate(log)
    assert gate.ask("rtc", "wallclock", b"", 0, 0) == b"W" * 8
    assert gate.due(0, 0) == []
    assert gate.next_position(0) == 10
    assert gate.due(10, 0) == [Input("uart0", "rx", b"a"), Input("uart0", "rx", b"b")]
    assert gate.next_position(10) is None  # the next one has to wait for the idle time asked here
    assert gate.ask("idle", "warp", bytes(8), 10, 0) == bytes(8)
    assert [i.payload for i in gate.due(10, 0)] == [b"c"]
    assert gate.ask("rng0", "entropy", b"", 30, 0) == b"E"
    with pytest.raises(Diverged, match="no more inputs"):
        gate.ask("rng0", "entropy", b"", 31, 0)


def test_faults_are_logged_when_they_happen_and_met_by_who_they_are_of(tmp_path: Path) -> None:
    rows: list[tuple[int, Input, bool]] = []
    gate = RecordGate(
        MachineConfig(), lambda icount, vtime, given, asked: rows.append((icount, given, asked))
    )
    assert gate.fault("vda", b"one!", 0, 5, 5) == 0 and not rows
    assert gate.fault("vda", b"one!", 28, 5, 5) == 28
    path = tmp_path / "f.trace"
    writer = TraceWriter.create(path)
    for icount, item, asked in rows:
        writer.add_input(icount, icount, 0, item.source, item.kind, item.payload, asked)
    writer.close(100)
    with TraceReader.open(path) as trace:
        replay = ReplayGate(trace)
        for source, request, icount in (("vdb", b"one!", 5), ("vda", b"two!", 5), ("vda", b"one!", 4)):
            assert replay.fault(source, request, 0, icount, icount) == 0
        assert replay.fault("vda", b"one!", 0, 5, 5) == 28
        assert replay.fault("vda", b"one!", 0, 5, 5) == 0
        with pytest.raises(Diverged, match="errno 5"):
            replay.fault("vda", b"two!", 5, 6, 6)


def test_a_replay_that_asks_for_another_input_has_diverged(log: TraceReader) -> None:
    gate = ReplayGate(log)
    with pytest.raises(Diverged, match="rtc wallclock at 0"):
        gate.ask("rng0", "entropy", b"", 0, 0)
    with pytest.raises(Diverged):
        gate.ask("rtc", "wallclock", b"", 1, 0)
    gate.ask("rtc", "wallclock", b"", 0, 0)
    with pytest.raises(Diverged, match="input 2 of 10 was not taken") as caught:
        gate.due(11, 0)
    assert caught.value.exit_code == 4


def test_a_replay_continues_at_any_input(log: TraceReader) -> None:
    gate = ReplayGate(log)
    gate.seek(4)
    assert gate.next_position(5) == 10
    assert gate.due(10, 0) == []
    gate.ask("idle", "warp", b"", 10, 0)
    assert [i.payload for i in gate.due(10, 0)] == [b"c"]
    assert gate.next_position(10) is None


class Sink:
    def __init__(self) -> None:
        self.rows: list[tuple[int, bytes]] = []
        self.marks: list[tuple[str, int, str]] = []

    def console(self, icount: int, vtime_ns: int, port: str, data: bytes) -> None:
        self.rows.append((icount, data))

    def bookmark(self, name: str, icount: int, note: str) -> None:
        self.marks.append((name, icount, note))


def test_console_rows_are_lines_at_the_position_of_their_end() -> None:
    sink = Sink()
    watch = ConsoleWatch(sink)
    for at, text in enumerate([b"he", b"llo\r\n", b"$ "]):
        watch.write("uart0", text, at, 0)
    assert sink.rows == [(1, b"hello\r\n")]
    watch.flush()
    watch.flush()
    assert sink.rows[1:] == [(2, b"$ ")]


@pytest.mark.parametrize(
    ("line", "mark"),
    [
        (b"[    1.0] Kernel panic - not syncing: VFS", ["panic"]),
        (b"panic: free list is broken", ["panic"]),
        (b"[    0.1] Kernel command line: console=ttyS0 panic=-1 wb.poweroff", []),
        (b"Unable to handle kernel NULL pointer dereference", ["oops"]),
        (b"[    2.0] reboot: Power down", ["poweroff"]),
        (b"all is well", []),
    ],
)
def test_a_recording_names_its_places(line: bytes, mark: list[str]) -> None:
    sink = Sink()
    watch = ConsoleWatch(sink)
    for _ in range(2):
        watch.write("uart0", b"first\n" + line + b"\n", 9, 0)
    assert [(name, at) for name, at, _ in sink.marks] == [(name, 9) for name in mark]


def test_a_pattern_is_found_in_a_prompt_and_told_once() -> None:
    found: list[tuple[str, str]] = []
    watch = ConsoleWatch(
        None, None, {"until": compile_pattern("login: $", "--until")}, lambda *m: found.append(m)
    )
    watch.write("uart0", b"debian login", 1, 0)
    watch.flush()
    assert found == []
    watch.write("uart0", b": ", 2, 0)
    watch.flush()
    watch.write("uart0", b"\ndebian login: \r\n", 3, 0)
    assert found == [("until", "login: ")]


def test_differences_name_what_differs() -> None:
    recorded = {"harts": [{"pc": 1, "x1": 2}], "warp_ns": 5}
    assert differences(recorded, {"harts": [{"pc": 1, "x1": 3}], "warp_ns": 5}) == {"harts[0].x1": (2, 3)}
