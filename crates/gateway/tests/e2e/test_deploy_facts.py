"""Where the deployment repeats a fact, it says the same as the fact's owner: docker-compose.yml, deploy/ and nginx/ are read,
and the configuration is what `causeway check` makes of it."""

import ipaddress
import re
import tomllib

import pytest
import yaml
from support.facts import ROOT, in_force, seconds, size, usable

COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE = yaml.safe_load(COMPOSE_TEXT)
SERVICES = COMPOSE["services"]
NODES = {name: service for name, service in SERVICES.items() if service.get("image") == "causeway"}
GIVEN = tomllib.loads((ROOT / "deploy" / "causeway.toml").read_text())
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text().replace("\\\n", " ")
NGINX = re.sub(r"#.*", "", (ROOT / "nginx" / "causeway.conf").read_text())


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    return usable(ROOT / "deploy" / "causeway.toml", tmp_path_factory.mktemp("deploy"))


@pytest.fixture(scope="module")
def config(config_file):
    """What is in force on the nodes."""
    return in_force(config_file)


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
        found = in_force(config_file, {variable: value})
        for key in variable.removeprefix("CAUSEWAY_").lower().split("__"):
            found = found[key]
        assert str(found) == value, variable


def test_nginx_knows_the_nodes_by_their_names_and_ports(config):
    port = config["listen"].rpartition(":")[2]
    assert {server[0] for server in directives("server")} == {f"{name}:{port}" for name in NODES}
    assert "0.0.0.0" in config["listen"] and "0.0.0.0" in config["admin_listen"], "reachable from other containers"


def test_only_nginx_is_published_and_on_the_ports_it_listens_to():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    clients_door = {mapping.partition(":")[2] for mapping in published.pop("nginx")}
    assert clients_door == {listen[0] for listen in directives("listen")}
    assert set(published) == {"prometheus", "grafana"}, "the operator's; the nodes themselves are reached by nobody"
    for (mapping,) in published.values():
        assert mapping.startswith("127.0.0.1:")
        assert f"http://localhost:{mapping.split(':')[1]}/" in COMPOSE_TEXT, "the comment says where it is"


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
        if source not in COMPOSE["volumes"]
    }
    for source in {source for source, _ in mounts} - made:
        assert (ROOT / source).exists(), source
    assert ("./nginx/causeway.conf", "/etc/nginx/nginx.conf") in mounts
    assert ("./deploy/causeway.toml", config_path()) in mounts
    assert ("./deploy/tls", "/etc/nginx/tls") in mounts

    for directive in ("ssl_certificate", "ssl_certificate_key"):
        ((path,),) = directives(directive)
        assert path.startswith("/etc/nginx/tls/")
        assert path.replace("/etc/nginx/tls", "deploy/tls") in COMPOSE_TEXT, "the comment makes this file"


def test_the_secret_is_where_the_nodes_look_for_it():
    ((name, secret),) = COMPOSE["secrets"].items()
    (key,) = GIVEN["auth"]["keys"]
    assert key["secret_file"] == f"/run/secrets/{name}"
    assert all(node["secrets"] == [name] for node in NODES.values())
    assert f"> {secret['file'].removeprefix('./')}" in COMPOSE_TEXT


def test_redis_is_where_everyone_looks_for_it():
    url = "redis://redis:6379"  # the service's name and Redis's own port
    assert "redis" in SERVICES
    assert GIVEN["redis"]["url"] == url
    assert SERVICES["publisher"]["environment"] == {"REDIS_URL": url}
    assert "REDIS_URL" in (ROOT / "deploy" / "host-load.py").read_text()


def test_redis_has_the_room_for_stalled_nodes_that_the_shipped_redis_conf_gives():
    (limit,) = re.findall(r"^client-output-buffer-limit (.+)$", (ROOT / "deploy/redis/redis.conf").read_text(), re.M)
    command = SERVICES["redis"]["command"]
    assert command[command.index("--client-output-buffer-limit") + 1] == limit


def test_prometheus_scrapes_every_node(config):
    shipped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    (job,) = shipped["scrape_configs"]
    port = config["admin_listen"].rpartition(":")[2]
    (targets,) = job["static_configs"]
    assert set(targets["targets"]) == {f"{name}:{port}" for name in NODES}
    assert "./deploy/prometheus:/etc/prometheus:ro" in SERVICES["prometheus"]["volumes"]
    for rules in shipped["rule_files"]:
        assert (ROOT / "deploy/prometheus" / rules).is_file(), rules


def test_grafana_finds_prometheus_and_the_dashboard():
    provisioning = ROOT / "deploy/grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090" and "prometheus" in SERVICES
    (provider,) = yaml.safe_load((provisioning / "dashboards/causeway.yml").read_text())["providers"]
    mounts = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
    assert mounts["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    assert mounts["./deploy/grafana/dashboards"] == provider["options"]["path"]
    assert (ROOT / "deploy/grafana/dashboards/causeway.json").is_file()


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
    (path,) = set(re.findall(r"--config (\S+)", COMPOSE_TEXT))
    return path


def directives(name, text=NGINX):
    """The arguments of every use of a directive."""
    return [found.split() for found in re.findall(rf"^\s*{name}\s+([^;{{]+);", text, re.M)]


def block(head):
    """What stands between the braces of a block that has none inside."""
    return re.search(re.escape(head) + r"\s*\{([^{}]*)\}", NGINX)[1]


def version(text):
    return [int(part) for part in text.split(".")]
