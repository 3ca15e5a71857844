"""What an operator is told of sessions and topics: a list with pages and filters, and who and what leads by each measure."""

import asyncio
import json
import time

import pytest
from support import tokens
from support.cluster import ask
from support.node import Node
from support.operator import Operator
from support.process import eventually, own_address
from support.requests import bearer
from support.subscribers import Subscriber, together

CROWD = 25


def of(subject, node, topics=(), **options):
    return Subscriber(node.connect_url(), topics, tokens.token(sub=subject), **options)


def test_a_session_is_told_by_the_name_that_its_client_knows(cluster):
    node = cluster.nodes[0]
    home = own_address()

    async def story():
        begun = int(time.time())
        async with of("alice", node, ["orders.1", "orders.2"], source=home) as alice:
            cluster.publish("orders.1", '"hello"')
            await eventually(lambda: alice.heard("orders.1") == ["hello"], "it is heard")
            (told,) = await asyncio.to_thread(Operator(node).sessions, subject="alice")
            assert begun <= told.pop("since") <= time.time()
            assert told.pop("bytes") >= sum(len(frame) for frame in alice.frames)
            assert told == {
                "node": alice.welcome["node"], "session": alice.welcome["session"], "subject": "alice", "address": home,
                "subscriptions": 2, "messages": 1, "queued_bytes": 0,
            }
            assert alice.welcome["node"] == "node-a"
        await eventually(lambda: Operator(node).sessions(subject="alice") == [], "she has gone")

    asyncio.run(story())


def test_pages_are_full_and_tell_of_everybody_once(cluster):
    node = cluster.nodes[0]

    async def story():
        crowd = [of(f"crowd-{number}", node, ["crowd"]) for number in range(CROWD)]
        async with together([*crowd, of("elsewhere", cluster.nodes[1], ["crowd"])]):
            operator = Operator(node)
            for limit in (1, 7, CROWD, 1000):
                pages = [page for page in operator.pages(node="node-a", limit=limit) if page]
                assert all(len(page) == limit for page in pages[:-1])
                told = sorted(session["session"] for page in pages for session in page)
                assert told == sorted(client.welcome["session"] for client in crowd)
            # Who comes and goes between two pages does not hide the others.
            first = operator.get("/admin/sessions", node="node-a", limit=10)
            await crowd[0].socket.close()
            async with of("late", node):
                rest = operator.sessions(node="node-a", cursor=first["next"])
            told = [session["session"] for session in first["sessions"] + rest]
            stayed = {client.welcome["session"] for client in crowd[1:]}
            assert stayed <= set(told) and len(set(told)) == len(told)

    asyncio.run(story())


def test_filters_find_by_subject_address_and_topic_and_all_must_fit(cluster):
    node = cluster.nodes[0]
    office, home = own_address(), own_address()

    async def story():
        async with together([
            of("alice", node, ["a", "b"], source=office), of("alice", node, ["b"], source=home),
            of("bob", node, ["a"], source=office), of("carol", node),
        ]) as (first, second, bob, carol):

            def found(**filters):
                told = Operator(node).sessions(**filters)
                everybody = {client.welcome["session"]: client for client in (first, second, bob, carol)}
                return [client for client in everybody.values()
                        if client.welcome["session"] in {session["session"] for session in told}]

            assert found(subject="alice") == [first, second]
            assert found(topic="a") == [first, bob]
            assert found(topic="a", subject="alice") == [first]
            assert found(address=office) == [first, bob]
            assert found(address=home, topic="b") == [second]
            assert found(address=home, topic="a") == found(subject="nobody") == found(topic="nobody.s") == []
            assert found(limit=1) == [first, second, bob, carol]

    asyncio.run(story())


def test_topics_and_connections_lead_by_what_they_cost(cluster):
    node = cluster.nodes[0]

    async def story():
        readers = [of(f"reader-{number}", node, ["busy", *(["crowded"] if number < 9 else [])]) for number in range(4)]
        loiterers = [of(f"loiterer-{number}", node, ["crowded"]) for number in range(8)]
        async with together([*readers, *loiterers, of("alice", node, ["large", "busy"])]) as clients:
            cluster.redis.publish([("busy", "1")] * 50 + [("large", json.dumps("x" * 20_000))] * 5 + [("crowded", "1")])
            await eventually(lambda: clients[-1].heard("large"), "the large ones come")
            for client in clients:
                await client.settle()
            top = Operator(node).get("/admin/top", node="node-a", limit=3)
            assert (top["nodes"], top["missing"]) == (["node-a"], [])
            topics = top["topics"]
            assert [topics[measure][0]["topic"] for measure in ("by_messages", "by_bytes", "by_subscribers")] == [
                "busy", "large", "crowded",
            ]
            busy, crowded = topics["by_messages"][0], topics["by_subscribers"][0]
            assert (busy["subscribers"], crowded["subscribers"]) == (5, 12)
            assert busy["messages_per_second"] > 10 * crowded["messages_per_second"] > 0
            assert busy["bytes_per_second"] == pytest.approx(busy["messages_per_second"], rel=0.05), "a byte each"
            assert topics["by_drops"] == []
            connections = top["connections"]
            assert [len(connections[measure]) for measure in ("by_messages", "by_bytes", "by_drops")] == [3, 3, 0]
            assert connections["by_messages"][0]["messages"] == 55 and connections["by_messages"][1]["messages"] == 51
            assert connections["by_messages"][0] == connections["by_bytes"][0] == Operator(node).sessions(subject="alice")[0]
            quiet = Operator(cluster.nodes[1]).get("/admin/top", node="node-b")
            assert quiet["topics"] == {f"by_{measure}": [] for measure in ("messages", "bytes", "subscribers", "drops")}

    asyncio.run(story())


def test_who_loses_messages_leads_by_drops(tmp_path):
    settings = {"limits": {"outbox_bytes": "16KiB", "message_bytes": "8KiB"}}
    with Node("node", tmp_path, None, settings) as node:

        async def story():
            async with of("alice", node, ["orders.1"]) as alice, of("sleeper", node, ["orders.1"]) as sleeper:
                sleeper.socket.transport.pause_reading()
                publisher = bearer(tokens.token(publish=["**"]))
                rounds = 0
                while not Operator(node).get("/admin/top")["connections"]["by_drops"]:
                    rounds += 1
                    assert rounds < 2000
                    answer = await asyncio.to_thread(
                        ask, node.public, "POST", "/v1/topics/orders.1", publisher, json.dumps("x" * 8000)
                    )
                    assert answer[0] < 300, answer
                sleeper.socket.transport.resume_reading()
                await alice.settle()
                assert alice.open
                (leader,) = Operator(node).get("/admin/top")["connections"]["by_drops"]
                assert leader["subject"] == "sleeper" and leader["messages"] >= 1
                too_large = await asyncio.to_thread(
                    ask, node.public, "POST", "/v1/topics/orders.1", publisher, json.dumps("x" * 9000)
                )
                assert too_large[0] == 413

        asyncio.run(story())


def test_what_was_too_large_leads_by_drops(doomed_cluster):
    node = doomed_cluster.nodes[0]

    async def story():
        async with together([of(name, node, ["orders.1"]) for name in ("alice", "bob")]) as clients:
            doomed_cluster.publish("orders.1", "1" * 100_000)
            for client in clients:
                await eventually(lambda: client.pushed("gap"), "the gap is announced")  # noqa: B023
            assert Operator(node).get("/admin/top")["topics"]["by_drops"] == [{"topic": "orders.1", "messages": 2}]

    asyncio.run(story())


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/admin/sessions?limit=0", "limit is `0`: expected a whole number from 1 to 1000"),
        ("/admin/sessions?limit=many", "limit is `many`"),
        ("/admin/sessions?cursor=x", "cursor is `x`: expected `next`"),
        ("/admin/sessions?cursor=0-1-17-node-a", "cursor is `0-1-17-node-a`"),
        ("/admin/sessions?node=", "1 to 256 bytes"),
        ("/admin/sessions?address=here", "address is `here`: expected an IP address"),
        ("/admin/sessions?address=10.0.0.1/64", "address is `10.0.0.1/64`"),
        ("/admin/sessions?topic=a..b", "`a..b` is no topic: the topic has an empty segment at byte 2"),
        ("/admin/sessions?subject=", "1 to 256 bytes"),
        ("/admin/sessions?role=admin", "unknown field `role`"),
        ("/admin/top?limit=101", "limit is `101`: expected a whole number from 1 to 100"),
        ("/admin/top?by=bytes", "unknown field `by`"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_and_says_why(cluster, path, named):
    refusal = Operator(cluster.nodes[0]).get(path, expected=400)
    assert refusal["code"] == "malformed" and named in refusal["message"]


def test_beyond_the_end_there_is_nobody(cluster):
    for cursor in ("0-0-0000000000000000-node-x", "65535-18446744073709551615-ffffffffffffffff-node-x"):
        assert Operator(cluster.nodes[0]).get("/admin/sessions", cursor=cursor)["sessions"] == []
