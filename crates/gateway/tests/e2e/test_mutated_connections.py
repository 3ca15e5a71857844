"""Thousands of broken handshakes and frames: the node neither hangs nor dies, keeps nothing, and serves everybody else.

Their number and their seed can be given: CAUSEWAY_CONNECTIONS=100000 CAUSEWAY_SEED=… for a long run, and
CAUSEWAY_CONNECTION=17 for one of them alone.
"""

import asyncio
import os
import random

from support import tokens
from support.footprint import descriptors, resident_bytes
from support.mutations import play_all
from support.process import eventually, own_address
from support.remains import OWN_TOPICS
from support.subscribers import Subscriber

CONNECTIONS = int(os.environ.get("CAUSEWAY_CONNECTIONS", 3000))
SEED = os.environ.get("CAUSEWAY_SEED") or str(random.randrange(1 << 32))
WARM_UP = 1000
# What an allocator may keep of what came and went. It levels out: 100,000 connections leave about 2 MiB, and the next none.
KEPT_BYTES_MAX = 4 << 20


def test_mutated_connections_leave_no_trace(cluster):
    numbers = range(CONNECTIONS)
    if only := os.environ.get("CAUSEWAY_CONNECTION"):
        numbers = [int(only)]
    print(f"replay with CAUSEWAY_SEED={SEED} CAUSEWAY_CONNECTIONS={CONNECTIONS} and pytest -k mutated")
    node = cluster.nodes[0]
    token = tokens.token(sub="mallory", subscribe=["mutated.**"], publish=["mutated.**"])
    sources = [own_address() for _ in range(8)]

    async def story():
        async with Subscriber(node.connect_url(), ["quiet"]) as neighbour:
            await play_all(f"warm-up {SEED}", range(WARM_UP), node.public, token, sources)
            before = await trace(node)
            running = asyncio.create_task(play_all(SEED, numbers, node.public, token, sources))
            published = 0
            while not running.done():
                await asyncio.to_thread(cluster.publish, "quiet", published)
                published += 1
                await eventually(lambda: len(neighbour.heard("quiet")) == published, "the neighbour hears it", seconds=10)
                await asyncio.wait([running], timeout=0.05)
            await running
            after = await trace(node)
            print(f"after {WARM_UP} connections: {before}; after {len(numbers)} more: {after}")
            assert after["descriptors"] == before["descriptors"], f"{before} became {after}"
            assert after["resident"] <= before["resident"] + KEPT_BYTES_MAX, f"{before} became {after}"
            assert node.child.poll() is None and "panicked" not in node.log()
            # Without these, nobody might have come past the door.
            assert node.gauge("causeway_upgrades_accepted_total") > WARM_UP / 4
            assert all(node.counter("causeway_connections_closed_total", code=code) for code in (1000, 1002, 1007))
            await neighbour.settle()
            assert neighbour.heard("quiet") == list(range(published))
            assert neighbour.pushes == [] and neighbour.open

    asyncio.run(story())


async def trace(node):
    """What is left once only the neighbour is: its one connection, its one topic and the node's own, and the lingering ones gone."""
    await eventually(lambda: node.gauge("causeway_connections") == 1, "only the neighbour is connected")
    await eventually(lambda: node.gauge("causeway_redis_topics") == OWN_TOPICS + 1, "only its topic and the node's own are subscribed to")
    assert node.gauge("causeway_topics") == 1 and node.gauge("causeway_subscriptions") == 1
    # The node may not have closed yet what the gauges were asked over.
    open_now = [descriptors(node)]
    while len(open_now) < 20:
        await asyncio.sleep(0.02)
        open_now.append(descriptors(node))
    return {"descriptors": min(open_now), "resident": resident_bytes(node)}
