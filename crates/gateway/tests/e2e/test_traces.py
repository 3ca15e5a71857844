"""What an OpenTelemetry collector hears of upgrades and publishes, and that nobody waits for it."""

import asyncio
import contextlib
import os
import socket

import pytest
from support import tokens
from support.cluster import ask
from support.collector import collecting
from support.node import Node
from support.process import free_port, own_address, until
from support.raw_client import RawClient
from support.requests import HANDSHAKE, bearer
from support.subscribers import Subscriber

SERVER, PRODUCER = 2, 4
LIMITS = {"commands_per_second": 10_000, "commands_burst": 10_000}


class TracedNode(Node):
    def __exit__(self, *_):
        # With the first spans come a runtime and a connection to the collector, and stay: no rest to compare with.
        self.kill()


@pytest.fixture
def collector():
    with collecting() as collector:
        yield collector


@pytest.fixture
def starting(tmp_path):
    """Starts a node with these settings of `traces`."""
    with contextlib.ExitStack() as stack:
        settings = lambda traces: {"node": "a-node", "limits": LIMITS, "traces": traces}
        yield lambda **traces: stack.enter_context(TracedNode("node", tmp_path, None, settings(traces)))


def test_a_publish_over_http_is_part_of_its_publishers_trace(starting, collector):
    node = starting(endpoint=collector.url, sample_ratio=0.0)
    trace, parent = os.urandom(16).hex(), os.urandom(8).hex()
    assert publish(node, f"00-{trace}-{parent}-01") == 202
    spans = heard(collector, {"HTTP publish", "verify token", "publish"})
    assert {span.trace for span in spans.values()} == {trace}
    assert spans["HTTP publish"].parent == parent and spans["HTTP publish"].kind == SERVER
    assert spans["verify token"].parent == spans["publish"].parent == spans["HTTP publish"].id
    assert spans["publish"].kind == PRODUCER
    assert spans["publish"].attributes["messaging.destination.name"] == "orders.1"
    assert spans["publish"].attributes["messaging.message.body.size"] == 3
    assert not any(span.is_error for span in spans.values())
    resource = collector.resource()
    assert (resource["service.name"], resource["service.instance.id"]) == ("causeway", "a-node")


def test_a_publish_that_is_refused_says_so_in_the_trace(starting, collector):
    node = starting(endpoint=collector.url)
    trace = os.urandom(16).hex()
    assert publish(node, f"00-{trace}-{os.urandom(8).hex()}-01", token="nonsense") == 401
    spans = heard(collector, {"HTTP publish", "verify token"})
    assert {span.trace for span in spans.values()} == {trace}
    assert all(span.is_error and span.attributes["error.type"] == "malformed" for span in spans.values())


def test_an_upgrade_is_a_trace_with_its_handshake_and_its_token(starting, collector):
    node = starting(endpoint=collector.url)
    with RawClient(node.public).upgrade():
        spans = heard(collector, {"upgrade", "handshake", "verify token"})
    assert spans["upgrade"].parent == "" and spans["upgrade"].kind == SERVER
    assert spans["handshake"].parent == spans["verify token"].parent == spans["upgrade"].id
    assert len({span.trace for span in spans.values()}) == 1


def test_a_refused_upgrade_says_so(starting, collector):
    node = starting(endpoint=collector.url)
    assert ask(node.public, "GET", "/v1/connect", HANDSHAKE | bearer(tokens.token(ttl=-60)))[0] == 401
    spans = heard(collector, {"upgrade", "handshake", "verify token"})
    assert spans["upgrade"].is_error and spans["upgrade"].attributes["error.type"] == "expired"


def test_a_publish_by_a_client_is_a_trace(starting, collector):
    node = starting(endpoint=collector.url)
    asyncio.run(publishes(node, 1))
    assert heard(collector, {"publish"})["publish"].parent == ""


@pytest.mark.parametrize("context", [
    "00-{trace}-{span}-00",  # whoever began it does not want it kept
    "ff-{trace}-{span}-01",  # no version that there can be (W3C Trace Context §3.2.2.1)
    "00-00000000000000000000000000000000-{span}-01",
    "\u00e9",
])
def test_a_trace_that_nobody_wants_is_kept_by_nobody(starting, collector, context):
    node = starting(endpoint=collector.url, sample_ratio=0.0)
    trace, wanted = os.urandom(16).hex(), os.urandom(16).hex()
    assert publish(node, context.format(trace=trace, span=os.urandom(8).hex())) == 202
    assert publish(node, f"00-{wanted}-{os.urandom(8).hex()}-01") == 202
    heard(collector, {"HTTP publish", "verify token", "publish"})
    assert {span.trace for span in collector.spans} == {wanted}


@pytest.mark.parametrize("state", ["gone", "silent"])
def test_publishes_go_on_without_the_collector_and_the_node_ends_in_time(starting, state):
    address = own_address()
    with contextlib.ExitStack() as stack:
        if state == "silent":
            # Connections are taken by the kernel, and nobody ever reads.
            endpoint = stack.enter_context(socket.create_server((address, 0))).getsockname()
        else:
            endpoint = (address, free_port(address))
        node = starting(endpoint="http://{}:{}/v1/traces".format(*endpoint))
        # More than may wait.
        asyncio.run(publishes(node, 3000))
        until(lambda: "spans are lost: the collector does not take them" in node.log(), "the log says so")
        asyncio.run(publishes(node, 100))
        assert node.log().count("spans are lost") == 1, "once is enough"
        node.stop()
        assert node.child.returncode == 0


def test_a_collector_that_comes_back_hears_what_happens_then(starting):
    with collecting() as collector:
        pass
    node = starting(endpoint=collector.url)
    asyncio.run(publishes(node, 1))
    until(lambda: "spans are lost" in node.log(), "the collector is missed")
    with collecting(collector.address) as collector:

        def taken():
            asyncio.run(publishes(node, 1))
            return collector.bodies

        until(taken, "spans arrive")
        until(lambda: "the collector takes spans again" in node.log(), "the log says so")


def publish(node, context, token=None):
    granted = bearer(token or tokens.token(publish=["**"]))
    return ask(node.public, "POST", "/v1/topics/orders.1", granted | {"traceparent": context}, b"123")[0]


async def publishes(node, count):
    """Publishes by one client, some at a time, every one of which is confirmed."""
    token = tokens.token(publish=["**"])
    async with Subscriber(node.connect_url(), ["orders.1"], token) as subscriber:
        for _ in range(0, count, 50):
            some = [subscriber.command("publish", topic="orders.1", data=1) for _ in range(min(50, count))]
            assert {reply["op"] for reply in await asyncio.gather(*some)} == {"published"}
        await subscriber.settle()


def heard(collector, names):
    """The spans by name, once there is one of each of these names."""
    until(lambda: {span.name for span in collector.spans} >= names, f"the collector has heard of {names}")
    return {span.name: span for span in collector.spans if span.name in names}
