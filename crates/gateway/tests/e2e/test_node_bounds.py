"""The bounds of a whole node: where memory or file descriptors run short, newcomers are refused and everybody else is served."""

import asyncio
import contextlib
import json
import socket

import pytest
from support.cluster import ask
from support.footprint import descriptors
from support.node import Node
from support.process import eventually, until
from support.raw_client import RawClient, text
from support.redis_server import RedisServer
from support.requests import HANDSHAKE, bearer
from support.subscribers import Subscriber, together

MIB = 1 << 20
# What a node keeps for itself, and of the rest one in nine for requests that are not read yet (descriptors.rs).
DESCRIPTORS, OWN, ARRIVING = 300, 200, 11
ROOM = DESCRIPTORS - OWN - ARRIVING


class ShortOfDescriptors(Node):
    def command(self):
        return ["prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}", *super().command()]


@pytest.fixture
def redis(tmp_path):
    with RedisServer(tmp_path) as redis:
        yield redis


def upgrade(node):
    status, headers, body = ask(node.public, "GET", "/v1/connect", HANDSHAKE | bearer())
    if status == 503:
        assert json.loads(body)["code"] == "node_full" and int(headers["Retry-After"]) > 0
    return status


def test_f22_whoever_comes_after_the_last_descriptor_is_refused_and_the_others_are_served(redis, tmp_path):
    with ShortOfDescriptors("node", tmp_path, redis.url, {"workers": 1}) as node:
        assert "limits.connections needs more file descriptors than the system allows" in node.log()
        assert node.gauge("causeway_connections_max") == ROOM

        async def story():
            async with together([Subscriber(node.connect_url(), ["news"]) for _ in range(ROOM)]) as clients:
                assert [await asyncio.to_thread(upgrade, node) for _ in range(20)] == [503] * 20
                # Many more come and say nothing. A node that accepted them all could not reach Redis any more.
                with contextlib.ExitStack() as stack:
                    for _ in range(DESCRIPTORS):
                        stack.enter_context(slow_newcomer(node))
                    redis.client().client_kill_filter(_type="pubsub")
                    await eventually(lambda: all(one.pushed("gap") for one in clients), "the link is made anew")
                    assert [node.admin_status(path) for path in ("/livez", "/readyz", "/metrics")] == [200] * 3
                    await asyncio.to_thread(redis.publish, [("news", 1)])
                    await eventually(lambda: all(one.heard("news") == [1] for one in clients), "everybody hears it")
                    assert descriptors(node) <= DESCRIPTORS - OWN // 2, "there are some left"
                assert all(one.open for one in clients)

        asyncio.run(story())
        until(lambda: node.gauge("causeway_connections") == 0, "they have left")
        assert upgrade(node) == 101


@contextlib.contextmanager
def slow_newcomer(node):
    host, port = node.public.split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"GET /v1/connect HTTP/1.1\r\nHost: slow\r\nX-")
        yield client


GREEDY, TOTAL = 10, 8 * MIB
BUDGET = {"workers": 1, "limits": {"outbox_bytes": "4MiB", "outbox_bytes_total": "8MiB"}}


def test_above_80_percent_of_the_budget_nobody_is_let_in_and_above_90_the_largest_backlogs_go(redis, tmp_path):
    """Although nobody has as much waiting as one client may have."""
    with Node("node", tmp_path, redis.url, BUDGET) as node:
        cut = lambda: node.counter("causeway_connections_closed_total", code=4413)
        used = lambda: node.gauge("causeway_memory_budget_used_bytes")

        async def story():
            with contextlib.ExitStack() as stack:
                stalled = [f"greedy.{number}" for number in range(GREEDY)] + ["modest"]
                for topic in stalled:
                    client = stack.enter_context(RawClient(node.public, receive_buffer=4096).upgrade())
                    client.send(text(json.dumps({"id": 1, "op": "subscribe", "topics": [topic]})))
                async with Subscriber(node.connect_url(), ["flowing"]) as reader:
                    await eventually(lambda: node.gauge("causeway_subscriptions") == len(stalled) + 1, "all are subscribed")
                    rounds = Rounds(redis, reader)
                    while upgrade(node) == 101:
                        await rounds.next()
                    assert 0.8 * TOTAL < used() <= 0.9 * TOTAL and cut() == 0
                    while not cut():
                        await rounds.next()
                        assert used() <= TOTAL
                    await eventually(lambda: used() <= 0.9 * TOTAL, "it is enough")
                    assert 0 < cut() < GREEDY, "some of the greedy, and not all"
                    await eventually(lambda: "limits.outbox_bytes_total is nearly used up" in node.log(), "it is told")
                    await rounds.next()
                    assert reader.heard("flowing") == list(range(rounds.done)) and reader.pushes == []
                    with_topic = lambda topic: dict(redis.client().pubsub_numsub(topic))[topic.encode()]
                    assert with_topic("modest") == 1, "the smallest backlog is not given up"
            await eventually(lambda: used() < TOTAL // 10, "nothing waits any more")
            assert upgrade(node) == 101

        asyncio.run(story())


class Rounds:
    """In each, every greedy client is sent 20 KB, the modest one a tenth of that, and the reader a number, which it hears."""

    def __init__(self, redis, reader):
        self.redis, self.reader, self.done = redis, reader, 0

    async def next(self):
        assert self.done < 200, "the budget is never used up"
        greedy = [(f"greedy.{number}", json.dumps("x" * 20_000)) for number in range(GREEDY)]
        others = [("modest", json.dumps("x" * 2_000)), ("flowing", self.done)]
        await asyncio.to_thread(self.redis.publish, greedy + others)
        self.done += 1
        await eventually(lambda: len(self.reader.heard("flowing")) == self.done, "the reader hears its number")
