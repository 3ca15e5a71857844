"""`subscribed` means subscribed: Redis has confirmed, and from the reply on everything is heard."""

import asyncio

import pytest
from support.fault_proxy import FaultProxy
from support.node import Node
from support.process import eventually
from support.redis_server import RedisServer
from support.subscribers import Subscriber, together

SETTINGS = {"limits": {"commands_per_second": 10_000, "commands_burst": 10_000}}


def test_nobody_is_told_subscribed_before_redis_confirmed(tmp_path):
    async def story(node, proxy):
        async with Subscriber(node.connect_url()) as subscriber:
            proxy.back.hold()
            asking = asyncio.create_task(subscriber.command("subscribe", topics=["held.back"]))
            await eventually(lambda: b"held.back" in proxy.back.held, "Redis has confirmed, and the proxy holds it back")
            # A reply given too early would have been sent before the answer to this.
            await subscriber.settle()
            assert not any("subscribed" in frame for frame in subscriber.frames), "it was told before"

            proxy.back.release()
            reply = await asking
            assert reply["op"] == "subscribed" and reply["topics"] == ["held.back"]

    with (
        RedisServer(tmp_path) as redis,
        FaultProxy(redis.where) as proxy,
        Node("gateway", tmp_path, proxy.url) as node,
    ):
        asyncio.run(story(node, proxy))


@pytest.mark.parametrize("topics", ["fresh ones", "always the same"])
def test_a_publish_right_after_the_reply_always_arrives(cluster, topics):
    """A fresh topic is subscribed in Redis; one that was left a moment ago still is."""

    async def story(publisher):
        async with together([Subscriber(node.connect_url()) for node in cluster.nodes]) as subscribers:
            # Two commands each: no more than the burst that a connection is allowed, however fast this goes.
            for number in range(50):
                topic = f"fresh.{number}" if topics == "fresh ones" else "the.same"
                for at, subscriber in enumerate(subscribers):
                    payload = number * len(subscribers) + at
                    reply = await subscriber.command("subscribe", topics=[topic])
                    publisher.publish(topic, payload)
                    assert reply["op"] == "subscribed" and reply["topics"] == [topic]
                    # One from before may come late, in front of it: the node still has the topic in Redis.
                    await eventually(lambda: payload in subscriber.heard(topic), "it arrives")
                for subscriber in subscribers:
                    assert (await subscriber.command("unsubscribe", topics=[topic]))["op"] == "unsubscribed"

    with cluster.redis.client() as publisher:
        asyncio.run(story(publisher))
