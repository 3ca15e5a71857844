"""The whole: Redis, two nodes or more, and nginx in front."""

import contextlib
import dataclasses
import http.client

from .nginx import Nginx
from .node import Node
from .process import PATIENCE
from .redis_server import RedisServer


@dataclasses.dataclass
class Cluster:
    redis: RedisServer
    nodes: list[Node]
    nginx: Nginx

    def publish(self, topic, payload):
        self.redis.publish([(topic, payload)])


@contextlib.contextmanager
def running_cluster(directory, settings=None, names=("node-a", "node-b")):
    """`settings` are every node's."""
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(RedisServer(directory))
        nodes = [stack.enter_context(Node(name, directory, redis.url, settings)) for name in names]
        nginx = stack.enter_context(Nginx(directory, [node.public for node in nodes]))
        yield Cluster(redis, nodes, nginx)


def ask(where, method, path, headers=None, body=None, source=None):
    """One HTTP request to `address:port`, as (status, headers, body)."""
    connection = http.client.HTTPConnection(where, timeout=PATIENCE, source_address=source and (source, 0))
    with contextlib.closing(connection):
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
