"""A busy userland on every hart: processes, compression, checksums, sorting, a disk; recorded and replayed exactly.

``--busy-minutes 30`` records half an hour of it, and takes as long again to replay it.
"""

from __future__ import annotations

import re
import resource
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from machine.config import DriveConfig, MachineConfig
from tests.e2e.typist import images_with
from traces.reader import TraceReader
from workbench.replay.recorder import Recorder
from workbench.replay.replayer import Replayer

if TYPE_CHECKING:
    from workbench.guests.fetch import Guest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]

HARTS = 2
DISK_BYTES = 64 << 20
#: What a hart does for ever. Each round checks that what it packed and what it wrote to the disk comes back.
WORK = r"""
hart=$1 round=0
mkdir /tmp/$hart
cd /tmp/$hart
while :; do
    find / -xdev -type f | sort -r >list
    for i in $(seq 40); do echo $i $round | tr 0-9 a-j; done | sort | uniq -c >>list
    awk 'BEGIN { for (i = 1; i < 2000; i++) x += i / (i + 1); printf "%.12f\n", x }' >>list
    i=0
    while [ $i -lt 500 ]; do i=$((i + 1)); done
    tar c /bin/busybox list 2>/dev/null | gzip >packed
    size=$(wc -c <packed) at=$((hart * 128 + round % 4 * 32))
    dd if=packed of=/dev/vda bs=64k seek=$at conv=fsync 2>/dev/null
    echo 3 >/proc/sys/vm/drop_caches
    dd if=/dev/vda bs=64k skip=$at count=32 2>/dev/null | head -c $size >back
    gunzip <back | tar x
    if cmp -s packed back && cmp -s bin/busybox /bin/busybox; then
        echo "hart $hart, round $round: $(md5sum <list)"
    else
        echo "hart $hart, round $round: WRONG"
    fi
    round=$((round + 1))
done
"""
START = f"for hart in $(seq 1 {HARTS}); do sh /work $hart & done; wait"


def record(path: Path, guest: Guest, disk: Path, minutes: float) -> bytes:
    """Record for so long, or two rounds of a hart; return what the console showed."""
    disk.touch()
    disk.open("r+b").truncate(DISK_BYTES)
    config = MachineConfig(
        harts=HARTS,
        append="console=ttyS0 wb.modules=all wb.sh=sh /start",
        drives=(DriveConfig(file=str(disk)),),
    )
    shown = bytearray()
    images = images_with(guest, {"work": WORK, "start": START})
    recorder = Recorder(config, images, path, echo=shown.extend)
    done = recorder.run(timeout_s=minutes * 60) if minutes else recorder.run(until_regex="round 1: ")
    assert done.reason == ("timeout" if minutes else "until")
    recorder.board.engine.close()
    return bytes(shown)


def positions(trace: TraceReader) -> str:
    """Return where the trace has digests of the whole state, and how many rolling ones lie between them."""
    text = " ".join(str(row.icount) for row in trace.checkpoints())
    lines = textwrap.wrap(text, 110, initial_indent="    ", subsequent_indent="    ")
    rolling = trace.digests()
    first, last = rolling[0].icount, rolling[-1].icount
    return "\n".join(
        ["  digests of the whole state at", *lines, f"  {len(rolling)} rolling ones, {first} to {last}"]
    )


def test_a_busy_userland_is_replayed_exactly(
    tmp_path: Path, debian_guest: Guest, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    minutes = request.config.getoption("--busy-minutes")
    path = tmp_path / "busy.trace"
    shown = record(path, debian_guest, tmp_path / "disk.img", minutes)
    rounds = re.findall(rb"hart (\d+), round (\d+): (.*)\r", shown)
    with TraceReader.open(path) as trace, capsys.disabled():
        print(f"\n  {len(rounds)} rounds, {trace.final_icount} steps, {trace.input_count()} inputs")
        print(f"  {positions(trace)}\n  {path.stat().st_size} bytes of trace", flush=True)
        with Replayer(trace) as made:
            verified = made.verify()
        print(f"  {verified}; {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB at most")
        assert verified.icount == trace.final_icount
    assert b"WRONG" not in shown, shown[-2000:]
    assert {hart for hart, _, _ in rounds} == {b"1", b"2"}, shown[-2000:]
