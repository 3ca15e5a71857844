"""Tokens that end before their time (threat T22): on every node, for who is connected and for who comes."""

import asyncio
import itertools
import json
import time

import pytest
from support import tokens
from support.cluster import ask
from support.node import Node
from support.process import eventually, until
from support.requests import bearer
from support.subscribers import Subscriber, together
from test_commands import causeway

_names = itertools.count(1)

# What nodes tell each other, and the log of what is revoked.
RESERVED = ["_causeway.control", "_causeway.revoked"]


@pytest.fixture
def name():
    """A subject or jti of the story's own: the cluster remembers those of others."""
    return f"story-{next(_names)}"


def revoke(node, expected=200, **asked):
    body = json.dumps({"ttl": "10m"} | asked)
    status, _, answer = ask(node.admin, "POST", "/admin/revoke", {"Content-Type": "application/json"}, body)
    assert status == expected, answer
    return json.loads(answer)


def verdict(node, token):
    return ask(node.public, "GET", "/v1/connect", bearer(token))[0]


def reason(node, token):
    return json.loads(ask(node.public, "GET", "/v1/connect", bearer(token))[2])["message"]


def on_both(cluster, token):
    return [Subscriber(node.connect_url(), ["orders.1"], token) for node in cluster.nodes]


@pytest.mark.alone
def test_t22_a_revoked_subject_is_gone_from_all_nodes_within_two_seconds(cluster, name):
    token = tokens.token(sub=name)
    answer = {}

    async def story():
        clients = on_both(cluster, token)
        async with together([*clients, *on_both(cluster, tokens.token(sub="bystander"))]) as everybody:
            begun = time.monotonic()
            answer.update(await asyncio.to_thread(revoke, cluster.nodes[0], subject=name))
            for client in clients:
                assert await client.closed() == 4401
            assert time.monotonic() - begun < 2
            cluster.publish("orders.1", "1")
            for bystander in everybody[2:]:
                await eventually(lambda: bystander.heard("orders.1") == [1], "others hear what they heard")  # noqa: B023
            assert all(client.heard("orders.1") == [] for client in clients)

    asyncio.run(story())
    assert all(node.gauge("causeway_revocations") >= 1 for node in cluster.nodes)
    assert 590 < answer["until"] - time.time() <= 600
    for node in cluster.nodes:
        assert (verdict(node, token), reason(node, token)) == (401, "the token was revoked")
        assert verdict(node, tokens.token(sub=f"{name}x")) == 204
        status, _, _ = ask(node.public, "POST", "/v1/topics/a", bearer(tokens.token(sub=name, publish=["**"])), b"1")
        assert status == 401


def test_t22_one_token_of_several_is_revoked_by_its_name(cluster, name):
    revoked, other = tokens.token(jti=name), tokens.token(jti=f"{name}-other")

    async def story():
        async with together([*on_both(cluster, revoked), *on_both(cluster, other)]) as clients:
            causeway("revoke", "--jti", name, "--config", "causeway.toml", node=cluster.nodes[1])
            for client in clients[:2]:
                assert await client.closed() == 4401
            for client in clients[2:]:
                await client.settle()
                # Nor does the revoked token keep a connection.
                reply = await client.command("authenticate", token=revoked)
                assert (reply["op"], reply["code"]) == ("error", "unauthenticated")
                assert (await client.command("authenticate", token=tokens.token(jti=f"{name}-fresh")))["op"] == "authenticated"

    asyncio.run(story())
    assert [verdict(node, revoked) for node in cluster.nodes] == [401, 401]


def test_t22_logged_out_everywhere_and_in_again_with_a_fresh_token(cluster, name):
    old, undated = tokens.token(sub=name, iat=int(time.time()) - 5), tokens.token(sub=name)

    async def story():
        async with together([*on_both(cluster, old), *on_both(cluster, undated)]) as clients:
            arguments = ["--subject", name, "--issued-before", "now", "--url", f"http://{cluster.nodes[0].admin}"]
            said = await asyncio.to_thread(causeway, "revoke", *arguments, node=cluster.nodes[0])
            assert said.startswith("revoked until 2")
            for client in clients:
                assert await client.closed() == 4401

    asyncio.run(story())
    # Times of issue are whole seconds: the next one is late enough.
    fresh = tokens.token(sub=name, iat=int(time.time()) + 1)
    for node in cluster.nodes:
        assert [verdict(node, token) for token in (old, undated, fresh)] == [401, 401, 204]


def test_everything_issued_before_a_time_can_be_revoked(doomed_cluster):
    now = int(time.time())
    leaked, good = tokens.token(sub="anybody", iat=now - 100), tokens.token(sub="anybody", iat=now - 10)

    async def story():
        async with together([*on_both(doomed_cluster, leaked), *on_both(doomed_cluster, good)]) as clients:
            await asyncio.to_thread(revoke, doomed_cluster.nodes[0], issued_before=now - 50)
            for client in clients[:2]:
                assert await client.closed() == 4401
            for client in clients[2:]:
                await client.settle()

    asyncio.run(story())


def test_t22_a_node_that_comes_later_knows_what_was_revoked(cluster, name, tmp_path):
    token = tokens.token(sub=name)
    revoke(cluster.nodes[0], subject=name)
    with Node("late", tmp_path, cluster.redis.url) as node:
        assert verdict(node, token) == 401, "as soon as it is ready"
        assert verdict(node, tokens.token()) == 204


def test_t22_a_node_that_was_away_learns_what_it_missed(cluster, name):
    """Here it heard nothing, though it was away for a moment only: the entry is put into the log and not published."""
    token = tokens.token(sub=name)

    async def story():
        async with together(on_both(cluster, token)) as clients:
            with cluster.redis.client() as redis:
                missed = {"whose": {"subject": name}, "until": int(time.time()) + 600}
                redis.xadd("_causeway.revoked", {"entry": json.dumps(missed)})
                for client in clients:
                    await client.settle()
                redis.client_kill_filter(_type="pubsub")
            for client in clients:
                assert await client.closed() == 4401

    asyncio.run(story())
    assert [verdict(node, token) for node in cluster.nodes] == [401, 401]


def test_what_is_revoked_stays_revoked_when_the_configuration_is_read_again(cluster, name):
    token, node = tokens.token(sub=name), cluster.nodes[0]
    revoke(node, subject=name)
    until(lambda: verdict(node, token) == 401, "it is heard")
    assert ask(node.admin, "POST", "/admin/reload")[0] == 200
    assert (verdict(node, token), reason(node, token)) == (401, "the token was revoked")

    async def story():
        # Who came in before the reload is still found after it.
        async with Subscriber(node.connect_url(), ["orders.1"], tokens.token(sub=f"{name}-later")) as client:
            assert (await asyncio.to_thread(ask, node.admin, "POST", "/admin/reload"))[0] == 200
            await asyncio.to_thread(revoke, node, subject=f"{name}-later")
            assert await client.closed() == 4401

    asyncio.run(story())


def test_only_whoever_may_act_on_a_node_may_revoke(tmp_path):
    secret = "an operator's token of thirty-two bytes"
    with Node("guarded", tmp_path, None, {"admin": {"token": secret}}) as node:
        assert revoke(node, expected=401, subject="alice")["code"] == "unauthenticated"
        arguments = ["--subject", "alice", "--url", f"http://{node.admin}"]
        assert "401" in causeway("revoke", *arguments, node=node, succeeds=False)
        assert verdict(node, tokens.token(sub="alice")) == 204
        assert causeway("revoke", *arguments, "--admin-token", secret, node=node).startswith("revoked until 2")
        until(lambda: verdict(node, tokens.token(sub="alice")) == 401, "it is heard")
        question = json.dumps({"token": tokens.token(sub="alice")})
        headers = {"Content-Type": "application/json"} | bearer(secret)
        explanation = json.loads(ask(node.admin, "POST", "/admin/explain", headers, question)[2])
        assert explanation["decided_by"] == "token" and "revoked" in json.dumps(explanation)


def test_clients_can_neither_revoke_nor_listen(cluster, name):
    token = tokens.token(subscribe=["**", "_causeway.*"], publish=["**", "_causeway.*"])
    forged = json.dumps({"revoke": {"whose": {"subject": name}, "until": int(time.time()) + 600}})

    async def story():
        async with Subscriber(cluster.nodes[0].connect_url(), ["orders.1"], token) as client:
            for topic in RESERVED:
                reply = await client.command("subscribe", topics=[topic])
                assert [refused["code"] for refused in reply["refused"]] == ["forbidden"]
                reply = await client.command("publish", topic=topic, data=json.loads(forged))
                assert reply["code"] == "forbidden"

    asyncio.run(story())
    for topic in RESERVED:
        assert ask(cluster.nodes[0].public, "POST", f"/v1/topics/{topic}", bearer(token), forged)[0] == 403
    assert ask(cluster.nodes[0].public, "POST", "/admin/revoke", {"Content-Type": "application/json"}, b"{}")[0] == 404
    assert verdict(cluster.nodes[0], tokens.token(sub=name)) == 204


def test_what_others_publish_there_harms_nobody(cluster, name):
    entries = ["", "{", "null", '{"whose":"everybody"}', '{"whose":"everybody","until":1e999}', "x" * 70_000, b"\xff\0"]
    told = [*entries, *(f'{{"revoke":{entry}}}' for entry in entries if isinstance(entry, str)), '{"revoke":{},"order":{}}']

    async def story():
        async with together(on_both(cluster, tokens.token(sub=name))) as clients:
            for payload in told:
                cluster.publish("_causeway.control", payload)
            with cluster.redis.client() as redis:
                for entry in entries:
                    redis.xadd("_causeway.revoked", {"entry": entry})
                # So that the log is read.
                redis.client_kill_filter(_type="pubsub")
            await asyncio.to_thread(revoke, cluster.nodes[0], subject=f"{name}-other")
            for node in cluster.nodes:
                await eventually(lambda: verdict(node, tokens.token(sub=f"{name}-other")) == 401, "a good one is heard")  # noqa: B023
            for client in clients:
                await client.settle()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("expected", "headers", "body"),
    [
        (400, {"Content-Type": "text/plain"}, b'{"subject":"a","ttl":"1m"}'),
        (400, {"Content-Type": "application/json"}, b""),
        (400, {"Content-Type": "application/json"}, b'{"subject":"a"}'),
        (400, {"Content-Type": "application/json"}, b'{"ttl":"1m"}'),
        (400, {"Content-Type": "application/json"}, b'{"subject":"a","jti":"b","ttl":"1m"}'),
        (400, {"Content-Type": "application/json"}, b'{"subject":"a","ttl":"0s"}'),
        (400, {"Content-Type": "application/json"}, b'{"subject":"a","ttl":"1m","role":"x"}'),
        (400, {"Content-Type": "application/json"}, b'{"subject":"a","ttl":"1m","issuer":"nobody"}'),
    ],
)
def test_what_is_not_clear_is_refused_with_a_reason(cluster, expected, headers, body):
    status, _, answer = ask(cluster.nodes[0].admin, "POST", "/admin/revoke", headers, body)
    assert status == expected
    assert set(json.loads(answer)) == {"code", "message"}
    assert ask(cluster.nodes[0].admin, "GET", "/admin/revoke")[0] in (404, 405)


def test_without_redis_it_is_said_that_nobody_was_told(doomed_cluster):
    doomed_cluster.redis.kill()
    node = doomed_cluster.nodes[0]
    until(lambda: node.admin_status("/readyz") == 503, "the link is lost")
    assert revoke(node, expected=503, subject="alice")["code"] == "broker_unavailable"
