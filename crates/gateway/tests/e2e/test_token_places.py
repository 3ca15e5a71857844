"""Where a token may be, besides the header and the subprotocols; and what a page may read of a refusal."""

import pytest
from support import tokens
from support.cluster import ask
from support.node import ORIGIN
from support.requests import HANDSHAKE, bearer

SETTINGS = {"auth": {"cookie": "session", "query_token": True}}

PAGE = {"Origin": ORIGIN}
FOREIGN_PAGE = {"Origin": "https://evil.example.com"}


def cookie():
    return {"Cookie": f"theme=dark; session={tokens.token()}; lang=en"}


def status(cluster, headers, path="/v1/connect"):
    return ask(cluster.nodes[0].public, "GET", path, headers)[0]


@pytest.mark.parametrize(
    ("expected", "page"),
    [(101, PAGE), (403, FOREIGN_PAGE), (403, {}), (403, {"Origin": "null"})],
)
def test_t9_a_cookie_counts_only_for_a_page_that_is_allowed(cluster, expected, page):
    assert status(cluster, HANDSHAKE | cookie() | page) == expected


def test_a_page_may_ask_its_own_origin_for_the_verdict(cluster):
    assert status(cluster, cookie() | {"Sec-Fetch-Site": "same-origin"}) == 204
    assert status(cluster, cookie() | {"Sec-Fetch-Site": "cross-site"}) == 403
    assert status(cluster, cookie() | {"Sec-Fetch-Site": "same-origin"} | FOREIGN_PAGE) == 403


def test_a_query_may_carry_the_token_where_that_is_switched_on(cluster):
    with_token = f"/v1/connect?v=1&access_token={tokens.token()}"
    assert status(cluster, HANDSHAKE, with_token) == 101
    assert status(cluster, HANDSHAKE, "/v1/connect?access_token=nonsense") == 401
    assert tokens.token().split(".")[0] not in cluster.nodes[0].log()


def test_what_is_put_there_on_purpose_goes_before_the_cookie(cluster):
    assert status(cluster, HANDSHAKE | cookie() | PAGE | bearer("nonsense")) == 401


def test_a_page_of_an_allowed_origin_can_read_why_it_was_refused(cluster):
    where = cluster.nodes[0].public
    asked, answered, _ = ask(where, "OPTIONS", "/v1/connect", PAGE | {"Access-Control-Request-Method": "GET"})
    assert asked == 204
    assert answered["Access-Control-Allow-Origin"] == ORIGIN
    assert answered["Access-Control-Allow-Headers"] == "authorization"

    refused, answered, body = ask(where, "GET", "/v1/connect", PAGE | bearer("nonsense"))
    assert refused == 401 and b"unauthenticated" in body
    assert answered["Access-Control-Allow-Origin"] == ORIGIN and answered["Vary"] == "origin"

    _, answered, _ = ask(where, "GET", "/v1/connect", FOREIGN_PAGE | bearer())
    assert answered["Access-Control-Allow-Origin"] is None
