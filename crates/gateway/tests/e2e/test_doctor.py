"""`causeway doctor` with the real things: Redis and its access rules, nginx's file, a node that runs."""

import asyncio
import contextlib
import json
import os
import resource
import subprocess

import pytest
from support import tokens
from support.issuer import Issuer, Key, serving
from support.nginx import SHIPPED
from support.node import ORIGIN, Node, binary, toml
from support.process import PATIENCE, own_address
from support.redis_server import RedisServer
from support.subscribers import Subscriber

SEVERITIES = ["ok", "note", "warning", "error"]
SECRET = "0123456789abcdef" * 2 + "fedcba9876543210" * 2


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    with RedisServer(tmp_path_factory.mktemp("doctor")) as redis:
        yield redis


def healthy(redis):
    """A configuration that nothing can be said against on this machine."""
    with redis.client() as client:
        client.acl_setuser("causeway", enabled=True, passwords=["+secret"], categories=["+@all"], channels=["*"], keys=["*"])
    return {
        "trusted_proxies": ["10.0.0.1/32"],
        "allowed_origins": [ORIGIN],
        "redis": {"url": redis.url.replace("//", "//causeway:secret@")},
        "auth": {"keys": [{"kid": "main", "algorithm": "HS256", "secret": SECRET}]},
        "limits": {"connections": 100},
    }


def doctor(directory, settings, *arguments, stdin=None, limit=None):
    """The findings by what was looked at (a list each), once the exit status was seen to be theirs."""
    (directory / "causeway.toml").write_text(toml(settings))
    command = [binary(), "doctor", "--config", "causeway.toml", "--json", *arguments]
    environment = {"PATH": os.environ["PATH"]}
    lower = limit and (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)))
    done = subprocess.run(
        command, cwd=directory, env=environment, input=stdin, preexec_fn=lower, capture_output=True, text=True, timeout=PATIENCE
    )
    report = json.loads(done.stdout)
    worst = max(SEVERITIES.index(finding["severity"]) for finding in report["findings"])
    assert report["severity"] == SEVERITIES[worst]
    assert done.returncode == {"ok": 0, "note": 0, "warning": 1, "error": 2}[report["severity"]]
    assert "secret@" not in done.stdout and SECRET not in done.stdout
    for finding in report["findings"]:
        assert finding["severity"] == "ok" or (finding["expected"] and finding["advice"]), finding
    found = {}
    for finding in report["findings"]:
        found.setdefault(finding["check"], []).append(finding)
    return found


def faults(found):
    """What is not ok, and how bad."""
    return {check: one["severity"] for check, all_ in found.items() for one in all_ if one["severity"] != "ok"}


def test_a_healthy_node_has_no_fault(redis, tmp_path):
    arguments = ["--nginx", str(SHIPPED), "--peer", "10.0.0.1", "--forwarded-for", "203.0.113.7"]
    found = doctor(tmp_path, healthy(redis), *arguments)
    assert faults(found) == {}
    assert "203.0.113.7" in found["client_address"][0]["found"]
    assert "`causeway`" in found["redis_user"][0]["found"]
    assert len(found["nginx_timeouts"]) == 2, "read and send"


def test_what_nginx_prints_of_itself_can_be_read(redis, tmp_path):
    """`nginx -T`, with the server in a file of its own, as distributions have it."""
    shipped = SHIPPED.read_text().replace("proxy_read_timeout 120s", "proxy_read_timeout 20s")
    for ours in {
        "/var/log/nginx/": f"{tmp_path}/", "/etc/nginx/tls/": f"{tmp_path}/", "pid /run": f"pid {tmp_path}",
        "node-a:": "127.0.0.1:", "node-b:": "127.0.0.2:",
    }.items():
        shipped = shipped.replace(*ours)
    main, server, rest = shipped.partition("    server {\n")
    server += rest.rpartition("}")[0]
    certificate = ["-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=causeway", "-keyout", "causeway.key", "-out", "causeway.crt"]
    subprocess.run(["openssl", "req", *certificate], check=True, cwd=tmp_path, capture_output=True)
    (tmp_path / "nginx.conf").write_text(main + "    include servers/*.conf;\n}\n")
    (tmp_path / "servers").mkdir()
    (tmp_path / "servers" / "causeway.conf").write_text(server)
    command = ["nginx", "-T", "-e", f"{tmp_path}/error.log", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout
    found = doctor(tmp_path, healthy(redis), "--nginx", "-", stdin=printed)
    assert faults(found) == {"nginx_timeouts": "error"}, "what stands around the include holds for the server"
    found = doctor(tmp_path, healthy(redis), "--nginx", "nginx.conf")
    assert faults(found) == {"nginx": "error"}, "without the included file there is no location"
    assert [one["severity"] for one in found["nginx"]] == ["note", "error"]


def test_a_proxy_that_is_not_trusted_is_noticed(redis, tmp_path):
    found = doctor(tmp_path, healthy(redis), "--peer", "10.9.9.9", "--forwarded-for", "203.0.113.7")
    assert faults(found) == {"client_address": "warning"}
    assert "10.9.9.9" in found["client_address"][0]["advice"]


def test_too_few_descriptors_are_noticed(redis, tmp_path):
    assert faults(doctor(tmp_path, healthy(redis), limit=250)) == {"descriptors": "error"}


def test_weak_keys_are_noticed(redis, tmp_path):
    secret_file = tmp_path / "secret"
    secret_file.write_text(SECRET)
    secret_file.chmod(0o644)
    settings = healthy(redis)
    settings["auth"]["keys"] = [{"kid": "main", "algorithm": "HS512", "secret_file": str(secret_file)}]
    found = doctor(tmp_path, settings)
    assert faults(found) == {"keys": "warning"} and len(found["keys"]) == 2, "readable by all; long enough"
    for algorithm, bits, severity in [("RS256", "2048", "ok"), ("RS256", "1024", "error")]:
        key = tmp_path / "key.pem"
        subprocess.run(["openssl", "genrsa", "-out", key, bits], check=True, capture_output=True)
        public = subprocess.run(["openssl", "rsa", "-in", key, "-pubout"], check=True, capture_output=True).stdout
        (tmp_path / "public.pem").write_bytes(public)
        settings["auth"]["keys"] = [{"kid": "main", "algorithm": algorithm, "public_key_file": str(tmp_path / "public.pem")}]
        found = doctor(tmp_path, settings)
        assert f"{bits} bits" in found["keys"][0]["found"] and found["keys"][0]["severity"] == severity


def test_keys_that_cannot_be_fetched_are_noticed(redis, tmp_path):
    key = Key("main", tmp_path)
    with serving(Issuer(key)) as issuer:
        settings = healthy(redis)
        us = {"issuer": "https://us.example.com", "keys": [{"jwks_url": issuer.url}]}
        settings["auth"] = {"issuers": [us, {"issuer": "https://them.example.com", "keys": settings["auth"]["keys"]}]}
        found = doctor(tmp_path, settings)
        assert faults(found) == {} and issuer.url in found["published_keys"][0]["found"]
        assert "them.example.com" in found["keys"][0]["found"], "keys of every issuer are looked at"
        us["keys"][0]["algorithms"] = ["ES256"]
        assert faults(doctor(tmp_path, settings)) == {"published_keys": "warning"}, "an RSA key is of no use then"
        del us["keys"][0]["algorithms"]
        issuer.status = 500
        found = doctor(tmp_path, settings)
        assert faults(found) == {"published_keys": "warning"} and "500" in found["published_keys"][0]["found"]


def test_how_redis_is_set_is_judged(redis, tmp_path):
    with redis.client() as client:
        client.config_set("client-output-buffer-limit", "pubsub 1mb 512kb 5")
        try:
            assert faults(doctor(tmp_path, healthy(redis))) == {"redis_output_buffer": "warning"}
        finally:
            client.config_set("client-output-buffer-limit", "pubsub 32mb 8mb 60")


def test_what_redis_forbids_is_named_by_its_command(redis, tmp_path):
    settings = healthy(redis)
    with redis.client() as client:
        rules = ["+ping", "+hello", "+subscribe", "+unsubscribe", "+unwatch", "+xadd", "+xrange", "~_causeway.*", "resetchannels", "&open.*"]
        client.execute_command("ACL", "SETUSER", "little", "on", ">secret", *rules)
    settings["redis"]["url"] = redis.url.replace("//", "//little:secret@")
    not_allowed = {"redis_output_buffer": "note", "clock": "note"}
    found = doctor(tmp_path, settings)
    assert faults(found) == not_allowed | {"redis_rights": "error"}
    assert "SUBSCRIBE" in found["redis_rights"][0]["found"] and "_causeway.doctor" in found["redis_rights"][0]["found"]
    found = doctor(tmp_path, settings, "--topic", "open.1")
    assert "PUBLISH" in found["redis_rights"][0]["found"] and "SUBSCRIBE" not in found["redis_rights"][0]["found"]
    with redis.client() as client:
        client.execute_command("ACL", "SETUSER", "little", "+publish")
    assert faults(doctor(tmp_path, settings, "--topic", "open.1")) == not_allowed


def test_a_redis_that_is_away_or_refuses_us_is_an_error(redis, tmp_path):
    settings = healthy(redis)
    settings["redis"]["url"] = f"redis://{own_address()}:1"
    assert faults(doctor(tmp_path, settings)) == {"redis": "error"}
    settings["redis"]["url"] = redis.url.replace("//", "//causeway:wrong@")
    assert faults(doctor(tmp_path, settings)) == {"redis": "error"}


def test_what_may_be_meant_so_is_a_note(redis, tmp_path):
    settings = healthy(redis) | {"allowed_origins": ["*"], "admin_listen": "0.0.0.0:9090"}
    settings["redis"]["url"] = redis.url
    assert faults(doctor(tmp_path, settings)) == {"origins": "note", "admin": "note", "redis_user": "note"}


def test_a_configuration_that_cannot_be_used_is_an_error(redis, tmp_path):
    settings = healthy(redis)
    settings["limits"]["connections"] = 0
    found = doctor(tmp_path, settings)
    assert faults(found) == {"config": "error"} and "limits.connections" in found["config"][0]["found"]


def test_a_node_that_runs_tells_how_it_is_and_who_its_clients_are(tmp_path):
    with RedisServer(tmp_path) as redis, Node("live", tmp_path, redis.url) as node:
        settings = node.settings | {"admin_listen": node.admin, "limits": node.settings["limits"] | {"connections": 100}}

        def live():
            found = doctor(tmp_path, settings, "--live")
            return [(found[check][0]["severity"], found[check][0]["found"]) for check in ("node", "addresses_seen")]

        async def story():
            (ready, seen) = await asyncio.to_thread(live)
            assert ready[0] == "ok" and seen == ("ok", "0 connections from 0 addresses")
            async with contextlib.AsyncExitStack() as stack:
                # Everybody behind one proxy that nobody named.
                for _ in range(20):
                    await stack.enter_async_context(Subscriber(node.connect_url(), source="127.9.8.7"))
                (_, seen) = await asyncio.to_thread(live)
                assert seen[0] == "warning" and "127.9.8.7" in seen[1]

        asyncio.run(story())
        node.kill()
        command = [binary(), "doctor", "--config", "causeway.toml", "--live"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 2 and "the node does not answer" in done.stdout, done.stdout


def test_for_people_it_says_what_to_do(redis, tmp_path):
    (tmp_path / "causeway.toml").write_text(toml(healthy(redis) | {"allowed_origins": []}))
    command = [binary(), "doctor", "--config", "causeway.toml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0 and "do: name them in allowed_origins" in done.stdout, done.stdout
    assert done.stdout.splitlines()[-1].endswith("1 note, 0 warning, 0 error")
