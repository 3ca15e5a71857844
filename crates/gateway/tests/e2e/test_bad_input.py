"""Bad input gets a clear answer and harms nobody else, not even on the same worker."""

import asyncio
import contextlib
import time

import pytest
from support import tokens
from support.process import eventually
from support.subscribers import Subscriber
from websockets.exceptions import ConnectionClosed

BURST = 20

SETTINGS = {
    "workers": 1,
    "limits": {
        "topics_per_connection": 4,
        "message_bytes": "4KiB",
        "commands_per_second": 1,
        "commands_burst": BURST,
    },
}


@contextlib.asynccontextmanager
async def offender(cluster, token=None, topics=()):
    """A client of the first node, where another one must hear every message meanwhile."""
    url = cluster.nodes[0].connect_url()
    async with Subscriber(url, ["quiet"]) as bystander:
        cluster.publish("quiet", '"before"')
        async with Subscriber(url, topics, token or tokens.token(subscribe=["**"])) as subscriber:
            yield subscriber
            cluster.publish("quiet", '"after"')
            await eventually(lambda: len(bystander.heard("quiet")) == 2, "the bystander hears everything")
        await bystander.settle()
        assert bystander.heard("quiet") == ["before", "after"]
        assert bystander.pushes == [] and bystander.open


@pytest.mark.parametrize(
    ("text", "number", "code"),
    [
        ("{", None, "malformed"),
        ("[]", None, "malformed"),
        ('{"op":"ping"}', None, "malformed"),
        ('{"id":77,"op":"subscribe"}', 77, "malformed"),
        ('{"id":77,"op":"ping","topics":[]}', 77, "malformed"),
        ('{"id":77,"op":"fly"}', 77, "unknown_op"),
        ('{"id":77,"op":"publish","topic":"a..b","data":1}', 77, "bad_topic"),
        ('{"id":77,"op":"publish","topic":"chat.1","data":1}', 77, "forbidden"),
    ],
)
def test_a_bad_command_is_answered_and_the_connection_goes_on(cluster, text, number, code):
    async def story():
        async with offender(cluster) as subscriber:
            await subscriber.socket.send(text)
            await subscriber.settle()
            (error,) = subscriber.pushes
            assert (error["op"], error.get("id"), error["code"], error["retryable"]) == ("error", number, code, False)
            assert error["message"]
            assert subscriber.open

    asyncio.run(story())


def test_each_topic_of_a_subscribe_is_judged_for_itself(cluster):
    async def story():
        token = tokens.token(subscribe=["orders.*"])
        async with offender(cluster, token) as subscriber:
            asked = ["orders.1", "a..b", "orders.*", "_own", "secret.1", "orders.2"]
            reply = await subscriber.command("subscribe", topics=asked)
            assert reply["op"] == "subscribed" and sorted(reply["topics"]) == ["orders.1", "orders.2"]
            assert {refusal["topic"]: refusal["code"] for refusal in reply["refused"]} == {
                "a..b": "bad_topic", "orders.*": "bad_topic", "_own": "forbidden", "secret.1": "forbidden",
            }
            cluster.publish("secret.1", "1")
            cluster.publish("orders.1", "1")
            await eventually(lambda: subscriber.heard("orders.1"), "the topic it has goes on")
            assert subscriber.messages == {"orders.1": [1]}

    asyncio.run(story())


def test_too_many_topics_are_refused_and_the_others_kept(cluster):
    async def story():
        async with offender(cluster, topics=["a", "b", "c"]) as subscriber:
            reply = await subscriber.command("subscribe", topics=["d", "e"])
            assert reply["topics"] == ["d"]
            assert [(refusal["topic"], refusal["code"]) for refusal in reply["refused"]] == [("e", "limit_exceeded")]
            for topic in ["e", "d", "a"]:
                cluster.publish(topic, "1")
            await eventually(lambda: subscriber.heard("a"), "its topics go on")
            assert subscriber.messages == {"d": [1], "a": [1]}

    asyncio.run(story())


@pytest.mark.parametrize(
    ("message", "close_code"),
    [("." * (4096 + 1), 1009), (b"{}", 1003)],
    ids=["oversize", "binary"],
)
def test_a_message_that_cannot_be_read_ends_the_connection(cluster, message, close_code):
    async def story():
        async with offender(cluster) as subscriber:
            await subscriber.socket.send(message)
            assert await subscriber.closed() == close_code

    asyncio.run(story())


def test_the_largest_message_is_still_read(cluster):
    async def story():
        async with offender(cluster) as subscriber:
            await subscriber.socket.send("." * 4096)
            await subscriber.settle()
            assert [push["code"] for push in subscriber.pushes] == ["malformed"]

    asyncio.run(story())


def test_commands_that_come_too_fast_are_refused_and_then_end_the_connection(cluster):
    async def story():
        async with offender(cluster) as subscriber:
            replies = []
            with contextlib.suppress(ConnectionError, ConnectionClosed):
                for _ in range(10_000):
                    replies.append(await subscriber.command("ping"))
            assert await subscriber.closed() == 4429
            assert all(reply["op"] == "pong" for reply in replies[:BURST]), "the burst is served"
            refused = [reply for reply in replies if reply["op"] == "error"]
            assert refused and all(error["code"] == "too_fast" and error["retryable"] for error in refused)

    asyncio.run(story())


def test_t22_a_token_that_expires_is_announced_and_ends_the_connection(cluster):
    async def story():
        lifetime = 5
        expiry = time.time() + lifetime
        async with offender(cluster, tokens.token(ttl=lifetime)) as subscriber:
            assert 0 < subscriber.welcome["expires_in_ms"] <= lifetime * 1000 + 1000  # the leeway is one second
            await eventually(lambda: subscriber.pushed("token_expiring"), "it is warned")
            assert await subscriber.closed() == 4401
            # A token's times are whole seconds.
            assert time.time() >= expiry - 1, "not before its time"
            (warning,) = subscriber.pushes
            assert 0 < warning["in_ms"] <= lifetime * 1000 + 1000

    asyncio.run(story())


def test_a_fresh_token_keeps_the_connection(cluster):
    async def story():
        lifetime = 5
        expiry = time.time() + lifetime
        async with offender(cluster, tokens.token(ttl=lifetime), ["orders.1"]) as subscriber:
            reply = await subscriber.command("authenticate", token=tokens.token(ttl=600))
            assert reply["op"] == "authenticated" and 590_000 < reply["expires_in_ms"] <= 601_000
            await eventually(lambda: time.time() > expiry + 1.5, "the first token and its leeway are over")
            await subscriber.settle()
            cluster.publish("orders.1", "1")
            await eventually(lambda: subscriber.heard("orders.1") == [1], "it is still subscribed")

    asyncio.run(story())


@pytest.mark.parametrize(
    "token",
    [tokens.token(sub="mallory"), tokens.token(ttl=-60), tokens.token(secret="another secret, long enough to sign")],
    ids=["another subject's", "expired", "signed by a stranger"],
)
def test_a_token_that_is_not_this_clients_is_refused(cluster, token):
    """And changes nothing: the connection goes on with the token it has."""

    async def story():
        async with offender(cluster, topics=["orders.1"]) as subscriber:
            reply = await subscriber.command("authenticate", token=token)
            assert (reply["op"], reply["code"], reply["retryable"]) == ("error", "unauthenticated", False)
            cluster.publish("orders.1", "1")
            await eventually(lambda: subscriber.heard("orders.1") == [1], "it is still subscribed")
            assert subscriber.open

    asyncio.run(story())
