"""`causeway explain` and `POST /admin/explain`: which rule decides, in the same words and the same way as the node itself."""

import asyncio
import contextlib
import json
import subprocess

import pytest
from support import tokens
from support.cluster import ask
from support.issuer import Issuer, Key, serving
from support.node import ORIGIN, Node, binary, toml
from support.process import PATIENCE, own_address
from support.requests import bearer
from support.subscribers import Subscriber

PER_IP = 2
ADMIN_TOKEN = "an operator's token of thirty-two bytes"


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """Few connections for each address, a proxy at 127.0.0.1, and an admin listener with a token. No Redis."""
    settings = {"admin": {"token": ADMIN_TOKEN}, "limits": {"connections_per_ip": PER_IP}}
    with Node("explained", tmp_path_factory.mktemp("explain"), None, settings) as node:
        yield node


def explain(node, *arguments, token=None, live=False):
    """The explanation and the exit status."""
    command = [binary(), "explain", "--config", "causeway.toml", "--json", *arguments]
    command += ["--token", token] if token else []
    # The node took a free port, which its file does not name.
    command += ["--live", "--admin-listen", node.admin] if live else []
    done = subprocess.run(command, cwd=node.directory, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout), done.returncode


def over_http(node, question, headers=None):
    headers = {"Content-Type": "application/json", **({} if headers is None else headers)}
    status, _, body = ask(node.admin, "POST", "/admin/explain", headers, json.dumps(question))
    return status, json.loads(body)


def verdicts(explanation):
    return {ruling["rule"]: ruling["verdict"] for ruling in explanation["rules"]}


def code(explanation):
    (ruling,) = [ruling for ruling in explanation["rules"] if ruling["rule"] == explanation["decided_by"]]
    return ruling["code"]


@pytest.mark.parametrize("live", [False, True])
def test_what_is_allowed_is_allowed_by_every_rule(node, live):
    token = tokens.token(sub="alice", subscribe=["orders.*", "user.{sub}.*"])
    asked = ["--origin", ORIGIN, "--forwarded-for", "203.0.113.7", "--topic", "user.alice.inbox"]
    told, status = explain(node, *asked, token=token, live=live)
    assert status == 0 and told["allowed"] and told["decided_by"] is None
    assert told["client"] == "203.0.113.7", "the proxy is trusted, so the client is whom it names"
    load = "passed" if live else "not_asked"
    order = ["node_open", "node_room", "node_memory", "upgrade_rate", "address_room", "origin", "handshake", "token", "topic", "subscribe"]
    assert list(verdicts(told)) == order
    assert verdicts(told) == dict.fromkeys(order, "passed") | dict.fromkeys(order[:5], load) | {"handshake": "not_asked"}
    assert "`user.{sub}.*`" in told["rules"][-1]["words"] and "`alice`" in told["rules"][7]["words"]
    assert token not in json.dumps(told)


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize(
    ("rule", "refusal", "asked", "token"),
    [
        ("origin", "origin_not_allowed", ["--origin", "https://evil.test"], tokens.token()),
        ("token", "unauthenticated", [], None),
        ("token", "unauthenticated", [], tokens.token(ttl=-10)),
        ("token", "unauthenticated", [], tokens.token(secret="f" * 64)),
        ("topic", "bad_topic", ["--topic", "a..b"], tokens.token()),
        ("subscribe", "forbidden", ["--topic", "news"], tokens.token(subscribe=["orders.*"])),
        ("subscribe", "forbidden", ["--topic", "_causeway.x"], tokens.token()),
        ("publish", "forbidden", ["--topic", "news", "--publish"], tokens.token()),
        # The first in their order decides, and the others are told all the same.
        ("origin", "origin_not_allowed", ["--origin", "null", "--topic", "news"], tokens.token(ttl=-10)),
    ],
)
def test_the_rule_that_refuses_is_named(node, live, rule, refusal, asked, token):
    told, status = explain(node, *asked, token=token, live=live)
    assert (status, told["allowed"], told["decided_by"], code(told)) == (1, False, rule, refusal)


def test_published_keys_are_fetched_or_it_cannot_be_told(tmp_path):
    key = Key("main", tmp_path)
    with serving(Issuer(key)) as issuer:
        settings = {"auth": {"keys": [{"jwks_url": issuer.url}]}}
        (tmp_path / "causeway.toml").write_text(toml(settings))

        def explained(*arguments):
            command = [binary(), "explain", "--config", "causeway.toml", *arguments]
            return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)

        done = explained("--token", key.token())
        assert done.returncode == 0 and "it is a token of `alice`" in done.stdout, done.stderr
        done = explained("--token", key.token(kid="unknown"))
        assert done.returncode == 1 and "refused by token" in done.stdout, "the issuer was asked, and does not know it"
        issuer.status = 500
        done = explained("--token", key.token())
        assert (done.returncode, done.stdout) == (2, ""), "neither allowed nor refused"
        assert "it cannot be told" in done.stderr and issuer.url in done.stderr and "500" in done.stderr
        done = explained("--token", "no.token.this")
        assert done.returncode == 1, "no key would make a token of it"


def test_rules_behind_the_one_that_decided_are_told_too(node):
    told, _ = explain(node, "--origin", "null", "--topic", "news", token=tokens.token(ttl=-10))
    found = verdicts(told)
    assert (found["origin"], found["token"], found["topic"], found["subscribe"]) == ("refused", "refused", "passed", "not_asked")


def test_a_node_answers_its_clients_as_it_explains(node):
    """The verdict that a client gets, and the explanation of the same request."""
    for origin, token in [
        (None, tokens.token()),
        (ORIGIN, tokens.token()),
        ("https://evil.test", tokens.token()),
        (ORIGIN, tokens.token(ttl=-10)),
        ("null", tokens.token(ttl=-10)),
    ]:
        headers = bearer(token) | ({"Origin": origin} if origin else {})
        status, _, body = ask(node.public, "GET", "/v1/connect", headers, source=own_address())
        question = {"token": token, "origin": origin, "peer": own_address()}
        _, told = over_http(node, question, bearer(ADMIN_TOKEN))
        assert told["allowed"] == (status == 204)
        if status != 204:
            assert code(told) == json.loads(body)["code"]


def test_a_node_knows_who_has_connections_already(node):
    async def story():
        source = own_address()
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(PER_IP):
                await stack.enter_async_context(Subscriber(node.connect_url(), source=source))
            told, _ = await asyncio.to_thread(explain, node, "--peer", source, token=tokens.token(), live=True)
            assert (told["decided_by"], code(told)) == ("address_room", "too_many_connections")
            told, _ = await asyncio.to_thread(explain, node, "--peer", own_address(), token=tokens.token(), live=True)
            assert told["allowed"], "another address has room of its own"

    asyncio.run(story())


def test_only_whoever_has_the_token_may_ask_a_node(node):
    question = {"token": tokens.token()}
    for headers in ({}, bearer("f" * 32)):
        status, refusal = over_http(node, question, headers)
        assert (status, refusal["code"]) == (401, "unauthenticated")
    assert over_http(node, question, bearer(ADMIN_TOKEN))[0] == 200
    for path in ("/livez", "/readyz", "/metrics"):
        assert node.admin_status(path) == 200, "probes need no token"


def test_a_question_that_makes_no_sense_is_refused_with_the_reason(node):
    for question in ({"tokn": "a"}, {"peer": "nowhere"}, {"origin": "a\nb"}):
        status, refusal = over_http(node, question, bearer(ADMIN_TOKEN))
        assert (status, refusal["code"]) == (400, "malformed") and refusal["message"]


def test_without_a_token_pages_of_other_origins_may_not_ask(cluster):
    node = cluster.nodes[0]
    assert over_http(node, {})[0] == 200
    for headers in ({"Origin": "https://evil.test"}, {"Host": "evil.test"}):
        status, refusal = over_http(node, {}, headers)
        assert (status, refusal["code"]) == (403, "forbidden")


def test_for_people_it_is_a_line_for_each_rule(node):
    done = subprocess.run(
        [binary(), "explain", "--config", "causeway.toml", "--origin", "https://evil.test"],
        cwd=node.directory, capture_output=True, text=True, timeout=PATIENCE,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 1 and lines[0] == "client 127.0.0.1" and lines[-1] == "refused by origin"
    assert any(line.startswith("FAIL  origin") and "allowed_origins" in line for line in lines), done.stdout


def test_what_cannot_be_told_is_no_refusal(node):
    done = subprocess.run(
        [binary(), "explain", "--config", "nowhere.toml"], cwd=node.directory, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 2 and "nowhere.toml" in done.stderr
