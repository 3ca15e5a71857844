"""Networks of the suite's own, in which packets vanish: faults that no proxy can stand for.

`scripts/faults` gives the suite a network of its own where the system lets it (a network and a mount namespace, unshare(1)),
and says so in CAUSEWAY_OWN_NETWORK. Without, the stories that need one are skipped and say so.
"""

import contextlib
import itertools
import os
import pathlib
import subprocess

import pytest
from support.process import PATIENCE, until

needs_own_network = needs_own_mounts = pytest.mark.skipif(
    os.environ.get("CAUSEWAY_OWN_NETWORK") != "yes", reason="NOT TESTED: the system allows no namespaces (unshare)"
)

_numbers = itertools.count(1)


class Island:
    """A network namespace of its own, joined to ours by one cable. Ours forwards between islands."""

    def __enter__(self):
        number = next(_numbers)
        self.address, self.ours, self.ours_too = (f"10.77.{number}.{host}" for host in (2, 1, 3))
        # Ends by itself, should nobody end it.
        self._holder = subprocess.Popen(["unshare", "--net", "sleep", "900"])
        namespace = f"/proc/{self._holder.pid}/ns/net"
        until(lambda: os.readlink(namespace) != os.readlink("/proc/self/ns/net"), "the island is there")
        self.prefix = ["nsenter", f"--net={namespace}", "--"]
        here, there = f"causeway{number}a", f"causeway{number}b"
        _run("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", str(self._holder.pid))
        for address in (self.ours, self.ours_too):
            _run("ip", "address", "add", f"{address}/24", "dev", here)
        _run("ip", "link", "set", here, "up")
        for words in (f"address add {self.address}/24 dev {there}", f"link set {there} up", "link set lo up",
                      f"route add default via {self.ours}"):
            _run(*self.prefix, "ip", *words.split())
        pathlib.Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        return self

    def __exit__(self, *_):
        self._holder.kill()
        self._holder.wait()


@contextlib.contextmanager
def swallowed(*ways):
    """Packets of each way (source, destination) vanish on their way through our network: no answer, no reset."""
    with contextlib.ExitStack() as healing:
        for source, destination in ways:
            rule = ["from", source, "to", destination, "blackhole"]
            _run("ip", "rule", "add", *rule)
            healing.callback(_run, "ip", "rule", "delete", *rule)
        yield


def _run(*command):
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
