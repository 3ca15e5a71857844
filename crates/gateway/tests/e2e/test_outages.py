"""What clients notice when a part of the whole goes away: as little as possible, and never in silence."""

import asyncio
import collections
import json
import signal

import pytest
from support.cluster import ask
from support.crowd import SIZE, crowd, publish_to_all, shares
from support.process import eventually
from support.requests import HANDSHAKE, bearer
from support.subscribers import together


def test_the_clients_of_a_killed_node_come_back_to_the_other(doomed_cluster):
    cluster = doomed_cluster
    survivor, victim = cluster.nodes
    rounds = 60

    async def publish_while_the_node_dies():
        for number in range(rounds):
            if number == 20:
                await asyncio.to_thread(victim.kill)
            await publish_to_all(cluster.redis, str(number))

    async def story():
        async with together(crowd(cluster.nginx, returns=True)) as subscribers:
            _, held = await shares(cluster.nodes)
            assert 0 < held < SIZE

            await publish_while_the_node_dies()
            await eventually(lambda: all(one.subscribed for one in subscribers), "all have come back", 20)
            await publish_to_all(cluster.redis, '"back"')
            await everyone_hears_last(subscribers, "back")

            returned = [one for one in subscribers if one.closes]
            assert len(returned) == held
            assert await shares([survivor]) == [SIZE]
            for one in returned:
                assert one.closes == [1006]  # the socket ended without a Close frame
                for topic in one.topics:
                    *numbers, last = one.heard(topic)
                    assert last == "back" and numbers == sorted(set(numbers)), numbers
            for one in subscribers:
                if one not in returned:
                    assert one.messages == {topic: [*range(rounds), "back"] for topic in one.topics}
                    assert one.pushes == []

    asyncio.run(story())


@pytest.mark.parametrize("down", [0.4, 20])
def test_sockets_outlast_redis_and_every_subscription_has_one_gap(doomed_cluster, down):
    redis = doomed_cluster.redis

    async def story():
        async with together(crowd(doomed_cluster.nginx)) as subscribers:
            await publish_to_all(redis, '"before"')
            await everyone_hears_last(subscribers, "before")

            redis.kill()
            await asyncio.sleep(down)  # this is the outage itself
            await asyncio.to_thread(redis.start)
            await eventually(
                lambda: all(len(one.pushed("gap")) >= len(one.topics) for one in subscribers),
                "a gap for every subscription", 20,
            )
            await publish_to_all(redis, '"after"')
            await everyone_hears_last(subscribers, "after")
            for one in subscribers:
                await one.settle()

            for one in subscribers:
                assert one.open
                assert one.messages == {topic: ["before", "after"] for topic in one.topics}
                gaps = collections.Counter((gap["op"], gap["topic"], gap["reason"]) for gap in one.pushes)
                assert gaps == collections.Counter(("gap", topic, "broker_lost") for topic in one.topics)
                assert all(gap["lasted_ms"] >= down * 900 for gap in one.pushes)

    asyncio.run(story())


def test_sockets_outlast_a_reload_of_nginx(cluster):
    async def story():
        async with together(crowd(cluster.nginx)) as subscribers:
            await asyncio.to_thread(cluster.nginx.reload)
            async with together(crowd(cluster.nginx)[:20]) as newcomers:
                await publish_to_all(cluster.redis, '"reloaded"')
                await everyone_hears_last([*subscribers, *newcomers], "reloaded")
            for one in subscribers:
                await one.settle()
                assert one.open and one.pushes == []
                assert one.messages == {topic: ["reloaded"] for topic in one.topics}

    asyncio.run(story())


def test_a_drained_node_tells_everyone_and_exits_well(doomed_cluster):
    cluster = doomed_cluster
    leaving, staying = cluster.nodes

    def refused_upgrade():
        status, headers, body = ask(leaving.public, "GET", "/v1/connect", {**HANDSHAKE, **bearer()})
        return status == 503 and (headers, json.loads(body))

    async def story():
        async with together(crowd(cluster.nginx, returns=True)) as subscribers:
            held, _ = await shares(cluster.nodes)
            assert 0 < held < SIZE

            leaving.child.send_signal(signal.SIGTERM)
            await eventually(lambda: leaving.admin_status("/readyz") == 503, "it is not ready any more")
            headers, refusal = await eventually(refused_upgrade, "it refuses new clients")
            assert int(headers["Retry-After"]) > 0 and refusal["code"] and refusal["message"]
            verdicts = [ask(cluster.nginx.plain, "GET", "/v1/connect", bearer())[0] for _ in range(6)]
            assert verdicts == [204] * 6, "nginx goes on to the other node"
            moved_on = 'upstream_status="503, 204"'
            await eventually(lambda: moved_on in cluster.nginx.access_log.read_text(), "the log names both")

            await eventually(lambda: leaving.child.poll() is not None, "it has exited")
            assert leaving.child.returncode == 0
            await eventually(lambda: all(one.subscribed for one in subscribers), "all have come back", 20)
            assert await shares([staying]) == [SIZE]
            await publish_to_all(cluster.redis, '"back"')
            await everyone_hears_last(subscribers, "back")

            told = [one for one in subscribers if one.pushes]
            assert len(told) == held
            for one in told:
                (drain,) = one.pushes
                assert drain["op"] == "drain" and drain["reconnect_in_ms"] >= 0
                assert one.closes == [1012]
            assert all(one.open for one in subscribers if one not in told)

    asyncio.run(story())


async def everyone_hears_last(subscribers, payload):
    await eventually(
        lambda: all(one.heard(topic)[-1:] == [payload] for one in subscribers for topic in one.topics),
        f"everyone hears {payload!r}", 20,
    )
