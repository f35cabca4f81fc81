"""`--cpu`: features by name, and what the machine then says it has."""

from __future__ import annotations

import pytest

from machine.config import MachineConfig
from machine.cpu import FEATURES, parse_cpu
from machine.devicetree import build_tree
from machine.errors import ConfigError
from machine.tcg.engine import Engine
from machine.virt import check_config
from tests.machine.tcg.conftest import NoHost


def engine(**features: int) -> Engine:
    return Engine(ram_base=1 << 31, ram_size=1 << 20, host=NoHost(), builtin_sbi=False, features=features)


def test_defaults_and_choices() -> None:
    assert parse_cpu("rv64")["v"] == 0
    assert parse_cpu("rv64,v=on,vlen=256") == parse_cpu("rv64") | {"v": 1, "vlen": 256}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rv32", "rv64"),
        ("rv64,z=on", "v, vlen"),
        ("rv64,v", "v=off|on"),
        ("rv64,v=maybe", "v=off|on"),
        ("rv64,vlen=512", "vlen=128|256"),
        ("rv64,v=on,v=off", "twice"),
        ("rv64,", "''"),
        ("", "rv64"),
    ],
)
def test_mistakes_are_told_with_what_there_is(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match="--cpu") as caught:
        check_config(MachineConfig(cpu=text))
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_the_translator_knows_every_row() -> None:
    for feature in FEATURES:
        for value in feature.values.values():
            engine(**{feature.name: value}).close()
        with pytest.raises(ValueError, match=feature.name):
            engine(**{feature.name: 99})
    with pytest.raises(ValueError, match="nonsense"):
        engine(nonsense=1)


@pytest.mark.parametrize("on", [False, True])
def test_misa_and_device_tree_say_what_there_is(on: bool) -> None:
    config = MachineConfig(cpu=f"rv64,v={'on' if on else 'off'}")
    cpu = build_tree(config, [], None, b"").find("/cpus/cpu@0")
    assert cpu is not None
    extensions = cpu.props["riscv,isa-extensions"]
    assert isinstance(extensions, list) and ("v" in extensions) is on
    assert str(cpu.props["riscv,isa"]).split("_")[0] == "rv64imafdc" + "v" * on
    assert cpu.props["riscv,isa-base"] == "rv64i"
    with engine(**parse_cpu(config.cpu)) as e:
        assert bool(e.get_reg(0, "misa") >> 21 & 1) is on
        assert ("v0" in e.reg_names) is ("vl" in e.reg_names) is ("vlenb" in e.reg_names) is on
        assert ("v0" in e.save_state(0)) is on


def test_config_survives_json() -> None:
    config = MachineConfig(cpu="rv64,v=on")
    assert MachineConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize("vlen", [128, 256])
def test_wide_registers_are_whole_in_reads_writes_and_state(vlen: int) -> None:
    value = int.from_bytes(bytes(range(1, vlen // 8 + 1)), "little")
    with engine(v=1, vlen=vlen) as e:
        e.set_reg(0, "v1", value)
        assert (e.get_reg(0, "v0"), e.get_reg(0, "v1"), e.get_reg(0, "v2")) == (0, value, 0)
        assert e.reg_bits(e.reg_number("v1")) == vlen
        assert e.get_reg(0, "vlenb") == vlen // 8
        state = e.save_state(0)
        with engine(v=1, vlen=vlen) as other:
            other.load_state(0, state)
            assert other.save_state(0) == state
            with pytest.raises(ValueError, match="v1"):
                other.load_state(0, state | {"v1": 1 << vlen})
        with engine() as plain, pytest.raises(ValueError, match="missing or unknown"):
            plain.load_state(0, state)
