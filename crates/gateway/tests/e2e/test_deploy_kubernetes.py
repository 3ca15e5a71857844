"""The Kubernetes manifests keep to the published schemas, find each other by their labels, ports and names, and give a node what
it needs; where they repeat a fact they say the same as its owner."""

import functools
import json
import pathlib
import shutil
import subprocess

import kubernetes_validate
import pytest
import yaml
from support.cluster import ask
from support.facts import ROOT, in_force, seconds, size, usable
from support.node import Node
from support.process import PATIENCE
from support.redis_server import RedisServer

HERE = ROOT / "deploy/kubernetes"
OVERLAY = HERE / "overlays/example"
KUSTOMIZATIONS = sorted(HERE.rglob("kustomization.yaml"))
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
# Kinds that a cluster learns from others; here their shape is looked at by hand.
LEARNT = {"ServiceMonitor"}
# The oldest and the newest whose schemas are at hand.
VERSIONS = ["1.34", kubernetes_validate.latest_version()]


def manifests(kustomization):
    """Every manifest that a kustomization leads to, as it stands in its file."""
    for resource in read(kustomization)["resources"]:
        path = kustomization.parent / resource
        if path.is_dir():
            yield from manifests(path / "kustomization.yaml")
        else:
            yield read(path)


def read(path):
    (document,) = yaml.safe_load_all(path.read_text())
    return document


@functools.cache
def by_kind_and_name():
    found = [(one["kind"], one["metadata"]["name"]) for one in manifests(OVERLAY / "kustomization.yaml")]
    assert len(found) == len(set(found))
    return dict(zip(found, manifests(OVERLAY / "kustomization.yaml"), strict=True))


def manifest(kind, name="causeway"):
    return by_kind_and_name()[kind, name]


def template():
    return manifest("Deployment")["spec"]["template"]


def container():
    (container,) = template()["spec"]["containers"]
    return container


def admitted(manifest):
    """Fails with what is wrong when a schema does not admit it."""
    for version in VERSIONS:
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("key", by_kind_and_name(), ids=" ".join)
def test_the_schemas_admit(key):
    if key[0] not in LEARNT:
        admitted(by_kind_and_name()[key])


def test_the_schemas_are_strict():
    spoilt = {**manifest("Service"), "spec": {**manifest("Service")["spec"], "port": 80}}
    with pytest.raises(kubernetes_validate.ValidationError):
        admitted(spoilt)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed: the overlay was NOT built with it")
def test_kustomize_builds_what_the_schemas_admit_and_changes_no_selector():
    built = subprocess.run(
        ["kubectl", "kustomize", str(OVERLAY)], capture_output=True, text=True, timeout=PATIENCE
    )
    assert (built.returncode, built.stderr) == (0, "")
    documents = {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(built.stdout)}
    generated = {key for key in documents if key[0] == "ConfigMap"}
    assert documents.keys() - generated == by_kind_and_name().keys()
    for (kind, _), document in documents.items():
        if kind not in LEARNT:
            admitted(document)
    (configuration,) = generated
    volumes = documents["Deployment", "causeway"]["spec"]["template"]["spec"]["volumes"]
    assert {"configMap": {"name": configuration[1]}, "name": "configuration"} in volumes
    assert documents["NetworkPolicy", "causeway"]["spec"]["podSelector"] == manifest("NetworkPolicy")["spec"]["podSelector"]
    assert documents["NetworkPolicy", "causeway"]["spec"]["egress"] == read(OVERLAY / "redis-elsewhere.yaml")["spec"]["egress"]


@pytest.mark.parametrize("kustomization", KUSTOMIZATIONS, ids=lambda path: path.parent.name)
def test_a_kustomization_lists_every_file_beside_it_and_no_other(kustomization):
    listed = read(kustomization)
    files = [*listed["resources"], *(patch["path"] for patch in listed.get("patches", []))]
    files += [file for generated in listed.get("configMapGenerator", []) for file in generated["files"]]
    beside = {path.name for path in kustomization.parent.iterdir() if path.is_file()} - {kustomization.name}
    assert {file for file in files if not file.startswith("..")} == beside
    assert len(files) == len(set(files))
    for file in files:
        assert (kustomization.parent / file).exists(), file


def test_a_patch_names_what_there_is():
    patches = [read(OVERLAY / patch["path"]) for patch in read(OVERLAY / "kustomization.yaml")["patches"]]
    for patch in patches:
        target = by_kind_and_name()[patch["kind"], patch["metadata"]["name"]]
        assert patch["apiVersion"] == target["apiVersion"]
    (settings,) = [patch for patch in patches if patch["kind"] == "Deployment"]
    (patched,) = settings["spec"]["template"]["spec"]["containers"]
    assert patched["name"] == container()["name"]


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    return usable(HERE / "base/causeway.toml", tmp_path_factory.mktemp("kubernetes"))


def environment(env):
    return {entry["name"]: entry.get("value", "redis://causeway:password@redis:6379") for entry in env}


@pytest.fixture(scope="module")
def config(config_file):
    """What is in force on the base's nodes."""
    return in_force(config_file, environment(container()["env"]))


def test_the_example_is_a_configuration_too(config_file):
    settings = read(OVERLAY / "settings.yaml")["spec"]["template"]["spec"]["containers"][0]["env"]
    found = in_force(config_file, environment([*container()["env"], *settings]))
    given = {entry["name"]: entry["value"] for entry in settings}
    assert found["trusted_proxies"] == json.loads(given["CAUSEWAY_TRUSTED_PROXIES"])
    assert found["allowed_origins"] == json.loads(given["CAUSEWAY_ALLOWED_ORIGINS"])


def test_every_selector_selects_the_pods():
    labels = template()["metadata"]["labels"]
    spec = {kind: manifest(kind)["spec"] for kind in ("Deployment", "PodDisruptionBudget", "NetworkPolicy", "Service")}
    spreads = template()["spec"]["topologySpreadConstraints"]
    assert {spread["topologyKey"] for spread in spreads} == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
    for selector in (
        spec["Deployment"]["selector"]["matchLabels"],
        spec["PodDisruptionBudget"]["selector"]["matchLabels"],
        spec["NetworkPolicy"]["podSelector"]["matchLabels"],
        spec["Service"]["selector"],
        manifest("Service", "causeway-admin")["spec"]["selector"],
        *(spread["labelSelector"]["matchLabels"] for spread in spreads),
    ):
        assert selector and selector.items() <= labels.items()


def test_prometheus_finds_the_pods_under_the_name_that_the_rules_know():
    monitor, service = manifest("ServiceMonitor"), manifest("Service", "causeway-admin")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert set(monitor["spec"]) == {"jobLabel", "selector", "endpoints"}
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert not monitor["spec"]["selector"]["matchLabels"].items() <= manifest("Service")["metadata"]["labels"].items()
    scraped = read(ROOT / "deploy/prometheus/prometheus.yml")
    (job,) = scraped["scrape_configs"]
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == job["job_name"]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint == {
        "port": service["spec"]["ports"][0]["name"],
        "path": "/metrics",
        "interval": scraped["global"]["scrape_interval"],
        "scrapeTimeout": scraped["global"]["scrape_timeout"],
    }
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["publishNotReadyAddresses"]


def test_every_port_is_one_that_the_node_listens_on(config):
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    listening = {"public": config["listen"], "admin": config["admin_listen"]}
    assert {name: f"0.0.0.0:{port}" for name, port in ports.items()} == listening
    for name in ("causeway", "causeway-admin"):
        for port in manifest("Service", name)["spec"]["ports"]:
            assert port["targetPort"] in ports
    public, admin = manifest("NetworkPolicy")["spec"]["ingress"]
    assert public == {"ports": [{"port": "public"}]}
    assert admin["ports"] == [{"port": "admin"}] and admin["from"], "the admin listener is not for everybody"
    offered = {port["name"] for port in manifest("Service")["spec"]["ports"]}
    for rule in manifest("Ingress")["spec"]["rules"]:
        for path in rule["http"]["paths"]:
            assert path["path"] in {"/v1/connect", "/v1/topics/"}
            assert path["backend"]["service"]["name"] == "causeway"
            assert path["backend"]["service"]["port"]["name"] in offered


def test_the_probes_ask_what_a_node_answers(tmp_path):
    probes = {name: container()[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {probe["port"] for probe in probes.values()} == {"admin"}
    assert probes["readinessProbe"]["path"] == "/readyz"
    with RedisServer(tmp_path) as redis, Node("node", tmp_path, redis.url) as node:
        for probe in probes.values():
            assert ask(node.admin, "GET", probe["path"])[0] == 200


def test_the_drain_has_its_time(config):
    command, pause = container()["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    probe = container()["readinessProbe"]
    assert int(pause) > probe["periodSeconds"] * probe["failureThreshold"]
    drain = sum(seconds(config["drain"][key]) for key in ("lead_time", "window"))
    assert template()["spec"]["terminationGracePeriodSeconds"] >= int(pause) + drain + 5


def test_the_pod_is_restricted():
    """The Pod Security Standard `restricted`, which the example's namespace enforces, and a bit more."""
    pod, inner = template()["spec"], container()["securityContext"]
    assert manifest("Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert inner == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & pod.keys()
    assert all(volume.keys() & {"configMap", "secret"} for volume in pod["volumes"])
    assert f"--uid {pod['securityContext']['runAsUser']} " in DOCKERFILE


def test_what_is_mounted_is_where_the_node_looks(config_file):
    (generated,) = read(HERE / "base/kustomization.yaml")["configMapGenerator"]
    volumes = {volume["name"]: volume for volume in template()["spec"]["volumes"]}
    mounts = {mount["name"]: pathlib.PurePath(mount["mountPath"]) for mount in container()["volumeMounts"]}
    assert volumes.keys() == mounts.keys()
    assert volumes["configuration"]["configMap"]["name"] == generated["name"]
    assert f'"--config", "{mounts["configuration"] / generated["files"][0]}"' in DOCKERFILE
    (item,) = volumes["secret"]["secret"]["items"]
    given = (HERE / "base/causeway.toml").read_text()
    assert f'secret_file = "{mounts["secret"] / item["path"]}"' in given

    (url,) = [entry["valueFrom"]["secretKeyRef"] for entry in container()["env"] if "valueFrom" in entry]
    assert url["name"] == volumes["secret"]["secret"]["secretName"]
    comment = (HERE / "base/deployment.yaml").read_text()
    assert f"create secret generic {url['name']} " in comment
    for key in (url["key"], item["key"]):
        assert f"--from-literal={key}=" in comment


def test_there_is_room_for_the_limits_of_a_node(config):
    resources = container()["resources"]
    assert int(resources["requests"]["cpu"]) == config["workers"]
    assert "cpu" not in resources["limits"]
    queues = size(config["limits"]["outbox_bytes_total"])
    assert size(resources["limits"]["memory"]) >= size(resources["requests"]["memory"]) >= 2 * queues
    scaler = manifest("HorizontalPodAutoscaler")["spec"]
    (metric,) = scaler["metrics"]
    wanted = int(metric["pods"]["target"]["averageValue"])
    assert wanted == 0.6 * config["limits"]["connections"]
    # One goes, and the others take its clients.
    assert wanted * scaler["minReplicas"] / (scaler["minReplicas"] - 1) < config["limits"]["connections"]


def test_the_autoscaler_has_the_replicas_to_itself():
    scaler = manifest("HorizontalPodAutoscaler")["spec"]
    assert "replicas" not in manifest("Deployment")["spec"]
    assert (scaler["scaleTargetRef"]["kind"], scaler["scaleTargetRef"]["name"]) == ("Deployment", "causeway")
    assert manifest("PodDisruptionBudget")["spec"]["maxUnavailable"] < scaler["minReplicas"]
    metric = scaler["metrics"][0]["pods"]["metric"]["name"]
    with_rule = (HERE / "base/horizontalpodautoscaler.yaml").read_text()
    assert f"seriesQuery: '{metric}{{" in with_rule


def test_timeouts_of_the_ingress_outlast_the_heartbeat(config):
    ping, pong = (seconds(config["heartbeat"][key]) for key in ("ping_interval", "pong_timeout"))
    notes = manifest("Ingress")["metadata"]["annotations"]
    for which in ("read", "send"):
        assert int(notes[f"nginx.ingress.kubernetes.io/proxy-{which}-timeout"]) > 2 * ping + pong
    assert size(notes["nginx.ingress.kubernetes.io/proxy-body-size"]) == size(config["limits"]["message_bytes"])
