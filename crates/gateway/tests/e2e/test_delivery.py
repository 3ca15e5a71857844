"""From a plain PUBLISH to every subscribed client, on any node."""

import asyncio
import base64
import json
import subprocess

import pytest
from support import tokens
from support.cluster import ask
from support.crowd import SIZE, TOPICS, member, shares, topics_of
from support.process import PATIENCE, eventually
from support.subscribers import Subscriber, WsSubscribers, together

ROUNDS = 400  # of one message to each topic: 20,000 in all


def test_everyone_hears_exactly_its_topics_in_order_and_once(cluster):
    asyncio.run(the_crowd_hears_everything(cluster))


async def the_crowd_hears_everything(cluster):
    nginx = cluster.nginx
    with_ws = range(0, SIZE, 5)  # one in five is an npm `ws` client
    with_python = [number for number in range(SIZE) if number not in with_ws]
    jobs = [{"url": nginx.connect_url(number % 2 == 1), "topics": topics_of(number)} for number in with_ws]
    publications = [
        (topic, json.dumps({"topic": topic, "n": number, "padding": "." * 80}))
        for number in range(ROUNDS) for topic in TOPICS
    ]

    def all_of(number):
        return {
            topic: [json.loads(payload) for name, payload in publications if name == topic]
            for topic in topics_of(number)
        }

    async with (
        together([member(number, nginx) for number in with_python]) as subscribers,
        WsSubscribers(jobs, nginx.certificate) as ws_subscribers,
    ):
        assert min(await shares(cluster.nodes)) > SIZE / 4, "both nodes have their share"

        await asyncio.to_thread(cluster.redis.publish, publications)
        await eventually(
            lambda: all(sum(map(len, subscriber.messages.values())) >= 2 * ROUNDS for subscriber in subscribers),
            "everyone has heard as many messages as were meant for it",
        )
        reports = await ws_subscribers.report(messages=2 * ROUNDS * len(with_ws))
        for subscriber in subscribers:
            await subscriber.settle()

    for number, subscriber in zip(with_python, subscribers, strict=True):
        assert subscriber.messages == all_of(number)
        assert subscriber.pushes == [] and subscriber.closes == [1000]
    for number, report in zip(with_ws, reports, strict=True):
        assert report == {"messages": all_of(number), "others": [], "closed": None}


def test_redis_cli_is_a_publisher(cluster):
    async def story():
        async with together(on_both_nodes(cluster, ["orders.42"])) as subscribers:
            redis_cli = ["redis-cli", "-h", cluster.redis.address, "-p", str(cluster.redis.port)]
            subprocess.run([*redis_cli, "PUBLISH", "orders.42", '{"total":9}'], check=True, timeout=PATIENCE)
            await all_heard(subscribers, "orders.42", [{"total": 9}])

    asyncio.run(story())


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b'{ "total":9.0,"total":1e2 , "\\u00e9":[ ] }', b'{ "total":9.0,"total":1e2 , "\\u00e9":[ ] }'),
        ("früh".encode(), '"früh"'.encode()),
        (b"", b'""'),
        (bytes(range(256)), b'"' + base64.b64encode(bytes(range(256))) + b'"'),
    ],
    ids=["JSON as it is", "text as a string", "nothing as an empty string", "bytes as base64"],
)
def test_what_was_published_is_what_arrives(cluster, payload, expected):
    async def story():
        async with together(on_both_nodes(cluster, ["exact"])) as subscribers:
            cluster.publish("exact", payload)
            for subscriber in subscribers:
                await eventually(lambda: subscriber.heard("exact"), "the message arrives")
                frame = next(frame for frame in subscriber.frames if '"message"' in frame)
                assert b'"data":' + expected in frame.encode()
                assert ("encoding" in json.loads(frame)) == (payload == bytes(range(256)))

    asyncio.run(story())


def test_a_client_and_a_service_publish_through_the_broker(cluster):
    """A publish command, and the publish API through nginx: both reach the clients of both nodes."""

    async def story():
        token = tokens.token(publish=["chat.*"])
        async with together(on_both_nodes(cluster, ["chat.7"], token)) as subscribers:
            reply = await subscribers[0].command("publish", topic="chat.7", data={"text": "hi"})
            assert reply["op"] == "published"
            await all_heard(subscribers, "chat.7", [{"text": "hi"}])

            status, _, body = await asyncio.to_thread(
                ask, cluster.nginx.plain, "POST", "/v1/topics/chat.7",
                {"Authorization": f"Bearer {token}"}, b'{"text":"ho"}',
            )
            assert (status, json.loads(body)) == (202, {})
            await all_heard(subscribers, "chat.7", [{"text": "hi"}, {"text": "ho"}])

    asyncio.run(story())


def on_both_nodes(cluster, topics, token=None):
    return [Subscriber(node.connect_url(), topics, token) for node in cluster.nodes]


async def all_heard(subscribers, topic, payloads):
    await eventually(
        lambda: all(len(subscriber.heard(topic)) >= len(payloads) for subscriber in subscribers),
        f"everyone hears {payloads}",
    )
    assert [subscriber.heard(topic) for subscriber in subscribers] == [payloads] * len(subscribers)
