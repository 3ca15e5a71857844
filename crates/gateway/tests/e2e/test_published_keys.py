"""Keys that an issuer publishes: rotation, names that nobody knows, an issuer that is away, several issuers."""

import contextlib
import json

import pytest
from support.cluster import ask
from support.issuer import Issuer, Key, serving
from support.node import Node
from support.process import until
from support.redis_server import RedisServer
from support.requests import bearer


@pytest.fixture
def redis(tmp_path):
    with RedisServer(tmp_path) as redis:
        yield redis


@contextlib.contextmanager
def node_trusting(directory, redis, auth):
    # Without the key that other stories sign with.
    with Node("node", directory, redis.url, {"auth": {"keys": []} | auth}) as node:
        yield node


def verdict(node, token):
    return ask(node.public, "GET", "/v1/connect", bearer(token))[0]


def reason(node, token):
    return json.loads(ask(node.public, "GET", "/v1/connect", bearer(token))[2])["message"]


def test_t21_a_key_that_is_new_is_refused_once_and_then_accepted(tmp_path, redis):
    old, new = Key("old", tmp_path), Key("new", tmp_path)
    with serving(Issuer(old)) as issuer, node_trusting(tmp_path, redis, {"keys": [{"jwks_url": issuer.url}]}) as node:
        assert verdict(node, old.token()) == 204
        assert reason(node, new.token()) == "the token's key is not known here"
        # Asked for, it was not there; from now on it is not asked for again so soon. Another name is.
        until(lambda: issuer.asked == 2, "the set is fetched for its sake")
        for number in range(100):
            assert verdict(node, new.token(kid=f"unknown-{number}")) == 401
        assert issuer.asked == 2, "within 30 s the set is not fetched again, whoever asks"


def test_a_rotation_needs_no_restart(tmp_path, redis):
    old, new = Key("old", tmp_path), Key("new", tmp_path)
    with serving(Issuer(old)) as issuer, node_trusting(tmp_path, redis, {"keys": [{"jwks_url": issuer.url}]}) as node:
        assert verdict(node, old.token()) == 204
        issuer.keys.append(new)
        token = new.token()
        assert verdict(node, token) == 401, "it is refused at once: no worker waits for the fetch"
        until(lambda: verdict(node, token) == 204, "the next attempts find it")
        assert verdict(node, old.token()) == 204


def test_a_node_whose_issuer_is_away_is_not_ready_and_keeps_what_it_has(tmp_path, redis):
    key = Key("main", tmp_path)
    with serving(Issuer(key)) as issuer, node_trusting(tmp_path, redis, {"keys": [{"jwks_url": issuer.url}]}) as node:
        issuer.status = 302
        assert verdict(node, key.token(kid="unknown")) == 401
        until(lambda: issuer.asked == 2, "it was asked, and its redirect not followed")
        assert verdict(node, key.token()) == 204, "stale on error"
        until(lambda: "the answer is 302" in node.stderr.read_text(), "the cause is logged")
        assert issuer.asked == 2
        node.kill()
        node.ready = node.reaches_redis  # `start` would wait for readiness
        node.start()
        until(lambda: issuer.asked >= 3, "the restarted node asks")
        status, _, cause = ask(node.admin, "GET", "/readyz")
        assert (status, cause) == (503, b"published keys have not been fetched yet\n")
        issuer.status = 200
        until(lambda: node.admin_status("/readyz") == 200, "tried again after some seconds")
        assert verdict(node, key.token()) == 204


def test_over_https_the_issuer_must_be_who_it_says(tmp_path, redis, monkeypatch):
    key = Key("main", tmp_path)
    with serving(Issuer(key), tls=tmp_path) as issuer:
        settings = {"auth": {"keys": [{"jwks_url": issuer.url}]}}
        stranger = Node("stranger", tmp_path, redis.url, settings)
        stranger.ready = stranger.reaches_redis
        with stranger:
            until(lambda: "cannot fetch a JWK set" in stranger.stderr.read_text(), "its certificate is not trusted")
            assert (issuer.asked, stranger.admin_status("/readyz")) == (0, 503)
        # What operators do for a private authority of theirs.
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "issuer.pem"))
        with Node("node", tmp_path, redis.url, settings) as node:
            assert verdict(node, key.token()) == 204


def test_each_issuer_is_judged_by_its_own_keys(tmp_path, redis):
    ours, theirs = Key("main", tmp_path), Key("theirs", tmp_path)
    theirs.kid = "main"  # the same name, another key
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [theirs.jwk()]}))
    with serving(Issuer(ours)) as issuer:
        issuers = [
            {"issuer": "https://us.example.com", "audience": "live", "keys": [{"jwks_url": issuer.url}]},
            {"issuer": "https://them.example.com", "required_claims": ["tenant"], "keys": [{"jwks_file": str(file)}]},
        ]
        with node_trusting(tmp_path, redis, {"issuers": issuers}) as node:
            us, them = {"iss": "https://us.example.com", "aud": "live"}, {"iss": "https://them.example.com", "tenant": "t1"}
            assert verdict(node, ours.token(**us)) == 204
            assert verdict(node, theirs.token(**them)) == 204
            for token, words in [
                (theirs.token(**us), "signature is wrong"),
                (ours.token(**them), "signature is wrong"),
                (ours.token(iss="https://us.example.com"), "`aud` is missing"),
                (theirs.token(iss="https://them.example.com"), "`tenant` is missing"),
                (ours.token(iss="https://them.example.com.evil"), "issuer is not accepted"),
                (ours.token(), "`iss` is missing"),
            ]:
                assert words in reason(node, token)
