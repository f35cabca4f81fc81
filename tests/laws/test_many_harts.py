"""Debian on many harts: processes on all of them, one hart taken away and given back, and every run exact.

Four harts run in chaos mode, ``--chaos-seeds N`` times with another seed each.
"""

from __future__ import annotations

import random
import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from machine.config import MachineConfig
from tests.e2e.typist import Recorded, images_with, record
from traces.reader import TraceReader
from workbench.replay.replayer import Replayer

if TYPE_CHECKING:
    from workbench.guests.fetch import Guest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(40_000)]

#: Bound to one hart: a loop and a process of its own, then the hart it ran on.
LOOP = """
i=0
while [ $i -lt 250 ]; do i=$((i + 1)); done
echo $i | sha256sum >/dev/null
read -r stat </proc/self/stat
set -- $stat
shift 38
echo "worked on $1"
"""
#: All harts work; the last one is stopped and started again (HSM), and all work again.
SCRIPT = """
last=$1
online=/sys/devices/system/cpu/online
all() {
    for hart in $(seq 0 $last); do taskset -c $hart sh /loop & done
    wait
}
all
echo 0 >/sys/devices/system/cpu/cpu$last/online
echo "without one: $(cat $online)"
echo 1 >/sys/devices/system/cpu/cpu$last/online
echo "with all: $(cat $online)"
all
"""


def boot(path: Path, guest: Guest, harts: int, seed: int = 0) -> Recorded:
    """Record it, in chaos mode where there is a seed, and check what the console says."""
    config = MachineConfig(harts=harts, append=f"console=ttyS0 wb.sh=sh /script {harts - 1}", chaos=seed > 0)
    images = images_with(guest, {"loop": LOOP, "script": SCRIPT})
    recorded = record(path, config, images, seed=seed)
    worked = sorted(int(hart) for hart in re.findall(r"worked on (\d+)", recorded.text))
    assert worked == sorted(2 * list(range(harts))), recorded.text[-2000:]
    others = "0" if harts == 2 else f"0-{harts - 2}"
    assert f"without one: {others}\n" in recorded.text and f"with all: 0-{harts - 1}\n" in recorded.text
    assert recorded.result.reason == "poweroff"
    return recorded


def verify(recorded: Recorded) -> str:
    """Replay all of it, then from each checkpoint to the next or to the end; return what was compared."""
    end = recorded.result.icount
    with TraceReader.open(recorded.path) as trace:
        with Replayer(trace) as made:
            verified = made.verify()
            assert verified.icount == end
        kept = trace.checkpoints()
        assert len(kept) > 5
        for this, following in pairwise(kept):
            with Replayer(trace, from_checkpoint=this.id) as made:
                assert made.run_to(following.icount)
                # All of its state: what follows from there has been replayed from there.
                assert made.playback.whole()[0] == following.digest
        with Replayer(trace, from_checkpoint=kept[-1].id) as made:
            assert made.verify().icount == end
        strikes = sum(row.kind == "strike" for row in trace.inputs())
    return f"{verified}, from each of {len(kept)} checkpoints; {strikes} strikes"


def test_every_seed_of_four_harts_is_an_exact_run(
    tmp_path: Path, debian_guest: Guest, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    ends = set()
    for seed in range(1, request.config.getoption("--chaos-seeds") + 1):
        recorded = boot(tmp_path / f"{seed}.trace", debian_guest, 4, seed)
        with capsys.disabled():
            print(f"\n  seed {seed}: {verify(recorded)}", end="", flush=True)
        ends.add(recorded.result.icount)
        recorded.path.unlink()
    assert len(ends) > 1


@pytest.mark.parametrize("harts", [2, 8, 16])
def test_other_numbers_of_harts_work_and_replay(
    tmp_path: Path, debian_guest: Guest, capsys: pytest.CaptureFixture[str], harts: int
) -> None:
    recorded = boot(tmp_path / "harts.trace", debian_guest, harts)
    with TraceReader.open(recorded.path) as trace:
        late = [row for row in trace.checkpoints() if row.icount > recorded.result.icount // 2]
        with Replayer(trace, from_checkpoint=random.Random(harts).choice(late).id) as made:
            verified = made.verify()
        assert verified.icount == recorded.result.icount
        with Replayer(trace) as made:
            whole = made.verify()
    with capsys.disabled():
        print(f"\n  {harts} harts: {whole}", end="", flush=True)
