"""What is left of everybody who was there, once they have gone: nothing.

Every node is asked when its stories are over (`Node.__exit__`), and Redis with it (`running_cluster`).
"""

import collections
import dataclasses
import pathlib
import re
import time

from .footprint import descriptors
from .process import PATIENCE, until

# What clients leave behind if anything does. On /metrics.
GAUGES = (
    "causeway_connections", "causeway_subscriptions", "causeway_topics",
    "causeway_inbox_bytes", "causeway_outbox_bytes", "causeway_memory_budget_used_bytes",
)
# The topics on which a node hears its canaries, what is told to all nodes, and what is said to it alone.
OWN_TOPICS = 3
OWN_CHANNEL = re.compile(rb".*_(canary|causeway)\..*")
# A runtime's threads for what blocks (files, names) come when they are needed and go ten seconds after.
TRANSIENT_THREAD = "tokio-rt-worker"


@dataclasses.dataclass(frozen=True)
class Rest:
    """What a node has when nobody is there."""

    descriptors: int
    tasks: int
    threads: collections.Counter  # by their names


def at_rest(node):
    # Over one of them the node was asked just now whether it is ready.
    counts = []
    while len(counts) < 20:
        counts.append(descriptors(node))
        time.sleep(0.01)
    return Rest(min(counts), node.gauge("causeway_tasks"), threads(node))


def threads(node):
    names = [comm.read_text().strip() for comm in pathlib.Path(f"/proc/{node.child.pid}/task").glob("*/comm")]
    return collections.Counter(name for name in names if name != TRANSIENT_THREAD)


def assert_nothing_remains(node, seconds=PATIENCE):
    """`node.rest` is what it had at its start."""
    for gauge in GAUGES:
        until(lambda: node.gauge(gauge) == 0, f"{node.name} is back to zero: {gauge}", seconds)
    if node.gauge("causeway_redis_link_up"):
        only_own = lambda: node.gauge("causeway_redis_topics") == OWN_TOPICS
        until(only_own, f"{node.name} has only its own topics in Redis", seconds)
    until(lambda: node.gauge("causeway_tasks") <= node.rest.tasks, f"{node.name} has ended its tasks: causeway_tasks", seconds)
    until(lambda: descriptors(node) <= node.rest.descriptors, f"{node.name} has closed its descriptors", seconds)
    assert not threads(node) - node.rest.threads, f"{node.name} had {node.rest.threads}, and has {threads(node)}"


def assert_nothing_is_subscribed(redis, seconds=PATIENCE):
    """Nobody but the nodes themselves."""
    with redis.client() as client:
        strangers = lambda: [channel for channel in client.pubsub_channels() if not OWN_CHANNEL.fullmatch(channel)]
        until(lambda: not strangers(), "Redis has only subscriptions of the nodes themselves", seconds)
