"""Clients that do not read, or do not answer, are cut and named; those beside them notice nothing."""

import asyncio
import contextlib
import json
import socket

from support import tokens
from support.process import PATIENCE, eventually
from support.remains import OWN_TOPICS
from support.requests import HANDSHAKE, bearer
from support.subscribers import Subscriber
from websockets.frames import Frame, Opcode

SETTINGS = {
    "workers": 1,
    "limits": {"outbox_bytes": "256KiB", "message_bytes": "64KiB"},
    "heartbeat": {"ping_interval": "1s", "pong_timeout": "5s"},
}


@contextlib.contextmanager
def unresponsive(cluster, *commands):
    """A socket that has upgraded and sent `commands`, and does whatever the story does with it: mostly nothing."""
    host, port = cluster.nodes[0].public.split(":")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((host, int(port)))
        head = {**HANDSHAKE, **bearer(tokens.token()), "Host": host}
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        client.sendall(f"GET /v1/connect HTTP/1.1\r\n{lines}\r\n".encode())
        for command in commands:
            client.sendall(Frame(Opcode.TEXT, json.dumps(command).encode()).serialize(mask=True))
        yield client


def closes(cluster, code):
    return cluster.nodes[0].counter("causeway_connections_closed_total", code=code)


def test_a_client_that_does_not_read_is_cut_as_a_slow_consumer(cluster):
    async def story():
        before = closes(cluster, 4413)
        async with Subscriber(cluster.nodes[0].connect_url(), ["flood"]) as bystander:
            with unresponsive(cluster, {"id": 1, "op": "subscribe", "topics": ["flood"]}):
                await eventually(
                    lambda: cluster.nodes[0].gauge("causeway_subscriptions") == 2, "both are subscribed"
                )
                # 1.2 MB for a client that may have 256 KiB waiting, besides what the kernel holds.
                for number in range(60):
                    # One at a time, so that whoever reads at all keeps up.
                    cluster.publish("flood", json.dumps(f"{number:04}" + "x" * 20_000))
                    await eventually(lambda: len(bystander.heard("flood")) == number + 1, "the other one hears it")
                await eventually(lambda: closes(cluster, 4413) == before + 1, "the slow one is cut")
            assert [int(heard[:4]) for heard in bystander.heard("flood")] == list(range(60))
            assert bystander.open and bystander.pushed("gap") == []

    asyncio.run(story())


def test_a_client_that_does_not_answer_pings_is_cut(cluster):
    async def story():
        before = closes(cluster, 4408)
        async with Subscriber(cluster.nodes[0].connect_url(), ["quiet"]) as bystander:
            with unresponsive(cluster) as client:
                client.settimeout(PATIENCE)
                heard = b""
                while piece := await asyncio.to_thread(client.recv, 4096):
                    heard += piece
                assert (4408).to_bytes(2, "big") + b"no pong in time" in heard
            # It is counted once the client's side of the connection has ended too.
            await eventually(lambda: closes(cluster, 4408) == before + 1, "it is counted")
            assert bystander.open

    asyncio.run(story())


def test_a_client_that_vanishes_without_a_word_leaves_nothing_behind(cluster):
    async def story():
        with unresponsive(cluster, {"id": 1, "op": "subscribe", "topics": ["left.behind"]}):
            await eventually(lambda: cluster.nodes[0].gauge("causeway_topics") == 1, "it is subscribed")
        await eventually(lambda: cluster.nodes[0].gauge("causeway_connections") == 0, "its connection is gone")
        assert cluster.nodes[0].gauge("causeway_topics") == 0
        # On which it hears its canaries and of revoked tokens.
        await eventually(lambda: cluster.nodes[0].gauge("causeway_redis_topics") == OWN_TOPICS, "only the node's own are left")

    asyncio.run(story())
