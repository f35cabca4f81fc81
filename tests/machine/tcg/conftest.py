"""A machine of one hart for tests that put instructions straight into memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from machine.tcg.engine import Engine
from tests.machine.tcg.rvmodel import BASE, CODE, TRAP


class NoHost:
    def mmio_read(self, paddr: int, size: int, hart: int) -> int | None:
        return None

    def mmio_write(self, paddr: int, size: int, hart: int, value: int) -> bool | None:
        return False

    def sbi_call(self, hart: int) -> None:
        raise AssertionError("no SBI here")


@pytest.fixture(params=["interp", "jit"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with Engine(ram_base=BASE, ram_size=1 << 20, host=NoHost(), builtin_sbi=False) as e:
        if request.param == "jit" and not e.translator.has_jit:
            pytest.skip("this host has no back end")
        if e.translator.has_jit:
            e.translator.set_switch("jit", request.param == "jit")
            e.translator.set_hot_runs(0)
        e.reset_hart(0, CODE)
        e.set_reg(0, "mtvec", TRAP)
        yield e
