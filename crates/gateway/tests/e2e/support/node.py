"""One gateway process."""

import json
import os
import urllib.error
import urllib.request

from . import tokens
from .process import PATIENCE, Process
from .remains import assert_nothing_remains, at_rest

ORIGIN = "https://app.example.com"

# The exit status of a node whose drain was ended by a second signal.
CUT_SHORT = 3

# Wide limits, because a whole crowd comes from one address here; a story about a limit sets its own.
SETTINGS = {
    "workers": 2,
    # nginx connects from here: the system's choice for every loopback destination.
    "trusted_proxies": ["127.0.0.1/32"],
    "allowed_origins": [ORIGIN],
    "auth": {"leeway": "1s", "keys": [tokens.KEY]},
    "limits": {
        "connections_per_ip": 10_000,
        "upgrades_per_ip_per_second": 10_000,
        "upgrades_per_ip_burst": 10_000,
    },
    "drain": {"lead_time": "500ms", "window": "1s"},
}


def binary():
    # A node runs in its own directory, so a relative path must be made absolute here.
    return os.path.abspath(os.environ["CAUSEWAY_BIN"])


class Node(Process):
    """`settings` are laid over SETTINGS, table by table. Without a `redis_url`, it has its in-process broker."""

    def __init__(self, name, directory, redis_url, settings=None, **place):
        super().__init__(name, directory, **place)
        places = {"node": name, "listen": f"{self.address}:0", "admin_listen": f"{self.address}:0"}
        if redis_url:
            places["redis"] = {"url": redis_url}
        self.settings = laid_over(laid_over(SETTINGS, places), settings or {})
        self.public = self.admin = None

    def command(self):
        # A restarted node takes its old port again, because nginx knows it there.
        if self.public:
            self.settings["listen"] = self.public
        config = self.directory / "causeway.toml"
        config.write_text(toml(self.settings))
        return [binary(), "serve", "--config", str(config)]

    def ready(self):
        return self.listens() and self.admin_status("/readyz") == 200

    def listens(self):
        """It has told its addresses, though it may not be ready for clients."""
        lines = self.stdout.read_text().splitlines()
        if len(lines) < 2:
            return False
        self.public = lines[0].removeprefix("public http://")
        self.admin = lines[1].removeprefix("admin http://")
        return True

    def reaches_redis(self):
        """It hears itself by way of Redis, though it may lack something else that clients need."""
        return self.listens() and self.gauge("causeway_canary_round_trip_seconds_count") > 0

    def start(self):
        super().start()
        self.rest = at_rest(self)
        return self

    def __exit__(self, failure, *_):
        try:
            if failure is None and self in Process.running and self.child.poll() is None:
                assert_nothing_remains(self)
        finally:
            # The drain is a story of its own; after the others it would only take its time.
            self.kill()

    def connect_url(self):
        return f"ws://{self.public}/v1/connect"

    def admin_status(self, path):
        try:
            return urllib.request.urlopen(f"http://{self.admin}{path}", timeout=PATIENCE).status
        except urllib.error.HTTPError as refusal:
            refusal.close()
            return refusal.code

    def metrics(self):
        """What Prometheus reads."""
        with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=PATIENCE) as page:
            return page.read().decode()

    def gauge(self, name):
        """The sum of a series of /metrics over its labels, such as the worker."""
        return sum(self._values(name))

    def counter(self, name, **labels):
        """One series of /metrics, by all its labels."""
        wanted = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
        (value,) = self._values(f"{name}{{{wanted}}}")
        return value

    def _values(self, name):
        lines = self.metrics().splitlines()
        values = [float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
        assert values, f"/metrics has no {name}"
        return values


def laid_over(below, above):
    """`above` wins, except that tables are joined key by key."""
    joined = dict(below)
    for key, value in above.items():
        both_tables = isinstance(value, dict) and isinstance(below.get(key), dict)
        joined[key] = laid_over(below[key], value) if both_tables else value
    return joined


def toml(table, path=""):
    """TOML of plain values, tables and arrays of tables: JSON's scalars and arrays are TOML's."""
    plain, tables = [], []
    for key, value in table.items():
        name = f"{path}{key}"
        if isinstance(value, dict):
            tables.append(f"[{name}]\n{toml(value, name + '.')}")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            tables += [f"[[{name}]]\n{toml(row, name + '.')}" for row in value]
        else:
            plain.append(f"{key} = {json.dumps(value)}\n")
    return "".join(plain + tables)
