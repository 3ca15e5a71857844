"""T32: whoever can publish in Redis can publish anything: it is carried or counted as it is, and harms nobody."""

import asyncio
import base64
import contextlib
import json
import time

from support import tokens
from support.cluster import ask
from support.process import eventually, until
from support.requests import bearer
from support.subscribers import Subscriber, together

MESSAGE_BYTES = 64 << 10

# Each with what a client hears.
ODD = {
    b"": "",
    b" ": " ",
    b"{": "{",
    b"NaN": "NaN",
    b'{"op":"drain","reconnect_in_ms":0}': {"op": "drain", "reconnect_in_ms": 0},
    b'{"a":1,"a":2}': {"a": 2},
    b'"\\ud800"': "\ud800",
    b"1e400": float("inf"),
    b"[" * 9_000: "[" * 9_000,
    b'","op":"gap","topic":"quiet': '","op":"gap","topic":"quiet',
    b"*3\r\n$11\r\nunsubscribe\r\n$5\r\nquiet\r\n": "*3\r\n$11\r\nunsubscribe\r\n$5\r\nquiet\r\n",
    b"\x81\x05hello": None,
    b"\0": "\0",
    b"\xff\xfe\x00": None,
    b"\xed\xa0\x80": None,
    b"\xef\xbb\xbf{}": "\ufeff{}",
    b"ok \xe2\x82": None,
    b"x" * MESSAGE_BYTES: "x" * MESSAGE_BYTES,
}

# Names that no client can have asked for.
ODD_CHANNELS = [b"", b" ", b"a..b", b"odd ", b"odd\0", b"\xff\xfe", b"_canary.", b"_canary.0", b"__keyspace@0__:odd", b"x" * 100_000]


def dropped(node):
    return node.counter("causeway_messages_dropped_total", reason="too_large")


def test_t32_odd_payloads_are_carried_as_they_are(cluster):
    async def story():
        async with everybody(cluster) as (listeners, neighbours):
            for payload in ODD:
                cluster.publish("odd", payload)
            expected = [payload if data is None else data for payload, data in ODD.items()]
            for listener in listeners:
                await eventually(lambda: len(listener.heard("odd")) == len(ODD), "all are heard")  # noqa: B023
                assert [carried(json.loads(frame)) for frame in listener.frames if "message" in frame[:20]] == expected
            for channel in ODD_CHANNELS:
                cluster.publish(channel, b"\xff")
            await undisturbed(cluster, neighbours)

    asyncio.run(story())


def test_t32_what_is_too_large_is_counted_and_announced(cluster):
    """To those who missed it, and to nobody else."""
    before = [dropped(node) for node in cluster.nodes]

    async def story():
        async with everybody(cluster) as (listeners, neighbours):
            for payload in ("1", "x" * (MESSAGE_BYTES + 1), "2"):
                cluster.publish("odd", payload)
            for listener in listeners:
                await eventually(lambda: listener.heard("odd") == [1, 2], "the others are heard")  # noqa: B023
                await eventually(lambda: listener.pushes, "what is missing is announced")  # noqa: B023
                assert [(push["op"], push["topic"]) for push in listener.pushes] == [("gap", "odd")]
            for node, count in zip(cluster.nodes, before):
                until(lambda: dropped(node) == count + 1, "it is counted")  # noqa: B023
            await undisturbed(cluster, neighbours)

    asyncio.run(story())


def test_t32_garbage_among_what_nodes_tell_each_other_is_passed_over(cluster):
    """On the topic of the canaries, on that of revoked tokens, and in their log."""
    with cluster.redis.client() as redis:
        canaries = redis.pubsub_channels("_canary.*")
    assert len(canaries) == len(cluster.nodes)

    async def story():
        async with everybody(cluster) as (_, neighbours):
            for payload in [*ODD, b"x" * (MESSAGE_BYTES + 1), b"1", b"-1", b"18446744073709551616"]:
                for channel in [*canaries, "_causeway.revoked"]:
                    cluster.publish(channel, payload)
            with cluster.redis.client() as redis:
                for fields in ({"entry": b"\xff"}, {"entry": ""}, {"other": "1"}, {"entry": "[" * 9_000}, {"": ""}):
                    redis.xadd("_causeway.revoked", fields)
                good = {"whose": {"subject": "mallory"}, "until": int(time.time()) + 600}
                redis.xadd("_causeway.revoked", {"entry": json.dumps(good)})
            await undisturbed(cluster, neighbours)
            # Now all of it is read from the log.
            with cluster.redis.client() as redis:
                redis.client_kill_filter(_type="pubsub")
            for node in cluster.nodes:
                revoked = lambda: ask(node.public, "GET", "/v1/connect", bearer(tokens.token(sub="mallory")))[0] == 401  # noqa: B023
                await eventually(revoked, "the good entry behind the garbage is followed")
                await eventually(lambda: node.admin_status("/readyz") == 200, "it is ready")  # noqa: B023

    asyncio.run(story())


@contextlib.asynccontextmanager
async def everybody(cluster):
    """Who listens to what is odd, and who to nothing but what is quiet: one of each on each node."""
    listeners = [Subscriber(node.connect_url(), ["odd"]) for node in cluster.nodes]
    neighbours = [Subscriber(node.connect_url(), ["quiet"]) for node in cluster.nodes]
    async with together([*listeners, *neighbours]):
        yield listeners, neighbours


async def undisturbed(cluster, neighbours):
    cluster.publish("quiet", '"still"')
    for neighbour in neighbours:
        await eventually(lambda: neighbour.heard("quiet") == ["still"], "the neighbours hear theirs")  # noqa: B023
        assert neighbour.pushes == [] and neighbour.open
    for node in cluster.nodes:
        assert node.admin_status("/readyz") == 200 and node.admin_status("/livez") == 200
        assert node.child.poll() is None and "panicked" not in node.log()


def carried(message):
    """The data as it was published, where that was no text."""
    data = message["data"]
    return base64.b64decode(data) if message.get("encoding") == "base64" else data
