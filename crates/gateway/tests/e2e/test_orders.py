"""What an operator orders, on whichever node: connections that end, and subscriptions that end, on all nodes."""

import asyncio
import itertools
import json

import pytest
from support import tokens
from support.cluster import ask, running_cluster
from support.node import Node
from support.operator import JSON, Operator
from support.process import eventually, until
from support.subscribers import Subscriber, together

_names = itertools.count(1)


@pytest.fixture
def name():
    """A subject of the story's own."""
    return f"story-{next(_names)}"


def on_both(cluster, subject, topics=("orders.1",)):
    return [Subscriber(node.connect_url(), topics, tokens.token(sub=subject)) for node in cluster.nodes]


def said_in_log(node, *words):
    return [line for line in node.log().splitlines() if all(word in line for word in words)]


def test_a_subject_is_disconnected_everywhere(cluster, name):
    here, elsewhere = cluster.nodes

    async def story():
        async with together([*on_both(cluster, name), *on_both(cluster, "bystander")]) as clients:
            answer = await asyncio.to_thread(Operator(here).post, "/admin/disconnect", subject=name)
            assert answer == {"node": "node-a", "disconnected": 1, "announced": True}
            assert [await client.closed() for client in clients[:2]] == [4403, 4403]
            cluster.publish("orders.1", "1")
            for bystander in clients[2:]:
                await eventually(lambda: bystander.heard("orders.1") == [1], "others hear what they heard")  # noqa: B023
            assert all(client.heard("orders.1") == [] for client in clients[:2])
        # It was no revocation.
        async with together(on_both(cluster, name)):
            pass

    asyncio.run(story())
    asked = until(lambda: said_in_log(here, "carried out, and told to all nodes", name), "the node that was asked logs it")
    assert all("by=\"127." in line and "sessions=1" in line for line in asked), asked
    heard = until(lambda: said_in_log(elsewhere, "carried out another node's order", name), "the other logs it, too")
    assert all("from=node-a" in line and "sessions=1" in line for line in heard), heard


def test_one_session_is_disconnected_on_the_other_node_and_may_come_back(cluster, name):
    here, elsewhere = cluster.nodes

    async def story():
        mates = [Subscriber(elsewhere.connect_url(), ["orders.1"], tokens.token(sub=name)) for _ in range(3)]
        async with together([*mates, *on_both(cluster, name)[:1]]) as clients:
            meant = clients[1].welcome
            asked = {"session": meant["session"], "node": meant["node"], "code": 1012}
            answer = await asyncio.to_thread(Operator(here).post, "/admin/disconnect", **asked)
            assert answer == {"node": "node-a", "disconnected": 0, "announced": True}
            assert await clients[1].closed() == 1012
            # Its name is not given to another one, so asking again is asking for nothing.
            assert Operator(elsewhere).post("/admin/disconnect", **asked)["disconnected"] == 0
            for client in (clients[0], *clients[2:]):
                await client.settle()
            # Without a node it is one of the node that is asked; both must fit where both are named.
            asked = {"session": clients[0].welcome["session"], "subject": "somebody-else"}
            assert Operator(elsewhere).post("/admin/disconnect", **asked)["disconnected"] == 0
            asked = {"session": clients[0].welcome["session"], "subject": name, "code": 4401}
            assert Operator(elsewhere).post("/admin/disconnect", **asked)["disconnected"] == 1
            assert await clients[0].closed() == 4401
            for client in clients[2:]:
                await client.settle()

    asyncio.run(story())


def test_a_subscription_ends_everywhere_and_its_clients_are_told(cluster, name):
    async def story():
        async with together([*on_both(cluster, name, ["a", "b"]), *on_both(cluster, "bystander", ["a"])]) as clients:
            answer = await asyncio.to_thread(Operator(cluster.nodes[1]).post, "/admin/unsubscribe", subject=name, topic="a")
            assert answer == {"node": "node-b", "unsubscribed": 1, "announced": True}
            for client in clients[:2]:
                await eventually(lambda: client.pushed("unsubscribed"), "it is told")  # noqa: B023
                assert client.pushed("unsubscribed") == [{"op": "unsubscribed", "topics": ["a"]}]
            for topic in ("a", "b"):
                cluster.publish(topic, "1")
            for client, heard in zip(clients, ({"b": [1]}, {"b": [1]}, {"a": [1]}, {"a": [1]}), strict=True):
                await eventually(lambda: client.messages == heard, "each hears what it has")  # noqa: B023
            assert Operator(cluster.nodes[1]).post("/admin/unsubscribe", subject=name, topic="a")["unsubscribed"] == 0
            # On the node that was asked: the other one may have yet to hear of the second order.
            assert (await clients[1].command("subscribe", topics=["a"]))["topics"] == ["a"], "it is not forbidden"

    asyncio.run(story())


def test_one_session_loses_a_subscription(cluster, name):
    async def story():
        async with together(on_both(cluster, name)) as (here, elsewhere):
            asked = {"session": elsewhere.welcome["session"], "node": elsewhere.welcome["node"], "topic": "orders.1"}
            assert Operator(cluster.nodes[0]).post("/admin/unsubscribe", **asked)["unsubscribed"] == 0
            await eventually(lambda: elsewhere.pushed("unsubscribed"), "it is told")
            cluster.publish("orders.1", "1")
            await eventually(lambda: here.heard("orders.1") == [1], "the other keeps its own")
            await elsewhere.settle()
            assert elsewhere.heard("orders.1") == [] and here.pushed("unsubscribed") == []

    asyncio.run(story())


def test_an_interest_that_an_order_ends_is_given_up(cluster, name):
    """Redis is not asked for what nobody here wants any more."""

    async def story():
        async with together(on_both(cluster, name, ["lonely"])):
            with cluster.redis.client() as redis:
                assert dict(redis.pubsub_numsub("lonely")).popitem()[1] == 2
                Operator(cluster.nodes[0]).post("/admin/unsubscribe", subject=name, topic="lonely")
                await eventually(lambda: dict(redis.pubsub_numsub("lonely")).popitem()[1] == 0, "both nodes leave it")

    asyncio.run(story())


ACTIONS = [("POST", "/admin/disconnect"), ("POST", "/admin/unsubscribe"), ("GET", "/admin/sessions"), ("GET", "/admin/top")]


@pytest.mark.parametrize(("method", "path"), ACTIONS)
def test_only_whoever_may_act_on_a_node_sees_and_orders(tmp_path, method, path):
    secret = "an operator's token of thirty-two bytes"
    with Node("guarded", tmp_path, None, {"admin": {"token": secret}}) as node:

        async def story():
            async with Subscriber(node.connect_url(), ["a"], tokens.token(sub="alice")) as alice:
                body = json.dumps({"subject": "alice", "topic": "a"} if "unsub" in path else {"subject": "alice"})
                body = body if method == "POST" else None
                for headers in (JSON, JSON | {"Authorization": f"Bearer {secret}x"}):
                    status, _, refusal = ask(node.admin, method, path, headers, body)
                    assert (status, json.loads(refusal)["code"]) == (401, "unauthenticated")
                assert ask(node.public, method, path, JSON, body)[0] == 404
                await alice.settle()
                assert alice.open and not alice.pushed("unsubscribed")
                headers = JSON | {"Authorization": f"Bearer {secret}"}
                assert ask(node.admin, method, path, headers, body)[0] == 200

        asyncio.run(story())


@pytest.mark.parametrize(("method", "path"), ACTIONS)
def test_no_page_of_another_origin_sees_or_orders(cluster, method, path):
    headers = JSON | {"Origin": "https://evil.test"}
    status, _, refusal = ask(cluster.nodes[0].admin, method, path, headers, b'{"subject":"alice"}')
    assert (status, json.loads(refusal)["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    ("path", "asked", "named"),
    [
        ("disconnect", {}, "whom? expected `subject`, or `session` and the `node` that it is on"),
        ("disconnect", {"node": "node-b"}, "`node` says where a `session` is"),
        ("disconnect", {"subject": ""}, "1 to 256 bytes"),
        ("disconnect", {"subject": 7}, "invalid type: integer `7`, expected a string"),
        ("disconnect", {"session": "alice"}, "`alice` is no session: expected two numbers as in its welcome, such as 0-17"),
        ("disconnect", {"subject": "alice", "code": 1000}, "code is 1000: expected 4403, 4401 or 1012"),
        ("disconnect", {"subject": "alice", "topic": "a"}, "unknown field `topic`"),
        ("unsubscribe", {"subject": "alice"}, "missing field `topic`"),
        ("unsubscribe", {"topic": "a"}, "whom?"),
        ("unsubscribe", {"subject": "alice", "topic": "a b"}, "`a b` is no topic: byte 1 of the topic is not one of"),
    ],
)
def test_an_order_that_is_not_clear_is_refused_and_says_why(cluster, path, asked, named):
    refusal = Operator(cluster.nodes[0]).post(f"/admin/{path}", expected=400, **asked)
    assert refusal["code"] == "malformed" and named in refusal["message"]


def test_an_order_must_be_sent_as_json(cluster):
    status, _, refusal = ask(cluster.nodes[0].admin, "POST", "/admin/disconnect", {"Content-Type": "text/plain"}, b"{}")
    assert (status, json.loads(refusal)["code"]) == (400, "malformed")
    assert ask(cluster.nodes[0].admin, "GET", "/admin/disconnect")[0] in (404, 405)


def test_without_redis_nobody_was_told_and_nothing_has_happened(doomed_cluster):
    doomed_cluster.redis.kill()
    node = doomed_cluster.nodes[0]
    until(lambda: node.admin_status("/readyz") == 503, "the link is lost")

    async def story():
        async with Subscriber(node.connect_url(), (), tokens.token(sub="alice")) as alice:
            order = lambda: Operator(node).post("/admin/disconnect", expected=503, subject="alice")  # noqa: E731
            assert (await asyncio.to_thread(order))["code"] == "broker_unavailable"
            await alice.settle()

    asyncio.run(story())


def test_what_others_publish_there_harms_nobody(cluster, name):
    garbage = [
        "", "{", "null", '{"order":{}}', '{"order":{"from":"x","life":"0000000000000001","order":{"whom":{},"what":{"disconnect":4403}}}}',
        '{"order":{"from":"x","life":"0000000000000001","order":{"whom":{"subject":"%s"},"what":{"disconnect":1000}}}}' % name,
        '{"order":{"from":"x","life":"0000000000000001","order":{"whom":{"subject":"%s"},"what":{"unsubscribe":"not a topic"}}}}' % name,
        '{"order":{"from":"x","life":"-1","order":{"whom":{"subject":"%s"},"what":{"disconnect":4403}}}}' % name,
        "x" * 70_000, b"\xff\0",
    ]

    async def story():
        async with together([*on_both(cluster, name), *on_both(cluster, f"{name}-other")]) as clients:
            for payload in garbage:
                cluster.publish("_causeway.control", payload)
            await asyncio.to_thread(Operator(cluster.nodes[0]).post, "/admin/disconnect", subject=f"{name}-other")
            assert [await client.closed() for client in clients[2:]] == [4403, 4403], "a good one is carried out"
            for client in clients[:2]:
                await client.settle()

    asyncio.run(story())


def test_clients_can_neither_order_nor_listen(cluster, name):
    token = tokens.token(sub=name, subscribe=["**", "_causeway.*"], publish=["**", "_causeway.*"])

    async def story():
        async with Subscriber(cluster.nodes[0].connect_url(), ["orders.1"], token) as client:
            reply = await client.command("subscribe", topics=["_causeway.control"])
            assert [refused["code"] for refused in reply["refused"]] == ["forbidden"]
            forged = {"order": {"from": "x", "life": 1, "order": {"whom": {"subject": name}, "what": {"disconnect": 4403}}}}
            assert (await client.command("publish", topic="_causeway.control", data=forged))["code"] == "forbidden"

    asyncio.run(story())


def test_nodes_understand_each_other_however_short_messages_must_be(tmp_path):
    """`limits.message_bytes` is for what clients say and hear."""
    with running_cluster(tmp_path, {"limits": {"message_bytes": "1B"}}) as cluster:

        async def story():
            async with together(on_both(cluster, "alice", ())) as clients:
                await asyncio.to_thread(Operator(cluster.nodes[0]).post, "/admin/disconnect", subject="alice")
                assert [await client.closed() for client in clients] == [4403, 4403]

        asyncio.run(story())
        # Not only as long as their numbers have one digit.
        until(lambda: all(node.gauge("causeway_canary_round_trip_seconds_count") > 12 for node in cluster.nodes), "canaries come back")
        assert [node.admin_status("/readyz") for node in cluster.nodes] == [200, 200]


def test_a_node_alone_disconnects_its_own(tmp_path):
    with Node("alone", tmp_path, None) as node:

        async def story():
            async with Subscriber(node.connect_url(), ["a"], tokens.token(sub="alice")) as alice:
                answer = await asyncio.to_thread(Operator(node).post, "/admin/disconnect", subject="alice")
                assert answer == {"node": "alone", "disconnected": 1, "announced": True}
                assert await alice.closed() == 4403

        asyncio.run(story())
