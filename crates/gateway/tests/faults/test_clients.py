"""Clients and the way to them: they read slowly, fall silent, vanish. Nobody else notices."""

import asyncio
import socket

import pytest
from experiment import NOBODY, PAUSE, TOPICS, everyone
from network import Island, needs_own_network, swallowed
from publishers import Service
from support.cluster import running_cluster
from support.fault_proxy import FaultProxy
from support.node import Node
from support.process import eventually
from support.raw_client import RawClient, text
from support.subscribers import Subscriber

only = lambda name: lambda client, topic: client.startswith(name)


@pytest.mark.short
def test_f17_some_clients_read_slowly(experiment, tmp_path):
    """They are cut as slow consumers, come back when they can, and know what they may have missed."""

    async def story(cluster, way):
        node = cluster.nodes[0]
        witnesses, *publishers = everyone(experiment, cluster)
        slow = experiment.some_witnesses([f"ws://{way.where}/v1/connect"], 3, name="slow")
        flood = Service(lambda: cluster.redis.where, TOPICS, experiment.publications, PAUSE, 50_000, name="flood")
        async with experiment.traffic([*witnesses, *slow], *publishers, flood, disturbed=only("slow")):
            cut = lambda: node.counter("causeway_connections_closed_total", code=4413)
            experiment.note("the slow ones get 10 KB a second")
            way.back.bytes_per_second = 10_000
            await eventually(lambda: cut() >= len(slow), "they are cut as slow consumers")
            way.back.bytes_per_second = None
            # What the proxy holds for connections of old is in their way.
            way.cut()
            await experiment.heals("they read as fast as others", within=3)
            assert all(witness.told("ended") for witness in slow)

    with running_cluster(tmp_path, {"limits": {"outbox_bytes": "128KiB"}}) as cluster, FaultProxy(cluster.nodes[0].public) as way:
        asyncio.run(story(cluster, way))


HEARTBEAT = {"heartbeat": {"ping_interval": "1s", "pong_timeout": "2s"}}
# A ping is due after one second, which may take another, its pong is missing after two, and the goodbye is given two more.
GIVEN_UP_AFTER = 6


@pytest.mark.parametrize("way", ["both ways", "to the node", "to the client"])
def test_f20_clients_fall_silent(experiment, tmp_path, way):
    """Behind a proxy that swallows everything, so that nobody hears of an end."""

    async def story(cluster, proxy):
        node = cluster.nodes[0]
        witnesses, *publishers = everyone(experiment, cluster)
        silent = experiment.some_witnesses([f"ws://{proxy.where}/v1/connect"], 3, name="silent")
        async with experiment.traffic([*witnesses, *silent], *publishers, disturbed=only("silent")):
            lost = lambda: sum(node.counter("causeway_connections_closed_total", code=code) for code in (4408, 4413))
            {"both ways": proxy.hold, "to the node": proxy.forth.hold, "to the client": proxy.back.hold}[way]()
            with experiment.time("the node has given them up", within=GIVEN_UP_AFTER):
                await eventually(lambda: lost() >= len(silent), "the node has given them up")
            proxy.release()
            await experiment.heals("everything comes through", within=2)

    with running_cluster(tmp_path, HEARTBEAT) as cluster, FaultProxy(cluster.nodes[0].public) as proxy:
        asyncio.run(story(cluster, proxy))


@needs_own_network
def test_f20_packets_of_a_client_vanish(experiment, tmp_path):
    """As when a laptop is shut: no FIN, no reset, and nothing of what the node sends is acknowledged."""

    async def story(island, node):
        async with Subscriber(node.connect_url(), ["news"], source=island.ours_too) as gone:
            await eventually(lambda: node.gauge("causeway_connections") == 1, "it is counted")
            with swallowed((island.ours_too, island.address)):
                with experiment.time("the node has given it up", within=GIVEN_UP_AFTER):
                    await eventually(lambda: node.gauge("causeway_connections") == 0, "the node has given it up")
            await gone.closed()

    with Island() as island:
        with Node("node", tmp_path, None, HEARTBEAT, address=island.address, prefix=island.prefix) as node:
            asyncio.run(story(island, node))


def test_f21_clients_vanish_without_a_word(experiment, cluster):
    """With a FIN, or with a reset, in the middle of whatever they do."""
    node = cluster.nodes[0]
    subscribe = text('{"id":1,"op":"subscribe","topics":["orders.1","left.behind"]}')

    def come_and_go():
        with RawClient(node.public).upgrade() as client:
            client.send(subscribe[:experiment.random.randint(0, len(subscribe))] if experiment.random.random() < 0.5 else subscribe)
            match experiment.random.choice(["close", "reset", "shut down"]):
                case "reset": client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                case "shut down": client.leave()

    async def story():
        witnesses, *publishers = everyone(experiment, cluster)
        async with experiment.traffic(witnesses, *publishers, disturbed=NOBODY):
            before = node.gauge("causeway_connections")
            for _ in range(200):
                await asyncio.to_thread(come_and_go)
            # The chatter may be here or there.
            await eventually(lambda: node.gauge("causeway_connections") <= before, "they leave nothing behind")
            await experiment.heals("200 clients came and vanished", within=1)

    asyncio.run(story())
