"""T27: whatever a client writes, a log line is one line, and says what the node says."""

import json
import re

import pytest
from support import tokens
from support.cluster import running_cluster
from support.process import until
from support.raw_client import FIN, TEXT, RawClient, close, frame, text, upgrade_head
from support.requests import HANDSHAKE, bearer

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
