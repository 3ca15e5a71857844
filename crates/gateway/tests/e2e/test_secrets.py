"""T23: tokens, payloads and passwords are nowhere but where they belong, however talkative the logs and whatever goes wrong."""

import asyncio
import contextlib
import json
import secrets
import subprocess

import pytest
from support import tokens
from support.cluster import ask
from support.collector import collecting
from support.nginx import Nginx
from support.node import Node, binary, toml
from support.process import PATIENCE, own_address, until
from support.raw_client import BINARY, FIN, TEXT, RawClient, close, frame, text, upgrade_head
from support.redis_server import RedisServer
from support.requests import HANDSHAKE, bearer
from support.subscribers import Subscriber

MESSAGE_BYTES = 1024


def canary(kind):
    return f"canary-{kind}-{secrets.token_hex(8)}"


REDIS_PASSWORD, WRONG_PASSWORD = canary("redis-password"), canary("wrong-password")
ADMIN_TOKEN, WRONG_ADMIN_TOKEN, NEXT_ADMIN_TOKEN = (canary(f"{which}-admin-token-of-32-bytes") for which in ("this", "no", "next"))
WRONG_PLACES = [
    "Cookie", "Origin", "X-Forwarded-For", "User-Agent", "Referer", "traceparent", "Sec-WebSocket-Key", "Upgrade",
]
PASSWORDS = [REDIS_PASSWORD, WRONG_PASSWORD, ADMIN_TOKEN, WRONG_ADMIN_TOKEN, NEXT_ADMIN_TOKEN, tokens.SECRET]


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    """Everything that was said by everybody, by who said it, after everything that could go wrong did."""
    directory = tmp_path_factory.mktemp("secrets")
    with contextlib.ExitStack() as stack:
        collector = stack.enter_context(collecting())
        redis = stack.enter_context(RedisServer(directory))
        with redis.client() as client:
            client.acl_setuser("causeway", enabled=True, passwords=[f"+{REDIS_PASSWORD}"],
                               categories=["+@all"], channels=["*"], keys=["*"])
        url = redis.url.replace("//", f"//causeway:{REDIS_PASSWORD}@")
        settings = {
            "log": {"format": "json", "level": "trace"}, "admin": {"token": ADMIN_TOKEN},
            "auth": {"query_token": True}, "limits": {"message_bytes": "1KiB"}, "traces": {"endpoint": collector.url},
        }
        nodes = [stack.enter_context(Node(name, directory, url, settings)) for name in ("node-a", "node-b")]
        nginx = stack.enter_context(Nginx(directory, [node.public for node in nodes]))
        said = Said()
        said.tokens_everywhere(nodes[0], nginx)
        said.payloads_everywhere(nodes[0], nginx, redis)
        said.to_operators(nodes[0])
        said.by_commands(nodes[0], redis)
        for process in (nginx, *nodes):
            process.stop()
        texts = {process.name: process.log() for process in (nginx, *nodes)}
        texts |= {log.name: log.read_text() for log in (nginx.access_log, nginx.error_log)}
        texts["spans"] = b"".join(collector.bodies).decode("latin-1")
    assert '"TRACE"' in texts["node-a"] and "POST /v1/topics/large" in texts["access.log"]
    assert "HTTP publish" in texts["spans"]
    yield said, texts


def test_t23_no_log_and_no_trace_holds_a_secret(evidence):
    said, texts = evidence
    for name, written in texts.items():
        for secret in said.secrets:
            assert secret not in written, f"{name} holds {secret}"


def test_t23_no_answer_holds_a_secret(evidence):
    said, _ = evidence
    for asked, answer in said.answers:
        for secret in said.secrets:
            assert secret not in answer, f"the answer to {asked} holds {secret}: {answer}"


def test_t23_what_redis_repeats_of_a_refused_publish_is_not_passed_on(tmp_path):
    """A server without PUBLISH answers with the beginning of what was published."""
    payload = canary("payload")
    with PoorRedis(tmp_path) as redis, UnreadyNode("node", tmp_path, redis.url) as node:

        def refused():
            status, _, body = ask(node.public, "POST", "/v1/topics/orders.1", bearer(tokens.token(publish=["**"])), payload)
            assert status in (502, 503) and payload not in body.decode()
            return status == 502

        until(refused, "the link is up and Redis refuses")
        until(lambda: "unknown command" in node.log(), "the log says why")
        node.stop()
        assert payload[:10] not in node.log()


class PoorRedis(RedisServer):
    def command(self):
        return [*super().command(), "--rename-command", "PUBLISH", ""]


class UnreadyNode(Node):
    def ready(self):
        return self.listens()


class Said:
    """Says secrets in every place where somebody might, and keeps them, and the answers."""

    def __init__(self):
        self.secrets = list(PASSWORDS)
        self.answers = []

    def keep(self, secret):
        """As a whole, and what alone would do: the claims and the signature of a token."""
        parts = secret.split(".")
        self.secrets += [secret] + (parts[1:] if len(parts) == 3 else [])
        return secret

    def ask(self, where, method, path, headers=None, body=None):
        status, answered, answer = ask(where, method, path, headers, body)
        self.answers.append((f"{method} {path[:30]}", f"{answered}{answer.decode(errors='replace')}"))
        return status

    def token(self, **claims):
        return self.keep(tokens.token(publish=["**"], jti=secrets.token_hex(8), **claims))

    def tokens_everywhere(self, node, nginx):
        asyncio.run(self.tokens_of_clients(nginx))
        bad = [
            self.token(ttl=-60),
            self.keep(self.token()[:-4] + "AAAA"),
            self.keep(canary("malformed")),
            self.keep(f"{canary('a')}.{canary('b')}.{canary('c')}"),
            self.keep(canary("long") + "x" * 9000),
            self.token(causeway={"subscribe": [canary("pattern") + "..", 7]}),
            self.token(nbf="soon"),
        ]
        for where in (node.public, nginx.plain):
            for token in [self.token(), *bad]:
                self.ask(where, "GET", "/v1/connect", bearer(token))
                self.ask(where, "GET", "/v1/connect", HANDSHAKE | bearer(f"{token}x"))
                self.ask(where, "GET", "/v1/connect", {"Authorization": f"Basic {token}"})
                self.ask(where, "POST", "/v1/topics/orders.1", bearer(token), b"1")
                if len(token) < 8000:
                    self.ask(where, "GET", f"/v1/connect?access_token={token}")
                    self.ask(where, "POST", f"/v1/topics/orders.1?access_token={token}", {}, b"1")
            for place in WRONG_PLACES:
                self.ask(where, "GET", "/v1/connect", HANDSHAKE | {place: self.token()})
                self.ask(where, "POST", "/v1/topics/orders.1", {place: self.token()}, b"1")
            for protocols in ("{}", "causeway.v1, {}", "causeway.bearer.{}", "causeway.v1, causeway.bearer.{}, x"):
                offered = {"Sec-WebSocket-Protocol": protocols.format(self.token(ttl=-60))}
                self.ask(where, "GET", "/v1/connect", HANDSHAKE | offered)
        # nginx answers this by itself.
        large = f"/v1/topics/large?access_token={self.token()}"
        assert self.ask(nginx.plain, "POST", large, bearer(self.token()), bytes(70_000)) == 413
        # Straight to a node: a path is what nginx logs.
        self.ask(node.public, "GET", f"/v1/connect/{self.token()}")
        self.ask(node.public, "POST", f"/v1/topics/{self.token()}..", bearer(self.token()), b"1")

    async def tokens_of_clients(self, nginx):
        url = nginx.connect_url()
        in_query = Subscriber(f"{url}?access_token={self.token()}", ["orders.1"], self.token())
        in_header = Subscriber(url, ["orders.1"], self.token(), header=True)
        for client in (Subscriber(url, ["orders.1"], self.token()), in_header, in_query):
            async with client:
                strange = self.token(sub="mallory"), self.token(ttl=-60), self.keep(canary("fresh"))
                for fresh in (self.token(ttl=7200), *strange):
                    await client.command("authenticate", token=fresh)
                await client.command("subscribe", topics=[self.token()])
                await client.command(self.keep(canary("op")))

    def payloads_everywhere(self, node, nginx, redis):
        asyncio.run(self.payloads_heard(nginx, redis))
        large = self.keep(canary("large"))
        for where in (node.public, nginx.plain):
            for body in (self.keep(canary("text")), large + "x" * MESSAGE_BYTES, large + "x" * 70_000):
                self.ask(where, "POST", "/v1/topics/orders.1", bearer(self.token()), body)
                self.ask(where, "POST", "/v1/topics/orders.1", bearer(), body)
                self.ask(where, "POST", "/v1/topics/_orders", bearer(self.token()), body)
            payload = self.keep(canary("payload"))
            command = lambda data: text(f'{{"id":1,"op":"publish","topic":"orders.1","data":{data}}}')
            for said in (
                command(f'"{payload}'),
                command(f"{payload}"),
                command(f'"{payload}","topic":"{payload}"'),
                command(json.dumps(payload + "x" * 2 * MESSAGE_BYTES)),
                frame(FIN | BINARY, payload.encode()),
                frame(FIN | TEXT, payload.encode() + b"\xff"),
                frame(FIN | 0x3, payload.encode()),
                close(1000, payload.encode()),
                close(999, payload.encode()),
            ):
                with RawClient(where) as client:
                    client.send(upgrade_head(where, HANDSHAKE | bearer(self.token())) + said + close(1000))
                    client.rest(may_reset=True)

    async def payloads_heard(self, nginx, redis):
        by_client, by_http, by_redis = (self.keep(canary(by)) for by in ("client", "http", "redis"))
        async with Subscriber(nginx.connect_url(), ["orders.1"], self.token()) as subscriber:
            assert (await subscriber.command("publish", topic="orders.1", data={"a": by_client}))["op"] == "published"
            headers = bearer(self.token()) | {"traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"}
            assert await asyncio.to_thread(self.ask, nginx.plain, "POST", "/v1/topics/orders.1", headers, by_http) == 202
            large, whole = by_redis + "x" * MESSAGE_BYTES, json.dumps({"op": by_redis})
            payloads = [f'{{"a":"{by_redis}', by_redis.encode() + b"\xff", large, whole]
            await asyncio.to_thread(redis.publish, [("orders.1", payload) for payload in payloads])
            await asyncio.to_thread(redis.publish, [("orders.1", "the last")])
            while "the last" not in subscriber.heard("orders.1"):
                await subscriber.settle()
            heard = json.dumps(subscriber.heard("orders.1"))
            assert by_client in heard and by_http in heard and by_redis in heard, "this is about something"

    def to_operators(self, node):
        operator = bearer(ADMIN_TOKEN)
        as_json = {"Content-Type": "application/json"}
        config = node.directory / "causeway.toml"
        for path in ("/metrics", "/livez", "/readyz", "/admin/addresses", "/nothing"):
            for headers in (operator, bearer(WRONG_ADMIN_TOKEN), {}):
                self.ask(node.admin, "GET", path, headers)
        for token in (self.token(), self.token(ttl=-60), self.keep(canary("explained"))):
            for question in ({"token": token}, {"token": [token]}, {"tokens": 1, "token": token}, {"token": token, "peer": "x"}):
                self.ask(node.admin, "POST", "/admin/explain", operator | as_json, json.dumps(question))
        self.ask(node.admin, "POST", "/admin/explain", operator | as_json, f'{{"token":"{self.keep(canary("torn"))}')
        self.ask(node.admin, "POST", "/admin/revoke", operator | as_json, json.dumps({"jti": "another", "ttl": "1m"}))
        before = config.read_text()
        config.write_text(before.replace(ADMIN_TOKEN, NEXT_ADMIN_TOKEN).replace(REDIS_PASSWORD, WRONG_PASSWORD))
        assert self.ask(node.admin, "POST", "/admin/reload", operator) == 200
        config.write_text(before)
        assert self.ask(node.admin, "POST", "/admin/reload", bearer(NEXT_ADMIN_TOKEN)) == 200
        config.write_text(before.replace('"HS256"', '"HS999"'))
        assert self.ask(node.admin, "POST", "/admin/reload", operator) == 422
        config.write_text(before)

    def by_commands(self, node, redis):
        good = redis.url.replace("//", f"//causeway:{REDIS_PASSWORD}@")
        refused = good.replace(REDIS_PASSWORD, WRONG_PASSWORD)
        nowhere = good.replace(redis.address, own_address())
        for url in (good, refused, nowhere, good.replace("redis:", "http:"), good + "/not-a-number"):
            for command in ("check", "doctor"):
                self.run(node, command, "--redis-url", url)
        for json_too in ([], ["--json"]):
            self.run(node, "doctor", *json_too)
            for token in (self.token(), self.token(ttl=-60), self.keep(canary("explained"))):
                self.run(node, "explain", "--token", token, *json_too)
                self.run(node, "explain", "--token", token, "--live", "--admin-listen", node.admin, *json_too)
        (node.directory / "broken.toml").write_text(toml(node.settings).replace("[redis]", "[redis]\nurls = 1"))
        self.run(node, "check", config="broken.toml")
        self.run(node, "serve", config="broken.toml")

    def run(self, node, command, *arguments, config="causeway.toml"):
        words = [binary(), command, "--config", config, *arguments]
        done = subprocess.run(words, cwd=node.directory, capture_output=True, text=True, timeout=PATIENCE)
        self.answers.append((f"causeway {command}", done.stdout + done.stderr))
