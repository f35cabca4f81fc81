"""What a user of the REPL waits for: figures in milliseconds of CPU, which hold on a host with other work.

``python -m workbench.bench.waiting TRACE`` prints those of one fresh process as JSON; ``run`` takes the best of some.
"""

from __future__ import annotations

import io
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Final

from workbench.bench.measure import BenchError

ROUNDS: Final = 5
SYMBOLS: Final = 150_000
#: What each may cost at most, in ms.
LIMITS: Final = {
    "workbench --help": 150,
    "prompt on a trace, after opening": 500,
    "completion, the first with 150,000 symbols": 50,
    "completion, the slowest of the next": 50,
    "context redraw": 30,
    "stop to a usable prompt": 100,
}


def run(work: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Hunt the built-in guest's bug into a trace and measure the REPL on it.

    Returns:
        ``figures``: for each, its value, what it may be at most, and the unit.

    Raises:
        BenchError: a process failed.
    """
    from workbench.guests import demo

    trace = work / "repl.trace"
    progress("repl: a trace of the built-in guest")
    demo.hunt(trace)
    best: dict[str, float] = {}
    for number in range(ROUNDS):
        progress(f"repl: round {number + 1} of {ROUNDS}")
        found = {"workbench --help": _help(), **_process(trace)}
        best = {name: min(value, best.get(name, value)) for name, value in found.items()}
    shown = {
        name: {"value": round(best[name], 1), "at_most": limit, "unit": "ms", "met": best[name] <= limit}
        for name, limit in LIMITS.items()
    }
    return {"benchmark": "repl", "figures": shown}


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _help() -> float:
    """Return what ``workbench --help`` costs: the whole process."""
    before = _children()
    done = subprocess.run([sys.executable, "-m", "workbench", "--help"], capture_output=True, check=False)
    if done.returncode:
        raise BenchError("repl: workbench --help failed")
    return 1000 * (_children() - before)


def _process(trace: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "workbench.bench.waiting", str(trace)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"repl: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _timed(do: Callable[[], object]) -> float:
    """Return ms of CPU that something takes."""
    began = time.process_time()
    do()
    return 1000 * (time.process_time() - began)


def measure(trace: Path) -> dict[str, float]:
    """Return the figures of this process."""
    from prompt_toolkit.input import DummyInput
    from prompt_toolkit.output import DummyOutput

    from workbench.session import Session
    from workbench.symbols import Symbol

    with Session.open(trace) as session, redirect_stdout(io.StringIO()):
        found: dict[str, float] = {}
        app: Any = None

        def first_prompt() -> None:
            nonlocal app
            from workbench.repl.app import App
            from workbench.repl.prompt import make_prompter
            from workbench.repl.settings import Settings

            app = App(session, panes=True, settings=Settings())
            make_prompter(app.shell, None, DummyInput(), DummyOutput())
            app.prompt()

        found["prompt on a trace, after opening"] = _timed(first_prompt)
        from workbench.repl.completion import candidates
        from workbench.repl.panes import show_panes
        from workbench.repl.toolbar import Toolbar

        context = app.shell.context
        names = [f"symbol_{number}_{number * 7919 % 100_003}" for number in range(SYMBOLS)]
        session.symbols.add(
            Symbol(0xFFFF_0000_0000_0000 + 4 * i, 4, name, "func") for i, name in enumerate(names)
        )
        found["completion, the first with 150,000 symbols"] = _timed(
            lambda: candidates(context, "b symbol_1")
        )
        later = ("b symbol_7", "b 99_78", "b ymbol_149", "p nothing_like_it", "b 3_")
        times = [_timed(lambda line=line: candidates(context, line)) for line in later]  # type: ignore[misc]
        found["completion, the slowest of the next"] = max(times)
        toolbar = Toolbar(context)
        for number in range(6):
            app.shell.run_line(f"goto {30 + 10 * number}%")
            stop = _timed(lambda: (app._after(), app.prompt(), toolbar.text()))
            found["stop to a usable prompt"] = stop
            found["context redraw"] = _timed(lambda: show_panes(context, context.panes))
    return found


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))  # noqa: T201 - the answer of this process
