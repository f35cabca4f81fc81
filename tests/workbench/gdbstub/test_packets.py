"""The transport of gdb's protocol: framing, checksums, escapes, hostile bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workbench.gdbstub.packets import MAX_PAYLOAD, Packet, PacketReader, Signal, encode, escape, unescape


def test_packet_has_its_payload_and_checksum() -> None:
    assert encode(b"OK") == b"$OK#9a"
    assert PacketReader().feed(b"+$OK#9a") == [Signal.ACK, Packet(b"OK")]


def test_wrong_checksum_is_bad_and_reading_goes_on() -> None:
    assert PacketReader().feed(b"$OK#9b$g#67") == [Signal.BAD, Packet(b"g")]
    assert PacketReader().feed(b"$OK#zz$g#67") == [Signal.BAD, Packet(b"g")]


def test_dollar_inside_a_packet_begins_a_new_one() -> None:
    assert PacketReader().feed(b"$abc$g#67") == [Signal.BAD, Packet(b"g")]


def test_ctrl_c_between_packets_is_a_break_and_inside_one_it_is_data() -> None:
    assert PacketReader().feed(b"\x03$\x03#03") == [Signal.BREAK, Packet(b"\x03")]


def test_packet_longer_than_the_limit_is_bad_and_costs_no_memory() -> None:
    reader = PacketReader()
    events = reader.feed(b"$" + b"a" * (MAX_PAYLOAD * 4) + b"#00$g#67")
    assert events == [Signal.BAD, Packet(b"g")]
    assert len(reader._payload) <= MAX_PAYLOAD


def test_escape_at_the_end_of_a_payload_is_dropped() -> None:
    assert unescape(b"ab}") == b"ab"


@given(st.binary(max_size=300))
def test_escaping_is_undone_and_leaves_no_framing_bytes(data: bytes) -> None:
    payload = escape(data)
    assert unescape(payload) == data
    assert not set(payload) & set(b"$#*")


@given(st.lists(st.binary(max_size=100), max_size=5), st.data())
def test_packets_survive_any_cut_of_the_stream(payloads: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(encode(payload) for payload in payloads)
    reader = PacketReader()
    events = []
    at = 0
    while at < len(stream):
        size = data.draw(st.integers(1, 40))
        events += reader.feed(stream[at : at + size])
        at += size
    assert events == [Packet(payload) for payload in payloads]


@given(st.binary(max_size=400))
def test_hostile_bytes_raise_nothing_and_a_good_packet_after_them_is_read(noise: bytes) -> None:
    reader = PacketReader(limit=64)
    reader.feed(noise)
    # two digits end a checksum that is under way, so the packet stands in the open
    assert reader.feed(b"#00" + encode(b"g"))[-1] == Packet(b"g")
