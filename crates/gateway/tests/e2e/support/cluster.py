"""The whole: Redis, two nodes, and nginx in front."""

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
def running_cluster(directory, settings=None):
    """`settings` are both nodes'."""
    with (
        RedisServer(directory) as redis,
        Node("node-a", directory, redis.url, settings) as a,
        Node("node-b", directory, redis.url, settings) as b,
        Nginx(directory, [a.public, b.public]) as nginx,
    ):
        yield Cluster(redis, [a, b], nginx)


def ask(where, method, path, headers=None, body=None, source=None):
    """One HTTP request to `address:port`, as (status, headers, body)."""
    connection = http.client.HTTPConnection(where, timeout=PATIENCE, source_address=source and (source, 0))
    with contextlib.closing(connection):
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
