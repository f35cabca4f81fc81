"""System calls of process 1 against another emulator: the same busybox and script under qemu-riscv64 -strace."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from machine.config import Images, MachineConfig
from machine.images import unpack
from tests.e2e.test_drives import initrd_file
from workbench import Trace
from workbench.guests.fetch import Guest
from workbench.kernel.syscalls import NAMES
from workbench.replay.recorder import Recorder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

#: Files that are written, read, appended to, missing, renamed and removed; descriptors, a subshell, a pipe, a signal.
SCRIPT = (
    "umask 027; echo hello > a; read x < a; echo $x >> a; printf %s,%s more 7 >> a; test -r a; test -e b;"
    " while read l; do echo $l; done < a; read y < missing; (echo sub > s; exit 3); echo $?; trap : USR1;"
    " kill -USR1 $$; type nothing; exec 5> c; echo five >&5; exec 5>&-; echo in | while read z; do echo $z; done;"
    " mkdir d; mv c d/e; cd d; test -d ../d; cd ..; rm -r d; rm s; rm a; test -e a; echo done"
)
#: qemu writes its log to descriptor 3, so in the guest it is taken, too.
BOOT_SCRIPT = f"exec 3< /dev/null; exec /bin/busybox sh -c '{SCRIPT}; poweroff -f'"
#: Environment of the first process, beside PWD, which its shell adds. Spec: Linux, init/main.c
ENVIRONMENT = {"HOME": "/", "TERM": "linux"}
#: Where a child ends is not the process's own choice: it is told by a signal, from whose handler this call returns.
_HANDLED = "rt_sigreturn"
#: Linux has it in the flags of every open file of a 64-bit process; qemu takes it out.
_O_LARGEFILE = 0x8000
#: What these return is another number for another process, address space or emulator; the link read is one in /proc,
#: which the guest has not mounted.
OWN_RESULTS = set(
    "getpid getppid gettid set_tid_address clone wait4 getcwd brk set_robust_list readlinkat".split()
)
#: Calls whose first argument is the process itself.
OWN_ARGUMENTS = frozenset(("kill",))
_FLAGS: dict[str, int] = {
    **{name: value for name, value in vars(os).items() if re.match(r"[OFRWX]_", name) and isinstance(value, int)},
    **{name: int(value) for name, value in vars(signal).items() if re.match("SIG", name) and isinstance(value, int)},
    **{name: value for name, value in vars(fcntl).items() if name.startswith("F_")},
    "AT_FDCWD": -100, "AT_SYMLINK_NOFOLLOW": 0x100, "AT_REMOVEDIR": 0x200, "AT_EMPTY_PATH": 0x1000, "NULL": 0,
    "PROT_NONE": 0, "PROT_READ": 1, "PROT_WRITE": 2, "PROT_EXEC": 4,
    "CLONE_CHILD_CLEARTID": 0x200000, "CLONE_CHILD_SETTID": 0x1000000,
}  # fmt: skip
_ARGS = r'\((?P<args>(?:"(?:[^"\\]|\\.)*"|[^"()])*)\)'
_HEAD = rf"(?P<pid>\d+) (?:(?P<name>[a-z]\w*){_ARGS}|Unknown syscall (?P<number>\d+))"
_TAIL = r" = (?P<result>-?\w+)(?: errno=(?P<errno>\d+))?"
_TOKEN = re.compile(f"{_HEAD}|{_TAIL}")
#: A number from here on is an address, which is another one elsewhere.
ADDRESS = 1 << 16

Call = tuple[str, list[Any], int | None]


def by_qemu(busybox: Path, folder: Path) -> list[Call]:
    """Return the calls of the first process: name, arguments, result where it is sure to be this call's."""
    log = busybox.with_name("strace.log")
    # a shell asks for no handler of a signal that it was started to ignore, as in the background:
    # the guest's process 1 ignores none
    done = subprocess.run(
        ["env", "--default-signal", "qemu-riscv64", "-strace", "-D", str(log), str(busybox), "sh", "-c", SCRIPT],
        cwd=folder, env=ENVIRONMENT | {"PWD": str(folder)}, stdin=subprocess.DEVNULL, capture_output=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert b"hello\nhello\n" in done.stdout
    return read_log(log.read_text(errors="replace"), folder)


def read_log(text: str, folder: Path) -> list[Call]:
    """Read what all processes wrote to one file: a call when it begins, its result when it ends."""
    calls: list[Call] = []
    first = ""
    pending: set[str] = set()
    for token in _TOKEN.finditer(text):
        pid, name, args = token["pid"], token["name"], token["args"] or ""
        if pid is None:
            if pending == {first}:
                result = -int(token["errno"]) if token["errno"] else int(token["result"], 0)
                calls[-1] = (*calls[-1][:2], result)
                pending = set()
            continue
        first = first or pid
        pending.add(pid)
        if name == "exit_group":
            pending.discard(pid)
        if pid == first:
            calls.append((name or NAMES[int(token["number"])], _args(args, folder), None))
    return calls


def _args(text: str, folder: Path) -> list[Any]:
    out: list[Any] = []
    for each in re.findall(r'"(?:[^"\\]|\\.)*"|[^",]+', text):
        if each.startswith('"'):
            path = json.loads(each)
            out.append((path.removeprefix(str(folder)) or "/") if path.startswith(str(folder)) else path)
        else:
            out.append(sum(_number(word) for word in each.rpartition("=")[2].split("|")))
    return out


def _number(word: str) -> int:
    if re.fullmatch("0[0-7]+", word):
        return int(word, 8)
    return int(word, 0) if re.match(r"-?\d", word) else _FLAGS[word]


def same(ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, str) or isinstance(ours, str):
        return bool(ours == theirs)
    if ours >> 32 == -1 or theirs >> 31 == 1:  # 32 bits, with or without their sign
        ours, theirs = ours & 0xFFFFFFFF, theirs & 0xFFFFFFFF
    return bool(ours == theirs or (not 0 <= ours < ADDRESS and not 0 <= theirs < ADDRESS))


@pytest.fixture
def calls(tmp_path: Path, debian_guest: Guest) -> list[Call]:
    path = tmp_path / "script.trace"
    config = MachineConfig(
        memory_bytes=512 << 20,
        append=f'console=ttyS0 rdinit=/bin/busybox -- sh -c "{BOOT_SCRIPT}"',
        seed=1,
        options={"entropy": "seed"},
    )
    images = Images(
        kernel=unpack(debian_guest.kernel.read_bytes(), "kernel"), initrd=debian_guest.initrd.read_bytes()
    )
    recorder = Recorder(config, images, path)
    assert recorder.run(steps=2_000_000_000, timeout_s=400).reason == "poweroff"
    recorder.board.engine.close()
    with Trace.open(path) as trace:
        rows = trace.sql(
            "select name, args, ret from syscalls where pid = 1 and icount >"
            " (select max(icount) from syscalls where pid = 1 and name = 'execve') order by icount"
        )
    return [(row["name"], json.loads(row["args"]), row["ret"]) for row in rows]


@pytest.mark.requires("qemu-riscv64")
def test_process_1_makes_the_calls_that_another_emulator_sees(
    calls: list[Call], tmp_path: Path, debian_guest: Guest
) -> None:
    busybox = tmp_path / "busybox"
    busybox.write_bytes(initrd_file(debian_guest.initrd, "bin/busybox"))
    busybox.chmod(0o755)
    folder = tmp_path / "folder"
    folder.mkdir()
    expected = by_qemu(busybox, folder)
    assert len(expected) > 150 and expected[-1][0] == "exit_group"
    # in the guest the script goes on, and switches the machine off
    ours, theirs = ([c for c in each if c[0] != _HANDLED] for each in (calls, expected[:-1]))
    assert [name for name, _, _ in ours[: len(theirs)]] == [name for name, _, _ in theirs]
    assert len([c for c in calls if c[0] == _HANDLED]) >= 6
    addresses = []
    for number, (call, other) in enumerate(zip(ours, theirs, strict=False)):
        what = f"call {number}: {call}, there {other}"
        own = call[0] in OWN_ARGUMENTS
        for one, two in zip(call[1][own:], other[1][own:], strict=False):
            if isinstance(two, str) and isinstance(one, int):
                addresses.append(two)
            else:
                assert same(one, two), what
        if other[2] is not None and call[2] is not None and call[0] not in OWN_RESULTS:
            result = call[2] & ~_O_LARGEFILE if call[0] == "fcntl" else call[2]
            assert same(result, other[2]), what
    # the first text of a program that has just begun lies in a page that nobody has touched yet
    assert addresses == ["/proc/self/exe"]
    assert sum(isinstance(arg, str) for _, args, _ in theirs for arg in args) >= 20
    assert sum(other[2] is not None for other in theirs) > 120
