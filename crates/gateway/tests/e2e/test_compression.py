"""permessage-deflate: less on the wire for whoever offers it, the same messages for everybody, and no way to make it dear."""

import asyncio
import json
import zlib

import pytest
from support import tokens
from support.browser import Browser
from support.cluster import ask
from support.footprint import processor_seconds, resident_bytes
from support.node import Node, laid_over, toml
from support.process import PATIENCE, eventually, until
from support.raw_client import BINARY, CLOSE, FIN, PING, TEXT, RawClient, frame, frames_in, upgrade_head
from support.requests import HANDSHAKE, bearer
from support.subscribers import Subscriber, WsSubscribers, together

MESSAGE_BYTES = 64 << 10
SETTINGS = {"workers": 1, "compression": {"enabled": True}, "limits": {"message_bytes": MESSAGE_BYTES}}
MIB = 1 << 20
# The first fragment, or the only frame, of a compressed message.
RSV1 = 0x40
AGREED = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

LONG = {"rows": [{"number": number, "state": "shipped", "total": number * 100} for number in range(200)]}


def deflated(data):
    """A message's payload as RFC 7692 §7.2.1 has it."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


def stored(data):
    """The same without any codes (RFC 1951 §3.2.4)."""
    length = len(data).to_bytes(2, "little")
    return b"\x00" + length + bytes(byte ^ 0xFF for byte in length) + data + b"\x00"


def offering(extensions):
    return HANDSHAKE | bearer() | {"Sec-WebSocket-Extensions": extensions}


def compressing(node):
    """A connection that agreed on compression and sends whatever bytes a story wants."""
    return RawClient(node.public).upgrade(headers=offering("permessage-deflate"))


def answer(where, extensions):
    """The status of an upgrade that offers `extensions`, and what the answer selects of them."""
    with RawClient(where) as client:
        client.send(upgrade_head(where, headers=offering(extensions)))
        head = client.rest(until=lambda heard: b"\r\n\r\n" in heard).partition(b"\r\n\r\n")[0].decode()
    status, *headers = head.split("\r\n")
    pairs = dict(header.lower().split(": ", 1) for header in headers)
    return int(status.split()[1]), pairs.get("sec-websocket-extensions")


def close_code(heard):
    opcode, payload = list(frames_in(heard))[-1]
    assert opcode == CLOSE
    return int.from_bytes(payload[:2], "big")


def connections(nodes):
    """How many agreed on compression, as the workers last reported."""
    return sum(node.gauge("causeway_compression_connections") for node in nodes)


def bytes_compressed(nodes, direction):
    """Before and after, on all nodes together."""
    return [
        sum(node.counter(f"causeway_compression_{kind}_bytes_total", direction=direction) for node in nodes)
        for kind in ("plain", "deflated")
    ]


# For those who want it.


def test_whoever_offers_it_has_it_and_everybody_hears_the_same(cluster):
    """Python's websockets and npm's ws, with and without it, directly and through nginx."""
    nginx = cluster.nginx
    urls = [cluster.nodes[0].connect_url(), cluster.nodes[1].connect_url(), nginx.connect_url(), nginx.connect_url(True)]
    topics = ["orders"]

    async def story():
        on = [Subscriber(url, topics, trust=nginx.trust() if "wss" in url else None) for url in urls]
        off = [Subscriber(url, topics, trust=nginx.trust() if "wss" in url else None, compression=None) for url in urls]
        ws = [{"url": url, "topics": topics, "compression": wanted} for url in urls for wanted in (True, False)]
        async with together(on + off) as subscribers, WsSubscribers(ws, nginx.certificate) as ws_subscribers:
            for subscriber in subscribers:
                (agreed,) = subscriber.socket.protocol.extensions or [None]
                assert (agreed is not None) == (subscriber in on)
            await eventually(lambda: connections(cluster.nodes) == 2 * len(urls), "half of them are counted")
            before = bytes_compressed(cluster.nodes, "sent")
            cluster.redis.publish([("orders", json.dumps(LONG)), ("orders", '"short"'), ("orders", json.dumps(LONG))])
            reports = await ws_subscribers.report(messages=3 * len(ws))
            for subscriber in subscribers:
                await eventually(lambda: len(subscriber.heard("orders")) == 3, "everybody hears everything")
            assert all(subscriber.heard("orders") == [LONG, "short", LONG] for subscriber in subscribers)
            assert all(report["messages"] == {"orders": [LONG, "short", LONG]} for report in reports)

            # Two of the three messages, for each of those who agreed.
            wanted = before[0] + 2 * 2 * len(urls) * len(json.dumps(LONG))
            reported = lambda: bytes_compressed(cluster.nodes, "sent")[0] >= wanted
            await eventually(reported, "the workers have reported")
            plain, small = bytes_compressed(cluster.nodes, "sent")
            assert small - before[1] < (plain - before[0]) / 4
        await eventually(lambda: connections(cluster.nodes) == 0, "nobody is left")

    asyncio.run(story())


def test_a_browser_offers_it_by_itself(tmp_path):
    with Node("browsed", tmp_path, None, {**SETTINGS, "allowed_origins": ["*"]}) as node, Browser() as browser:
        browser.driver.set_script_timeout(PATIENCE)
        story = """
            const [url, token, data, done] = arguments;
            const socket = new WebSocket(url, ["causeway.v1", `causeway.bearer.${token}`]);
            const say = (command) => socket.send(JSON.stringify(command));
            socket.onclose = ({ code }) => done({ code });
            socket.onmessage = (event) => {
              const told = JSON.parse(event.data);
              if (told.op === "welcome") say({ id: 1, op: "subscribe", topics: ["chat"] });
              if (told.op === "subscribed") say({ id: 2, op: "publish", topic: "chat", data });
              if (told.op === "message") done({ extensions: socket.extensions, data: told.data });
            };
        """
        token = tokens.token(subscribe=["chat"], publish=["chat"])
        # Any page will do.
        browser.open(f"http://{node.admin}/livez")
        told = browser.driver.execute_async_script(story, node.connect_url(), token, LONG)
        assert told == {"extensions": AGREED, "data": LONG}
        until(lambda: connections([node]) == 1, "it is counted")
        until(lambda: bytes_compressed([node], "sent")[0] > 0, "the worker has reported")
        for direction in ("sent", "received"):
            plain, small = bytes_compressed([node], direction)
            assert small < plain / 4, direction


def test_it_is_off_unless_it_is_switched_on_for_new_connections(tmp_path):
    publisher = bearer(tokens.token(publish=["a"]))
    with Node("plain", tmp_path, None) as node:

        async def story():
            async with Subscriber(node.connect_url(), ["a"]) as early:
                assert answer(node.public, "permessage-deflate") == (101, None)
                wanted = laid_over(node.settings, {"compression": {"enabled": True, "min_bytes": "1KiB"}})
                (node.directory / "causeway.toml").write_text(toml(wanted))
                status, _, told = ask(node.admin, "POST", "/admin/reload")
                assert status == 200, told
                assert {change["key"] for change in json.loads(told)["changed"]} == {
                    "compression.enabled", "compression.min_bytes"}
                async with Subscriber(node.connect_url(), ["a"]) as late:
                    assert not early.socket.protocol.extensions and late.socket.protocol.extensions
                    assert ask(node.public, "POST", "/v1/topics/a", publisher, json.dumps(LONG))[0] == 202
                    await eventually(lambda: early.heard("a") == late.heard("a") == [LONG], "both hear it")

        asyncio.run(story())


OFFERS = {
    "permessage-deflate": (101, AGREED),
    "permessage-deflate; client_max_window_bits": (101, AGREED),
    "permessage-deflate; server_max_window_bits=10": (101, f"{AGREED}; server_max_window_bits=10"),
    'foo, permessage-deflate; x, permessage-deflate; server_max_window_bits="9"': (
        101, f"{AGREED}; server_max_window_bits=9"),
    "permessage-deflate; server_max_window_bits=16": (101, None),
    "permessage-deflate; server_no_context_takeover=1": (101, None),
    "x-webkit-deflate-frame": (101, None),
    "permessage-deflate; =": (400, None),
    "permessage-deflate;;": (400, None),
}


@pytest.mark.parametrize("offer", OFFERS)
def test_an_offer_is_accepted_declined_or_no_handshake(cluster, offer):
    assert answer(cluster.nodes[0].public, offer) == OFFERS[offer]
    assert answer(cluster.nginx.plain, offer) == OFFERS[offer]


# For those who abuse it.

PONG = json.dumps({"id": 1, "op": "ping"}).encode()

VIOLATIONS = {
    "a ping that says it is compressed": (1002, frame(FIN | RSV1 | PING)),
    "a continuation that says it is compressed": (
        1002, frame(RSV1 | TEXT, stored(b"{}")[:3]) + frame(FIN | RSV1, stored(b"{}")[3:])),
    "another reserved bit": (1002, frame(FIN | RSV1 | 0x20 | TEXT, stored(b"{}"))),
    "what is no DEFLATE": (1007, frame(FIN | RSV1 | TEXT, b"hello")),
    "nothing at all": (1007, frame(FIN | RSV1 | TEXT)),
    "a stream cut short": (1007, frame(FIN | RSV1 | TEXT, deflated(PONG)[:-3])),
    "what refers to the message before": (1007, frame(FIN | RSV1 | TEXT, b"\xf2\x00\x11\x00\x00")),
    "text that is not UTF-8": (1007, frame(FIN | RSV1 | TEXT, deflated(b"\xff" * 100))),
    "a binary message": (1003, frame(FIN | RSV1 | BINARY, deflated(PONG))),
    "one byte too many": (1009, frame(FIN | RSV1 | TEXT, deflated(b"." * (MESSAGE_BYTES + 1)))),
}


@pytest.mark.parametrize("violation", VIOLATIONS)
def test_t5_a_compressed_violation_has_its_close_code(cluster, violation):
    """What came before it was answered."""
    code, bad = VIOLATIONS[violation]
    good = frame(FIN | RSV1 | TEXT, deflated(PONG))
    with compressing(cluster.nodes[0]) as client:
        client.send(good + bad)
        heard = client.rest(may_reset=True)
    assert close_code(heard) == code
    assert [json.loads(payload)["op"] for opcode, payload in frames_in(heard) if opcode == TEXT] == ["welcome", "pong"]


def test_t29_what_was_not_agreed_on_is_a_violation(cluster):
    with RawClient(cluster.nodes[0].public).upgrade() as client:
        client.send(frame(FIN | RSV1 | TEXT, deflated(PONG)))
        assert close_code(client.rest(may_reset=True)) == 1002


ZEROS = deflated(bytes(MIB))
BOMBS = {
    "at once": frame(FIN | RSV1 | TEXT, ZEROS),
    "in fragments": frame(RSV1 | TEXT, ZEROS[:9]) + frame(0, ZEROS[9:300]) + frame(0) * 100 + frame(FIN | 0, ZEROS[300:]),
    "a thousand times its size": frame(FIN | RSV1 | TEXT, deflated(bytes(64 * MIB))),
    "as a publish": frame(
        FIN | RSV1 | TEXT, deflated(b'{"id":1,"op":"publish","topic":"a","data":"' + b"0" * MIB + b'"}')),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_t29_a_bomb_is_inflated_up_to_the_limit_and_no_further(cluster, kind):
    node = cluster.nodes[0]
    assert len(BOMBS[kind]) < MESSAGE_BYTES * 9 // 8, "or it would be refused for its length"
    for round in range(21):
        if round == 1:
            # What is kept for ever is there now.
            before = resident_bytes(node)
        with compressing(node) as client:
            client.send(BOMBS[kind])
            assert close_code(client.rest(may_reset=True)) == 1009
    assert resident_bytes(node) < before + 2 * MIB


def test_t29_bombs_within_the_limit_are_counted_as_commands_and_then_not_inflated(cluster):
    """70 bytes each that become 64 KiB. Two bursts of them are inflated, and of the other 100,000 none."""
    node = cluster.nodes[0]
    bomb = frame(FIN | RSV1 | TEXT, deflated(bytes(MESSAGE_BYTES)))
    before, inflated = processor_seconds(node), bytes_compressed([node], "received")[0]
    with compressing(node) as client:
        client.send_as_long_as_it_is_taken(bomb * 1000, 100)
        assert close_code(client.rest(may_reset=True)) == 4429
    until(lambda: connections([node]) == 0, "it has gone")
    assert bytes_compressed([node], "received")[0] - inflated < 300 * MESSAGE_BYTES
    assert processor_seconds(node) - before < 5


def test_a_long_publish_may_come_compressed(cluster):
    async def story():
        token = tokens.token(publish=["chat"])
        async with Subscriber(cluster.nodes[0].connect_url(), ["chat"], token) as alice:
            data = {"text": "x" * 60_000}
            assert (await alice.command("publish", topic="chat", data=data))["op"] == "published"
            await eventually(lambda: alice.heard("chat") == [data], "it comes back")

    asyncio.run(story())
