"""A real nginx with the configuration that is shipped; only its addresses, names and paths are put in place."""

import pathlib
import re
import ssl
import subprocess

from .process import PATIENCE, Process, free_port, until

SHIPPED = pathlib.Path(__file__).parents[5] / "nginx" / "causeway.conf"


class Nginx(Process):
    """In front of two nodes or more, given as `address:port`. Those beyond the shipped two are like the second.

    `changes` are for stories that need a time to be shorter than the one that is shipped.
    """

    def __init__(self, directory, nodes, changes=None):
        super().__init__("nginx", directory)
        self.nodes = nodes
        self.changes = changes or {}
        self.config = self.directory / "nginx.conf"
        self.access_log = self.directory / "access.log"
        self.error_log = self.directory / "error.log"
        self.certificate = self.directory / "causeway.crt"
        self.plain = f"{self.address}:{free_port(self.address)}"
        self.tls = f"{self.address}:{free_port(self.address)}"
        self._make_certificate()
        self.config.write_text(self._substituted())

    def command(self):
        return self._nginx("-g", "daemon off;")

    def ready(self):
        return bool(self._serving())

    def connect_url(self, tls=False):
        return f"wss://{self.tls}/v1/connect" if tls else f"ws://{self.plain}/v1/connect"

    def trust(self):
        """A TLS context that believes this nginx and nobody else."""
        return ssl.create_default_context(cafile=self.certificate)

    def reload(self):
        """Returns once new workers serve, and the old ones have gone or only finish what they hold."""
        old = set(self._serving())
        subprocess.run(self._nginx("-s", "reload"), check=True, timeout=PATIENCE)
        until(lambda: self._serving() and not self._serving() & old, "nginx has changed its workers")

    def _nginx(self, *arguments):
        # Without -e, nginx writes its first lines into the system's log.
        return ["nginx", "-e", str(self.error_log), "-p", str(self.directory), "-c", str(self.config), *arguments]

    def _serving(self):
        """The pids of the workers that accept; one that is shutting down says so in its title."""
        return {pid for pid, title in children(self.child.pid) if title.strip() == "nginx: worker process"}

    def _make_certificate(self):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-days", "2", "-subj", "/CN=causeway", "-addext", f"subjectAltName=IP:{self.address}",
             "-keyout", self.directory / "causeway.key", "-out", self.certificate],
            check=True, capture_output=True, timeout=PATIENCE,
        )

    def _substituted(self):
        scratch = "".join(
            f"    {kind}_temp_path {self.directory}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        text = SHIPPED.read_text()
        second = re.search(r"server node-b:8080(.*;)", text)
        third_and_on = "".join(f"\n        server {node}{second[1]}" for node in self.nodes[2:])
        for shipped, ours in {
            "pid /run/nginx.pid;": f"pid {self.directory}/nginx.pid;",
            "error_log /var/log/nginx/error.log": f"error_log {self.error_log}",
            "access_log /var/log/nginx/access.log": f"access_log {self.access_log}",
            "server node-a:8080": f"server {self.nodes[0]}",
            second[0]: f"server {self.nodes[1]}{second[1]}{third_and_on}",
            "listen 80 ": f"listen {self.plain} ",
            "listen 443 ssl": f"listen {self.tls} ssl",
            "/etc/nginx/tls/causeway.crt": str(self.certificate),
            "/etc/nginx/tls/causeway.key": f"{self.directory}/causeway.key",
            "http {\n": f"http {{\n{scratch}",
            **self.changes,
        }.items():
            assert text.count(shipped) == 1, f"{SHIPPED.name} has not exactly one {shipped!r}"
            text = text.replace(shipped, ours)
        return text


def children(parent):
    """(pid, title) of every child of a process."""
    for status in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name in parentheses may hold anything; behind it come the state and the parent.
            if int(status.read_text().rpartition(")")[2].split()[1]) == parent:
                title = (status.parent / "cmdline").read_bytes()
                yield int(status.parent.name), title.replace(b"\0", b" ").decode()
        except FileNotFoundError:
            continue  # it ended while we looked
