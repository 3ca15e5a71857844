"""Clients that mean harm, each in a way of its own, again and again until they are told to stop.

A process of its own, so that its work is not taken for the node's: `python -m support.hostile ADDRESS:PORT TOKEN SEED COUNT`
ends when its stdin does, and says then how often each kind began and how often the node ended it.
"""

import asyncio
import collections
import contextlib
import json
import random
import socket
import sys

from .process import own_address
from .raw_client import FIN, PING, TEXT, frame, header, text, upgrade_head
from .requests import HANDSHAKE, bearer

PAUSE = 0.05  # between one attempt of a client and its next, in seconds
HOLD = 4.0  # how long one that waits does so at most


class Hostile:
    """One client. `began` and `cut` count its kind's attempts, and those that the node has ended."""

    def __init__(self, where, source, token, chance, began, cut):
        self.where, self.source, self.token = where, source, token
        self.chance, self.began, self.cut = chance, began, cut
        self.kind = chance.choice(list(KINDS))

    async def live(self):
        while True:
            with contextlib.suppress(OSError, asyncio.TimeoutError), socket.socket() as self.socket:
                self.socket.setblocking(False)
                if self.kind == "never reads":
                    self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                self.socket.bind((self.source, 0))
                host, port = self.where.split(":")
                await asyncio.get_running_loop().sock_connect(self.socket, (host, int(port)))
                self.began[self.kind] += 1
                async with asyncio.timeout(2 * HOLD):
                    await KINDS[self.kind](self)
            await asyncio.sleep(self.chance.uniform(0, 2 * PAUSE))

    async def send(self, data):
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def upgrade(self):
        await self.send(upgrade_head(self.where, HANDSHAKE | bearer(self.token)))

    async def until_cut(self):
        """Reads until the node ends it, one way or the other."""
        try:
            while await asyncio.get_running_loop().sock_recv(self.socket, 65536):
                pass
        except ConnectionError:
            pass
        self.cut[self.kind] += 1

    async def send_until_cut(self, data):
        """A flood; whoever is cut while writing has been cut as well."""
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(self.until_cut())
            with contextlib.suppress(OSError):
                while not reading.done():
                    await self.send(data)
                    await asyncio.sleep(0)

    async def never_reads(self):
        await self.upgrade()
        await self.send(text('{"id":1,"op":"subscribe","topics":["flood"]}'))
        await asyncio.sleep(HOLD)

    async def sends_tiny_fragments(self):
        await self.upgrade()
        await self.send_until_cut(FRAGMENTS)

    async def floods_with_pings(self):
        await self.upgrade()
        await self.send_until_cut(PINGS)

    async def announces_too_much(self):
        await self.upgrade()
        await self.send(header(FIN | TEXT, 1 << 62) + bytes(1000))
        await self.until_cut()

    async def never_ends_its_head(self):
        await self.send(b"GET /v1/connect HTTP/1.1\r\nHost: slow\r\nX-")
        await self.until_cut()

    async def sends_oversize_headers(self):
        with contextlib.suppress(ConnectionError):
            await self.send(upgrade_head(self.where, {"X": "x" * 200_000}))
        await self.until_cut()

    async def churns(self):
        await self.upgrade()
        topics = [f"churn.{self.chance.getrandbits(64):x}" for _ in range(50)]
        on_and_off = (json.dumps({"id": 1, "op": op, "topics": topics}) for op in ("subscribe", "unsubscribe"))
        await self.send_until_cut(10 * b"".join(map(text, on_and_off)))


KINDS = {
    "never reads": Hostile.never_reads,
    "tiny fragments": Hostile.sends_tiny_fragments,
    "ping flood": Hostile.floods_with_pings,
    "too much announced": Hostile.announces_too_much,
    "half-open handshake": Hostile.never_ends_its_head,
    "oversize headers": Hostile.sends_oversize_headers,
    "subscription churn": Hostile.churns,
}
FRAGMENTS = frame(TEXT, b"a") + frame(0, b"a") * 8192
PINGS = frame(FIN | PING) * 8192


async def main(where, token, seed, count):
    chance = random.Random(seed)
    began, cut = collections.Counter(), collections.Counter()
    # One address alone has too few ports.
    sources = [own_address() for _ in range(8)]
    crowd = [Hostile(where, sources[number % 8], token, chance, began, cut) for number in range(count)]
    tasks = [asyncio.create_task(hostile.live()) for hostile in crowd]
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        assert not task.done(), task.exception()
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    print(json.dumps({kind: [began[kind], cut[kind]] for kind in KINDS}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4], int(sys.argv[4])))
