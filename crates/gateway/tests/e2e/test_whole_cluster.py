"""What an operator who asks one node is told of all of them: sessions and what costs most, and whose part is missing."""

import asyncio
import json
import random

import pytest
from support import tokens
from support.cluster import running_cluster
from support.node import Node
from support.operator import Operator
from support.process import PATIENCE, eventually, own_address, paused, until
from support.subscribers import Subscriber, together

NAMES = ["node-a", "node-b", "node-c"]
EACH = 9  # clients of a node


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with running_cluster(tmp_path_factory.mktemp("cluster"), names=NAMES) as cluster:
        yield cluster


def of(subject, node, topics=(), **options):
    return Subscriber(node.connect_url(), topics, tokens.token(sub=subject), **options)


def crowd(cluster):
    return [of(f"{node.name}-{number}", node, ["crowd"]) for node in cluster.nodes for number in range(EACH)]


def names_of(clients):
    return sorted((client.welcome["node"], client.welcome["session"]) for client in clients)


def names_in(sessions):
    return sorted((session["node"], session["session"]) for session in sessions)


async def whole(node, path, nodes=NAMES, /, **parameters):
    """The answer of which no node's part is missing: on a starved machine one may come too late."""

    def look():
        answer = Operator(node).get(path, **parameters)
        return (answer["nodes"], answer["missing"]) == (nodes, []) and answer

    return await asyncio.to_thread(until, look, f"all of {nodes} answer")


async def pages(node, /, **parameters):
    """All pages of /admin/sessions, each with every node."""
    told = [await whole(node, "/admin/sessions", **parameters)]
    while "next" in told[-1]:
        told.append(await whole(node, "/admin/sessions", **parameters, cursor=told[-1]["next"]))
    return [page["sessions"] for page in told]


def test_pages_lead_through_all_nodes_and_tell_of_everybody_once(cluster):
    async def story():
        async with together(crowd(cluster)) as clients:
            for limit in (1, 7, EACH, 1000):
                told = [page for page in await pages(random.choice(cluster.nodes), limit=limit) if page]
                assert all(len(page) == limit for page in told[:-1])
                sessions = [session for page in told for session in page]
                assert names_in(sessions) == names_of(clients)
                assert [session["node"] for session in sessions] == [name for name in NAMES for _ in range(EACH)]

    asyncio.run(story())


def test_a_page_goes_on_where_the_last_ended_on_whichever_node_it_is_asked_for(cluster):
    """Who comes and goes meanwhile does not hide the others."""

    async def story():
        async with together(crowd(cluster)) as clients:
            first = await whole(cluster.nodes[0], "/admin/sessions", limit=EACH + 3)
            await clients[0].socket.close()
            async with of("late", cluster.nodes[0]):
                rest = await pages(cluster.nodes[2], cursor=first["next"])
            told = names_in(first["sessions"] + [session for page in rest for session in page])
            assert len(set(told)) == len(told) and set(names_of(clients[1:])) <= set(told)

    asyncio.run(story())


def test_filters_find_on_all_nodes_or_on_the_one_that_is_named(cluster):
    a, b, c = cluster.nodes
    office = own_address()

    async def story():
        async with together([
            of("alice", a, ["x"]), of("alice", b, ["x", "y"], source=office), of("bob", b, ["x"]), of("bob", c, ["y"], source=office),
        ]) as clients:

            async def found(**filters):
                told = [names_in(page) for page in await pages(a, **filters)]
                return [client for client in clients if names_of([client])[0] in sum(told, [])]

            assert await found(subject="alice") == clients[:2]
            assert await found(topic="x") == clients[:3]
            assert await found(address=office) == [clients[1], clients[3]]
            assert await found(address=office, topic="x") == [clients[1]]
            assert await found() == clients
            on_b = lambda **filters: whole(a, "/admin/sessions", ["node-b"], node="node-b", **filters)
            assert names_in((await on_b())["sessions"]) == names_of(clients[1:3])
            assert names_in((await on_b(subject="bob"))["sessions"]) == names_of(clients[2:3])

    asyncio.run(story())


def test_a_session_that_is_listed_is_ended_by_the_names_on_the_list(cluster):
    here, there = cluster.nodes[0], cluster.nodes[2]

    async def story():
        async with together([of("alice", there, ["orders.1"]), of("alice", there, ["orders.1"])]) as clients:
            listed = (await pages(here, subject="alice"))[0]
            meant = next(one for one in listed if one["session"] == clients[0].welcome["session"])
            named = {key: meant[key] for key in ("node", "session")}
            await asyncio.to_thread(Operator(here).post, "/admin/unsubscribe", **named, topic="orders.1")
            await eventually(lambda: clients[0].pushed("unsubscribed"), "its subscription ends")
            await asyncio.to_thread(Operator(here).post, "/admin/disconnect", **named)
            assert await clients[0].closed() == 4403
            await clients[1].settle()
            assert not clients[1].pushed("unsubscribed")

    asyncio.run(story())


def test_what_nodes_say_of_a_topic_is_added_up(cluster):
    a, b, c = cluster.nodes

    async def story():
        readers = [of("reader-a", a, ["busy"]), of("reader-b", b, ["busy", "large"]), of("reader-c", c, ["quiet"])]
        async with together(readers):
            # One more would be rounded away, next to these.
            cluster.redis.publish([("busy", "1")] * 50 + [("large", json.dumps("x" * 20_000))])
            await eventually(lambda: readers[1].heard("large"), "the large one comes")
            for reader in readers:
                await reader.settle()
            top = await whole(c, "/admin/top")
            parts = [await whole(a, "/admin/top", [name], node=name) for name in NAMES]
            row = lambda top, topic: next(one for one in top["topics"]["by_subscribers"] if one["topic"] == topic)
            assert row(top, "busy")["subscribers"] == 2 and row(top, "large")["subscribers"] == 1
            # Rates fade from one look to the next.
            both = sum(row(part, "busy")["messages_per_second"] for part in parts[:2])
            assert row(top, "busy")["messages_per_second"] == pytest.approx(both, rel=0.5) and both > 0
            assert row(top, "busy")["messages_per_second"] > row(parts[0], "busy")["messages_per_second"]
            assert row(top, "busy")["messages_per_second"] > row(parts[1], "busy")["messages_per_second"]
            assert [top["topics"][by][0]["topic"] for by in ("by_messages", "by_bytes")] == ["busy", "large"]
            leaders = [(one["subject"], one["node"], one["messages"]) for one in top["connections"]["by_messages"]]
            assert leaders == [("reader-b", "node-b", 51), ("reader-a", "node-a", 50)]
            assert [one["topic"] for one in parts[2]["topics"]["by_subscribers"]] == ["quiet"]

    asyncio.run(story())


def test_a_node_that_does_not_answer_is_named_and_the_others_are_told(cluster):
    a, b, c = cluster.nodes

    async def story():
        async with together([of("alice", a), of("alice", b), of("alice", c)]) as clients:
            assert names_in((await pages(a))[0]) == names_of(clients)
            with paused(b):
                others = sorted([*names_of(clients[:1]), *names_of(clients[2:])])
                # First it is asked in vain; once it has not answered the roll for a while, it is missed all the same.
                for _ in range(12):
                    page = await asyncio.to_thread(Operator(a).get, "/admin/sessions")
                    top = await asyncio.to_thread(Operator(a).get, "/admin/top")
                    for answer in (page, top):
                        assert "node-b" in answer["missing"] and "node-b" not in answer["nodes"], answer
                    assert page["missing"] != ["node-b"] or names_in(page["sessions"]) == others
                    await asyncio.sleep(0.5)
                assert page["missing"] == ["node-b"], "and by then it alone"
                alone = await asyncio.to_thread(Operator(a).get, "/admin/sessions", node="node-b")
                assert (alone["nodes"], alone["missing"], alone["sessions"]) == ([], ["node-b"], [])
            assert names_in((await pages(a))[0]) == names_of(clients), "then it is back"

    asyncio.run(story())


def test_who_stops_is_not_missed_and_who_dies_is(tmp_path):
    with running_cluster(tmp_path, names=NAMES) as cluster:
        a, b, c = cluster.nodes

        async def story():
            await whole(a, "/admin/sessions")
            # Its last words reach them before it goes.
            b.stop()
            c.kill()
            listed = lambda: (lambda page: (page["nodes"], page["missing"]))(Operator(a).get("/admin/sessions"))
            await eventually(lambda: listed() == (["node-a"], ["node-c"]), "node-b has said that it stops")
            c.start()
            await whole(a, "/admin/sessions", ["node-a", "node-c"])

        asyncio.run(story())


def test_a_node_that_was_never_heard_of_is_missing_where_it_is_named(cluster):
    answer = Operator(cluster.nodes[0]).get("/admin/sessions", node="node-x")
    assert (answer["nodes"], answer["missing"], answer["sessions"]) == ([], ["node-x"], [])
    assert Operator(cluster.nodes[0]).get("/admin/top", node="node-x")["missing"] == ["node-x"]


def test_without_redis_a_node_tells_its_own_part_and_whose_is_missing(tmp_path):
    with running_cluster(tmp_path, names=NAMES[:2]) as cluster:
        here, there = cluster.nodes

        async def story():
            async with together([of("alice", here), of("bob", there)]) as (alice, _):
                await whole(here, "/admin/sessions", NAMES[:2])
                cluster.redis.kill()
                await eventually(lambda: here.admin_status("/readyz") == 503, "the link is lost")
                page = await asyncio.to_thread(Operator(here).get, "/admin/sessions")
                assert (page["nodes"], page["missing"]) == (["node-a"], ["node-b"])
                assert names_in(page["sessions"]) == names_of([alice])

        asyncio.run(story())


def test_a_node_alone_knows_of_no_others(tmp_path):
    with Node("alone", tmp_path, None) as node:

        async def story():
            async with of("alice", node) as alice:
                page = Operator(node).get("/admin/sessions")
                assert (page["nodes"], page["missing"], names_in(page["sessions"])) == (["alone"], [], names_of([alice]))

        asyncio.run(story())


def test_what_is_asked_of_one_node_is_heard_by_no_other(cluster):
    """A list of a large cluster must not cost every node all of it."""
    with cluster.redis.client() as client, client.pubsub(ignore_subscribe_messages=True) as spy:
        spy.psubscribe("_causeway.*")
        spy.get_message(timeout=PATIENCE)
        asyncio.run(whole(cluster.nodes[0], "/admin/sessions", ["node-b"], node="node-b"))
        heard = []
        while message := spy.get_message(timeout=1):
            heard.append((message["channel"].decode(), json.loads(message["data"])))
        lives = {said["here"]["node"]: said["here"]["life"] for _, said in heard if "here" in said}
        kinds = {(channel, said if isinstance(said, str) else next(iter(said))) for channel, said in heard}
        assert kinds == {
            ("_causeway.control", "call"), ("_causeway.control", "here"),
            (f"_causeway.node.{lives['node-b']}", "ask"), (f"_causeway.node.{lives['node-a']}", "answer"),
        }


def test_t32_what_strangers_ask_and_answer_in_redis_changes_nothing(cluster):
    row = {"session": "0-1", "subject": "mallory", "address": "10.0.0.1", "since": 0, "subscriptions": 1, "messages": 1,
           "bytes": 1, "queued_bytes": 0}
    forged = [
        "", "{", "null", "[]", b"\xff\0", '{"ask":{}}', '{"answer":{}}', '{"answer":{"number":-1,"answer":1}}', "[" * 9_000,
        json.dumps({"ask": {"by": "not a life", "number": 1, "question": {"leaders": {"most": 1}}}}),
        json.dumps({"ask": {"by": "orders.1", "number": 1, "question": {"leaders": {"most": 1}}}}),
        json.dumps({"ask": {"by": "0" * 16, "number": 1, "question": {"sessions": {"wanted": {"role": "x"}}}}}),
        *[json.dumps({"ask": {"by": "0" * 16, "number": 1, "question": {"leaders": {"most": 10**18}}}})] * 50,
        *[json.dumps({"answer": {"number": random.getrandbits(64), "answer": {"sessions": [row]}}}) for _ in range(1000)],
        '{"answer":{"number":1,"answer":"' + "x" * (3 << 20) + '"}}', "x" * (5 << 20),
    ]

    async def story():
        async with together(crowd(cluster)) as clients:
            with cluster.redis.client() as redis:
                channels = redis.pubsub_channels("_causeway.node.*")
            assert len(channels) == len(cluster.nodes)
            for payload in forged:
                cluster.redis.publish([(channel, payload) for channel in channels])
            for node in cluster.nodes:
                told = await pages(node)
                assert names_in(told[0]) == names_of(clients) and len(told) == 1
                assert node.admin_status("/readyz") == 200 and "panicked" not in node.log()
            for client in clients:
                await client.settle()

    asyncio.run(story())


def test_t32_an_answer_by_somebody_else_is_bounded_and_names_no_other_node(cluster):
    """Whoever may listen to what nodes say to each other, and publish there, can answer first. With the shipped users only nodes may."""
    here, there = cluster.nodes[:2]
    row = {"node": "node-c", "session": "0-1", "subject": "mallory", "address": "10.0.0.1", "since": 0, "subscriptions": 1,
           "messages": 1, "bytes": 1, "queued_bytes": 0}

    async def listed(forged):
        """What is listed where this is the answer of node-b."""
        await whole(here, "/admin/sessions")
        with cluster.redis.client() as client, client.pubsub(ignore_subscribe_messages=True) as spy:
            spy.psubscribe("_causeway.node.*")
            spy.get_message(timeout=PATIENCE)
            with paused(there):
                page = asyncio.create_task(asyncio.to_thread(Operator(here).get, "/admin/sessions", limit=5))
                while "ask" not in (said := json.loads((await asyncio.to_thread(spy.get_message, timeout=PATIENCE))["data"])):
                    pass
                answer = {"answer": {"number": said["ask"]["number"], "answer": forged}}
                client.publish(f"_causeway.node.{said['ask']['by']}", json.dumps(answer))
                return await page

    async def story():
        too_many = {"sessions": [row] * 50, "next": {"worker": 1, "place": 0}}
        # On a starved machine the forger may come too late.
        while not (page := await listed(too_many))["sessions"]:
            assert "node-b" in page["missing"]
        assert [one["node"] for one in page["sessions"]] == ["node-b"] * 5
        for not_understood in ({"sessions": [row], "next": {"worker": 0, "place": 0}}, {"sessions": [row | {"session": "x"}]}, {}, None):
            page = await listed(not_understood)
            assert page["sessions"] == [] and "node-b" in page["missing"], not_understood

    asyncio.run(story())


def test_clients_reach_no_node(cluster):
    a = cluster.nodes[0]
    token = tokens.token(subscribe=["**", "_causeway.*", "_causeway.**"], publish=["**", "_causeway.*", "_causeway.**"])

    async def story():
        with cluster.redis.client() as redis:
            topics = [channel.decode() for channel in redis.pubsub_channels("_causeway.node.*")]
        async with Subscriber(a.connect_url(), ["orders.1"], token) as client:
            reply = await client.command("subscribe", topics=topics)
            assert [refused["code"] for refused in reply["refused"]] == ["forbidden"] * len(topics)
            for topic in topics:
                assert (await client.command("publish", topic=topic, data={}))["code"] == "forbidden"

    asyncio.run(story())
