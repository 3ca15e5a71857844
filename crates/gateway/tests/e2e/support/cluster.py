"""The whole: Redis, two nodes or more, and nginx in front."""

import contextlib
import dataclasses
import http.client

from .fault_proxy import FaultProxy
from .nginx import Nginx
from .node import Node
from .process import PATIENCE, Process
from .redis_server import RedisServer
from .remains import assert_nothing_is_subscribed


@dataclasses.dataclass
class Cluster:
    redis: RedisServer
    nodes: list[Node]
    nginx: Nginx
    links: list[FaultProxy]  # one for each node, where asked for

    def publish(self, topic, payload):
        self.redis.publish([(topic, payload)])


@contextlib.contextmanager
def running_cluster(directory, settings=None, names=("node-a", "node-b"), linked=False, seed=0):
    """`settings` are every node's. With `linked`, each node's way to Redis leads through a fault proxy of its own."""
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(RedisServer(directory))
        links = [stack.enter_context(FaultProxy(redis.where, f"{name} {seed}")) for name in names if linked]
        urls = [link.url for link in links] or [redis.url] * len(names)
        nodes = [stack.enter_context(Node(name, directory, url, settings)) for name, url in zip(names, urls)]
        nginx = stack.enter_context(Nginx(directory, [node.public for node in nodes]))
        yield Cluster(redis, nodes, nginx, links)
        if redis in Process.running:
            assert_nothing_is_subscribed(redis)


def ask(where, method, path, headers=None, body=None, source=None):
    """One HTTP request to `address:port`, as (status, headers, body)."""
    connection = http.client.HTTPConnection(where, timeout=PATIENCE, source_address=source and (source, 0))
    with contextlib.closing(connection):
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
