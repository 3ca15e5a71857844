"""Clients as frontends write them: Python `websockets` here, npm `ws` in subscribers.mjs."""

import asyncio
import contextlib
import itertools
import json
import pathlib
import random

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from . import tokens
from .process import PATIENCE, eventually

SCRIPT = pathlib.Path(__file__).parents[1] / "subscribers.mjs"


class Subscriber:
    """One WebSocket client that keeps what it hears.

    Its token travels as a subprotocol, as browsers must, or with `header` as others can. `source` is the address it comes
    from. With `returns`, it reconnects and subscribes again whenever its socket ends, as a browser's client would: when a
    `drain` said so, otherwise at once. It offers `compression`, as the library does by itself, unless that is None.
    """

    def __init__(self, url, topics=(), token=None, *, trust=None, source=None, header=False,
                 headers=None, returns=False, compression="deflate"):
        self.url = url
        self.topics = list(topics)
        self.token = token or tokens.token()
        self.options = {"ssl": trust, "proxy": None, "compression": compression, "additional_headers": dict(headers or {})}
        if header:
            self.options["additional_headers"]["Authorization"] = f"Bearer {self.token}"
            self.options["subprotocols"] = ["causeway.v1"]
        else:
            self.options["subprotocols"] = ["causeway.v1", f"causeway.bearer.{self.token}"]
        if source:
            self.options["local_addr"] = (source, 0)
        self.returns = returns
        self.welcome = None
        self.messages = {}  # topic → payloads in order of arrival
        self.pushes = []  # the rest: pushes, and replies that no `command` waits for
        self.frames = []  # all of it as it came
        self.closes = []  # the code of every socket that ended
        self.comes_back_at = 0  # of the loop's clock, as the latest `drain` said
        self.confirmations = 0  # of `topics`, one for each socket
        self._ids = itertools.count(1)
        self._topics_id = next(self._ids)
        self._replies = {}
        self._task = None

    async def __aenter__(self):
        await self._open()
        self._task = asyncio.create_task(self._live())
        if self.topics:
            await eventually(lambda: self.confirmations or self._task.done(), "the subscription is confirmed")
            assert self.subscribed, f"closed before it was confirmed: {self.closes}"
        await eventually(lambda: self.welcome or self._task.done(), "the welcome arrives")
        return self

    async def __aexit__(self, *_):
        self.returns = False
        await self.socket.close()
        await self._task

    @property
    def subscribed(self):
        """The present socket is open and has its topics."""
        return self.confirmations == len(self.closes) + 1

    @property
    def open(self):
        return not self.closes

    def pushed(self, op):
        return [push for push in self.pushes if push["op"] == op]

    def heard(self, topic):
        return self.messages.get(topic, [])

    async def command(self, op, **fields):
        """Sends a command and returns its reply."""
        number = next(self._ids)
        reply = self._replies[number] = asyncio.get_running_loop().create_future()
        await self.socket.send(json.dumps({"id": number, "op": op, **fields}))
        async with asyncio.timeout(PATIENCE):
            return await reply

    async def settle(self):
        """Afterwards, everything that the node had sent has been heard: a socket keeps its order."""
        assert (await self.command("ping"))["op"] == "pong"

    async def closed(self, seconds=PATIENCE):
        """The close code of the first socket that ended."""
        await eventually(lambda: self.closes, "the socket is closed", seconds)
        return self.closes[0]

    async def _open(self):
        self.socket = await connect(self.url, **self.options)
        assert self.socket.subprotocol == "causeway.v1"

    async def _live(self):
        while True:
            await self._read()
            self.closes.append(self.socket.close_code)
            if not self.returns:
                break
            await asyncio.sleep(self.comes_back_at - asyncio.get_running_loop().time())
            await self._open_again()
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(ConnectionError(f"closed with {self.closes[-1]}"))
                reply.exception()  # nobody may be waiting for it any more

    async def _open_again(self):
        while True:
            try:
                return await self._open()
            except (OSError, InvalidHandshake):
                await asyncio.sleep(random.uniform(0.01, 0.1))

    async def _read(self):
        try:
            if self.topics:
                ask = {"id": self._topics_id, "op": "subscribe", "topics": self.topics}
                await self.socket.send(json.dumps(ask))
            async for frame in self.socket:
                self._take(frame)
        except ConnectionClosed:
            pass  # the code is kept by the caller

    def _take(self, frame):
        self.frames.append(frame)
        told = json.loads(frame)
        if told["op"] == "message":
            self.messages.setdefault(told["topic"], []).append(told["data"])
        elif self.topics and told.get("id") == self._topics_id:
            assert told["op"] == "subscribed" and sorted(told["topics"]) == sorted(self.topics), told
            self.confirmations += 1
        elif told.get("id") in self._replies:
            self._replies.pop(told["id"]).set_result(told)
        elif told["op"] == "welcome":
            self.welcome = told
        else:
            self.pushes.append(told)
            if told["op"] == "drain":
                self.comes_back_at = asyncio.get_running_loop().time() + told["reconnect_in_ms"] / 1000


@contextlib.asynccontextmanager
async def together(subscribers):
    """All of them, opened some at a time so that the listener's backlog is no part of the story."""
    some = asyncio.Semaphore(20)
    async with contextlib.AsyncExitStack() as stack:

        async def enter(subscriber):
            async with some:
                await stack.enter_async_context(subscriber)

        await asyncio.gather(*map(enter, subscribers))
        yield subscribers


class WsSubscribers:
    """Several npm `ws` clients in one Node.js process; each of `clients` is {"url": …, "topics": […]}, and with
    "compression": false it offers none."""

    def __init__(self, clients, certificate):
        self.job = {"clients": clients, "token": tokens.token(), "certificate": str(certificate)}

    async def __aenter__(self):
        self.child = await asyncio.create_subprocess_exec(
            "node", str(SCRIPT), json.dumps(self.job),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**26,
        )
        assert await self._told() == {"subscribed": len(self.job["clients"])}
        return self

    async def __aexit__(self, *_):
        self.child.stdin.close()
        await self.child.wait()

    async def report(self, messages):
        """What each client has heard, once all together have heard that many messages (and whatever came with them)."""
        self.child.stdin.write(f"{messages}\n".encode())
        return await self._told()

    async def _told(self):
        async with asyncio.timeout(PATIENCE):
            line = await self.child.stdout.readline()
        assert line, "the Node.js subscribers ended; see stderr"
        return json.loads(line)
