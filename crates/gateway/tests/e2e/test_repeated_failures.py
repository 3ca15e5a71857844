"""What clients do wrong again and again is in the log a few times, and then as a number."""

import json

import pytest
from support import tokens
from support.cluster import ask
from support.node import Node
from support.process import until
from support.raw_client import FIN, RawClient, frame
from support.requests import HANDSHAKE, bearer

TIMES = 40


@pytest.fixture
def node(tmp_path):
    with Node("node", tmp_path, None, {"log": {"format": "json"}}) as node:
        yield node


def test_upgrades_that_are_refused_again_and_again(node):
    expired = HANDSHAKE | bearer(tokens.token(ttl=-60))
    for _ in range(TIMES):
        assert ask(node.public, "GET", "/v1/connect", expired, source=node.address)[0] == 401
    lines = all_of(node, what="upgrade", cause="expired")
    told = {"message": "refused a request", "what": "upgrade", "cause": "expired", "client": node.address}
    assert told | {"why": "the token has expired"} in lines


def test_publishes_that_are_refused_again_and_again(node):
    for _ in range(TIMES):
        refused = ask(node.public, "POST", "/v1/topics/orders.1", bearer(tokens.token(publish=["news"])), b"1")
        assert refused[0] == 403
    all_of(node, what="publish", cause="forbidden")


def test_clients_that_break_the_protocol_again_and_again(node):
    for _ in range(TIMES):
        with RawClient(node.public).upgrade() as client:
            client.send(frame(FIN | 0x3))
            client.rest()
    lines = all_of(node, what="violation", cause="protocol error")
    assert any(line.get("violation") and line.get("session") for line in lines)


@pytest.mark.parametrize("wrong", [{}, bearer("another token")], ids=["no token", "another"])
def test_operators_whose_token_is_refused_again_and_again(tmp_path, wrong):
    secret = "an operator's token of thirty-two bytes"
    with Node("guarded", tmp_path, None, {"log": {"format": "json"}, "admin": {"token": secret}}) as node:
        for _ in range(TIMES):
            assert ask(node.admin, "POST", "/admin/drain", wrong, source=node.address)[0] == 401
        lines = all_of(node, what="admin", cause="unauthenticated")
        assert any(line.get("client") == node.address for line in lines), "where it came from is told"
        assert secret not in node.log() and "another token" not in node.log()


def all_of(node, **kind):
    """The lines of a kind of failure, once they account for all of them."""

    def complete():
        lines = [json.loads(line)["fields"] for line in node.stderr.read_text().splitlines()]
        held_back = [line for line in lines if line["message"] == "more of these were held back"]
        assert all({"what": line["what"], "cause": line["cause"]} == kind for line in held_back)
        told = [line for line in lines if line["message"] in ("refused a request", "a client broke the protocol")]
        failures = len(told) + sum(line["held_back"] for line in held_back)
        return failures == TIMES and told + held_back

    lines = until(complete, "the log accounts for every failure")
    # 5 and a number; or more of both, where a period has ended in between.
    assert len(lines) < TIMES
    return lines
