"""What all tests share: the choice of back end, tools that may be missing, guests."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:
    from workbench.guests.fetch import Guest

BACKENDS = ("jit", "interp")

# How fast a host draws examples is not what these tests are about.
hypothesis.settings.register_profile(
    "workbench", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("workbench")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backend", choices=BACKENDS, default="jit", help="run the machines on this back end")
    parser.addoption(
        "--busy-minutes", type=float, default=0, help="how long to record a busy userland; 0: a few rounds"
    )
    parser.addoption("--chaos-seeds", type=int, default=2, help="seeds of Linux on four harts in chaos mode")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--backend") == "interp":
        _make_engines_interpret()


def _make_engines_interpret() -> None:
    """Let every engine of this process begin with its translator to host code switched off."""
    from machine.tcg.engine import Engine

    original = Engine.__init__

    @functools.wraps(original)
    def init(self: Engine, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.translator.set_switch("jit", False)

    Engine.__init__ = init  # type: ignore[method-assign]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a file that is fetched by hand alone, where it was not: it is too large for a test run."""
    from workbench.guests.fetch import cache_folder

    wanted = {item: [path for mark in item.iter_markers("fetched") for path in mark.args] for item in items}
    left = [item for item in items if not all((cache_folder() / path).exists() for path in wanted[item])]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("requires"):
        requires(*marker.args)


def requires(*tools: str) -> None:
    """Skip the running test unless these programs are installed; ``python:NAME`` is a module of Python's.

    With ``WORKBENCH_REQUIRE=all``, or a list with this name in it, a missing one fails the test instead.
    """
    for tool in tools:
        kind, _, module = tool.partition(":")
        found = importlib.util.find_spec(module) if kind == "python" else shutil.which(tool)
        if found is None:
            _skip_or_fail(tool, f"{tool} is not installed")


def requires_file(path: Path, package: str) -> Path:
    """Return the path of a file that a package brings; the same as ``requires`` where it is not there."""
    if not path.exists():
        _skip_or_fail(package, f"{path} is not here: install {package}")
    return path


def _skip_or_fail(what: str, reason: str) -> None:
    required = os.environ.get("WORKBENCH_REQUIRE", "").replace(",", " ").split()
    if "all" in required or what in required:
        pytest.fail(f"{reason}, and WORKBENCH_REQUIRE asks for it", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> str:
    """The back end that the machines of this run use: ``jit`` or ``interp``."""
    name: str = request.config.getoption("--backend")
    return name


@pytest.fixture(scope="session")
def builtin_image() -> bytes:
    """The built-in guest's ELF. Boot argument ``safe`` takes its race out."""
    from workbench.guests import builtin

    return builtin.read_image()


@pytest.fixture(scope="session")
def panic_trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A boot of the built-in guest that fails, as ``workbench demo`` finds it; whoever writes to it takes a copy."""
    from workbench.guests import demo

    path = tmp_path_factory.mktemp("panic") / "panic.trace"
    demo.hunt(path, first_seed=10)
    return path


@pytest.fixture
def builtin_path(builtin_image: bytes, tmp_path: Path) -> Path:
    """The built-in guest's ELF as a file."""
    path = tmp_path / "builtin.elf"
    path.write_bytes(builtin_image)
    return path


def fetched_guest(name: str) -> Guest:
    """Return a guest from the cache; fetched there if WORKBENCH_REQUIRE asks for it."""
    from workbench.errors import WorkbenchError
    from workbench.guests import fetch

    guest = fetch.cached(name)
    if guest is None and "all" in os.environ.get("WORKBENCH_REQUIRE", ""):
        try:
            guest = fetch.fetch(name)
        except WorkbenchError as error:
            pytest.fail(str(error), pytrace=False)
    if guest is None:
        _skip_or_fail(name, f"the guest is not here: workbench guest fetch {name}")
        raise AssertionError
    return guest


@pytest.fixture(scope="session")
def debian_guest() -> Guest:
    """Debian's kernel and initramfs."""
    return fetched_guest("debian-riscv64")
