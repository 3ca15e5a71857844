"""The fault proxy does to a link what it says, and nothing else: a story about a fault proves little with a fault that is none."""

import contextlib
import socket
import threading
import time

import pytest
from support.fault_proxy import FaultProxy, Way
from support.process import PATIENCE, own_address, until


class Echo:
    """Says back what it hears; a FIN, too."""

    def __enter__(self):
        self.listener = socket.create_server((own_address(), 0))
        self.where = "{}:{}".format(*self.listener.getsockname())
        self.ends = []  # how each connection ended
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=self.listener.accept()[:1], daemon=True).start()

    def _serve(self, client):
        try:
            with client:
                while said := client.recv(65536):
                    client.sendall(said)
            self.ends.append("end")
        except OSError:
            self.ends.append("reset")


@pytest.fixture
def echo():
    with Echo() as echo:
        yield echo


@pytest.fixture
def proxy(echo):
    with FaultProxy(echo.where) as proxy:
        yield proxy


def link(proxy):
    host, port = proxy.where.split(":")
    client = socket.create_connection((host, int(port)), timeout=PATIENCE)
    # It leads all the way to the server before a story goes on.
    client.sendall(b"?")
    assert client.recv(1) == b"?"
    return client


def heard(client, count):
    said = b""
    while len(said) < count and (piece := client.recv(count - len(said))):
        said += piece
    return said


def test_left_alone_it_passes_everything_on_in_order(proxy):
    said = bytes(range(256)) * 20_000
    with link(proxy) as client:
        sending = threading.Thread(target=client.sendall, args=(said,))
        sending.start()
        assert heard(client, len(said)) == said
        sending.join()


def test_a_delay_is_a_delay_and_no_bottleneck(proxy):
    with link(proxy) as client:
        proxy.back.delay = 0.5
        before = time.monotonic()
        for _ in range(5):
            client.sendall(b"x")
            time.sleep(0.02)  # so that they are pieces of their own
        assert heard(client, 5) == b"xxxxx"
        assert 0.5 <= time.monotonic() - before < 5 * 0.5, "all of them were under way at once"


def test_a_throttle_lets_through_so_much_and_no_more(proxy):
    with link(proxy) as client:
        proxy.forth.bytes_per_second = 100_000
        before = time.monotonic()
        client.sendall(bytes(50_000))
        assert heard(client, 50_000) == bytes(50_000)
        assert time.monotonic() - before >= 0.5


def test_pieces_are_pieces_and_the_same_seed_makes_the_same():
    def lengths(seed):
        with Echo() as echo, FaultProxy(echo.where, seed) as proxy, link(proxy) as client:
            # Behind the first piece, each takes so long that it is read alone.
            proxy.back.piece_bytes_max = 50
            proxy.back.bytes_per_second = 2_000
            client.sendall(bytes(400))
            lengths = []
            while sum(lengths) < 400:
                lengths.append(len(client.recv(65536)))
            return lengths

    first = lengths(7)
    assert max(first) <= 100 and len(first) > 4, "at most two of them were read at once"
    assert sum(first) == 400
    ways = [Way(seed, loop=None) for seed in (7, 7, 8)]
    for way in ways:
        way.piece_bytes_max = 50
    same, again, other = [list(way._pieces(bytes(1000))) for way in ways]
    assert same == again != other


@pytest.mark.parametrize("way", ["forth", "back"])
def test_what_is_held_comes_when_it_is_released_and_the_other_way_flows(proxy, echo, way):
    held = getattr(proxy, way)
    with link(proxy) as client:
        held.hold()
        client.sendall(b"held back")
        until(lambda: held.held == b"held back", "it is at the proxy")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(PATIENCE)
        held.release()
        assert heard(client, 9) == b"held back"


def test_a_link_that_comes_while_all_is_held_is_held_too(proxy, echo):
    proxy.hold()
    host, port = proxy.where.split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as client:
        client.sendall(b"hello?")
        until(lambda: proxy.forth.held == b"hello?", "it is at the proxy")
        proxy.release()
        assert heard(client, 6) == b"hello?"


def test_a_cut_is_a_reset_at_both_ends_and_the_next_link_is_well(proxy, echo):
    with link(proxy) as client:
        assert proxy.cut() == 1
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    until(lambda: echo.ends == ["reset"], "the server hears of it")
    link(proxy).close()


def test_half_of_a_link_can_be_closed(proxy, echo):
    with link(proxy) as client:
        assert proxy.half_close(proxy.back) == 1
        assert client.recv(1) == b"", "a FIN, and no reset"
        client.sendall(b"still heard")
        time.sleep(0.1)
        assert echo.ends == [], "the server has heard nothing of it"
    until(lambda: echo.ends, "the server hears the end of the other half")


def test_an_end_is_passed_on_as_what_it_was(proxy, echo):
    with link(proxy) as client:
        client.sendall(b"bye")
        client.shutdown(socket.SHUT_WR)
        assert heard(client, 4) == b"bye", "what was said before a FIN arrives, and then the server's FIN"
    with link(proxy) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    until(lambda: echo.ends == ["end", "reset"], "the server tells them apart")


def test_a_server_that_is_not_there_is_a_reset(proxy):
    proxy.point_at("127.0.0.1:1")
    host, port = proxy.where.split(":")
    # As early as while connecting.
    with pytest.raises(ConnectionResetError), socket.create_connection((host, int(port)), timeout=PATIENCE) as client:
        client.recv(1)


def test_links_lead_where_it_points_when_they_begin(proxy, echo):
    with Echo() as other:
        with link(proxy) as first:
            proxy.point_at(other.where)
            with link(proxy):
                pass
            until(lambda: other.ends == ["end"], "the second one was the other server's")
            first.sendall(b"!")
            assert heard(first, 1) == b"!" and echo.ends == []
    until(lambda: proxy.links == 0, "nothing is left")
