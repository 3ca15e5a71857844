"""Connections that go wrong: good ones, changed at random, and the same way again for the same seed and number."""

import asyncio
import errno
import json
import random
import socket

from .process import PATIENCE
from .raw_client import CLOSE, FIN, PING, TEXT, close, frame, upgrade_head

# In seconds: longer than a node waits for the rest of a head, and for a client that has been told to close.
PATIENCE_WITH_ONE = 20

# How it shows that the node has refused and gone, with something of ours unread.
GONE = {errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN}

# Bytes and numbers at the edges of what formats can say.
EDGES = [b"\0", b"\x7f", b"\x80", b"\xff", b"\xff\xff", b"\x7f\xff", b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\0" * 8,
         b"\r\n", b"\r\n\r\n", b"\n", b" ", b",", b"\xc3", b"\xed\xa0\x80", b'"', b"{", b"[" * 200]


class Mutated:
    """One connection: what it writes, in which pieces, and how it ends."""

    def __init__(self, seed, number, where, token):
        chance = random.Random(f"{seed}/{number}")
        head = upgrade_head(where, headers=[*_headers(chance, token)])
        # Most of them get in, so that what follows is read as frames; and some get past the frames.
        change = chance.choice(["frames", "frames", "messages", "head", "all"])
        frames = b"".join(_frames(chance, change == "messages"))
        if change == "messages":
            written = head + frames
        elif change == "head":
            written = _mutated(chance, head) + frames
        elif change == "frames":
            written = head + _mutated(chance, frames)
        else:
            written = _mutated(chance, head + frames)
        self.pieces = _pieces(chance, written)
        self.ending = chance.choice(["half-close", "half-close", "leave", "reset"])

    async def play(self, where, source):
        """Ends when the node has ended the connection, or this side has; never by patience alone."""
        loop = asyncio.get_running_loop()
        host, port = where.split(":")
        with socket.socket() as client:
            client.setblocking(False)
            client.bind((source, 0))
            await loop.sock_connect(client, (host, int(port)))
            try:
                for piece in self.pieces:
                    await loop.sock_sendall(client, piece)
                if self.ending == "half-close":
                    client.shutdown(socket.SHUT_WR)
                    async with asyncio.timeout(PATIENCE_WITH_ONE):
                        while await loop.sock_recv(client, 65536):
                            pass
                elif self.ending == "reset":
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            except OSError as error:
                if error.errno not in GONE:
                    raise


async def play_all(seed, numbers, where, token, sources, at_once=50):
    """All of them, some at a time. Each of `sources` is an address to come from: one alone has too few ports."""
    some = asyncio.Semaphore(at_once)

    async def play(number):
        async with some:
            try:
                await Mutated(seed, number, where, token).play(where, sources[number % len(sources)])
            except Exception as error:
                raise AssertionError(f"mutated connection {number} of seed {seed}: {error!r}") from error

    async with asyncio.timeout(PATIENCE + len(numbers) / 50), asyncio.TaskGroup() as group:
        for number in numbers:
            await some.acquire()
            some.release()
            group.create_task(play(number))


def _headers(chance, token):
    yield "Upgrade", "websocket"
    yield "Connection", "Upgrade"
    yield "Sec-WebSocket-Version", "13"
    yield "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="
    if chance.random() < 0.5:
        yield "Authorization", f"Bearer {token}"
    else:
        yield "Sec-WebSocket-Protocol", f"causeway.v1, causeway.bearer.{token}"
    if chance.random() < 0.2:
        yield "X-Forwarded-For", "198.51.100.7, 203.0.113.9"


def _frames(chance, are_messages_mutated):
    for number in range(chance.randrange(1, 8)):
        topic = f"mutated.{chance.randrange(20)}"
        command = chance.choice([
            {"op": "subscribe", "topics": [topic, f"{topic}.more"]},
            {"op": "unsubscribe", "topics": [topic]},
            {"op": "publish", "topic": topic, "data": {"n": number, "text": "x" * chance.choice([1, 100, 200])}},
            {"op": "authenticate", "token": "a.b.c"},
            {"op": "ping"},
        ])
        message = json.dumps({"id": number, **command}).encode()
        if are_messages_mutated:
            message = _mutated(chance, message)
        kind = chance.randrange(6)
        if kind == 0:
            yield frame(FIN | PING, message[:125])
        elif kind == 1:
            at = chance.randrange(len(message) + 1)
            yield frame(TEXT, message[:at]) + frame(FIN, message[at:])
        else:
            yield frame(FIN | TEXT, message)
    if chance.random() < 0.5:
        yield close(1000) if chance.random() < 0.8 else frame(FIN | CLOSE)


def _mutated(chance, good):
    changed = bytearray(good)
    for _ in range(chance.randrange(1, 5)):
        _mutate(chance, changed)
    return bytes(changed)


def _mutate(chance, changed):
    at = chance.randrange(len(changed) + 1)
    end = min(len(changed), at + chance.choice([1, 1, 2, 4, 16, 64, 256]))
    kind = chance.randrange(7)
    if kind == 0:
        changed[at:end] = b""
    elif kind == 1:
        changed[at:at] = changed[at:end]
    elif kind == 2:
        changed[at:at] = chance.randbytes(chance.choice([1, 2, 8, 300]))
    elif kind == 3:
        changed[at:end] = chance.randbytes(end - at)
    elif kind == 4:
        changed[at:at + chance.randrange(9)] = chance.choice(EDGES)
    elif kind == 5 and at < len(changed):
        changed[at] ^= 1 << chance.randrange(8)
    else:
        del changed[at:]


def _pieces(chance, written):
    cuts = sorted(chance.randrange(len(written) + 1) for _ in range(chance.choice([0, 0, 1, 3])))
    return [written[start:end] for start, end in zip([0, *cuts], [*cuts, len(written)]) if start < end]
