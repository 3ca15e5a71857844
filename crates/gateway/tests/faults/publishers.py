"""Those who publish while a fault is on: a service that speaks to Redis itself, and a client that asks its node.

What was not answered may have been carried out or not, now or later. So whoever has to begin anew has a new name: what it
says then stands in no order with what it said before.
"""

import asyncio
import contextlib
import itertools
import json
import time

from audit import Publication
from support import tokens
from support.subscribers import Subscriber
from websockets.exceptions import ConnectionClosed, InvalidHandshake

# A service does not wait longer for Redis.
ANSWER_MAX = 2.0
TRY_AGAIN_AFTER = 0.05


class Publisher:
    """Publishes to each of its topics in turn, until it is over or, with `rounds`, has been round so many times.

    Everything is written down in `publications`. A payload has `payload_bytes`, unless it needs more.
    """

    def __init__(self, name, topics, publications, pause, payload_bytes=0, rounds=None):
        self.name = name
        self.topics = topics
        self.publications = publications
        self.pause = pause
        self.payload_bytes = payload_bytes
        self.rounds = itertools.count() if rounds is None else iter(range(rounds))
        self.names = (f"{name}.{life}" for life in itertools.count(1))
        self.over = False

    async def run(self):
        while not self.over:
            numbers = dict.fromkeys(self.topics, 0)
            name = next(self.names)
            with contextlib.suppress(OSError, EOFError, TimeoutError, ConnectionClosed, InvalidHandshake):
                async with self.lasting() as publish:
                    for topic in (topic for _ in self.rounds for topic in self.topics):
                        if self.over:
                            return
                        await self._one(publish, Publication(topic, name, numbers[topic], time.monotonic()))
                        numbers[topic] += 1
                        await asyncio.sleep(self.pause)
                    return
            await asyncio.sleep(TRY_AGAIN_AFTER)

    async def _one(self, publish, publication):
        self.publications.append(publication)
        data = {"by": publication.publisher, "n": publication.number, "at": publication.began, "padding": ""}
        data["padding"] = "." * (self.payload_bytes - len(json.dumps(data)))
        publication.outcome = await publish(publication.topic, data)
        publication.ended = time.monotonic()
        if publication.outcome == "unknown":
            raise EOFError

    def lasting(self):
        """A way to publish, as long as it lasts: a function of topic and data that returns the outcome."""
        raise NotImplementedError


class Service(Publisher):
    """Speaks RESP to Redis: what it sends is sent once, and nothing is tried again behind its back."""

    def __init__(self, where, *more, name="service", **options):
        super().__init__(name, *more, **options)
        self.where = where  # a function, because Redis may move

    @contextlib.asynccontextmanager
    async def lasting(self):
        host, _, port = self.where().rpartition(":")
        async with asyncio.timeout(ANSWER_MAX):
            reader, writer = await asyncio.open_connection(host, int(port))

        async def publish(topic, data):
            words = [b"PUBLISH", topic.encode(), json.dumps(data).encode()]
            writer.write(b"*3\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words))
            async with asyncio.timeout(ANSWER_MAX):
                answer = await reader.readline()
            return {b":": "accepted", b"-": "refused"}.get(answer[:1], "unknown")

        try:
            yield publish
        finally:
            writer.close()


class Chatter(Publisher):
    """Publishes with commands, over a socket of its own that may be at another node each time."""

    def __init__(self, url, *more, name="client", **options):
        super().__init__(name, *more, **options)
        self.url = url

    @contextlib.asynccontextmanager
    async def lasting(self):
        token = tokens.token(sub="chatter", publish=["**"])
        async with Subscriber(self.url, token=token) as client:

            async def publish(topic, data):
                reply = await client.command("publish", topic=topic, data=data)
                if reply["op"] == "published":
                    return "accepted"
                assert reply["code"] == "broker_unavailable" and reply["retryable"], reply
                return "unknown"

            yield publish
