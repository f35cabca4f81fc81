"""Replication: catalogue T1 to T36."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machine.block import replication
from machine.block.drivers.raw import PassNode
from machine.block.errors import BlockError, OptionError
from machine.block.graph import Graph
from machine.block.jobs.job import query_jobs
from machine.block.replication import ReplicationNode, ReplicationState
from machine.block.sched import SeededOrder, explore

from .fuzzing import examples
from .qcow2_util import memory_image
from .replication_util import K, M, Secondary, fails

H = 4 * M


def primary(graph: Graph, **debug: Any) -> ReplicationNode:
    disk = memory_image(graph, size=8 * M)
    below = graph.run(graph.open({"driver": "blkdebug", "image": disk, **debug}))
    node = graph.run(graph.open({"driver": "replication", "mode": "primary", "file": below}))
    assert isinstance(node, ReplicationNode)
    return node


def expect_eio(graph: Graph, call: Any) -> None:
    with pytest.raises(BlockError) as caught:
        graph.run(call)
    assert caught.value.errno == errno.EIO


def test_t1_t2_primary_refuses_io_before_start(graph: Graph) -> None:
    node = primary(graph)
    expect_eio(graph, node.read(0, 8 * M))
    expect_eio(graph, node.pwrite(0, b"\x22" * M))


def test_t3_primary_start_lets_writes_through_and_never_reads(graph: Graph) -> None:
    node = primary(graph)
    graph.run(replication.start_all(graph, "primary"))
    expect_eio(graph, node.read(0, 512))
    graph.run(node.pwrite(0, b"\x22" * 8 * M))
    assert graph.run(node.lower.read(8 * M - 4, 4)) == b"\x22" * 4


def test_t4_t5_t6_primary_checkpoint_get_error_stop(graph: Graph) -> None:
    node = primary(graph)
    graph.run(replication.start_all(graph, "primary"))
    graph.run(replication.do_checkpoint_all(graph))
    replication.get_error_all(graph)
    graph.run(replication.stop_all(graph, True))
    assert node.state is ReplicationState.DONE
    expect_eio(graph, node.pwrite(0, b"x"))


def test_t7_t8_secondary_refuses_io_before_start() -> None:
    side = Secondary()
    assert fails(side, side.guest.read(0, 8 * M)) == errno.EIO
    assert fails(side, side.guest.write(0, b"x" * 512)) == errno.EIO


def t9() -> Secondary:
    side = Secondary()
    side.start()
    assert side.read() == b"\x11" * 8 * M
    side.nbd_write(H, b"\x22" * H)
    assert side.read() == b"\x11" * 8 * M
    assert side.nbd_read(H) == b"\x22" * H
    side.write(0, b"\x33" * H)
    assert side.read(0, H) == b"\x33" * H
    assert side.nbd_read(0, H) == b"\x11" * H
    return side


def test_t9_secondary_start() -> None:
    side = t9()
    side.run(side.top.stop(True))
    side.run(side.graph.close())


def test_t10_failover_leaves_what_the_guest_saw() -> None:
    side = t9()
    side.failover()
    assert side.top.state is ReplicationState.DONE
    expected = b"\x33" * H + b"\x11" * H
    assert side.read() == expected
    assert side.nbd_read() == expected
    assert side.top.lower is side.secondary


def test_t11_after_failover_start_checkpoint_and_stop_are_ignored() -> None:
    side = t9()
    side.failover()
    side.run(replication.start_all(side.graph, "primary"))
    side.run(replication.do_checkpoint_all(side.graph))
    side.run(replication.stop_all(side.graph, True))
    assert side.read() == b"\x33" * H + b"\x11" * H


def test_t12_checkpoint_shows_the_new_content_and_empties_the_buffers() -> None:
    side = Secondary()
    side.start()
    side.nbd_write(H, b"\x22" * H)
    assert side.read(H) == b"\x11" * H
    side.write(0, b"\x55" * 100)
    side.run(side.top.do_checkpoint())
    assert side.read() == b"\x11" * H + b"\x22" * H
    assert side.allocated(side.active) == [] and side.allocated(side.hidden) == []


def test_t13_get_error() -> None:
    side = Secondary()
    with pytest.raises(BlockError):
        side.top.get_error()
    side.start()
    side.top.get_error()
    side.run(side.top.stop(True))
    side.top.get_error()
    side.run(side.graph.close())


def test_t14_start_empties_prefilled_buffers() -> None:
    side = Secondary()
    side.run(side.active.pwrite(0, b"\x99" * M))
    side.run(side.hidden.pwrite(M, b"\x98" * M))
    side.start()
    assert side.read() == b"\x11" * 8 * M


def test_t15_guest_zero_write_and_discard() -> None:
    side = Secondary()
    side.start()
    side.run(side.guest.write_zeroes(0, 64 * K))
    side.run(side.guest.discard(64 * K, 64 * K))
    assert side.read(0, 128 * K) == bytes(64 * K) + b"\x11" * 64 * K


def test_a_guests_discard_may_be_zeroes() -> None:
    """block.md, section 15: a discard that is dropped in silence shows old data; here it can show zeroes."""
    side = Secondary(top={"guest-discard": "zero", "discard": "unmap"})
    with pytest.raises(BlockError):
        side.run(side.guest.discard(0, 64 * K))
    side.start()
    side.run(side.guest.discard(64 * K, 2 * M + 512))
    side.nbd_write(0, b"\x22" * 4 * M)
    expected = b"\x11" * 64 * K + bytes(2 * M + 512)
    assert side.read(0, 3 * M) == expected.ljust(3 * M, b"\x11")
    side.failover()
    assert side.read(0, 3 * M) == expected.ljust(3 * M, b"\x11")
    side.run(side.graph.close())


@pytest.mark.parametrize("cluster", [64 * K, 128 * K])
def test_t16_t17_a_small_primary_write_saves_its_whole_cluster_once(cluster: int) -> None:
    side = Secondary(hidden={"cluster_size": cluster})
    side.start()
    side.nbd_write(3 * 128 * K + 1024, b"\x22" * 512)
    assert side.allocated(side.hidden) == [(3 * 128 * K, cluster)]
    assert side.read() == b"\x11" * 8 * M
    before = side.run(side.hidden.read(3 * 128 * K, cluster))
    side.nbd_write(3 * 128 * K, b"\x44" * 4096)
    assert side.run(side.hidden.read(3 * 128 * K, cluster)) == before == b"\x11" * cluster


def test_t18_guest_data_win_over_a_later_primary_write() -> None:
    side = Secondary()
    side.start()
    side.write(4096, b"\x77" * 512)
    side.nbd_write(0, b"\x22" * 64 * K)
    assert side.read(0, 64 * K) == b"\x11" * 4096 + b"\x77" * 512 + b"\x11" * (64 * K - 4608)


def test_t19_zero_writes_are_saved_before_and_ignored_discards_are_not() -> None:
    side = Secondary()
    side.start()
    assert side.nbd is not None
    side.run(side.nbd.write_zeroes(0, 64 * K))
    side.run(side.nbd.discard(M, 64 * K))
    assert side.allocated(side.hidden) == [(0, 64 * K)]
    assert side.read(0, 64 * K) == b"\x11" * 64 * K


def test_zeroes_of_the_old_content_are_held_as_zeroes_in_hidden() -> None:
    side = Secondary(fill=0)
    side.start()
    side.nbd_write(0, b"\x22" * 64 * K)
    assert side.allocated(side.hidden) == [(0, 64 * K)]
    assert side.read(0, 64 * K) == bytes(64 * K), "a zero cluster of hidden must shadow the secondary"


def test_t20_short_last_cluster() -> None:
    side = Secondary(size=M + 5 * 512)
    side.start()
    side.nbd_write(M + 512, b"\x22" * 512)
    assert side.read() == b"\x11" * side.size
    side.failover()
    assert side.nbd_read() == b"\x11" * side.size


def test_t21_next_epoch_copies_again() -> None:
    side = Secondary()
    side.start()
    side.nbd_write(0, b"\x22" * 64 * K)
    side.run(side.top.do_checkpoint())
    side.nbd_write(0, b"\x44" * 64 * K)
    assert side.read(0, 64 * K) == b"\x22" * 64 * K


def test_t22_different_lengths_are_refused() -> None:
    side = Secondary()
    side.run(side.active.truncate(7 * M))
    with pytest.raises(BlockError, match="length"):
        side.start()
    assert side.top.state is ReplicationState.NONE
    assert fails(side, side.guest.read(0, 512)) == errno.EIO


def test_t23_missing_layers_are_named() -> None:
    side = Secondary(own_backend=False)
    with pytest.raises(BlockError, match="own"):
        side.start()
    side.graph.set_backing(side.hidden, None)
    with pytest.raises(BlockError, match="hidden disk has no backing"):
        side.start()
    side.graph.set_backing(side.active, None)
    with pytest.raises(BlockError, match="active disk has no backing"):
        side.start()


def test_t24_wrong_mode_and_double_start() -> None:
    side = Secondary()
    with pytest.raises(BlockError, match="expected secondary, got primary"):
        side.run(side.top.start("primary"))
    side.start()
    with pytest.raises(BlockError, match="running or done"):
        side.start()


def test_t25_unknown_top_id_leaves_everything_unblocked() -> None:
    side = Secondary()
    side.top.top_id = "nobody"
    with pytest.raises(BlockError, match="top"):
        side.start()
    assert side.guest.blocked_reason == "" and not side.secondary.before_write
    side.top.top_id = "guest"
    side.start()


def test_t26_a_failed_save_fails_the_primary_write_and_is_reported() -> None:
    rules = [{"event": "write_aio", "state": 2, "iotype": "write", "once": True}]
    side = Secondary(debug={"hidden": {"inject-error": rules}})
    side.start()
    side.debug("hidden").state = 2
    assert side.nbd is not None
    assert fails(side, side.nbd.write(0, b"\x22" * 64 * K)) == errno.EIO
    assert side.nbd_read(0, 64 * K) == b"\x11" * 64 * K
    with pytest.raises(BlockError):
        side.top.get_error()
    side.nbd_write(0, b"\x22" * 64 * K)
    assert side.read(0, 64 * K) == b"\x11" * 64 * K


def test_t27_a_failed_guest_write_reaches_the_guest_and_is_not_latched() -> None:
    rules = [{"event": "write_aio", "state": 2, "iotype": "write", "once": True}]
    side = Secondary(debug={"active": {"inject-error": rules}})
    side.start()
    side.debug("active").state = 2
    assert fails(side, side.guest.write(0, b"\x33" * 64 * K)) == errno.EIO
    side.top.get_error()
    assert side.read(0, 64 * K) == b"\x11" * 64 * K


def test_t28_failed_failover_keeps_the_view_and_splits_writes() -> None:
    side = Secondary()
    side.start()
    side.nbd_write(H, b"\x22" * 64 * K)
    side.write(0, b"\x33" * 64 * K)
    broken = side.debug("s")
    broken.inject.append(broken._inject_rule({"event": "none", "iotype": "write"}))
    broken.armed.append(broken.inject[-1])
    side.failover()
    assert side.top.state is ReplicationState.FAILOVER_FAILED
    assert side.read(0, 64 * K) == b"\x33" * 64 * K and side.read(H, 64 * K) == b"\x11" * 64 * K
    side.write(0, b"\x44" * 64 * K)
    assert side.read(0, 64 * K) == b"\x44" * 64 * K
    assert fails(side, side.guest.write(2 * M, b"\x45" * 512)) == errno.EIO
    with pytest.raises(BlockError, match="running or done"):
        side.start()
    for call in (side.top.do_checkpoint(), side.top.stop(True)):
        with pytest.raises(BlockError):
            side.run(call)


def test_t29_stop_without_failover_discards_the_buffers() -> None:
    side = t9()
    side.run(side.top.stop(False))
    assert side.top.state is ReplicationState.DONE
    side.top.get_error()
    assert side.allocated(side.active) == [] and side.allocated(side.hidden) == []
    assert side.read() == b"\x11" * H + b"\x22" * H


def test_t30_writes_after_failover_land_in_the_secondary() -> None:
    side = t9()
    side.failover()
    side.write(M, b"\x66" * 512)
    assert side.nbd_read(M, 512) == b"\x66" * 512


@pytest.mark.parametrize("seed", range(15))
def test_t31_reads_and_writes_during_failover_keep_the_view(seed: int) -> None:
    side = Secondary(SeededOrder(seed), size=M, yields=2)
    side.start()
    side.nbd_write(512 * K, b"\x22" * 512 * K)
    side.write(0, b"\x33" * 128 * K)
    model = bytearray(b"\x33" * 128 * K + b"\x11" * (M - 128 * K))

    async def main() -> None:
        await side.top.stop(True)
        for step in range(12):
            assert await side.guest.read(0, M) == model
            at = (step * 7919 * 512) % (M - 4096)
            await side.guest.write(at, bytes([0x40 + step]) * 4096)
            model[at : at + 4096] = bytes([0x40 + step]) * 4096
        await side.top.wait_failover()

    side.run(main())
    assert side.top.state is ReplicationState.DONE
    assert side.nbd_read() == model


def test_t32_primary_survives_the_loss_of_its_peer(graph: Graph) -> None:
    node = primary(graph, **{"inject-error": [{"event": "none", "iotype": "write"}]})
    graph.run(node.start("primary"))
    graph.run(node.pwrite(0, b"x" * 512))
    with pytest.raises(BlockError, match="I/O error"):
        node.get_error()
    graph.run(node.stop(True))
    node.get_error()


def test_t33_close_while_running_and_while_failing_over() -> None:
    side = t9()
    side.guest.close()
    side.run(side.graph.close_node(side.top))
    assert side.nbd_read() == b"\x11" * H + b"\x22" * H
    other = t9()
    other.run(other.top.stop(True))
    other.guest.close()
    other.run(other.graph.close_node(other.top))
    assert not other.graph.replications and not other.secondary.before_write


def test_t34_internal_jobs_are_invisible() -> None:
    side = Secondary()
    side.start()
    assert query_jobs(side.graph) == [] and len(side.graph.jobs) == 1


@pytest.mark.parametrize(
    "options", [{}, {"mode": "third"}, {"mode": "primary", "top-id": "x"}, {"mode": "secondary"}], ids=str
)
def test_open_refuses_wrong_options(graph: Graph, options: dict[str, str]) -> None:
    with pytest.raises(OptionError):
        graph.run(graph.open({"driver": "replication", "file": {"driver": "null-co"}, **options}))


def test_checkpoint_that_half_failed_refuses_everything() -> None:
    rules = [{"event": "empty_image_prepare", "state": 2, "once": False}]
    side = Secondary(debug={"hidden": {"inject-error": rules}})
    side.start()
    side.debug("hidden").state = 2
    assert fails(side, side.top.do_checkpoint()) == errno.EIO
    assert fails(side, side.guest.read(0, 512)) == errno.EIO


# The model of block.md 9.6: S at the last checkpoint, G the guest's writes since, P the secondary's live content.

CLUSTERS = 4
SIZE = CLUSTERS * 64 * K
OPS = st.tuples(
    st.sampled_from(["nbd", "nbd", "guest", "guest", "read", "checkpoint"]),
    st.integers(0, SIZE // 512 - 1),
    st.integers(1, 200),
    st.integers(1, 255),
)


@settings(max_examples=examples(60), deadline=None)
@given(ops=st.lists(OPS, max_size=25), failover=st.booleans())
def test_t36_sequences_follow_the_model(ops: list[tuple[str, int, int, int]], failover: bool) -> None:
    side = Secondary(size=SIZE)
    side.start()
    live = bytearray(b"\x11" * SIZE)
    view = bytearray(live)
    touched: set[int] = set()
    for kind, sector, count, fill in ops:
        offset = sector * 512
        length = min(count * 512, SIZE - offset)
        data = bytes([fill]) * length
        if kind == "nbd":
            side.nbd_write(offset, data)
            live[offset : offset + length] = data
            touched.update(range(offset // (64 * K), (offset + length - 1) // (64 * K) + 1))
        elif kind == "guest":
            side.write(offset, data)
            view[offset : offset + length] = data
        elif kind == "checkpoint":
            side.run(side.top.do_checkpoint())
            view[:] = live
            touched.clear()
        assert side.read() == view
        assert side.nbd_read() == live
    held = {
        c
        for start, length in side.allocated(side.hidden)
        for c in range(start // (64 * K), (start + length) // (64 * K))
    }
    assert held == touched
    if failover:
        side.failover()
        assert side.nbd_read() == view == side.read()


def interleave(order: Any, *, guard: bool = True) -> None:
    """Run a guest read, a partial guest write and a primary write on one cluster at the same time; check each."""
    side = Secondary(order, size=64 * K, yields=1)
    side.start()
    if not guard:
        assert side.top._guard is not None
        side.top._guard.job = None
    assert side.nbd is not None

    async def main() -> tuple[bytes, bytes]:
        spawn = side.graph.sched.spawn
        assert side.nbd is not None
        write = spawn(side.nbd.write(0, b"\x22" * 64 * K))
        read = spawn(side.guest.read(0, 64 * K))
        fill = spawn(side.guest.write(1024, b"\x33" * 512))
        seen = bytes(await read.join())
        await fill.join()
        await write.join()
        return seen, bytes(await side.guest.read(0, 64 * K))

    seen, after = side.run(main())
    old = b"\x11" * 64 * K
    new = old[:1024] + b"\x33" * 512 + old[1536:]
    # as flags: to explain how 64 KiB differ takes minutes
    saw_checkpoint, kept_rest = seen in (old, new), after == new
    assert saw_checkpoint, "a read sees the checkpoint, with the guest's own write or without"
    assert kept_rest, "the rest of a partly written cluster is the checkpoint's"
    assert side.nbd_read() == b"\x22" * 64 * K


@pytest.mark.parametrize("seed", range(40))
def test_r10_r13_random_interleavings_keep_the_view(seed: int) -> None:
    interleave(SeededOrder(seed))


def test_r13_short_schedules_exhaustively() -> None:
    runs = 0
    for order in explore(limit=300):
        interleave(order)
        runs += 1
    assert runs == 300


def test_taking_out_the_guard_makes_the_interleavings_fail() -> None:
    failures = 0
    for seed in range(60):
        try:
            interleave(SeededOrder(seed), guard=False)
        except AssertionError:
            failures += 1
    assert failures, "the schedules above are able to see the hazard"
    assert isinstance(Secondary().hidden.below, PassNode)
