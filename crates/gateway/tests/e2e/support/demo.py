"""What a newcomer starts: `causeway dev`, and the publisher of this machine's load."""

import pathlib
import sys

from .node import Node, binary
from .process import Process, until

HOST_LOAD = pathlib.Path(__file__).parents[5] / "deploy" / "host-load.py"


class DevNode(Node):
    """With its in-process broker, unless it is given a Redis."""

    def __init__(self, directory, redis_url=None):
        super().__init__("dev", directory, redis_url)
        self.redis_url = redis_url

    def command(self):
        # `dev` reads no file. The name is not the machine's, so that it may be shown; the drain is short.
        settings = ["CAUSEWAY_NODE=demo", "CAUSEWAY_DRAIN__LEAD_TIME=500ms", "CAUSEWAY_DRAIN__WINDOW=1s"]
        listen = ["--listen", f"{self.address}:0", "--admin-listen", f"{self.address}:0"]
        redis = ["--redis-url", self.redis_url] if self.redis_url else []
        return ["env", *settings, binary(), "dev", *listen, *redis]

    def page(self, *topics):
        """The demo page, subscribed to `topics`."""
        return f"http://{self.public}/#topics={','.join(topics)}"

    def example(self):
        """The shell commands that it prints for trying it: a token, and a publish with it."""
        end = "once this process ends."
        until(lambda: end in self.stdout.read_text(), "it has explained itself")
        lines = self.stdout.read_text().splitlines()
        return "\n".join(line.strip() for line in lines if line.startswith("  "))


class HostLoad(Process):
    """deploy/host-load.py, five readings a second."""

    def __init__(self, directory, redis_url):
        super().__init__("host-load", directory)
        self.redis_url = redis_url

    def command(self):
        return [sys.executable, str(HOST_LOAD), self.redis_url]

    def ready(self):
        return True  # it says nothing and serves nobody; its readings are what a story waits for
