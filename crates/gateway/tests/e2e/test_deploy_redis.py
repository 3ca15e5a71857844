"""T31: a real Redis with the shipped configuration and users: the nodes' rights are enough for everything that they do, none of them
is spare, and nobody may do anything else."""

import asyncio
import hashlib
import json
import re
import time

import pytest
import redis
from support import tokens
from support.cluster import ask
from support.facts import ROOT, in_force, usable
from support.node import Node
from support.operator import Operator
from support.process import PATIENCE, eventually
from support.redis_server import RedisServer
from support.requests import bearer
from support.subscribers import Subscriber

USERS = (ROOT / "deploy/redis/users.acl").read_text()
CONF = (ROOT / "deploy/redis/redis.conf").read_text()
PREFIX = "causeway:"
PASSWORD = "a password of its own"
# What the nodes' user is granted, without the `+`.
(RULES,) = re.findall(r"^user causeway (.+)$", USERS, re.M)
GRANTED = re.findall(r"\+(\S+)", RULES)


class ShippedRedis(RedisServer):
    """With deploy/redis; only its place, the path of the users and their passwords are put in."""

    def __init__(self, directory):
        super().__init__(directory)
        self.url = f"redis://causeway:{PASSWORD.replace(' ', '%20')}@{self.address}:{self.port}"
        users = self.directory / "users.acl"
        users.write_text(re.sub(r"#SHA256_OF_\w+", f"#{hashlib.sha256(PASSWORD.encode()).hexdigest()}", USERS))
        self.config = self.directory / "redis.conf"
        assert CONF.count("/etc/redis/users.acl") == 1
        self.config.write_text(CONF.replace("/etc/redis/users.acl", str(users)))

    def command(self):
        return ["redis-server", str(self.config), "--bind", self.address, "--port", str(self.port),
                "--dir", str(self.directory)]

    def client(self, user="operator"):
        return redis.Redis(
            host=self.address, port=self.port, username=user, password=PASSWORD, decode_responses=True
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ShippedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def node(server, tmp_path_factory):
    with Node("node", tmp_path_factory.mktemp("node"), server.url, {"redis": {"topic_prefix": PREFIX}}) as node:
        yield node


@pytest.fixture
def operator(server):
    with server.client() as operator:
        yield operator


def test_redis_does_not_start_before_the_passwords_are_put_in(tmp_path):
    server = ShippedRedis(tmp_path)
    (server.directory / "users.acl").write_text(USERS)
    with pytest.raises(AssertionError, match="redis ended with 1"):
        server.start()
    assert "Aborting Redis startup because of ACL errors" in server.log()


def test_t31_the_rights_of_the_nodes_are_enough(server, node, operator):
    operator.acl_log_reset()
    asyncio.run(everything_a_node_does(server, node, operator, "orders.0", PATIENCE))
    assert refusals(operator) == set()


@pytest.mark.parametrize("right", GRANTED)
def test_t31_none_of_the_rights_of_the_nodes_is_spare(right, server, node, operator):
    operator.acl_log_reset()
    operator.execute_command("ACL SETUSER", "causeway", f"-{right}")
    try:
        with pytest.raises(AssertionError):
            asyncio.run(everything_a_node_does(server, node, operator, f"orders.{right}", 5))
        assert refusals(operator) == {right}
    finally:
        operator.execute_command("ACL SETUSER", "causeway", f"+{right}")


def test_t31_the_keys_of_the_nodes_are_not_spare(server, node, operator):
    (keys,) = re.findall(r"~\S+", RULES)
    operator.acl_log_reset()
    operator.execute_command("ACL SETUSER", "causeway", "resetkeys")
    try:
        with pytest.raises(AssertionError):
            asyncio.run(everything_a_node_does(server, node, operator, "orders.keys", 5))
        assert refusals(operator) == {f"{PREFIX}_causeway.revoked"}
    finally:
        operator.execute_command("ACL SETUSER", "causeway", keys)


async def everything_a_node_does(server, node, operator, topic, patience):
    """Subscribes, hears, publishes, revokes, loses the link and comes back, tries out the connection it has and keeps it,
    reads what it missed, unsubscribes. Another that starts reads what was before it, asks the first who is there, and orders something of it."""

    async def publish(payload):
        headers = bearer(tokens.token(publish=["**"]))
        status, _, body = await asyncio.to_thread(ask, node.public, "POST", f"/v1/topics/{topic}", headers, payload)
        assert status < 300, (status, body)

    async with Subscriber(node.connect_url()) as subscriber:
        reply = await subscriber.command("subscribe", topics=[topic])
        assert reply.get("topics") == [topic], reply
        with server.client("publisher") as service:
            service.publish(PREFIX + topic, "1")
        await publish("2")
        await eventually(lambda: subscriber.heard(topic) == [1, 2], "both are heard", patience)

        status, _, body = await asyncio.to_thread(revoke, node, f"told in {topic}")
        assert status == 200, body
        await eventually(lambda: is_revoked(node, f"told in {topic}"), "it is heard", patience)

        missed = {"whose": {"subject": f"missed in {topic}"}, "until": int(time.time()) + 600}
        operator.xadd(f"{PREFIX}_causeway.revoked", {"entry": json.dumps(missed)})
        publishing = publishing_connection(operator)
        operator.client_kill_filter(_type="pubsub")
        await eventually(lambda: subscriber.pushed("gap"), "the link is up again", patience)
        await publish("3")
        assert publishing_connection(operator) == publishing
        await eventually(lambda: subscriber.heard(topic) == [1, 2, 3], "the third is heard", patience)
        await eventually(lambda: is_revoked(node, f"missed in {topic}"), "what it missed is read", patience)

        await subscriber.command("unsubscribe", topics=[topic])
        left = lambda: dict(operator.pubsub_numsub(PREFIX + topic))[PREFIX + topic] == 0
        await eventually(left, "the topic is given up", patience)

    with Node(f"late-{topic}", node.directory, server.url, {"redis": {"topic_prefix": PREFIX}}) as late:
        assert is_revoked(late, f"told in {topic}")
        async with Subscriber(node.connect_url()) as subscriber:
            meant = {key: subscriber.welcome[key] for key in ("session", "node")}
            listed = lambda: [{key: one[key] for key in meant} for one in Operator(late).sessions(node=node.name)]
            await eventually(lambda: listed() == [meant], "the other node is asked who is there", patience)
            await asyncio.to_thread(Operator(late).post, "/admin/disconnect", **meant)
            assert await subscriber.closed() == 4403


def revoke(node, subject):
    body = json.dumps({"subject": subject, "ttl": "10m"})
    return ask(node.admin, "POST", "/admin/revoke", {"Content-Type": "application/json"}, body)


def is_revoked(node, subject):
    return ask(node.public, "GET", "/v1/connect", bearer(tokens.token(sub=subject)))[0] == 401


def publishing_connection(operator):
    (connection,) = [
        one["id"] for one in operator.client_list() if one["user"] == "causeway" and "P" not in one["flags"]
    ]
    return connection


def refusals(operator):
    return {entry["object"] for entry in operator.acl_log()}


@pytest.mark.parametrize(
    "user, command",
    [
        ("causeway", "SUBSCRIBE causeway:orders.42 causeway:_canary.node-a"),
        ("causeway", "UNSUBSCRIBE causeway:orders.42"),
        ("causeway", "PUBLISH causeway:_canary.node-a 1"),
        ("causeway", "SUBSCRIBE causeway:_causeway.control"),
        ("causeway", "PUBLISH causeway:_causeway.control 1"),
        ("causeway", "SUBSCRIBE causeway:_causeway.node.0123456789abcdef"),
        ("causeway", "PUBLISH causeway:_causeway.node.0123456789abcdef 1"),
        ("causeway", "PING"),
        ("causeway", "UNWATCH"),
        ("causeway", "XADD causeway:_causeway.revoked * entry 1"),
        ("causeway", "XRANGE causeway:_causeway.revoked - +"),
        ("publisher", "PUBLISH causeway:orders.42 1"),
        ("publisher", "PING"),
        ("operator", "ACL LOG"),
        ("operator", "CLIENT LIST"),
    ],
)
def test_t31_what_is_meant_is_allowed(operator, user, command):
    assert operator.acl_dryrun(user, *command.split()) == "OK"


@pytest.mark.parametrize(
    "user, command",
    [
        ("causeway", "SUBSCRIBE orders.42"),
        ("causeway", "SUBSCRIBE causeway:orders.42 another:orders.42"),
        ("causeway", "PUBLISH another:orders.42 1"),
        ("causeway", "PSUBSCRIBE causeway:*"),
        ("publisher", "PUBLISH causeway:_canary.node-a 1"),
        ("causeway", "XADD causeway:orders.42 * entry 1"),
        ("causeway", "XRANGE another:_causeway.revoked - +"),
        ("publisher", "PUBLISH causeway:_causeway.control 1"),
        ("publisher", "PUBLISH causeway:_causeway.node.0123456789abcdef 1"),
        ("publisher", "XADD causeway:_causeway.revoked * entry 1"),
        ("publisher", "PUBLISH another:orders.42 1"),
        ("publisher", "SUBSCRIBE causeway:orders.42"),
    ],
)
def test_t31_what_is_not_meant_is_refused(operator, user, command):
    assert "no permissions" in operator.acl_dryrun(user, *command.split())


@pytest.mark.parametrize("user", ["causeway", "publisher"])
def test_t31_every_other_command_is_refused(operator, user):
    granted = set(re.findall(r"\+(\S+)", re.search(rf"^user {user} (.+)$", USERS, re.M)[1]))
    # Redis asks for no right before somebody has said who they are.
    before_a_right_is_asked_for = {name for name, facts in operator.command().items() if "no_auth" in facts["flags"]}
    commands = set(operator.command_list())
    only_with_a_subcommand = {name.partition("|")[0] for name in commands if "|" in name}
    others = commands - granted - before_a_right_is_asked_for - only_with_a_subcommand
    assert {"flushall", "eval", "config|get", "keys", "select", "monitor", "client|kill"} <= others
    allowed = [name for name in sorted(others) if "no permissions" not in dry_run(operator, user, name)]
    assert allowed == []


def dry_run(operator, user, name):
    (facts,) = operator.execute_command("COMMAND", "INFO", name).values()
    words = name.split("|")
    return operator.acl_dryrun(user, *words, *["1"] * (abs(facts["arity"]) - len(words)))


def test_t31_nobody_is_let_in_without_a_name(server):
    with redis.Redis(host=server.address, port=server.port) as stranger:
        with pytest.raises(redis.exceptions.AuthenticationError):
            stranger.ping()


def test_redis_does_as_its_configuration_says(operator):
    in_effect = operator.config_get("client-output-buffer-limit", "save", "appendonly", "tcp-keepalive", "timeout")
    pubsub = in_effect.pop("client-output-buffer-limit").partition("pubsub ")[2].split()[:3]
    assert pubsub == [str(64 << 20), str(32 << 20), "10"]
    assert in_effect == {"save": "", "appendonly": "no", "tcp-keepalive": "60", "timeout": "0"}


def test_prefix_and_user_are_those_of_the_shipped_nodes(tmp_path):
    """Kubernetes' nodes share their Redis; those of docker-compose.yml have one to themselves."""
    config = in_force(usable(ROOT / "deploy/kubernetes/base/causeway.toml", tmp_path))
    assert config["redis"]["topic_prefix"] == PREFIX
    assert f" &{PREFIX}* " in RULES
