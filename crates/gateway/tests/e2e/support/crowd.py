"""Two hundred subscribers over fifty topics, each of them on two."""

import asyncio

from .process import eventually
from .subscribers import Subscriber

TOPICS = [f"orders.{number}" for number in range(50)]
SIZE = 200


def topics_of(member):
    """Never the same topic twice: 6 × member + 13 is odd, and no odd number is a multiple of 50."""
    return [TOPICS[member % 50], TOPICS[(7 * member + 13) % 50]]


def member(number, nginx, **options):
    """Every other member over wss://, every third with its token in a header."""
    tls = number % 2 == 1
    trust = nginx.trust() if tls else None
    return Subscriber(
        nginx.connect_url(tls), topics_of(number), trust=trust, header=number % 3 == 0, **options
    )


def crowd(nginx, **options):
    return [member(number, nginx, **options) for number in range(SIZE)]


async def publish_to_all(redis, payload):
    """One PUBLISH to each topic, away from the loop that the subscribers read in."""
    await asyncio.to_thread(redis.publish, [(topic, payload) for topic in TOPICS])


async def shares(nodes):
    """How many of a whole crowd each node holds. The gauges follow the sockets with a little delay."""

    def counted():
        held = [node.gauge("causeway_connections") for node in nodes]
        return held if sum(held) == SIZE else None

    return await eventually(counted, f"the nodes count {SIZE} connections")
