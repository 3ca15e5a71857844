"""What Prometheus reads stays small, whatever clients do (T28)."""

import asyncio
import contextlib

import pytest
from support.node import Node
from support.process import eventually
from support.redis_server import RedisServer
from support.subscribers import Subscriber

CLIENTS, TOPICS, AT_ONCE = 20, 5_000, 1_000
SETTINGS = {
    "limits": {"topics_per_connection": TOPICS, "commands_burst": 1_000, "message_bytes": "64KiB"},
    "metrics": {"topic_classes": [{"name": "orders", "pattern": "orders.**"}]},
}


@pytest.fixture
def node(tmp_path):
    with RedisServer(tmp_path) as redis, Node("node", tmp_path, redis.url, SETTINGS) as node:
        yield node


def test_t28_a_hundred_thousand_topics_are_no_more_to_read_than_none(node):
    before = node.metrics()

    async def story():
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(Subscriber(node.connect_url())) for _ in range(CLIENTS)]
            for number, client in enumerate(clients):
                for first in range(0, TOPICS, AT_ONCE):
                    names = [f"orders.secret-{number}-{at}" for at in range(first, first + AT_ONCE)]
                    reply = await client.command("subscribe", topics=names)
                    assert len(reply["topics"]) == AT_ONCE, reply.get("refused")
            # A topic is counted from when it is asked for, a subscription from when it is confirmed.
            counted = lambda: node.counter("causeway_class_subscriptions", **{"class": "orders"}) == CLIENTS * TOPICS
            await eventually(counted, "all subscriptions are counted")
            return node.metrics()

    after = asyncio.run(story())
    assert f'causeway_class_subscriptions{{class="orders"}} {CLIENTS * TOPICS}\n' in after
    assert "secret" not in after and "alice" not in after, "no topic and no subject is a label"
    assert len(after.encode()) < 64 * 1024
    assert names_of(after) == names_of(before), "not a series more"


def names_of(text):
    return {line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")}
