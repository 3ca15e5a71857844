"""A real Prometheus scrapes two nodes with the shipped configuration: every series that rules, dashboard and documentation name
is there, every question of the dashboard is one that Prometheus answers, and an alert fires when it should."""

import asyncio
import dataclasses
import re

import pytest
from support import tokens
from support.cluster import ask
from support.documents import OPERATIONS, series_table
from support.node import Node
from support.process import until
from support.prometheus import ALERTS, DASHBOARD, RECORDED, Prometheus, panel_queries
from support.promql import names, selectors
from support.redis_server import RedisServer
from support.requests import HANDSHAKE, bearer
from support.subscribers import Subscriber

# Made by Prometheus itself.
ITS_OWN = {"up", "ALERTS"}

# What is counted by topic class is told only where classes are configured.
SETTINGS = {"metrics": {"topic_classes": [{"name": "chat", "pattern": "chat.*"}]}}

RULE_QUERIES = [*RECORDED.items(), *((name, alert["expr"]) for name, alert in ALERTS.items())]


@dataclasses.dataclass
class Monitored:
    redis: RedisServer
    nodes: list[Node]
    prometheus: Prometheus


@pytest.fixture(scope="module")
def monitored(tmp_path_factory):
    directory = tmp_path_factory.mktemp("monitored")
    with (
        RedisServer(directory) as redis,
        Node("node-a", directory, redis.url, SETTINGS) as a,
        Node("node-b", directory, redis.url, SETTINGS) as b,
        Prometheus(directory, [a, b]) as prometheus,
    ):
        for node in (a, b):
            asyncio.run(something_of_everything(redis, node))
        yield Monitored(redis, [a, b], prometheus)


async def something_of_everything(redis, node):
    """A series whose labels are not known beforehand is there only once something has happened."""
    token = tokens.token(subscribe=["**"], publish=["**"])
    async with Subscriber(node.connect_url(), ["chat.1"], token=token) as subscriber:
        await asyncio.to_thread(redis.publish, [("chat.1", "1")])
        assert (await subscriber.command("publish", topic="chat.1", data=2))["op"] == "published"
        await subscriber.settle()
    status, *_ = await asyncio.to_thread(
        ask, node.public, "GET", "/v1/connect", {**HANDSHAKE, **bearer(tokens.token(ttl=-60))}
    )
    assert status == 401


@dataclasses.dataclass
class Exposition:
    """What a node tells: series with the names of their labels, and families as they are documented."""

    series: dict[str, set[str]]
    families: set[str]


@pytest.fixture(scope="module")
def told(monitored):
    lines = monitored.nodes[0].metrics().splitlines()
    series = {}
    for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", "\n".join(lines), re.M):
        series.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    families = {line.split()[2] for line in lines if line.startswith("# TYPE ")}
    return Exposition(series, families)


@pytest.mark.parametrize("queries", [RULE_QUERIES, panel_queries()], ids=["rules", "dashboard"])
def test_every_series_that_is_asked_for_is_told_by_a_node(told, queries):
    known = told.series.keys() | RECORDED.keys() | ITS_OWN
    missing = {name for _, expression in queries for name in names(expression)} - known
    assert not missing, f"no node tells {sorted(missing)}"


def test_every_series_in_the_documentation_is_told_by_a_node_with_these_labels(told):
    documented = series_table(OPERATIONS)
    missing = documented.keys() - told.families
    assert not missing, f"no node tells {sorted(missing)}"
    for name in documented.keys() & told.series.keys():
        assert told.series[name] == documented[name], f"the labels of {name}"


def test_every_series_of_a_node_is_in_the_documentation(told):
    missing = told.families - series_table(OPERATIONS).keys()
    assert not missing, f"docs/operations.md does not know {sorted(missing)}"


def test_prometheus_scrapes_both_nodes(monitored):
    targets = {node.admin for node in monitored.nodes}
    up = lambda: {one["metric"]["instance"] for one in monitored.prometheus.query('up{job="causeway"} == 1')}
    until(lambda: up() == targets, "both nodes are scraped")


@pytest.mark.parametrize("title, expression", panel_queries(), ids=[title for title, _ in panel_queries()])
def test_prometheus_understands_every_panel(monitored, title, expression):
    monitored.prometheus.query(expression)


@pytest.mark.parametrize("queries", [RULE_QUERIES, panel_queries()], ids=["rules", "dashboard"])
def test_every_selector_finds_something(monitored, queries):
    """Not only names: the labels, and the values that they are compared with."""
    asked = {
        selector
        for _, expression in queries
        for name, selector in selectors(expression)
        if name != "ALERTS"
    }
    assert asked

    def empty():
        return {selector for selector in asked if not monitored.prometheus.query(selector)}

    try:
        until(lambda: not empty(), "every selector finds something", 20)
    except AssertionError:
        raise AssertionError(f"nothing is found by {sorted(empty())}") from None


def test_prometheus_follows_every_rule(monitored):
    groups = monitored.prometheus.ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == ALERTS.keys() | RECORDED.keys()

    def well():
        rules = [rule for group in monitored.prometheus.ask("rules")["groups"] for rule in group["rules"]]
        assert not [rule for rule in rules if rule["health"] == "err"], rules
        return all(rule["health"] == "ok" for rule in rules)

    until(well, "every rule has been evaluated")


def test_the_dashboard_offers_the_nodes_to_choose_from(monitored):
    (variable,) = [one for one in DASHBOARD["templating"]["list"] if one["name"] == "instance"]
    selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()
    offered = {series[label] for series in monitored.prometheus.ask("series", **{"match[]": selector})}
    assert offered == {node.admin for node in monitored.nodes}


def test_an_alert_fires_when_redis_is_stopped_and_ends_when_it_is_back(monitored):
    """The last story of this file: what it does to the link is seen for minutes."""
    prometheus, redis = monitored.prometheus, monitored.redis
    until(lambda: prometheus.query("causeway_redis_link_up == 1"), "the links are known to be up")
    assert prometheus.firing("CausewayRedisLinkDown") == set()
    redis.stop()
    both = {node.admin for node in monitored.nodes}
    until(lambda: prometheus.firing("CausewayRedisLinkDown") == both, "the alert fires for both nodes")
    (told,) = {
        alert["annotations"]["summary"]
        for alert in prometheus.ask("alerts")["alerts"]
        if alert["labels"] == alert["labels"] | {"alertname": "CausewayRedisLinkDown", "instance": monitored.nodes[0].admin}
    }
    assert told == f"{monitored.nodes[0].admin} has lost Redis"
    redis.start()
    until(lambda: not prometheus.firing("CausewayRedisLinkDown"), "the alert ends")
