"""Where the deployment repeats a fact, it says the same as the fact's owner: docker-compose.yml, deploy/ and nginx/ are read,
and the configuration is what `causeway check` makes of it."""

import ipaddress
import os
import pathlib
import re
import subprocess
import tomllib

import pytest
import yaml
from support.node import binary
from support.process import PATIENCE

ROOT = pathlib.Path(__file__).parents[4]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
NODES = {name: service for name, service in SERVICES.items() if service.get("image") == "causeway"}
GIVEN = tomllib.loads((ROOT / "deploy" / "causeway.toml").read_text())
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text().replace("\\\n", " ")
NGINX = re.sub(r"#.*", "", (ROOT / "nginx" / "causeway.conf").read_text())
SECRET_FILE = "/run/secrets/causeway_secret"


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    """deploy/causeway.toml, with a secret in another place than a container's."""
    directory = tmp_path_factory.mktemp("deploy")
    secret = directory / "secret.txt"
    secret.write_text("5e" * 32)
    given = (ROOT / "deploy" / "causeway.toml").read_text()
    assert given.count(SECRET_FILE) == 1
    path = directory / "causeway.toml"
    path.write_text(given.replace(SECRET_FILE, str(secret)))
    return path


@pytest.fixture(scope="module")
def config(config_file):
    """What is in force on the nodes."""
    checked = check(config_file)
    assert checked.returncode == 0, checked.stderr
    return tomllib.loads(checked.stdout)


def check(config_file, environment=None):
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("CAUSEWAY_")}
    return subprocess.run(
        [binary(), "check", "--config", str(config_file)],
        env=inherited | (environment or {}), capture_output=True, text=True, timeout=PATIENCE,
    )


def test_there_are_two_nodes_and_they_are_alike():
    assert len(NODES) == 2
    first, second = ({**node, "hostname": None} for node in NODES.values())
    assert first == second


def test_every_environment_key_is_a_key_of_the_configuration(config_file):
    used = {}
    for node in NODES.values():
        used |= node.get("environment", {})
    texts = [(ROOT / path).read_text() for path in ("docker-compose.yml", "deploy/causeway.toml", "deploy/Dockerfile")]
    used |= dict(re.findall(r"\b(CAUSEWAY_[A-Z_]+)=([^\s`]*\w)", "\n".join(texts)))
    assert used
    for variable, value in used.items():
        checked = check(config_file, {variable: value})
        assert checked.returncode == 0, checked.stderr
        in_force = tomllib.loads(checked.stdout)
        for key in variable.removeprefix("CAUSEWAY_").lower().split("__"):
            in_force = in_force[key]
        assert str(in_force) == value, variable


def test_nginx_knows_the_nodes_by_their_names_and_ports(config):
    port = config["listen"].rpartition(":")[2]
    assert {server[0] for server in directives("server")} == {f"{name}:{port}" for name in NODES}
    assert "0.0.0.0" in config["listen"] and "0.0.0.0" in config["admin_listen"], "reachable from other containers"


def test_only_nginx_is_published_and_on_the_ports_it_listens_to():
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["nginx"]
    published = {mapping.partition(":")[2] for mapping in SERVICES["nginx"]["ports"]}
    assert published == {listen[0] for listen in directives("listen")}


def test_the_nodes_believe_nginx_and_nobody_else(config):
    address = ipaddress.ip_address(SERVICES["nginx"]["networks"]["causeway"]["ipv4_address"])
    assert [ipaddress.ip_network(proxy) for proxy in config["trusted_proxies"]] == [ipaddress.ip_network(address)]
    (network,) = COMPOSE["networks"]["causeway"]["ipam"]["config"]
    assert address in ipaddress.ip_network(network["subnet"])
    assert address not in ipaddress.ip_network(network["ip_range"]), "Docker could give it to another container"


def test_what_is_mounted_is_in_the_repository_or_made_as_the_comment_says():
    made = {"./deploy/tls", "./deploy/secret.txt"}
    mounts = {
        (source, target)
        for service in SERVICES.values()
        for source, target in (volume.split(":")[:2] for volume in service.get("volumes", []))
    }
    for source in {source for source, _ in mounts} - made:
        assert (ROOT / source).exists(), source
    assert ("./nginx/causeway.conf", "/etc/nginx/nginx.conf") in mounts
    assert ("./deploy/causeway.toml", config_path()) in mounts
    assert ("./deploy/tls", "/etc/nginx/tls") in mounts

    comment = (ROOT / "docker-compose.yml").read_text()
    for directive in ("ssl_certificate", "ssl_certificate_key"):
        ((path,),) = directives(directive)
        assert path.startswith("/etc/nginx/tls/")
        assert path.replace("/etc/nginx/tls", "deploy/tls") in comment, "the comment makes this file"


def test_the_secret_is_where_the_nodes_look_for_it():
    ((name, secret),) = COMPOSE["secrets"].items()
    assert SECRET_FILE == f"/run/secrets/{name}"
    assert all(node["secrets"] == [name] for node in NODES.values())
    assert f"> {secret['file'].removeprefix('./')}" in (ROOT / "docker-compose.yml").read_text()


def test_redis_is_where_everyone_looks_for_it():
    url = "redis://redis:6379"  # the service's name and Redis's own port
    assert "redis" in SERVICES
    assert GIVEN["redis"]["url"] == url
    assert SERVICES["publisher"]["environment"] == {"REDIS_URL": url}
    assert "REDIS_URL" in (ROOT / "deploy" / "host-load.py").read_text()


def test_nginx_outlasts_the_heartbeat_and_the_drain(config):
    ping, pong = (seconds(config["heartbeat"][key]) for key in ("ping_interval", "pong_timeout"))
    drain = seconds(config["drain"]["lead_time"]) + seconds(config["drain"]["window"])
    connect = block("location = /v1/connect")
    for directive in ("proxy_read_timeout", "proxy_send_timeout"):
        ((timeout,),) = directives(directive, connect)
        assert seconds(timeout) > 2 * ping + pong
    ((shutdown,),) = directives("worker_shutdown_timeout")
    assert seconds(shutdown) >= drain
    for node in NODES.values():
        assert seconds(node["stop_grace_period"]) > drain


def test_the_limits_of_nginx_and_of_the_containers_leave_room_for_the_nodes(config):
    ((_, per_address),) = directives("limit_conn")
    assert int(per_address) == len(NODES) * config["limits"]["connections_per_ip"]
    ((body,),) = directives("client_max_body_size")
    assert size(body) == size(config["limits"]["message_bytes"])
    ((descriptors,),) = directives("worker_rlimit_nofile")
    ((connections,),) = directives("worker_connections")
    assert int(connections) < int(descriptors) <= SERVICES["nginx"]["ulimits"]["nofile"]
    for node in NODES.values():
        assert config["limits"]["connections"] < node["ulimits"]["nofile"]


@pytest.mark.parametrize("dockerfile", ["deploy/Dockerfile", "deploy/publisher.Dockerfile"])
def test_what_an_image_copies_exists(dockerfile):
    text = (ROOT / dockerfile).read_text()
    copied = [path for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.M) for path in line.split()[:-1]]
    assert copied
    for path in copied:
        assert (ROOT / path).exists(), path


def test_the_image_builds_every_crate_of_the_workspace():
    workspace = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]
    manifests = {f"{path.relative_to(ROOT)}/Cargo.toml" for member in workspace["members"] for path in ROOT.glob(member)}
    assert manifests == set(re.findall(r"COPY (\S+/Cargo\.toml)", DOCKERFILE))
    (rust,) = re.findall(r"^FROM rust:([\d.]+)", DOCKERFILE, re.M)
    assert version(rust) >= version(workspace["package"]["rust-version"])


def test_the_image_names_the_nodes_ports_and_files(config):
    (exposed,) = re.findall(r"^EXPOSE (.+)$", DOCKERFILE, re.M)
    assert exposed.split() == [config[key].rpartition(":")[2] for key in ("listen", "admin_listen")]
    assert set(re.findall(r'"--config", "([^"]+)"', DOCKERFILE)) == {config_path()}
    assert re.search(r"^USER (?!root)", DOCKERFILE, re.M)
    assert all(node["build"]["dockerfile"] == "deploy/Dockerfile" for node in NODES.values())
    assert SERVICES["publisher"]["build"]["dockerfile"] == "deploy/publisher.Dockerfile"


def config_path():
    (path,) = set(re.findall(r"--config (\S+)", (ROOT / "docker-compose.yml").read_text()))
    return path


def directives(name, text=NGINX):
    """The arguments of every use of a directive."""
    return [found.split() for found in re.findall(rf"^\s*{name}\s+([^;{{]+);", text, re.M)]


def block(head):
    """What stands between the braces of a block that has none inside."""
    return re.search(re.escape(head) + r"\s*\{([^{}]*)\}", NGINX)[1]


def seconds(duration):
    parts = re.findall(r"(\d+)\s*(ms|s|m|h)", duration)
    assert parts and "".join(map("".join, parts)) == duration.replace(" ", ""), duration
    return sum(int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit] for number, unit in parts)


def size(text):
    number, unit = re.fullmatch(r"([\d.]+)\s*(k|KiB|MiB)", text).groups()
    return float(number) * {"k": 2**10, "KiB": 2**10, "MiB": 2**20}[unit]


def version(text):
    return [int(part) for part in text.split(".")]
