"""Who is let in, who is not and why, and what cannot be reached from outside at all."""

import json
import re

import pytest
from support import tokens
from support.cluster import ask
from support.facts import ROOT
from support.node import ORIGIN
from support.requests import HANDSHAKE, bearer, without

ADMIN = ROOT / "crates/gateway/src/admin.rs"


def stranger():
    return tokens.token(secret="another secret, long enough to sign")


REFUSALS = {
    "no token": (401, HANDSHAKE),
    "garbage": (401, HANDSHAKE | bearer("garbage")),
    "a stranger's signature": (401, HANDSHAKE | bearer(stranger())),
    "an expired token": (401, HANDSHAKE | bearer(tokens.token(ttl=-60))),
    "a foreign origin": (403, HANDSHAKE | bearer() | {"Origin": "https://evil.example.com"}),
    "an origin that only begins like ours": (403, HANDSHAKE | bearer() | {"Origin": f"{ORIGIN}.evil.com"}),
    "no origin's page": (403, HANDSHAKE | bearer() | {"Origin": "null"}),
    "no key": (400, without(HANDSHAKE, "Sec-WebSocket-Key") | bearer()),
    "a short key": (400, HANDSHAKE | bearer() | {"Sec-WebSocket-Key": "c2hvcnQ="}),
    "an old version": (426, HANDSHAKE | bearer() | {"Sec-WebSocket-Version": "8"}),
    "an unknown subprotocol": (400, HANDSHAKE | bearer() | {"Sec-WebSocket-Protocol": "mqtt"}),
}


@pytest.mark.parametrize("entrance", ["node", "nginx"])
@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_has_a_status_and_a_reason(cluster, case, entrance):
    expected, headers = REFUSALS[case]
    status, answered, body = ask(place(cluster, entrance), "GET", "/v1/connect", headers)
    assert status == expected
    assert_reason(body)
    if status == 426:
        assert answered["Sec-WebSocket-Version"] == "13"


@pytest.mark.parametrize("entrance", ["node", "nginx"])
def test_the_same_request_without_a_fault_is_let_in(cluster, entrance):
    """Without this, everything above could be refused for a reason of its own."""
    for headers in (HANDSHAKE | bearer(), HANDSHAKE | bearer() | {"Origin": ORIGIN}):
        status, answered, _ = ask(place(cluster, entrance), "GET", "/v1/connect", headers)
        assert (status, answered["Sec-WebSocket-Accept"]) == (101, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")


@pytest.mark.parametrize("entrance", ["node", "nginx"])
def test_a_browser_may_ask_for_the_verdict_alone(cluster, entrance):
    where = place(cluster, entrance)
    assert ask(where, "GET", "/v1/connect", bearer())[0] == 204
    status, _, body = ask(where, "GET", "/v1/connect", bearer(stranger()))
    assert status == 401
    assert_reason(body)
    status, _, body = ask(where, "GET", "/v1/connect", bearer() | {"Origin": "https://evil.example.com"})
    assert status == 403
    assert_reason(body)


@pytest.mark.parametrize("entrance", ["node", "nginx"])
@pytest.mark.parametrize(
    ("expected", "token", "path"),
    [
        (202, tokens.token(publish=["chat.*"]), "/v1/topics/chat.1"),
        (401, "garbage", "/v1/topics/chat.1"),
        (403, tokens.token(), "/v1/topics/chat.1"),
        (403, tokens.token(publish=["chat.*"]), "/v1/topics/orders.1"),
        (400, tokens.token(publish=["**"]), "/v1/topics/a..b"),
    ],
)
def test_publishing_over_http_needs_the_right(cluster, entrance, expected, token, path):
    status, _, body = ask(place(cluster, entrance), "POST", path, bearer(token), b"1")
    assert status == expected
    if status == 202:
        assert json.loads(body) == {}
    else:
        assert_reason(body)


@pytest.mark.parametrize("entrance", ["node", "nginx"])
def test_t33_what_operators_use_is_not_reachable_from_outside(cluster, entrance):
    names = re.findall(r'route\("(/\w+)"', ADMIN.read_text())
    assert {"/metrics", "/livez", "/drain", "/revoke"} <= set(names), "these are the names of the admin listener"
    assert ask(cluster.nodes[0].admin, "GET", "/metrics")[0] == 200
    for path in [*names, *(f"/admin{name}" for name in names), "/admin", "/readyz", "/health", "/healthz", "/status"]:
        for method in ("GET", "POST"):
            assert ask(place(cluster, entrance), method, path, bearer())[0] == 404, (method, path)


@pytest.mark.parametrize("entrance", ["node", "nginx"])
@pytest.mark.parametrize("path", ["/", "/v1", "/v1/topics", "/v1/connect/more"])
def test_nothing_else_is_reachable_from_outside(cluster, path, entrance):
    assert ask(place(cluster, entrance), "GET", path, bearer())[0] == 404


@pytest.mark.parametrize("path", ["/v1/topics/../../metrics", "/v1/topics/..%2f..%2freadyz", "//metrics"])
def test_t33_no_spelling_leads_around_nginx(cluster, path):
    assert ask(cluster.nginx.plain, "POST", path, bearer())[0] == 404


def place(cluster, entrance):
    return cluster.nginx.plain if entrance == "nginx" else cluster.nodes[0].public


def assert_reason(body):
    reason = json.loads(body)
    assert set(reason) == {"code", "message"} and all(isinstance(value, str) and value for value in reason.values())
