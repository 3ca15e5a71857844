"""What the log says of connections, and T27: whatever a client writes, a log line is one line, and says what the node says."""

import asyncio
import json
import re

import pytest
from support import tokens
from support.cluster import running_cluster
from support.node import Node
from support.process import until
from support.raw_client import FIN, TEXT, RawClient, close, frame, text, upgrade_head
from support.requests import HANDSHAKE, bearer
from support.subscribers import Subscriber

CANARY = 'canary\r\n{"level":"ERROR"}\x1b[31m'
# A subject has no control characters.
SUBJECT = 'canary\\r\\n","level":"ERROR","\u202e[31m ERROR causeway: '
# As far as a header can carry it.
HEADER_CANARY = "canary{level}\t\x80\xff"


@pytest.fixture(params=["json", "text"])
def talkative(request, tmp_path):
    settings = {"log": {"format": request.param, "level": "debug"}}
    with running_cluster(tmp_path, settings) as cluster:
        yield request.param, cluster.nodes[0]


def test_t27_no_client_writes_into_the_log(talkative):
    format, node = talkative
    speak(node)
    until(lambda: node.log().count("connection ended") >= 4, "the node has logged their ends")
    lines = [line for line in node.stderr.read_text(errors="replace").split("\n") if line]
    assert any("canary" in line for line in lines), "the subject is logged, so that this story is about something"
    for line in lines:
        assert not re.search(r"[\x00-\x1f\x7f\x80-\x9f]", line), ascii(line)
        if format == "json":
            assert set(json.loads(line)) == {"timestamp", "level", "fields", "target"}
        else:
            assert re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z +(DEBUG|INFO|WARN|ERROR) \S+: ", line), line


def speak(node):
    """Through everything that a client has a say in."""
    granted = tokens.token(sub=SUBJECT, subscribe=["**"], publish=["**"])
    for headers in (
        HANDSHAKE | bearer(granted),
        HANDSHAKE | bearer(granted) | {"User-Agent": HEADER_CANARY},
        HANDSHAKE | bearer(tokens.token(sub=CANARY)),
        HANDSHAKE | {"Authorization": HEADER_CANARY},
        HANDSHAKE | bearer() | {"Origin": HEADER_CANARY},
        HANDSHAKE | bearer() | {"Sec-WebSocket-Protocol": HEADER_CANARY},
        HANDSHAKE | bearer() | {"X-Forwarded-For": HEADER_CANARY},
    ):
        with RawClient(node.public) as client:
            client.send(upgrade_head(node.public, headers=headers))
            client.send_as_long_as_it_is_taken(b"".join(said()), 1)
            client.rest(may_reset=True)
    with RawClient(node.public).upgrade() as client:
        client.send(frame(FIN | TEXT, b"canary\xff\r\n"))
        client.rest()


def said():
    for command in (
        {"op": CANARY},
        {"op": "subscribe", "topics": [CANARY]},
        {"op": "publish", "topic": CANARY, "data": 1},
        {"op": "authenticate", "token": CANARY},
        {"op": "ping", CANARY: 1},
    ):
        yield text(json.dumps({"id": CANARY[:20], **command}))
    yield close(1000, CANARY.encode())


def test_the_end_of_a_connection_is_one_line_with_all_that_can_be_said_of_it(tmp_path):
    with Node("node", tmp_path, None, {"log": {"format": "json"}}) as node:

        async def story():
            token = tokens.token(sub="carol", publish=["**"])
            async with Subscriber(node.connect_url(), ["orders.1"], token, source=node.address) as subscriber:
                for number in range(3):
                    await subscriber.command("publish", topic="orders.1", data=number)
                await subscriber.settle()
                return subscriber.welcome["session"], sum(map(len, subscriber.frames))

        session, heard_bytes = asyncio.run(story())
        ended = told(node, "connection ended")
        assert ended.pop("lasted_ms") < 60_000
        # Besides what was heard: the frames' own bytes, and a pong and a close frame perhaps.
        assert heard_bytes < ended.pop("bytes") < heard_bytes + 200
        assert ended == {
            "message": "connection ended", "session": session, "subject": "carol", "client": node.address,
            "messages": 3, "code": 1000, "why": "normal closure",
        }


def test_the_lines_of_ends_can_be_left_out(tmp_path):
    settings = {"log": {"format": "json", "level": "info,causeway_gateway::connection=warn"}}
    with Node("node", tmp_path, None, settings) as node:
        with RawClient(node.public).upgrade() as client:
            client.send(close(1000))
            client.rest()
        node.stop()
        assert "drained" in node.log() and "connection ended" not in node.log()


def told(node, message):
    """The fields of the one line with this message."""
    lines = lambda: [line for line in node.stderr.read_text().splitlines() if f'"{message}"' in line]
    until(lines, f"the node has logged: {message}")
    (line,) = lines()
    assert json.loads(line)["level"] == "INFO"
    return json.loads(line)["fields"]
