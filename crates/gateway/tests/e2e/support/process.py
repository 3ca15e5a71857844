"""A process that a story started: its own address, its own directory, its own logs, stopped by its own pid."""

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import subprocess
import time

_addresses = itertools.count()

# In seconds. Only a story that fails waits for so long; one that passes on a starved machine is not to fail for that.
PATIENCE = 60.0


def own_address():
    """A loopback address nobody else uses: no port of it can collide with an outgoing connection or another run.

    A run has 254 of them; after those the first come again, whose processes have ended long since."""
    pid, number = os.getpid(), next(_addresses)
    return f"127.{64 + (pid >> 8) % 128}.{pid % 256}.{number % 254 + 1}"


def free_port(address):
    """For servers that cannot bind port 0. The address is ours alone, so the port stays free."""
    with socket.create_server((address, 0)) as probe:
        return probe.getsockname()[1]


def until(condition, what, seconds=PATIENCE):
    """The first true value of `condition`. For short waits; inside a story that must go on reading, `eventually`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)
    return value


async def eventually(condition, what, seconds=PATIENCE):
    """`until`, while the story's subscribers go on reading."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.01)
    return value


@contextlib.contextmanager
def paused(process):
    """It does nothing meanwhile, and knows nothing of it."""
    process.child.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.child.send_signal(signal.SIGCONT)


class Process:
    """Started by `start`, ended by `stop` or by leaving the `with`; may be started again after it ended.

    `address` is where it listens, unless that is to be one of its own; `prefix` a command that becomes this one in the end,
    such as `nsenter …`.
    """

    running = []  # for the report of a failed story

    def __init__(self, name, directory, *, address=None, prefix=()):
        self.name = name
        self.directory = directory / name
        self.directory.mkdir()
        self.address = address or own_address()
        self.prefix = list(prefix)
        self.stdout = self.directory / "stdout"
        self.stderr = self.directory / "stderr"
        self.child = None

    def command(self):
        raise NotImplementedError

    def ready(self):
        """True once the process serves."""
        raise NotImplementedError

    def start(self):
        # Only a node's own configuration may speak to it, not the environment of whoever runs the tests.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("CAUSEWAY_")}
        with open(self.stdout, "wb") as stdout, open(self.stderr, "ab") as stderr:
            self.child = subprocess.Popen(
                [*self.prefix, *self.command()], cwd=self.directory, env=environment,
                stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
            )
        Process.running.append(self)
        try:
            until(self._started, f"{self.name} serves")
        except BaseException:
            self.kill()
            raise
        return self

    def _started(self):
        assert self.child.poll() is None, f"{self.name} ended with {self.child.returncode}:\n{self.log()}"
        return self.ready()

    def kill(self):
        """SIGKILL: no goodbye."""
        self._end(signal.SIGKILL)

    def stop(self):
        self._end(signal.SIGTERM)

    def _end(self, how):
        if self not in Process.running:
            return
        self.child.send_signal(how)
        try:
            self.child.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
            raise
        finally:
            Process.running.remove(self)

    def log(self):
        return "".join(path.read_text(errors="replace") for path in (self.stdout, self.stderr) if path.exists())

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()
