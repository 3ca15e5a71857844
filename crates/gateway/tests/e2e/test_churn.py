"""T26: clients that subscribe and unsubscribe as fast as they may cost Redis no more commands than they send, mostly far fewer."""

import asyncio
import random
import time

import pytest
from support.process import eventually
from support.remains import OWN_TOPICS
from support.subscribers import Subscriber, together

SETTINGS = {"workers": 1, "limits": {"commands_per_second": 100_000, "commands_burst": 100_000}}
# Of every node: on which it hears its canaries and of revoked tokens.


def calls(redis):
    """How many commands of each kind Redis has carried out for all nodes."""
    with redis.client() as client:
        stats = client.info("commandstats")
    return {name: stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("subscribe", "unsubscribe")}


async def churning(cluster, clients, churn):
    """Lets `clients` churn beside one who listens; what Redis was asked meanwhile, in commands of each kind."""
    node = cluster.nodes[0]
    async with Subscriber(node.connect_url(), ["quiet"]) as neighbour:
        async with together([Subscriber(node.connect_url()) for _ in range(clients)]) as restless:
            before = calls(cluster.redis)
            running = asyncio.gather(*(churn(client) for client in restless))
            published = 0
            while not running.done():
                await asyncio.to_thread(cluster.publish, "quiet", published)
                published += 1
                await asyncio.wait([running], timeout=0.05)
            await running
            only_theirs = lambda: node.gauge("causeway_redis_topics") == OWN_TOPICS + 1
            await eventually(only_theirs, "what is not wanted any more is given up")
            after = calls(cluster.redis)
        await eventually(lambda: neighbour.heard("quiet") == list(range(published)), "the neighbour heard everything")
        assert neighbour.pushes == [] and neighbour.open
    return {kind: after[kind] - before[kind] for kind in after}


def test_t26_a_topic_that_is_wanted_on_and_off_is_asked_for_once(cluster):
    """Ten thousand times, and given up a second after the last; on a slow machine somewhat more often."""

    async def churn(client):
        for _ in range(2_000):
            assert (await client.command("subscribe", topics=["restless"]))["topics"] == ["restless"]
            await client.command("unsubscribe", topics=["restless"])

    began = time.monotonic()
    asked = asyncio.run(churning(cluster, 5, churn))
    assert max(asked.values()) <= 1 + (time.monotonic() - began), asked


@pytest.mark.parametrize(("clients", "rounds", "at_once"), [(10, 100, 100), (50, 40, 1)])
def test_t26_random_topics_are_asked_for_together(cluster, clients, rounds, at_once):
    """A hundred thousand topics that nobody else wants, or single ones."""
    chance = random.Random(26)

    async def churn(client):
        for _ in range(rounds):
            topics = [f"restless.{chance.getrandbits(64):x}" for _ in range(at_once)]
            assert len((await client.command("subscribe", topics=topics))["topics"]) == at_once
            await client.command("unsubscribe", topics=topics)

    asked = asyncio.run(churning(cluster, clients, churn))
    print(f"{clients * rounds} subscribes of {at_once} topics: {asked}")
    assert all(0 < count <= clients * rounds for count in asked.values()), asked
