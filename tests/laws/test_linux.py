"""The laws of the machine on Debian's boot: the tests of ``test_same_run``, on a billion steps."""

from __future__ import annotations

import bisect
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from machine.config import Images, MachineConfig
from machine.tcg.probes import NEVER, RECORD, Probe, ProbeAction, ProbeKind
from tests.laws.test_reverse_steps import (  # noqa: F401 - collected here, with this module's trace
    go_back_and_forth,
    test_back_and_forth_at_random_positions_changes_nothing,
    test_back_and_forth_in_idle_changes_nothing,
)
from tests.laws.test_same_run import (  # noqa: F401 - collected here, with this module's trace
    WINDOW,
    replayer,
    test_a_plain_replay_meets_every_digest,
    test_blocks_cut_anew_on_the_way_give_the_same_run,
    test_both_backends_run_the_same_run,
    test_caches_dropped_at_random_change_nothing,
    test_every_checkpoint_leads_to_the_same_end,
    test_every_switch_of_the_translator_leaves_the_run_alone,
    test_restoring_back_and_forth_changes_nothing,
    test_stops_at_random_positions_change_nothing,
)
from traces.reader import TraceReader
from workbench.replay.recorder import Recorder
from workbench.replay.replayer import Replayer
from workbench.session import Session

if TYPE_CHECKING:
    from workbench.guests.fetch import Guest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=[1, 4], ids=["one-hart", "four-harts"])
def trace(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    debian_guest: Guest,
    backend: str,
) -> Iterator[TraceReader]:
    path = tmp_path_factory.mktemp("laws") / "linux.trace"
    config = MachineConfig(
        memory_bytes=512 << 20,
        harts=request.param,
        append="console=ttyS0 wb.sh=for i in 1 2 3; do sleep 1; done",
        seed=1,
        options={"entropy": "seed"},
    )
    images = Images(
        kernel=(debian_guest.folder / "Image").read_bytes(),
        initrd=(debian_guest.folder / "initrd.cpio.gz").read_bytes(),
    )
    recorder = Recorder(config, images, path, backend=backend)
    assert recorder.run(timeout_s=600).reason == "poweroff"
    recorder.board.engine.close()
    with TraceReader.open(path) as opened:
        yield opened


def places(trace: TraceReader, kind: ProbeKind, lo: int, hi: int, since: int | None = None) -> list[int]:
    """Return positions behind which such a happening is, from one on; by default, those of the last quarter."""
    with Replayer(trace) as made:
        board = made.playback.board
        made.goto(trace.final_icount * 3 // 4 if since is None else since)
        found: list[int] = []

        def drain() -> None:
            found.extend(row[0] for row in RECORD.iter_unpack(board.engine.take_records()))

        board.on_records = drain
        board.engine.set_probes([Probe(kind, ProbeAction.RECORD, lo, hi)])
        made.run_to(trace.final_icount - 1)
        drain()
        return found


@pytest.mark.parametrize(
    ("kind", "lo", "hi"),
    [
        pytest.param(ProbeKind.TRAP, 1 << 63, NEVER, id="interrupt-entry"),
        pytest.param(ProbeKind.TRAP, 12, 15, id="page-fault"),
        pytest.param(ProbeKind.MMIO, 0, NEVER, id="device-access"),
        pytest.param(ProbeKind.CSR, 0x14D, 0x14D, id="timer-set"),
    ],
)
def test_back_and_forth_at_delicate_places_changes_nothing(
    trace: TraceReader, kind: ProbeKind, lo: int, hi: int
) -> None:
    choose = random.Random(4)
    found = places(trace, kind, lo, hi)
    assert len(found) > 20
    with Session.open(trace.path) as session:
        for position in choose.sample(found, 8):
            go_back_and_forth(session, position + choose.choice((0, 1, 2)))


def test_one_step_at_a_time_in_a_storm_of_traps(trace: TraceReader, backend: str) -> None:
    traps = places(trace, ProbeKind.TRAP, 0, NEVER, since=0)
    taken = [bisect.bisect(traps, at + WINDOW) - i for i, at in enumerate(traps)]
    start = min(traps[taken.index(max(taken))], trace.final_icount - WINDOW)
    assert max(taken) > 50
    with Replayer(trace, backend) as made:
        made.goto(start)
        for position in range(start + 1, start + WINDOW + 1):
            made.run_to(position)
        assert made.verify().icount == trace.final_icount
