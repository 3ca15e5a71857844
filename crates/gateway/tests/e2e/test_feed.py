"""The live feed of the admin listener: what it tells, to whom, and what it may cost."""

import asyncio
import contextlib
import json

import pytest
from support.cluster import ask
from support.feed import PATH, SUBPROTOCOL, feed, told
from support.node import Node
from support.process import PATIENCE, eventually
from support.raw_client import PING, TEXT, RawClient, frames_in
from support.requests import HANDSHAKE
from support.subscribers import Subscriber
from websockets.exceptions import ConnectionClosed, InvalidStatus

FEEDS_MAX = 16
TOKEN = "not every/character=may+stand in a list"
NOT_READ, TOKEN_REFUSED = 4408, 4401


@pytest.fixture
def node(tmp_path):
    with Node("node", tmp_path, None) as node:
        yield node


def test_it_tells_the_figures_of_a_node(cluster):
    node = cluster.nodes[0]

    async def story():
        async with Subscriber(node.connect_url(), ["orders.1"]), feed(node) as reader:
            cluster.publish("orders.1", "1")
            delivered = lambda now: now["subscriptions"] == 1 and now["messages_sent"] >= 1 and now["canary_ms"]
            now = await told(reader, delivered)
            assert now["connections"] == 1 and now["redis_link_up"] and now["unready"] is None and now["drain"] is None
            assert sum(now["delivery"]["counts"]) == now["messages_sent"] == now["messages_received"]
            assert len(now["delivery"]["counts"]) == len(now["delivery"]["bounds_us"]) + 1
            assert now["bytes_sent"] > 0 and 0 < now["canary_ms"] < 60_000
            assert now["budget_used_bytes"] <= now["budget_bytes"]

    asyncio.run(story())


def test_nodes_know_each_others_figures_while_somebody_looks(doomed_cluster):
    here, there = doomed_cluster.nodes

    async def story():
        async with Subscriber(there.connect_url(), ["orders.1"]), feed(here) as reader:
            shares = lambda now: {node["node"]: node["connections"] for node in now["nodes"]}
            names = [node["node"] for node in (await told(reader, lambda now: sum(shares(now).values()) == 1))["nodes"]]
            assert len(names) == 2, "the one that was asked, and the other"
            there.kill()
            alone = await told(reader, lambda now: len(now["nodes"]) == 1)
            assert alone["nodes"][0]["node"] == names[0], "a node that does not answer any more is not shown"

    asyncio.run(story())


def test_a_node_that_nobody_looks_at_says_nothing_to_the_others(cluster):
    here, there = cluster.nodes
    with cluster.redis.client() as client, client.pubsub(ignore_subscribe_messages=True) as spy:
        spy.subscribe("_causeway.control")
        heard = []

        def listen(seconds):
            while message := spy.get_message(timeout=seconds):
                told = json.loads(message["data"])
                heard.append(told if isinstance(told, str) else next(iter(told)))

        listen(3)
        assert heard == []

        async def look():
            async with feed(here) as first, feed(here) as second, feed(there) as third:
                await asyncio.gather(*(told(reader, lambda now: len(now["nodes"]) == 2) for reader in (first, second, third)))

        asyncio.run(look())
        listen(3)
        assert {"call", "here"} == set(heard)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.test"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Host": "evil.test"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_t9_a_page_of_another_origin_neither_looks_nor_acts(node, headers):
    for method, path, more in [
        ("GET", PATH, HANDSHAKE),
        ("GET", PATH, {}),
        ("POST", "/admin/shed?percent=100", {}),
        ("POST", "/admin/drain", {}),
        ("POST", "/admin/reload", {"Content-Type": "text/plain"}),
    ]:
        status, _, body = ask(node.admin, method, path, {**more, **headers})
        assert (status, json.loads(body)["code"]) == (403, "forbidden"), path
    assert node.admin_status("/readyz") == 200, "nothing has been done"


def test_its_own_page_looks(node):
    async def story():
        async with feed(node, origin=f"http://{node.admin}") as reader:
            assert reader.subprotocol == SUBPROTOCOL
            await told(reader, lambda now: now["connections"] == 0)

    asyncio.run(story())
    assert ask(node.admin, "GET", PATH, {"Origin": f"http://{node.admin}"})[0] == 204, "the verdict without an upgrade"


def test_with_a_token_only_its_holder_looks(tmp_path):
    async def refused(node, token):
        with pytest.raises(InvalidStatus) as refusal:
            async with feed(node, token):
                pass
        assert refusal.value.response.status_code == 401

    async def story(node):
        for token in [None, "wrong", TOKEN + "!"]:
            await refused(node, token)
        async with feed(node, TOKEN) as reader:
            await told(reader, lambda now: now["connections"] == 0)
            configuration = (node.directory / "causeway.toml").read_text()
            (node.directory / "causeway.toml").write_text(configuration.replace(TOKEN, TOKEN[::-1]))
            bearer = {"Authorization": f"Bearer {TOKEN}"}
            status, _, body = await asyncio.to_thread(ask, node.admin, "POST", "/admin/reload", bearer)
            assert status == 200, body
            with pytest.raises(ConnectionClosed):
                await told(reader, lambda now: False)
            assert reader.close_code == TOKEN_REFUSED, "a token that was replaced looks no more"

    with Node("guarded", tmp_path, None, {"admin": {"token": TOKEN}}) as node:
        asyncio.run(story(node))


def test_beyond_loopback_nobody_looks_without_a_token(tmp_path):
    # For the node this is no loopback address, though packets go nowhere else (RFC 4291 §2.5.5.2).
    with Node("open", tmp_path, None) as probe:
        mapped = f"[::ffff:{probe.address}]:0"
    node = Node("mapped", tmp_path, None, {"admin_listen": mapped})
    node.ready = lambda: node.listens() and ask(f"{probe.address}:{node.admin.rpartition(':')[2]}", "GET", "/readyz")[0] == 200
    with node:
        status, _, body = ask(f"{probe.address}:{node.admin.rpartition(':')[2]}", "GET", PATH)
        assert status == 403 and "admin.token" in json.loads(body)["message"]


def test_only_so_many_look_at_once(node):
    async def story():
        async with contextlib.AsyncExitStack() as stack:
            readers = [await stack.enter_async_context(feed(node)) for _ in range(FEEDS_MAX)]
            await asyncio.gather(*(told(reader, lambda now: True) for reader in readers))
            status, headers, body = await asyncio.to_thread(ask, node.admin, "GET", PATH)
            assert (status, json.loads(body)["code"]) == (503, "limit_exceeded") and headers["retry-after"]
            with pytest.raises(InvalidStatus):
                async with feed(node):
                    pass
            await readers[0].close()
            free = lambda: ask(node.admin, "GET", PATH)[0] == 204
            await eventually(free, "there is room again")

    asyncio.run(story())


def test_a_reader_that_does_not_read_gets_one_snapshot_and_is_dropped(node):
    """It answers no ping, as a browser would by reading."""
    with RawClient(node.admin) as sleeper:
        sleeper.upgrade(target=PATH, headers={**HANDSHAKE, "Sec-WebSocket-Protocol": SUBPROTOCOL})

        async def look():
            async with feed(node) as reader:
                for _ in range(5):
                    await asyncio.wait_for(reader.recv(), PATIENCE)

        asyncio.run(look())
        *told_before, (_, reason) = frames_in(sleeper.rest())
        assert [opcode for opcode, _ in told_before] == [TEXT, PING], "while another reader got five"
        assert int.from_bytes(reason[:2], "big") == NOT_READ
