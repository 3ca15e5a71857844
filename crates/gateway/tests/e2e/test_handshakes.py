"""Requests that are no honest upgrade: what is loose, oversize, slow or smuggled comes to nothing, at either entrance."""

import asyncio
import re
import selectors
import socket
import time

import pytest
from support import tokens
from support.cluster import ask
from support.node import ORIGIN
from support.process import until
from support.raw_client import RawClient, upgrade_head
from support.requests import HANDSHAKE, bearer, without
from support.subscribers import Subscriber

KEY = HANDSHAKE["Sec-WebSocket-Key"]
BEHIND = b"GET /metrics HTTP/1.1\r\nHost: behind\r\n\r\n"


def good():
    return list((HANDSHAKE | bearer()).items())


def with_only(name, *values):
    """A good upgrade whose header `name` comes with these values instead of its own."""
    return [pair for pair in good() if pair[0] != name] + [(name, value) for value in values]


def statuses(where, request, count=1):
    """The status of each answer to these bytes; this side closes once `count` of them have come."""
    answers = lambda heard: [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", heard)]
    with RawClient(where) as client:
        # What is refused before it is read whole may be reset behind the refusal.
        client.send_as_long_as_it_is_taken(request, 1)
        heard = client.rest(may_reset=True, until=lambda heard: len(answers(heard)) >= count)
        # nginx gives a request up whose client has closed, so not any earlier.
        client.leave()
        return answers(heard + client.rest(may_reset=True))


def upgraded(where, **head):
    """The status of one upgrade."""
    return statuses(where, upgrade_head(where, **head))[0]


def entrance(cluster, name):
    return cluster.nginx.plain if name == "nginx" else cluster.nodes[0].public


ENTRANCES = pytest.mark.parametrize("name", ["node", "nginx"])

LOOSE = {
    "HTTP/1.0": (400, {"version": "HTTP/1.0"}),
    "two keys": (400, {"headers": with_only("Sec-WebSocket-Key", KEY, "AAAAAAAAAAAAAAAAAAAAAA==")}),
    "the same key twice": (400, {"headers": with_only("Sec-WebSocket-Key", KEY, KEY)}),
    "a short key": (400, {"headers": with_only("Sec-WebSocket-Key", "c2hvcnQ=")}),
    "two versions": (400, {"headers": with_only("Sec-WebSocket-Version", "13", "8")}),
    "a list of versions": (426, {"headers": with_only("Sec-WebSocket-Version", "13, 8")}),
    "a word that only contains websocket": (400, {"headers": with_only("Upgrade", "notwebsocketx")}),
    "a list of protocols": (400, {"headers": with_only("Upgrade", "h2c, websocket")}),
    "no Connection": (400, {"headers": list(without(HANDSHAKE | bearer(), "Connection").items())}),
    "another Connection": (400, {"headers": with_only("Connection", "close")}),
    "a word that only contains upgrade": (400, {"headers": with_only("Connection", "upgradex")}),
    "a space before a colon": (400, {"headers": [*good(), ("X-Client ", "x")]}),
    "a folded header": (400, {"headers": [*good(), ("X-Client", "x\r\n y")]}),
    "a NUL": (400, {"headers": [*good(), ("X-Client", "x\0y")]}),
}


@ENTRANCES
@pytest.mark.parametrize("case", LOOSE)
def test_t10_a_loose_upgrade_is_refused(cluster, case, name):
    expected, head = LOOSE[case]
    assert upgraded(entrance(cluster, name), **head) == expected


def test_t10_two_upgrades_are_refused(cluster):
    """By the node; nginx passes its own fixed word on, whatever it makes of the two."""
    headers = with_only("Upgrade", "websocket", "h2c")
    assert upgraded(cluster.nodes[0].public, headers=headers) == 400


@ENTRANCES
def test_what_is_not_loose_is_let_in(cluster, name):
    """Without this, everything here could be refused for a reason of its own."""
    for headers in (good(), with_only("Connection", "keep-alive, Upgrade"), with_only("Upgrade", "WebSocket")):
        assert upgraded(entrance(cluster, name), headers=headers) == 101


@ENTRANCES
@pytest.mark.parametrize(
    ("field", "body"),
    [(("Content-Length", "5"), b"hello"), (("Transfer-Encoding", "chunked"), b"5\r\nhello\r\n0\r\n\r\n")],
    ids=["length", "chunked"],
)
def test_t11_an_upgrade_with_a_body_is_refused(cluster, name, field, body):
    """And once only: what looked like a body is never taken for frames, or for another request."""
    where = entrance(cluster, name)
    assert statuses(where, upgrade_head(where, headers=[*good(), field]) + body) == [400]


SCHEME, HOST = ORIGIN.split("://")

FOREIGN_ORIGINS = [
    "https://evil.example.com",
    "null",
    "",
    f"{ORIGIN}.evil.com",
    f"https://evil-{HOST}",
    f"https://evil.{HOST}",
    f"{ORIGIN}@evil.com",
    f"{ORIGIN}:443",
    f"{ORIGIN}:8443",
    f"{ORIGIN}.",
    f"{ORIGIN}/",
    f"http://{HOST}",
    HOST,
    ORIGIN.upper(),
    f"{SCHEME}://{HOST.capitalize()}",
    f"{ORIGIN} https://evil.example.com",
    f"https://evil.example.com, {ORIGIN}",
    f"{ORIGIN}\xa0",
]


@ENTRANCES
def test_t9_a_page_of_another_origin_is_refused(cluster, name):
    """A browser says where a page comes from; only the very words of the list will do."""
    where = entrance(cluster, name)
    assert statuses(where, upgrade_head(where, headers=[*good(), ("Origin", ORIGIN)])) == [101]
    for foreign in FOREIGN_ORIGINS:
        head = upgrade_head(where, headers=[*good(), ("Origin", foreign)])
        assert statuses(where, head) == [403], foreign
    for both in ([ORIGIN, "https://evil.example.com"], ["https://evil.example.com", ORIGIN], [ORIGIN, ORIGIN]):
        head = upgrade_head(where, headers=[*good(), *(("Origin", origin) for origin in both)])
        assert statuses(where, head) == [403], both


# Each with what must come of it, and then, of a request behind it, nginx's own 404.
TUNNELS = {
    "a bad version": (426, "GET /v1/connect", with_only("Sec-WebSocket-Version", "777")),
    "no key": (400, "GET /v1/connect", list(without(HANDSHAKE | bearer(), "Sec-WebSocket-Key").items())),
    "a bad token": (401, "GET /v1/connect", with_only("Authorization", "Bearer x.y.z")),
    "another protocol": (400, "GET /v1/connect", with_only("Upgrade", "h2c") + [("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA")]),
    "another path": (404, "GET /metrics", good()),
    "a publish": (202, "POST /v1/topics/t", [*HANDSHAKE.items(), *bearer(tokens.token(publish=["t"])).items(),
                                            ("Content-Length", "0")]),
    "a publish by HTTP/2": (202, "POST /v1/topics/t", [
        ("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA"),
        *bearer(tokens.token(publish=["t"])).items(), ("Content-Length", "0")]),
}


@pytest.mark.parametrize("case", TUNNELS)
def test_t12_nginx_opens_a_tunnel_for_nothing_but_an_upgrade(cluster, case):
    """Whatever made the request look like an upgrade, what comes behind it is read by nginx, as a request of its own."""
    expected, line, headers = TUNNELS[case]
    method, target = line.split(" ")
    where = cluster.nginx.plain
    logged_before = len(cluster.nginx.access_log.read_text().splitlines())
    head = upgrade_head(where, headers=headers, target=target).replace(b"GET", method.encode(), 1)
    assert statuses(where, head + BEHIND, count=2) == [expected, 404]
    logged = lambda: cluster.nginx.access_log.read_text().splitlines()[logged_before:]
    until(lambda: len(logged()) == 2, "nginx has logged both")
    assert "GET /metrics" in logged()[1] and 'upstream="-"' in logged()[1], "no node saw the second"


def test_t12_prior_knowledge_of_http2_is_of_no_use(cluster):
    assert statuses(cluster.nginx.plain, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")[:1] in ([400], [405], [505], [])


def smuggling(hidden):
    """Requests whose end one reader could see elsewhere than another, with `hidden` where it might begin."""
    end = b"0\r\n\r\n"
    length = lambda number: f"Content-Length: {number}"
    chunked = "Transfer-Encoding: chunked"
    yield "length and chunked", [length(len(end + hidden)), chunked], end + hidden
    yield "chunked and length", [chunked, length(4)], b"%x\r\n%s\r\n%s" % (len(hidden), hidden, end)
    yield "two lengths", [length(1), length(1 + len(hidden))], b"1" + hidden
    yield "one length twice", [length(1), length(1)], b"1" + hidden
    for odd in ("1, 1", "+1", "-1", "0x1", "", "99999999999999999999999"):
        yield f"length {odd!r}", [length(odd)], b"1" + hidden
    for odd in ("xchunked", "identity", "chunked, identity", "identity, chunked", "chunked, chunked", "\x0bchunked",
                "chunked;q=1", '"chunked"'):
        yield f"encoding {odd!r}", [f"Transfer-Encoding: {odd}"], end + hidden
        yield f"encoding {odd!r} and length", [f"Transfer-Encoding: {odd}", length(len(end))], end + hidden
    yield "two encodings", [chunked, "Transfer-Encoding: identity"], end + hidden
    yield "a space before the colon", ["Transfer-Encoding : chunked", length(len(end))], end + hidden
    yield "a folded encoding", ["Transfer-Encoding:\r\n chunked", length(len(end))], end + hidden
    yield "an encoding behind a bare CR", ["X: y\rTransfer-Encoding: chunked", length(len(end))], end + hidden
    yield "an encoding behind a bare LF", ["X: y\nTransfer-Encoding: chunked", length(len(end))], end + hidden
    yield "a chunk of 0x0 bytes", [chunked], b"0x0\r\n\r\n" + hidden
    yield "a chunk of 2^72 bytes", [chunked], b"ffffffffffffffffff\r\n" + hidden
    yield "a chunk that goes on", [chunked], b"1\r\n1X" + end + hidden


@ENTRANCES
def test_t13_no_request_hides_in_another(cluster, name):
    where = entrance(cluster, name)
    headers = f"Host: {where}\r\nAuthorization: Bearer {tokens.token(publish=['**'])}\r\n"
    publish = lambda topic, fields: f"POST /v1/topics/{topic} HTTP/1.1\r\n{headers}{''.join(fields)}\r\n".encode("latin-1")
    hidden = publish("smuggled", ["Content-Length: 1\r\n"]) + b"1"

    async def story():
        async with Subscriber(cluster.nodes[0].connect_url(), ["smuggled"]) as subscriber:
            for case, fields, body in smuggling(hidden):
                request = publish("plain", [f"{field}\r\n" for field in fields]) + body
                found = await asyncio.to_thread(statuses, where, request)
                assert found in ([400], [501]), case
            assert await asyncio.to_thread(statuses, where, hidden) == [202], "openly it is allowed"
            await asyncio.to_thread(cluster.publish, "smuggled", "2")
            await until_heard(subscriber, 2)
            assert subscriber.heard("smuggled") == [1, 2]

    asyncio.run(story())


async def until_heard(subscriber, count):
    while len(subscriber.heard("smuggled")) < count:
        await asyncio.sleep(0.01)


SIZES = {
    "a target of 8,192 bytes": ({"target": "/v1/connect?" + "a" * 8180}, 101, 414),
    "a target of 8,193 bytes": ({"target": "/v1/connect?" + "a" * 8181}, 400, 414),
    "a target of 8,100 bytes": ({"target": "/v1/connect?" + "a" * 8088}, 101, 101),
    "a target of 200,000 bytes": ({"target": "/v1/connect?" + "a" * 200_000}, 431, 414),
    "a token of 8,100 bytes": ({"headers": with_only("Authorization", "Bearer " + "a" * 8100)}, 401, 401),
    "a token of 8,193 bytes": ({"headers": with_only("Authorization", "Bearer " + "a" * 8193)}, 401, 400),
    "a token of 200,000 bytes": ({"headers": with_only("Authorization", "Bearer " + "a" * 200_000)}, 431, 400),
    "80 more headers": ({"headers": [*good(), *((f"X-{number}", "x") for number in range(80))]}, 101, 101),
    "120 more headers": ({"headers": [*good(), *((f"X-{number}", "x") for number in range(120))]}, 431, 431),
    "40 KB of headers": ({"headers": [*good(), *((f"X-{number}", "x" * 8000) for number in range(5))]}, 101, 400),
}


@pytest.mark.parametrize("case", SIZES)
def test_t8_what_is_too_large_is_refused(cluster, case):
    head, by_node, by_nginx = SIZES[case]
    assert upgraded(cluster.nodes[0].public, **head) == by_node
    assert upgraded(cluster.nginx.plain, **head) == by_nginx


@pytest.mark.alone
def test_t7_slow_heads_are_given_up_and_slow_nobody_down(cluster):
    node = cluster.nodes[0]
    half_open = 2000
    host, port = node.public.split(":")
    with selectors.DefaultSelector() as waiting:
        began = time.monotonic()
        for _ in range(half_open):
            client = socket.create_connection((host, int(port)))
            client.sendall(b"GET /v1/connect HTTP/1.1\r\nHost: slow\r\nX-")
            waiting.register(client, selectors.EVENT_READ)
        opened = time.monotonic()
        handshakes = []
        while time.monotonic() < opened + 2:
            asked = time.monotonic()
            assert ask(node.public, "GET", "/v1/connect", HANDSHAKE | bearer())[0] == 101
            handshakes.append(time.monotonic() - asked)
        answers = []
        while waiting.get_map() and time.monotonic() < opened + 10:
            for ready, _ in waiting.select(timeout=0.1):
                answers.append(ready.fileobj.recv(100)[:12])
                waiting.unregister(ready.fileobj)
                ready.fileobj.close()
        took = time.monotonic() - began
        left = [key.fileobj for key in waiting.get_map().values()]
        for client in left:
            client.close()
    assert answers == [b"HTTP/1.1 408"] * half_open, f"{len(left)} were left after {took:.1f} s"
    assert sorted(handshakes)[len(handshakes) // 2] < 0.05
