"""The kernels' C as programs of the host: the same results as on ours, and times less start-up."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.workbench.bench.test_kernels import console_of
from workbench.bench.kernels import KERNELS, build
from workbench.bench.native import net

#: Another compiler may fuse other products and sums than the guest's did.
FLOATING = ("matmul", "nbody")


@pytest.mark.slow
@pytest.mark.requires("gcc")
@pytest.mark.parametrize("name", [k for k in KERNELS if k != build.GUEST_ONLY])
def test_a_native_kernel_prints_what_the_guest_prints(name: str, tmp_path: Path) -> None:
    build.build_native(name, tmp_path / name)
    printed = subprocess.run([tmp_path / name], capture_output=True, text=True, check=True).stdout
    assert printed.startswith(f"kernel {name} ")
    assert name in FLOATING or printed == console_of(name)


def test_times_are_less_start_up_and_over_the_natives() -> None:
    cpu = {"native": 0.25, "ours": 0.625, "qemu": 1.125}
    start = {"native": 0.0, "ours": 0.125, "qemu": 0.125}
    assert net(cpu, start) == {
        "cpu_s": {"native": 0.25, "ours": 0.5, "qemu": 1.0},
        "times": {"ours": 2.0, "qemu": 4.0},
    }


def test_a_kernel_as_short_as_the_start_has_no_multiple() -> None:
    assert net({"native": 0.1, "ours": 0.5}, {"native": 0.1, "ours": 0.1})["times"] == {"ours": None}
