"""A real redis-server without persistence, as a pub/sub bus needs none."""

import redis

from .process import Process, free_port


class RedisServer(Process):
    def __init__(self, directory, name="redis", *, port=None, **place):
        super().__init__(name, directory, **place)
        self.port = port or free_port(self.address)
        self.where = f"{self.address}:{self.port}"
        self.url = f"redis://{self.where}"

    def command(self):
        return ["redis-server", "--bind", self.address, "--port", str(self.port), "--protected-mode", "no",
                "--save", "", "--appendonly", "no", "--dir", str(self.directory)]

    def ready(self):
        try:
            with self.client() as client:
                return client.ping()
        except redis.exceptions.ConnectionError:
            return False

    def client(self):
        return redis.Redis(host=self.address, port=self.port)

    def publish(self, publications):
        """Plain PUBLISHes of (topic, payload) pairs, pipelined, over one connection: their order is fixed."""
        with self.client() as client, client.pipeline(transaction=False) as pipeline:
            for count, (topic, payload) in enumerate(publications, start=1):
                pipeline.publish(topic, payload)
                if count % 500 == 0:
                    pipeline.execute()
            pipeline.execute()
