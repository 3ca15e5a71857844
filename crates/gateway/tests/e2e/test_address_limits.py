"""The limits of one client address, which nothing a client writes can widen."""

import asyncio
import collections
import contextlib
import json
import random
import time

import pytest
from support.cluster import ask
from support.process import own_address
from support.requests import HANDSHAKE, bearer
from support.subscribers import Subscriber
from websockets.exceptions import InvalidStatus

NODES = 2
PER_IP = 20
BURST = 50

TRUSTED = "127.0.0.1"  # where nginx connects from, see support/node.py

SETTINGS = {
    "limits": {"connections_per_ip": PER_IP, "upgrades_per_ip_per_second": 1, "upgrades_per_ip_burst": BURST},
}


def somebody():
    four = ".".join(str(random.randrange(1, 255)) for _ in range(4))
    six = ":".join(f"{random.randrange(1, 1 << 16):x}" for _ in range(8))
    return random.choice([four, six, f"[{six}]:443", "unknown", TRUSTED])


def claims_to_be_someone_else():
    return {
        "X-Forwarded-For": f"{somebody()}, {somebody()}",
        "Forwarded": f"for={somebody()}",
        "X-Real-IP": somebody(),
    }


def test_the_sockets_of_an_address_are_counted_whoever_it_claims_to_be(cluster):
    async def story():
        source = own_address()
        async with contextlib.AsyncExitStack() as stack:

            async def opened(source):
                subscriber = Subscriber(cluster.nginx.connect_url(), source=source, headers=claims_to_be_someone_else())
                try:
                    await stack.enter_async_context(subscriber)
                    return 101
                except InvalidStatus as refusal:
                    answer = refusal.response
                    assert int(answer.headers["Retry-After"]) > 0 and json.loads(answer.body)["code"]
                    return answer.status_code

            statuses = [await opened(source) for _ in range(NODES * PER_IP + 4)]
            assert statuses == [101] * NODES * PER_IP + [429] * 4
            assert await opened(own_address()) == 101, "another address has limits of its own"

    asyncio.run(story())


@pytest.mark.parametrize("entrance", ["node", "nginx"])
def test_t14_a_thousand_claims_are_one_address(cluster, entrance):
    """Its burst is all it gets, and what the seconds give back meanwhile."""
    where, nodes = (cluster.nginx.plain, NODES) if entrance == "nginx" else (cluster.nodes[0].public, 1)
    source = own_address()
    began = time.monotonic()
    answers = [upgrade(where, source) for _ in range(1000)]
    given_back = time.monotonic() - began
    statuses = collections.Counter(status for status, _, _ in answers)
    assert nodes * BURST <= statuses[101] <= nodes * (BURST + given_back), statuses
    assert statuses[429] == 1000 - statuses[101], statuses
    for status, headers, body in answers:
        if status == 429:
            assert int(headers["Retry-After"]) > 0 and json.loads(body)["message"]


def test_t15_clients_behind_nginx_have_limits_of_their_own(cluster):
    """Although nginx is the only peer that the nodes ever see."""
    greedy, modest = own_address(), own_address()
    spent = collections.Counter(upgrade(cluster.nginx.plain, greedy)[0] for _ in range(300))
    assert spent[429] > 0, spent
    assert [upgrade(cluster.nginx.plain, modest)[0] for _ in range(BURST)] == [101] * BURST


def test_t14_headers_are_believed_from_trusted_proxies_only(cluster):
    """A client that reaches a node directly is who its socket says."""
    source = own_address()
    statuses = [upgrade(cluster.nodes[0].public, source)[0] for _ in range(300)]
    assert statuses[0] == 101 and statuses.count(429) >= 20, statuses


def test_t14_behind_a_proxy_that_appends_the_last_hop_counts(cluster):
    """nginx replaces the header; a proxy that only adds to it is no way around the limit either."""
    client = own_address()
    appended = [{"X-Forwarded-For": f"{somebody()}, {client}"} for _ in range(300)]
    statuses = [upgrade(cluster.nodes[0].public, TRUSTED, headers)[0] for headers in appended]
    assert statuses[0] == 101 and statuses.count(429) >= 20, statuses


def upgrade(where, source, headers=None):
    """A handshake, by default from an address that claims to be another, and the end of what came of it."""
    headers = HANDSHAKE | bearer() | (headers or claims_to_be_someone_else())
    return ask(where, "GET", "/v1/connect", headers, source=source)
