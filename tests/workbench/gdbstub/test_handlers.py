"""The meaning of gdb's packets, over a hand-made run."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.gdbstub.handlers import Detached, Handlers
from workbench.repl.shell import Shell
from workbench.replay.errors import MemoryAccessError
from workbench.symbols import Symbols

BASE = 0x8000_0000
#: The hand-made run's loop has six steps; the one at 2 stores here.
LOOP_STEPS, STORE_AT, STORE_TO = 6, 2, BASE + 0x1000


class Client:
    """Packets in, replies out; console output apart."""

    def __init__(self, session: Any) -> None:
        self.sent: list[bytes] = []
        self.handlers = Handlers(session, Shell(session).monitor, self.sent.append)

    def __call__(self, packet: bytes | str) -> str:
        data = packet.encode("latin-1") if isinstance(packet, str) else packet
        return self.handlers.handle(data).decode("latin-1")

    def console(self) -> str:
        text = "".join(bytes.fromhex(part[1:].decode()).decode() for part in self.sent)
        self.sent.clear()
        return text


@pytest.fixture
def client(session: Any) -> Client:
    client = Client(session)
    client("qSupported:swbreak+;hwbreak+;xmlRegisters=i386")
    return client


def registers(reply: str) -> list[int]:
    raw = bytes.fromhex(reply)
    return [int.from_bytes(raw[i : i + 8], "little") for i in range(0, len(raw), 8)]


def test_reverse_execution_and_target_description_are_offered(client: Client) -> None:
    told = client("qSupported:x+").split(";")
    assert {"ReverseStep+", "ReverseContinue+", "qXfer:features:read+", "QStartNoAckMode+"} <= set(told)


def test_g_has_33_general_and_32_float_registers(client: Client) -> None:
    values = registers(client("g"))
    assert len(values) == 65
    assert values[0] == 0
    assert values[2] == BASE + 0x3000
    assert values[32] == BASE


def test_csr_is_read_by_gdbs_number_65_plus_csr(client: Client) -> None:
    assert registers(client(f"p{65 + 0x300:x}")) == [0xA_0000_1800]
    assert client(f"p{65 + 4096:x}") == "03"
    assert client("pffff") == "E16"


def test_target_xml_includes_every_feature_with_unique_numbers(client: Client) -> None:
    root = ET.fromstring(client("qXfer:features:read:target.xml:0,4000")[1:])
    includes = [entry.attrib["href"] for entry in root if entry.tag.endswith("include")]
    numbers: list[int] = []
    features = []
    for name in includes:
        reply = client(f"qXfer:features:read:{name}:0,8000")
        while reply[0] == "m":
            reply = "m" + reply[1:]
            more = client(f"qXfer:features:read:{name}:{len(reply) - 1:x},8000")
            reply = more[0] + reply[1:] + more[1:]
        feature = ET.fromstring(reply[1:])
        features.append(feature.attrib["name"])
        numbers += [int(entry.attrib["regnum"]) for entry in feature.iter("reg")]
    assert features == [f"org.gnu.gdb.riscv.{name}" for name in ("cpu", "fpu", "csr", "virtual")]
    assert len(numbers) == len(set(numbers))
    assert set(range(65)) <= set(numbers)


def test_documents_are_read_in_parts(client: Client) -> None:
    whole = client("qXfer:features:read:target.xml:0,4000")
    first = client("qXfer:features:read:target.xml:0,10")
    rest = client("qXfer:features:read:target.xml:10,4000")
    assert first[0] == "m" and whole[1:] == first[1:] + rest[1:]
    assert client("qXfer:features:read:../passwd:0,10") == "E00"


def test_memory_is_read_as_far_as_it_is_mapped(client: Client) -> None:
    assert client(f"m{BASE:x},4") == "13051500"
    assert client(f"m{BASE + 0x3FFE:x},10") == "0000"
    assert client("m10,4") == "E14"
    assert client("mffffffffffffffff,10") == "E14"


def test_step_and_reverse_step_move_by_one(client: Client, session: Any) -> None:
    assert client("vCont;s:1;c") == "T05thread:1;"
    assert session.cursor == 1
    assert client("bs") == "T05thread:1;"
    assert session.cursor == 0


def test_ends_of_history_are_told(client: Client, session: Any) -> None:
    assert client("bc") == "T05thread:1;replaylog:begin;"
    assert client("bs") == "T05thread:1;replaylog:begin;"
    assert client("c") == "T05thread:1;replaylog:end;"
    assert client("s") == "T05thread:1;replaylog:end;"
    assert client("?") == "T05thread:1;replaylog:end;"


def test_breakpoint_is_hit_in_both_directions(client: Client, session: Any) -> None:
    assert client(f"Z0,{BASE + 0x20:x},4") == "OK"
    assert client(f"Z0,{BASE + 0x20:x},4") == "OK"
    assert client("vCont;c") == "T05thread:1;swbreak:;"
    assert session.cursor == 2
    client("vCont;c")
    assert client("bc") == "T05thread:1;swbreak:;"
    assert session.cursor == 2
    assert client(f"z0,{BASE + 0x20:x},4") == "OK"
    assert session.breakpoints == []


def test_a_stop_that_gdb_did_not_ask_for_is_told_on_its_console(client: Client) -> None:
    client(f"qRcmd,{b'break leaf'.hex()}")
    client.console()
    assert client("c") == "T05thread:1;swbreak:;"
    assert client.console() == "workbench: breakpoint 1\n"
    client(f"Z0,{BASE + 8:x},4")
    client("c")
    assert client.console() == ""


def test_hardware_breakpoint_is_told_as_one(client: Client) -> None:
    client(f"Z1,{BASE + 0x20:x},4")
    assert client("c") == "T05thread:1;hwbreak:;"


@pytest.mark.parametrize(("kind", "word"), [("2", "watch"), ("3", "rwatch"), ("4", "awatch")])
def test_watchpoint_stops_on_this_side_of_its_store_both_ways(
    client: Client, session: Any, kind: str, word: str
) -> None:
    """gdb steps over the access by itself: stopped on its other side, it went one step too far."""
    assert client(f"Z{kind},{STORE_TO:x},8") == "OK"
    assert client("vCont;c") == f"T05thread:1;{word}:{STORE_TO:x};"
    assert session.cursor == STORE_AT
    session.goto(session.end)
    assert client("bc") == f"T05thread:1;{word}:{STORE_TO:x};"
    assert session.cursor % LOOP_STEPS == STORE_AT + 1
    assert client(f"z{kind},{STORE_TO:x},8") == "OK"
    assert session.stoppers == []


def test_conditions_reach_the_session_one_stopper_each(client: Client, session: Any) -> None:
    assert client(f"Z0,{BASE:x},4;X3,220127X2,2701") == "OK"
    assert [point.condition for point in session.stoppers] == [[b"\x22\x01\x27", b"\x27\x01"]]
    assert client(f"Z0,{BASE:x},4;X1,27;cmds:0,X1,00") == "OK"
    assert [point.condition for point in session.stoppers] == [[b"\x27"]]
    assert client(f"Z1,{BASE:x},4;cmds:1,X1,00") == "OK"
    assert client(f"Z0,{BASE:x},4;X4,27") == "E16"
    assert client(f"Z2,{BASE:x},0") == "E16"
    assert client(f"Z5,{BASE:x},4") == ""


def test_memory_is_written_in_hex_and_in_binary(client: Client, session: Any) -> None:
    assert client(f"M{BASE + 0x1000:x},2:4a4b") == "OK"
    assert client(f"X{BASE + 0x1002:x},2:\x00\xff") == "OK"
    assert client(f"X{BASE:x},0:") == "OK"
    assert client(f"m{BASE + 0x1000:x},4") == "4a4b00ff"
    assert client("M10,1:00") == "E14"
    assert client(f"M{BASE:x},2:00") == "E16"
    assert client(f"M{BASE:x},1:zz") == "E16"
    assert len(session.written) == 2
    assert client.console() == ""
    client("s")
    assert "branch at" in client.console()


def test_registers_are_written_of_the_selected_hart_and_only_if_they_differ(
    client: Client, session: Any
) -> None:
    client("Hg2")
    assert client("Pa=0100000000000000") == "OK"
    assert client("P0=0100000000000000") == "OK"
    assert session.written == [("reg", 1, "x10", 1)]
    values = bytearray(bytes.fromhex(client("g")))
    values[8 * 11] = 7
    assert client("G" + values.hex()) == "OK"
    assert session.written[1:] == [("reg", 1, "x11", 7)]
    assert client("Pa=01") == "E16"
    assert client("Pffff=0100000000000000") == "E16"
    assert client("G00") == "E16"


def test_range_step_ends_where_pc_leaves_the_range(client: Client, session: Any) -> None:
    assert client(f"vCont;r{BASE:x},{BASE + 8:x}:1;c") == "T05thread:1;"
    assert session.pc_at(session.cursor) == BASE + 0x20
    assert client("vCont;r10:1") == "E16"


def test_thread_of_an_action_is_the_one_that_steps(client: Client, session: Any) -> None:
    assert client("vCont;s:2;c") == "T05thread:2;"
    assert client("vCont;s:9") == "E16"
    assert client("vCont;t") == "OK"
    assert client("vCont;x") == "E16"


def test_continue_at_an_address_sets_pc(client: Client, session: Any) -> None:
    client(f"s{BASE + 8:x}")
    assert session.written == [("reg", 0, "pc", BASE + 8)]


def test_physical_memory_mode_is_qemus_and_gdbs_own_breakpoints_stay_virtual(
    client: Client, session: Any
) -> None:
    def ram(address: int, size: int) -> bytes:
        if address >> 63:
            raise MemoryAccessError("no RAM there")
        return bytes([0x5A] * size)

    session.read_phys = ram
    assert client("qqemu.PhyMemMode") == "0"
    assert client("Qqemu.PhyMemMode:1") == "OK"
    assert client("qqemu.PhyMemMode") == "1"
    assert client("m10,2") == "5a5a"
    client(f"Z2,{BASE:x},4")
    client(f"Z0,{BASE:x},4")
    client("Z0,ffffffff80000000,4")
    assert [point.physical for point in session.stoppers] == [True, True, False]
    assert client("Qqemu.PhyMemMode:2") == "E16"


def test_lldb_is_told_the_target_roles_and_regions(client: Client, session: Any) -> None:
    assert "watchpoint_exceptions_received:before;" in client("qHostInfo")
    assert client("qWatchpointSupportInfo:") == "num:128;"
    assert client("qProcessInfo").startswith("pid:1;triple:" + b"riscv64".hex())
    roles = dict(
        re.findall(
            r'name="(\w+)"[^>]*generic="(\w+)"', client("qXfer:features:read:riscv-64bit-cpu.xml:0,3fff")
        )
    )
    assert (roles["pc"], roles["sp"], roles["fp"], roles["ra"], roles["a7"]) == (
        "pc",
        "sp",
        "fp",
        "ra",
        "arg8",
    )
    session.translate = lambda address, access="r": (
        address if access != "w" or address >= BASE + 0x1000 else None
    )
    assert client(f"qMemoryRegionInfo:{BASE + 8:x}") == f"start:{BASE:x};size:1000;permissions:rx;"
    assert (
        client(f"qMemoryRegionInfo:{BASE + 0x1000:x}")
        == f"start:{BASE + 0x1000:x};size:3000;permissions:rwx;"
    )
    assert client(f"qMemoryRegionInfo:{BASE + 0x5000:x}") == f"start:{BASE + 0x5000:x};size:400000;"
    assert client("qMemoryRegionInfo:fffffffffffffff0") == "start:fffffffffffff000;size:1000;"
    assert client("qMemoryRegionInfo:x") == "E16"


def test_memory_map_lets_gdb_try_every_address(client: Client) -> None:
    root = ET.fromstring(client("qXfer:memory-map:read::0,4000")[1:])
    spans = [(int(m.attrib["start"], 16), int(m.attrib["length"], 16)) for m in root]
    assert sum(length for _, length in spans) == 1 << 64


def test_non_stop_is_refused_and_all_stop_accepted(client: Client) -> None:
    assert client("QNonStop:1").startswith("E.non-stop")
    assert client("QNonStop:0") == "OK"


def test_threads_are_harts_from_1(client: Client) -> None:
    assert client("qfThreadInfo") == "m1,2"
    assert client("qsThreadInfo") == "l"
    assert client("qC") == "QC1"
    assert client("T2") == "OK"
    assert client("T3") == "E16"
    assert client("Hg2") == "OK"
    assert client("Hg9") == "E16"
    assert bytes.fromhex(client("qThreadExtraInfo,2")).decode() == "hart 1"


def test_monitor_gives_the_text_of_the_repl(client: Client) -> None:
    assert client("qRcmd," + b"where".hex()) == "OK"
    assert "position 0 of 600" in client.console()
    assert client("qRcmd," + b"nonsense".hex()) == "OK"
    assert "no command 'nonsense'" in client.console()
    assert client("qRcmd,0") == "E16"


def test_unknown_packets_have_an_empty_reply(client: Client) -> None:
    for packet in ("vMustReplyEmpty", "qTStatus", "!", ""):
        assert client(packet) == ""


def read_file(client: Client, name: str) -> bytes:
    assert client(f"vFile:open:{name.encode().hex()},0,0") == "F5"
    data = b""
    while True:
        reply = client(f"vFile:pread:5,200,{len(data):x}").encode("latin-1")
        size, _, part = reply.partition(b";")
        assert int(size[1:], 16) == len(part)
        if not part:
            return data
        data += part


def test_gdb_is_given_the_symbols_as_an_elf_file(client: Client, session: Any) -> None:
    name = client("qXfer:exec-file:read:1:0,100")[1:]
    data = read_file(client, name)
    stat = client("vFile:fstat:5").encode("latin-1").partition(b";")[2]
    assert len(stat) == 64 and int.from_bytes(stat[28:36], "big") == len(data)
    known = Symbols.from_elf(data)
    assert {s.name: s.address for s in known} == {s.name: s.address for s in session.symbols}
    assert client("vFile:open:" + b"/etc/passwd".hex() + ",0,0") == "F-1,2"


def test_without_symbols_no_file_is_offered(session: Any) -> None:
    session.symbols = Symbols()
    assert "exec-file" not in Client(session)("qSupported:")


def test_detach_answers_and_kill_ends_the_server(client: Client) -> None:
    with pytest.raises(Detached) as left:
        client("D")
    assert (left.value.reply, left.value.ends_server) == (b"OK", False)
    with pytest.raises(Detached) as left:
        client("k")
    assert left.value.ends_server


def test_breakpoints_of_a_gdb_that_leaves_are_taken_away(client: Client, session: Any) -> None:
    kept = session.add_breakpoint(BASE)
    client(f"Z0,{BASE + 0x20:x},4")
    client.handlers.close()
    assert session.breakpoints == [kept]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from("?gpmGPMXcsbZzHTDkqvQ!C"), st.binary(max_size=40))
def test_hostile_packets_get_a_reply_or_a_detach(session: Any, letter: str, rest: bytes) -> None:
    client = Client(session)
    try:
        reply = client(letter.encode() + rest)
    except Detached:
        return
    assert isinstance(reply, str)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.from_regex(
        r"(m|Z[0-4],|z[0-4],|p|H[gc]|T|vCont;[csCStr]|qXfer:features:read:|vFile:(open|pread|fstat|close):)[0-9a-f,:;\-]{0,24}",
        fullmatch=True,
    )
)
def test_packets_of_nearly_the_right_shape_get_a_reply(session: Any, packet: str) -> None:
    assert isinstance(Client(session)(packet), str)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.from_regex(
        r"(X[0-9a-f]{1,9},[0-9a-f]{1,3}:|M[0-9a-f]{1,9},[0-9a-f]{1,3}:|G|P[0-9a-f]{1,4}=|vCont;r|Q|q|vCont;"
        r"|Z[0-4],[0-9a-f]{1,9},[0-9a-f]{1,2};X?|qXfer:(threads|memory-map|exec-file):read:)[0-9a-f,:;=X]{0,24}",
        fullmatch=True,
    )
)
def test_writes_conditions_and_settings_of_nearly_the_right_shape_get_a_reply(
    session: Any, packet: str
) -> None:
    client = Client(session)
    assert isinstance(client(packet), str)
    client.handlers.close()
    assert session.stoppers == []
