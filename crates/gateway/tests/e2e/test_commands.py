"""The `causeway` command beside `serve`: token, publish, check."""

import asyncio
import os
import subprocess
import tomllib

from support import tokens
from support.node import Node, binary
from support.process import PATIENCE, eventually
from support.subscribers import Subscriber


def causeway(*arguments, node, succeeds=True):
    command = [binary(), *arguments]
    done = subprocess.run(command, cwd=node.directory, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode == 0) == succeeds, done.stderr or done.stdout
    return (done.stdout if succeeds else done.stderr).strip()


def test_a_token_it_signs_lets_its_holder_in_and_no_further(cluster):
    node = cluster.nodes[0]

    async def story():
        arguments = ["--config", "causeway.toml", "--sub", "bob", "--subscribe", "orders.*", "--ttl", "1m"]
        token = causeway("token", *arguments, node=node)
        async with Subscriber(node.connect_url(), ["orders.1"], token) as subscriber:
            assert 50_000 < subscriber.welcome["expires_in_ms"] <= 60_000
            reply = await subscriber.command("subscribe", topics=["invoices.1"])
            assert [refused["code"] for refused in reply["refused"]] == ["forbidden"]

    asyncio.run(story())


def test_what_it_publishes_arrives_by_either_way(cluster):
    node = cluster.nodes[0]

    async def story():
        async with Subscriber(node.connect_url(), ["chat.1", "a/b:c.%"]) as subscriber:
            causeway("publish", "chat.1", '{"by":"redis"}', "--config", "causeway.toml", node=node)
            await eventually(lambda: subscriber.heard("chat.1") == [{"by": "redis"}], "the one through Redis arrives")
            over_http = ["--url", f"http://{node.public}", "--token", tokens.token(publish=["**"])]
            causeway("publish", "a/b:c.%", "over HTTP", *over_http, node=node)
            await eventually(lambda: subscriber.heard("a/b:c.%") == ["over HTTP"], "the one over HTTP arrives")

    asyncio.run(story())


def test_what_it_may_not_publish_is_said(cluster):
    node = cluster.nodes[0]
    over_http = ["--url", f"http://{node.public}", "--token", tokens.token(publish=["chat.*"])]
    assert "forbidden" in causeway("publish", "news", "1", *over_http, node=node, succeeds=False)
    assert "empty segment" in causeway("publish", "a..b", "1", *over_http, node=node, succeeds=False)


def test_check_shows_what_is_in_effect_and_no_secret(cluster):
    shown = causeway("check", "--config", "causeway.toml", node=cluster.nodes[0])
    assert f'listen = "{cluster.nodes[0].address}:' in shown and "ping_interval" in shown
    assert tokens.SECRET not in shown


def test_check_says_where_each_value_came_from(cluster):
    node = cluster.nodes[0]
    environment = {"CAUSEWAY_LIMITS__CONNECTIONS": "5000", "CAUSEWAY_DRAIN__WINDOW": "7s", "PATH": os.environ["PATH"]}
    environment |= {"CAUSEWAY_COMPRESSION__ENABLED": "true", "CAUSEWAY_SERVICE_HOST": "10.0.0.1"}
    command = [binary(), "check", "--config", "causeway.toml", "--listen", "127.0.0.1:7"]
    done = subprocess.run(command, cwd=node.directory, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    lines = done.stdout.splitlines()
    assert 'listen = "127.0.0.1:7"  # --listen' in lines, "a flag overrides the file"
    assert "connections = 5000  # CAUSEWAY_LIMITS__CONNECTIONS" in lines
    assert 'window = "7s"  # CAUSEWAY_DRAIN__WINDOW' in lines, "the environment overrides the file"
    assert "enabled = true  # CAUSEWAY_COMPRESSION__ENABLED" in lines
    assert 'lead_time = "500ms"  # causeway.toml' in lines and "topics_per_connection = 128  # default" in lines
    shown = tomllib.loads(done.stdout)
    assert shown["limits"]["connections"] == 5000 and shown["auth"]["keys"][0]["secret"] == "***"


def test_check_live_asks_the_node_that_runs(cluster, tmp_path):
    with Node("alone", tmp_path, cluster.redis.url) as node:
        # The node took a free port; its configuration must name it to be asked.
        config = node.directory / "causeway.toml"
        config.write_text(config.read_text().replace(f'admin_listen = "{node.address}:0"', f'admin_listen = "{node.admin}"'))
        assert causeway("check", "--live", "--config", "causeway.toml", node=node) == "ready"
        node.kill()
        assert "http://" in causeway("check", "--live", "--config", "causeway.toml", node=node, succeeds=False)


def test_a_bad_configuration_starts_nothing(tmp_path):
    config = tmp_path / "causeway.toml"
    config.write_text("[limits]\nconections = 5\n")
    done = subprocess.run([binary(), "serve", "--config", str(config)], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1 and "limits.conections" in done.stderr and "connections" in done.stderr, done.stderr
