"""Input that is cheap to send and dear to take: it costs the node next to nothing, and nobody else any time."""

import asyncio
import contextlib
import itertools
import json
import statistics
import threading
import time

import pytest
from support import tokens
from support.footprint import descriptors, processor_seconds, resident_bytes
from support.process import eventually, until
from support.raw_client import CLOSE, FIN, PING, PONG, TEXT, RawClient, close, frame, frames_in, header, text
from support.subscribers import Subscriber, together

pytestmark = pytest.mark.alone
SETTINGS = {"workers": 1, "limits": {"outbox_bytes": "128KiB", "message_bytes": "64KiB"}}
MIB = 1 << 20


@pytest.fixture
def node(cluster):
    """One that has met a client before, so that what it keeps for ever is there already."""
    node = cluster.nodes[0]
    with RawClient(node.public).upgrade() as client:
        client.send(text('{"id":1,"op":"ping"}') + close(1000))
        client.rest()
    until(lambda: node.gauge("causeway_connections") == 0, "it is alone")
    return node


def close_code(heard):
    opcode, payload = list(frames_in(heard))[-1]
    assert opcode == CLOSE
    return int.from_bytes(payload[:2], "big")


def test_t1_a_huge_announcement_costs_no_memory(node):
    before = resident_bytes(node)
    closed_after = []
    for _ in range(5):
        with RawClient(node.public).upgrade() as client:
            began = time.monotonic()
            client.send(header(FIN | TEXT, 1 << 62) + bytes(1000))
            assert close_code(client.rest()) == 1009
            closed_after.append(time.monotonic() - began)
            most = 0
            # 300 MiB, unless the node has gone before.
            for _ in range(300):
                if not client.send_as_long_as_it_is_taken(bytes(MIB), 1):
                    break
                most = max(most, resident_bytes(node))
            assert most < before + MIB
    assert min(closed_after) < 0.1


def test_t2_tiny_fragments_cost_no_memory(node):
    before = resident_bytes(node)
    flood = frame(TEXT, b"a") + frame(0, b"a") * 1_044_480
    for _ in range(20):
        with RawClient(node.public).upgrade() as client:
            client.send_as_long_as_it_is_taken(flood, 1)
            assert close_code(client.rest(may_reset=True)) == 1008
            assert resident_bytes(node) < before + 10 * MIB


FLOODS = {
    "pings": (4429, frame(FIN | PING)),
    "long pings": (4429, frame(FIN | PING, bytes(125))),
    "pongs": (4429, frame(FIN | PONG)),
    "empty messages": (4429, frame(FIN | TEXT)),
    "commands": (4429, text('{"id":1,"op":"ping"}')),
    "pings between fragments": (4429, frame(TEXT) + frame(FIN | PING) * 1000),
    "empty fragments": (1008, frame(TEXT) + frame(0) * 2000),
}


def test_t6_what_comes_behind_an_error_is_not_even_looked_at(node):
    """32 million frames without a mask, each of them an error of its own if anybody read it."""
    before = processor_seconds(node)
    with RawClient(node.public).upgrade() as client:
        client.send_as_long_as_it_is_taken(frame(FIN | TEXT, masked=False) * (MIB // 2), 64)
        assert close_code(client.rest(may_reset=True)) == 1002
    assert processor_seconds(node) - before < 1


@pytest.mark.parametrize("kind", FLOODS)
def test_t3_a_flood_of_frames_ends_its_connection(node, kind):
    code, frames = FLOODS[kind]
    with RawClient(node.public).upgrade() as client:
        client.send_as_long_as_it_is_taken(frames * (MIB // len(frames)), 16)
        assert close_code(client.rest(may_reset=True)) == code


def test_t3_a_flood_is_not_read_to_its_end(node):
    """Eleven million pings, of which the node has had enough after two hundred."""
    before = processor_seconds(node)
    with RawClient(node.public).upgrade() as client:
        client.send_as_long_as_it_is_taken(frame(FIN | PING) * (MIB // 6), 64)
        assert close_code(client.rest(may_reset=True)) == 4429
    assert processor_seconds(node) - before < 1


def test_t3_floods_keep_nobody_waiting(node):
    """Floods on end, over new connections each time; a hundred others are answered all the while."""

    async def story():
        async with together([Subscriber(node.connect_url()) for _ in range(100)]) as others:
            rounds = []
            # A turn of the worker reads 256 KiB of a flood: in a debug build, a tenth of a second. Both ends share two
            # processors with the floods and with whatever else the machine does, which can only add.
            while len(rounds) < 3:
                quiet = p99(await waits(others, seconds=2))
                with flooding(node) as connections:
                    loud = p99(await waits(others, seconds=4))
                assert connections(), "floods have come to their end meanwhile"
                rounds.append(f"{quiet:.4f} s became {loud:.4f} s")
                if loud < max(2 * quiet, 0.25):
                    break
            else:
                raise AssertionError(rounds)
            assert all(other.open for other in others)

    asyncio.run(story())


@contextlib.contextmanager
def flooding(node):
    """Yields how many floods have been cut so far."""
    floods = [frames * (MIB // len(frames)) for _, frames in FLOODS.values()]
    over, cut = threading.Event(), []

    def flood():
        while not over.is_set():
            for frames in floods:
                with contextlib.suppress(OSError), RawClient(node.public).upgrade() as client:
                    client.send_as_long_as_it_is_taken(frames, 1)
                    cut.append(close_code(client.rest(may_reset=True)))

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        yield lambda: len(cut)
    finally:
        over.set()
        thread.join()


async def waits(others, seconds):
    """How long each answer took, one question after the other."""
    took = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for other in others:
            asked = time.monotonic()
            await other.settle()
            took.append(time.monotonic() - asked)
            await asyncio.sleep(0.001)
    return took


def p99(seconds):
    return statistics.quantiles(seconds, n=100)[-1]


def test_t4_a_crowd_that_does_not_read_is_cut(cluster, node):
    """Five hundred of them, each with a topic of its own and so with all that may wait for it; nothing is left of them ten
    seconds later."""
    outbox_bytes, crowd = 128 << 10, 500
    # What the kernel holds for each, and as much again as is needed to fill both.
    published_max = 2 * ((128 << 10) + outbox_bytes)
    memory, files = resident_bytes(node), descriptors(node)
    payload = json.dumps("x" * 10_000)

    async def story():
        async with Subscriber(node.connect_url(), ["flowing"]) as bystander:
            with contextlib.ExitStack() as stack:
                for number in range(crowd):
                    client = stack.enter_context(RawClient(node.public, receive_buffer=4096).upgrade())
                    client.send(text(json.dumps({"id": 1, "op": "subscribe", "topics": [f"stalled.{number}"]})))
                await eventually(lambda: node.gauge("causeway_subscriptions") == crowd + 1, "all are subscribed")
                closed = lambda: node.counter("causeway_connections_closed_total", code=4413)
                # Who is cut is subscribed no more, and is counted as closed when its socket has gone.
                left = lambda: node.gauge("causeway_subscriptions") - 1
                before, published, most = closed(), 0, 0
                # Each takes what the kernel holds for it, its outbox, and then no more. Some at a time, so that what is on its
                # way to outboxes is little beside what is in them; but fast, for who takes nothing in five seconds is cut as well.
                turns = itertools.cycle(range(0, crowd, 50))
                while left() > 0:
                    assert published * 3 * len(payload) * 50 < crowd * published_max, f"{left():.0f} are not cut"
                    first = next(turns)
                    publications = [(f"stalled.{number}", payload) for number in range(first, first + 50)] * 3
                    await asyncio.to_thread(cluster.redis.publish, [*publications, ("flowing", published)])
                    published += 1
                    await eventually(lambda: len(bystander.heard("flowing")) == published, "the other one hears its own")
                    most = max(most, resident_bytes(node))
                await eventually(lambda: descriptors(node) <= files + 1, "their sockets are gone", seconds=10)
                assert closed() - before == crowd
            print(f"{most - memory >> 20} MiB at most for {crowd} outboxes of {outbox_bytes >> 10} KiB")
            # An allocator has four sizes between one power of two and the next: it rounds up by a quarter at most.
            assert most - memory < crowd * outbox_bytes * 5 // 4
            assert bystander.heard("flowing") == list(range(published))
            assert bystander.open and bystander.pushes == []

    asyncio.run(story())


BOMBS = {
    "depth in topics": '{"id":1,"op":"subscribe","topics":' + "[" * 60_000,
    "depth in an unknown field": '{"id":1,"op":"ping","x":' + "[" * 30_000 + "]" * 30_000 + "}",
    "depth in the id": '{"id":' + '{"a":' * 10_000 + "1" + "}" * 10_000 + ',"op":"ping"}',
    "a field twice": '{"id":1,"op":"ping","op":"ping"}',
    "a number beyond all": '{"id":1e999999,"op":"ping"}',
    "a number of many digits": '{"id":' + "9" * 60_000 + ',"op":"ping"}',
    "a lone surrogate in a topic": '{"id":1,"op":"subscribe","topics":["\\ud800"]}',
    "a lone surrogate in the op": '{"id":1,"op":"\\udfff"}',
    "many unknown fields": '{"id":1,' + ",".join(f'"f{n}":1' for n in range(5000)) + "}",
    "not a number": '{"id":NaN,"op":"ping"}',
    "a comment": '{"id":1,"op":"ping"/**/}',
    "a control character": '{"id":1,"op":"pi\x01ng"}',
}


@pytest.mark.parametrize("case", BOMBS)
def test_t30_a_json_bomb_is_malformed_and_cheap(node, case):
    before = resident_bytes(node)
    with RawClient(node.public).upgrade() as client:
        began = time.monotonic()
        client.send(text(BOMBS[case]) + close(1000))
        (_, _welcome), (_, reply), (opcode, _) = frames_in(client.rest())
        assert time.monotonic() - began < 1
    reply = json.loads(reply)
    assert (reply["op"], reply["code"]) == ("error", "malformed") and opcode == CLOSE
    assert len(reply["message"]) <= 256
    assert resident_bytes(node) < before + MIB


def test_t30_depth_is_no_danger_where_anything_may_be_said(node):
    """`data` may be any JSON; it is passed on as it is, whatever its depth."""
    deep = "[" * 25_000 + "]" * 25_000

    async def story():
        token = tokens.token(publish=["deep"])
        async with Subscriber(node.connect_url(), [], token) as client:
            await client.socket.send('{"id":99,"op":"publish","topic":"deep","data":' + deep + "}")
            await eventually(lambda: client.pushes, "it is answered")
            assert client.pushes == [{"id": 99, "op": "published"}]

    asyncio.run(story())
