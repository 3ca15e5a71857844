"""A TCP proxy that spoils what passes it, each way separately: delays, throttles, breaks into pieces, withholds, half-closes, cuts.

It lives in a thread of its own, so that a story may use it with or without a loop. Whatever is set holds at once, for the
links there are and for those to come. Bytes of one way are never reordered, and none is lost while its link stands: that is
what TCP promises, also when the network is bad.
"""

import asyncio
import contextlib
import functools
import random
import socket
import threading

from .process import PATIENCE, own_address

_READ_BYTES = 1 << 14
# What may be on its way in one direction of one link. Beyond it nothing is read, and the sender has to wait.
_CHUNKS_MAX = 32


class Way:
    """One direction of every link."""

    def __init__(self, seed, loop):
        self.delay = 0.0  # seconds that everything takes longer
        self.jitter = 0.0  # seconds that it may take longer still, by chance
        self.bytes_per_second = None
        self.piece_bytes_max = None  # where set, everything is written in pieces of up to so many bytes, by chance
        self.held = b""  # read since `hold`, and not yet passed on
        self._random = random.Random(seed)
        self._loop = loop
        self._flowing = asyncio.Event()
        self._flowing.set()

    def hold(self):
        """From now on nothing is passed on: a network that swallows everything and says nothing."""
        _within(self._loop, self._flowing.clear)

    def release(self):
        """What was held is passed on, as when a network works again."""
        self.held = b""
        _within(self._loop, self._flowing.set)

    def _due(self):
        return self._loop.time() + self.delay + self._random.uniform(0, self.jitter)

    def _pieces(self, said):
        while said:
            length = self._random.randint(1, self.piece_bytes_max) if self.piece_bytes_max else len(said)
            yield said[:length]
            said = said[length:]

    def _read(self, said):
        if not self._flowing.is_set():
            self.held += said

    async def _pass(self, said, due, sink):
        await asyncio.sleep(due - self._loop.time())
        for piece in self._pieces(said):
            if self.bytes_per_second:
                await asyncio.sleep(len(piece) / self.bytes_per_second)
            await self._flowing.wait()
            await self._loop.sock_sendall(sink, piece)


class FaultProxy:
    """In front of a server, `address:port`. `forth` is the way to it, `back` the way from it. The same seed spoils alike."""

    def __init__(self, server, seed=0):
        self.server = server
        self._loop = asyncio.new_event_loop()
        self.forth = Way(f"forth {seed}", self._loop)
        self.back = Way(f"back {seed}", self._loop)
        self._links = set()
        self._listener = socket.create_server((own_address(), 0))
        self._listener.setblocking(False)
        self.where = "{}:{}".format(*self._listener.getsockname())
        self.url = f"redis://{self.where}"

    def point_at(self, server):
        """Links to come lead there; those there are stay where they are until they are cut."""
        self.server = server

    def hold(self):
        self.forth.hold()
        self.back.hold()

    def release(self):
        self.forth.release()
        self.back.release()

    def cut(self):
        """Resets every link there is, at both ends. Returns their number."""
        return self._on_all(_Link.reset)

    def half_close(self, way):
        """Ends this way of every link there is with a FIN; what is said there later goes nowhere. The other way stays."""
        return self._on_all(functools.partial(_Link.half_close, way=way))

    @property
    def links(self):
        return len(self._links)

    def _on_all(self, act):
        def on_all():
            links = list(self._links)
            for link in links:
                act(link)
            return len(links)

        return _within(self._loop, on_all)

    def __enter__(self):
        self._accepting = self._loop.create_task(self._accept())
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._listener.close()

    async def _accept(self):
        while True:
            client, _ = await self._loop.sock_accept(self._listener)
            link = _Link(self, client)
            self._links.add(link)
            link.life = self._loop.create_task(link.live())

    async def _end(self):
        self._accepting.cancel()
        lives = [link.life for link in self._links]
        for life in lives:
            life.cancel()
        await asyncio.gather(self._accepting, *lives, return_exceptions=True)


class _Link:
    def __init__(self, proxy, client):
        self.proxy = proxy
        self.client = client
        self.server = socket.socket()
        self.ways = {}  # way → the task that carries it
        for end in (self.client, self.server):
            end.setblocking(False)
            # Pieces are to arrive as pieces.
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def live(self):
        try:
            host, _, port = self.proxy.server.rpartition(":")
            await asyncio.get_running_loop().sock_connect(self.server, (host, int(port)))
            self.ways = {
                self.proxy.forth: asyncio.create_task(self._carry(self.proxy.forth, self.client, self.server)),
                self.proxy.back: asyncio.create_task(self._carry(self.proxy.back, self.server, self.client)),
            }
            await asyncio.gather(*self.ways.values())
        except OSError:
            self._linger_not()  # whoever is left hears it as a reset
        finally:
            for task in self.ways.values():
                task.cancel()
            await asyncio.gather(*self.ways.values(), return_exceptions=True)
            self.client.close()
            self.server.close()
            self.proxy._links.discard(self)

    def reset(self):
        self._linger_not()
        self.life.cancel()

    def half_close(self, way):
        self.ways[way].cancel()

    def _linger_not(self):
        for end in (self.client, self.server):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    async def _carry(self, way, source, sink):
        """Ends with a FIN when its source has ended, or when it is cancelled alone."""
        queue = asyncio.Queue(_CHUNKS_MAX)
        reading = asyncio.create_task(self._read(way, source, queue))
        try:
            while True:
                due, said = await queue.get()
                if not said:
                    break
                await way._pass(said, due, sink)
            await reading  # raises what ended it, unless that was a FIN
        except asyncio.CancelledError:
            if self.life.cancelling():
                raise
        finally:
            reading.cancel()
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    async def _read(self, way, source, queue):
        said = b"first"
        try:
            while said:
                said = await asyncio.get_running_loop().sock_recv(source, _READ_BYTES)
                way._read(said)
                await queue.put((way._due(), said))
        except OSError:
            await queue.put((0, b""))
            raise


def _within(loop, act):
    """Does it in the proxy's own thread; it has been done when this returns."""

    async def acted():
        return act()

    if not loop.is_running():
        return act()
    return asyncio.run_coroutine_threadsafe(acted(), loop).result(PATIENCE)
