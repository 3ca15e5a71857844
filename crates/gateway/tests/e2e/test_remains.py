"""Whoever has gone leaves nothing behind. Every node of these stories is asked when they are over; here, whether asking helps."""

import asyncio
import contextlib
import os

import pytest
from support.feed import feed
from support.footprint import resident_bytes
from support.node import Node
from support.process import until
from support.raw_client import RawClient, frames_in, text
from support.redis_server import RedisServer
from support.remains import assert_nothing_is_subscribed, assert_nothing_remains
from support.subscribers import Subscriber


@pytest.fixture
def redis(tmp_path):
    with RedisServer(tmp_path) as redis:
        yield redis


@pytest.fixture
def node(tmp_path, redis):
    # The clients here answer no pings.
    with Node("node", tmp_path, redis.url, {"heartbeat": {"ping_interval": "10m"}}) as node:
        yield node


def test_a_client_that_is_still_there_is_noticed(node, redis):
    async def story():
        async with Subscriber(node.connect_url(), ["news"]):
            # The gauges follow the sockets with a little delay.
            until(lambda: node.gauge("causeway_connections") == 1, "it is counted")
            with pytest.raises(AssertionError, match="causeway_connections"):
                assert_nothing_remains(node, seconds=0.5)
            with pytest.raises(AssertionError, match="subscriptions of the nodes"):
                assert_nothing_is_subscribed(redis, seconds=0.5)

    asyncio.run(story())
    assert_nothing_remains(node)
    assert_nothing_is_subscribed(redis)


def test_a_task_too_many_is_noticed(node):
    async def story():
        async with feed(node):
            with pytest.raises(AssertionError, match="causeway_tasks"):
                assert_nothing_remains(node, seconds=0.5)

    asyncio.run(story())
    assert_nothing_remains(node)


def test_every_connection_is_a_task(node):
    alone = node.gauge("causeway_tasks")
    with contextlib.ExitStack() as clients:
        for _ in range(10):
            clients.enter_context(RawClient(node.public).upgrade())
        until(lambda: node.gauge("causeway_tasks") == alone + 10, "each has one")


def test_a_descriptor_too_many_is_noticed(node):
    with RawClient(node.public):  # it has connected and says nothing: no gauge knows it
        with pytest.raises(AssertionError, match="descriptors"):
            assert_nothing_remains(node, seconds=0.5)


CLIENTS = int(os.environ.get("CAUSEWAY_CLIENTS", 2000))
CYCLES = 3
CLIENTS_PER_TOPIC = 10
# What an allocator may keep more of one crowd than of the one before.
KEPT_BYTES_MAX = 2 << 20


def test_memory_is_flat_from_the_second_crowd_on(node, redis):
    """Some thousand clients connect, subscribe, hear a message and leave; and again, and again."""
    resident = []
    for cycle in range(CYCLES):
        with contextlib.ExitStack() as clients:
            crowd = [clients.enter_context(RawClient(node.public).upgrade()) for _ in range(CLIENTS)]
            for number, client in enumerate(crowd):
                client.send(text(f'{{"id":1,"op":"subscribe","topics":["{topic(cycle, number)}"]}}'))
            until(lambda: node.gauge("causeway_subscriptions") == CLIENTS, "all are subscribed")
            redis.publish([(topic(cycle, number), b'"' + b"x" * 1000 + b'"') for number in range(0, CLIENTS, CLIENTS_PER_TOPIC)])
            for client in crowd:
                *_, (_, message) = frames_in(client.rest(until=lambda heard: heard.endswith(b'xxx"}')))
                assert b'"op":"message"' in message
        assert_nothing_remains(node)
        resident.append(resident_bytes(node))
    print(f"resident after each crowd of {CLIENTS}: {[bytes >> 10 for bytes in resident]} KiB")
    first, *later = resident
    assert max(later) <= first + KEPT_BYTES_MAX, resident


def topic(cycle, number):
    return f"cycle.{cycle}.{number // CLIENTS_PER_TOPIC}"
