"""Recording: run a machine on the host's inputs, and write down all that a replay needs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from machine.config import SEMANTICS, Images, MachineConfig
from machine.inputs import Input
from machine.tcg.pagediff import LoadedImage
from machine.tcg.pageset import PageSet
from machine.tcg.ramfold import RamFold, page_names
from machine.values import valueclass
from traces.writer import TraceWriter
from workbench.errors import UsageError

from .digest import RollingDigest
from .gates import ConsoleSource, RecordGate
from .imagecache import begin_with
from .interventions import Origin, apply_write
from .parts import BoardFactory, BoardStop, build_board, open_drives, reason_name
from .resetpages import loaded_images
from .settings import fitted
from .tracelog import TraceLog
from .watch import ConsoleWatch, compile_pattern

#: Seconds between two notes of how far the run has come.
_PROGRESS_S: Final = 0.1
#: How much of the console is looked at for texts to pause at, in bytes.
_PRINTED_BYTES: Final = 4096


@valueclass(frozen=True, slots=True)
class RecordLimits:
    """What a recording spends on being replayed quickly.

    Args:
        rolling_steps: steps between two rolling digests; checkpoints lie on multiples of it.
        checkpoint_every: rolling digests between two checkpoints.
        budget_bytes: most that RAM pages of checkpoints may take in the file.
        max_checkpoints: most checkpoints kept; beyond, they are thinned.
    """

    rolling_steps: int = 1 << 26
    checkpoint_every: int = 2
    budget_bytes: int = 256 << 20
    max_checkpoints: int = 256


@valueclass(frozen=True, slots=True)
class RecordResult:
    """How a recording ended.

    Args:
        reason: ``poweroff``, ``reboot``, ``fail`` (the guest's own failure, with ``code``), ``halted``, ``steps``,
            ``until``, ``fail_pattern``, ``timeout`` or ``interrupted``.
        code: the guest's exit code.
        icount: the final position. vtime_ns: virtual time there.
        matched: the text that a pattern matched.
        path: the trace.
    """

    reason: str
    code: int
    icount: int
    vtime_ns: int
    matched: str
    path: Path


class Recorder:
    """One recording. The machine is built and reset here, so what can't be loaded leaves no trace behind.

    Args:
        config: the machine. Drives without a content hash get one.
        images: what is loaded.
        out_path: where the trace goes; see ``TraceWriter.create`` for what is replaced.
        paths: by role (``kernel``, ``initrd``, ``bios``, ``dtb``), where an image came from, for the record.
        source: console bytes, or None for none.
        echo: shows the guest's output.
        title: a line about the run.
        backend: ``jit`` or ``interp``.
        limits: what is spent on checkpoints.
        board_factory: builds the board.
        origin: where a branch leaves its parent, None for a run of its own.

    Raises:
        MachineError: such a machine can't be built.
        UsageError: a source while virtual time jumps over waits (``config.idle``): ``ask`` makes waits inputs.

    Replay: makes what a replay consumes.
    """

    def __init__(
        self,
        config: MachineConfig,
        images: Images,
        out_path: str | Path,
        *,
        paths: dict[str, str] | None = None,
        source: ConsoleSource | None = None,
        echo: Callable[[bytes], None] | None = None,
        title: str = "",
        backend: str = "jit",
        limits: RecordLimits | None = None,
        board_factory: BoardFactory = build_board,
        origin: Origin | None = None,
    ) -> None:
        if source is not None and config.idle != "ask":
            raise UsageError(
                f'a console source needs idle="ask", and the machine has idle="{config.idle}": what is typed while the '
                "machine waits would come at no virtual time of its own"
            )
        self.path = Path(out_path)
        self._origin = origin
        self._config, drives = open_drives(
            config, self, lambda key: lambda cluster, data: self._note_read(key, cluster, data)
        )
        self._images = images
        self._paths = paths or {}
        self._title = title
        self._limits = limits or RecordLimits()
        self._log: TraceLog | None = None
        self._early: list[tuple[int, int, Input, bool]] = []
        self._early_reads: list[tuple[str, int, bytes]] = []
        self._why = ""
        self._matched = ""
        self._stop_at_time = float("inf")
        self._progress_at = 0.0
        self._rolls = 0
        self._rolled_at = -1
        self._sliced = -1, -1  # inputs and deadlines that had come when the last slice began
        #: called between steps, soon after ``pause``, while the machine stands still
        self.on_pause: Callable[[], None] | None = None
        #: called when the machine is needed no more, while the trace's last pages are being written
        self.on_end: Callable[[], None] | None = None
        #: how it ended, once it has
        self.result: RecordResult | None = None
        self._pausing = False
        #: texts on the console that make the machine pause
        self.pause_at: tuple[bytes, ...] = ()
        self._printed = b""
        self._checkpoint_at = -1
        script = None if origin is None else origin.script
        self.gate = RecordGate(self._config, self._note_input, source, self._slice, self._dead, script)
        self.gate.apply = lambda item: apply_write(self.board, item)
        self._watch = ConsoleWatch(None, echo)
        self._echo = echo
        self.board = board_factory(self._config, images, self.gate, self, drives, backend)
        self.board.reset()
        self._clock = getattr(self.board, "clock", None)
        n_pages = self.board.engine.ram_pages
        self._checkpoint_dirty, self._roll_dirty = PageSet(n_pages), PageSet(n_pages)

    def run(
        self,
        until_regex: str | None = None,
        fail_regex: str | None = None,
        steps: int | None = None,
        timeout_s: float | None = None,
    ) -> RecordResult:
        """Record until the machine or one of the limits ends it.

        Args:
            until_regex: ends the run when the console shows it. fail_regex: the same, as a failure.
            steps: ends the run at this position.
            timeout_s: ends the run after this much host time.

        Returns:
            how it ended; the trace is closed and clean.

        Raises:
            UsageError: not a regular expression. TraceWriteError: the trace can't be written; what was
                committed stays and replays.
        """
        if steps is not None and steps < 1:
            raise UsageError(f"--steps {steps}: expected at least 1")
        self.start(until_regex, fail_regex, timeout_s)
        try:
            while True:
                stop = self.advance(steps)
                if self._pausing and self.on_pause is not None and not self._why:
                    self.resume()
                    self.on_pause()
                    if self.result is not None:  # whoever looked around went on to the machine's end
                        return self.result
                    if not self._why:
                        continue
                if steps is not None and self.board.icount >= steps:
                    self._why = self._why or "steps"
                return self.finish(stop)
        finally:
            self.abandon()

    def start(
        self, until_regex: str | None = None, fail_regex: str | None = None, timeout_s: float | None = None
    ) -> None:
        """Make the trace; ``advance`` and ``finish`` are to follow. Arguments and errors: as of ``run``."""
        patterns = {}
        for name, text in (("until", until_regex), ("fail_pattern", fail_regex)):
            if text is not None:
                patterns[name] = compile_pattern(text, "--until" if name == "until" else "--fail")
        log = self._start_trace()
        self._watch = ConsoleWatch(log, self._echo, patterns, self._match)
        if timeout_s is not None:
            self._stop_at_time = time.monotonic() + timeout_s

    def advance(self, until: int | None = None) -> BoardStop:
        """Record until a position, or until something stops the machine: a probe, an interruption, its end.

        Returns:
            why the machine stopped. It may go on after ``until``, ``breakpoint`` and ``interrupted``.
        """
        if self._log is None:
            raise RuntimeError("the recording has not begun or has ended")
        return self._run(self._log, until)

    def commit_here(self) -> int:
        """Let a reader go to where the machine stands: between two calls of ``advance``. Returns the position."""
        log, board = self._log, self.board
        if log is not None:
            self._watch.flush()
            self._watch.flush()  # the second one stores what the first one has searched
            if self.gate.last_due != board.icount and board.icount != self._checkpoint_at:
                self._collect()
                self._checkpoint(log)
            self.commit()
        return board.icount

    @property
    def recording(self) -> bool:
        """Whether the trace is open: begun, and neither finished nor abandoned."""
        return self._log is not None

    @property
    def pausing(self) -> bool:
        """Whether ``pause`` was called since ``resume``."""
        return self._pausing

    def resume(self) -> None:
        """Forget what ``pause`` asked for."""
        self._pausing = self.gate.pausing = False

    @property
    def ended(self) -> bool:
        """Whether something has ended the recording: a pattern, a limit, an interruption."""
        return bool(self._why)

    def stop(self) -> RecordResult:
        """End the recording where the machine stands."""
        self.interrupt()
        return self.finish(self.advance(None))

    def finish(self, stop: BoardStop) -> RecordResult:
        """End the recording where the machine stopped; the trace is closed and clean."""
        log = self._log
        if log is None:
            raise RuntimeError("the recording has not begun or has ended")
        result = self.result = self._finish(log, stop)
        log.close(result.icount, self.on_end)
        self._log = None
        return result

    def abandon(self) -> None:
        """Leave the trace unclean, as it is, if it was not finished."""
        if self._log is not None:
            log, self._log = self._log, None
            log.abandon()

    def pause(self) -> None:
        """Stand still soon: ``advance`` returns, ``run`` calls ``on_pause``.

        May be called from a signal handler, another thread or a console's source.
        """
        self._pausing = True
        self.gate.pausing = True
        self.board.interrupt()

    def interrupt(self, why: str = "interrupted") -> None:
        """End the recording soon, as this reason; may be called from a signal handler or another thread."""
        self._why = self._why or why
        self.gate.hurry = True
        self.board.interrupt()

    def commit(self) -> None:
        """Make the trace so far readable by others; called between steps, from the console's source."""
        if self._log is not None:
            self._log.progress(self.board.icount)
            self._log.flush()

    def bookmark(self, name: str, icount: int, note: str = "") -> None:
        """Name a position in the trace."""
        if self._log is not None:
            self._log.bookmark(name, icount, note)

    # the console sink and the drives' store, as the board sees them

    def write(self, port: str, data: bytes, icount: int, vtime_ns: int) -> None:
        """Take what the guest printed."""
        self._watch.write(port, data, icount, vtime_ns)
        if self.pause_at:
            self._printed = (self._printed + data)[-_PRINTED_BYTES:]
            if any(text in self._printed for text in self.pause_at):
                self._printed = b""
                self.pause()

    def put(self, data: bytes) -> bytes:
        """Keep an overlay's contents for a checkpoint; returns their hash."""
        if self._log is None:
            raise RuntimeError("no trace is open")
        return self._log.put(data)

    def get(self, digest: bytes) -> bytes:
        """Return what the parent of a branch keeps of a drive. Raises KeyError: it is no branch."""
        if self._origin is None:
            raise KeyError(digest.hex())
        data = self._origin.fetch(digest)
        self.put(data)
        return data

    # the run

    def _run(self, log: TraceLog, steps: int | None) -> BoardStop:
        board, rolling_steps = self.board, self._limits.rolling_steps
        self.gate.pausing = self._pausing
        while True:
            aligned = (board.icount // rolling_steps + 1) * rolling_steps
            stop = board.run(aligned if steps is None else min(aligned, steps))
            if board.icount == aligned and self.gate.last_due != aligned:
                self._roll(log)
            if reason_name(stop) != "until":
                return stop
            if self._why or (steps is not None and board.icount >= steps):
                return stop

    def _roll(self, log: TraceLog) -> None:
        """Log the rolling digest of an aligned position, and a checkpoint at every few of them."""
        board = self.board
        if board.icount == self._rolled_at:
            return
        self._rolled_at = board.icount
        self._collect()
        log.digest(board.icount, RollingDigest(board.engine, board.config.harts, self._roll_dirty))
        self._roll_dirty.clear()
        self._rolls += 1
        if self._rolls % self._limits.checkpoint_every == 0 and board.icount != self._checkpoint_at:
            self._checkpoint(log)

    def _collect(self) -> None:
        dirty = self.board.engine.dirty_pages()
        self._roll_dirty |= dirty
        self._checkpoint_dirty |= dirty

    def _checkpoint(self, log: TraceLog) -> None:
        board = self.board
        self._checkpoint_at = board.icount
        pages = board.engine.snapshot(self._checkpoint_dirty)
        log.checkpoint(board.icount, board.vtime_ns, board.save_state(), pages, self.gate.count + 1)
        self._checkpoint_dirty.clear()

    def _finish(self, log: TraceLog, stop: BoardStop) -> RecordResult:
        """Write the end: its reason, and a digest of the last state."""
        board, gate = self.board, self.gate
        reason, code = reason_name(stop), stop.code
        if reason in ("until", "interrupted"):
            reason = self._why or "interrupted"
            if gate.last_due == board.icount:  # inputs were taken here: go to where the next step is reached
                gate.hurry = True
                board.run(board.icount + 1)
        settled = gate.last_due == board.icount
        log.set_meta("end_reason", reason)
        log.set_meta("end_code", code)
        log.set_meta("end_settled", int(settled))
        self._watch.close()
        if reason == "poweroff" and "poweroff" not in self._watch.named:
            log.bookmark("poweroff", board.icount, "the machine was switched off")
        self._collect()
        # where nothing was taken at the last position, the machine stands as it arrived there
        quiet = self._clock is not None and self._sliced == self._come()
        if (not settled or quiet) and board.icount != self._checkpoint_at:
            self._checkpoint(log)
        if settled and reason_name(stop) not in ("until", "interrupted"):
            log.end_digest(board.save_state(), board.engine.snapshot(self._checkpoint_dirty))
        return RecordResult(reason, code, board.icount, board.vtime_ns, self._matched, self.path)

    def _start_trace(self) -> TraceLog:
        """Make the file, with all that is known before the first step."""
        board, limits = self.board, self._limits
        writer = TraceWriter.create(self.path, begin=False)
        pages = board.engine.dirty_pages()
        fold = RamFold(board.engine.ram_pages)
        log = TraceLog(writer, fold, limits.budget_bytes, limits.max_checkpoints)
        self._log = log
        loaded = loaded_images(self._images, pages, board.engine.ram)
        log.head(lambda writer: self._write_head(writer, log, loaded))
        for image in loaded.values():
            pages.remove_range(image.pages)
        log.after_reset(board.engine.snapshot(pages))
        for icount, vtime_ns, given, asked in self._early:
            log.input(icount, vtime_ns, given, asked)
        for read in self._early_reads:
            log.disk_read(*read)
        self._checkpoint_dirty.clear()
        self._checkpoint(log)
        if self._origin is not None:
            self._load_origin(log, self._origin)
        log.publish()
        return log

    def _load_origin(self, log: TraceLog, origin: Origin) -> None:
        """Put the machine where the branch leaves its parent, and begin the history there."""
        board = self.board
        for index, data in origin.pages.items():
            board.load_ram_pages([index], data)
        board.load_state(fitted(origin.state, board.save_state()))
        origin.change(board)
        self._checkpoint_dirty |= board.engine.dirty_pages()
        self._checkpoint_dirty.update(origin.pages)
        for key, value in origin.meta.items():
            log.set_meta(key, value)
        log.set_meta("start_icount", board.icount)
        self._checkpoint(log)

    def _write_head(self, writer: TraceWriter, log: TraceLog, loaded: Mapping[str, LoadedImage]) -> None:
        from machine.drives import drive_name
        from workbench import __version__

        host = os.uname()
        head: dict[str, str | int] = {
            "semantics": SEMANTICS,
            "version": __version__,
            "host": f"{host.sysname} {host.machine}",
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "arch": self._config.guest,
            "title": self._title,
            "rolling_steps": self._limits.rolling_steps,
        }
        images = self._images.by_role()
        names = {role: page_names(data) for role, data in images.items()}
        for role, image in loaded.items():
            log.fold.take_names(image.pages.start, names[role])
        packed = begin_with(writer, images, names)
        for key, value in head.items():
            writer.set_meta(key, value)
        for name, value in self._config.to_json().items():
            writer.set_config(name, value)
        for role, blob in packed.items():
            writer.add_packed_image(role, role, blob, self._paths.get(role, ""))
        if "kernel" in loaded:
            log.loaded = packed["kernel"].name, loaded["kernel"]
        for index, drive in enumerate(self._config.drives):
            writer.add_image_hash(
                drive_name(drive, index), "drive", bytes.fromhex(drive.hash), drive.size_bytes, drive.file
            )

    # what calls back

    def _note_input(self, icount: int, vtime_ns: int, given: Input, asked: bool) -> None:
        if self._log is None:
            self._early.append((icount, vtime_ns, given, asked))
        else:
            self._log.input(icount, vtime_ns, given, asked)

    def _note_read(self, drive: str, cluster: int, data: bytes) -> None:
        if self._log is None:
            self._early_reads.append((drive, cluster, data))
        else:
            self._log.disk_read(drive, cluster, data)

    def _slice(self, icount: int) -> None:
        """Keep time: called at every slice with the position, and with -1 while the machine waits."""
        now = time.monotonic()
        self._watch.flush()
        if now >= self._stop_at_time:
            self.interrupt("timeout")
        if icount < 0:
            return
        self._sliced = self._come()
        if now >= self._progress_at and self._log is not None:
            self._progress_at = now + _PROGRESS_S
            self._log.progress(icount)

    def _come(self) -> tuple[int, int]:
        """Return how many inputs and deadlines have come."""
        return self.gate.count, 0 if self._clock is None else self._clock.fired

    def _dead(self) -> None:
        self.interrupt("halted")

    def _match(self, name: str, text: str) -> None:
        self._matched = text
        self.interrupt(name)
