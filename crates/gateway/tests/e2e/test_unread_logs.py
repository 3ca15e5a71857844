"""F29: the log is not on the way of messages. Where nobody reads it, or it cannot be written, everything goes on."""

import asyncio
import contextlib
import fcntl
import json
import os
import pathlib

import pytest
from support import tokens
from support.node import Node
from support.process import until
from support.raw_client import RawClient, close
from support.subscribers import Subscriber

SETTINGS = {"log": {"format": "json"}}


class UnreadNode(Node):
    """Its stderr is no file that a failed story could show."""

    def log(self):
        return self.stdout.read_text()

    def lost_lines(self):
        return self.gauge("causeway_log_lines_lost_total")


@pytest.fixture
def pipe(tmp_path):
    """A pipe with room for a few lines: where its writing end is, and the reading end."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, 4096)
    with contextlib.closing(open(reading, "rb")) as end:
        yield path, end


@pytest.fixture
def starting(tmp_path):
    """Starts a node that logs into what it is given."""
    with contextlib.ExitStack() as stack:

        def start(stderr):
            node = UnreadNode("node", tmp_path, None, SETTINGS)
            node.stderr = stderr
            return stack.enter_context(node)

        yield start


def test_f29_nobody_waits_for_a_reader_of_the_log_and_a_late_one_misses_nothing(starting, pipe):
    path, reading = pipe
    node = starting(path)
    ends = 100
    leave(node, ends)
    assert asyncio.run(hears_what_is_published(node))
    assert node.lost_lines() == 0, "what the pipe does not take waits"
    os.set_blocking(reading.fileno(), True)
    node.child.terminate()
    lines = [json.loads(line)["fields"]["message"] for line in reading]
    assert node.child.wait() == 0
    assert "listening" in lines
    assert lines[-1] == "drained", "the last words are written before the process ends"
    assert lines.count("connection ended") == ends + 1


def test_f29_a_node_that_stops_does_not_wait_for_a_reader_of_the_log(starting, pipe):
    node = starting(pipe[0])
    leave(node, 100)
    node.stop()
    assert node.child.returncode == 0


@pytest.mark.parametrize("broken", ["a full disk", "a pipe without a reader"])
def test_f29_a_log_that_cannot_be_written_costs_only_its_lines_and_they_are_counted(starting, pipe, broken):
    if broken == "a full disk":
        node = starting(pathlib.Path("/dev/full"))
    else:
        node = starting(pipe[0])
        pipe[1].close()
    leave(node, 20)
    until(lambda: node.lost_lines() >= 20, "the lost lines are counted")
    assert asyncio.run(hears_what_is_published(node))
    assert node.admin_status("/livez") == 200
    node.stop()
    assert node.child.returncode == 0


def leave(node, clients):
    """So many clients come and go, one after another, and each end is a line."""
    for _ in range(clients):
        with RawClient(node.public).upgrade() as client:
            client.send(close(1000))
            client.rest()


async def hears_what_is_published(node):
    token = tokens.token(publish=["**"])
    async with Subscriber(node.connect_url(), ["orders.1"], token) as subscriber:
        for number in range(50):
            reply = await subscriber.command("publish", topic="orders.1", data=number)
            assert reply["op"] == "published", reply
        await subscriber.settle()
        return subscriber.heard("orders.1") == list(range(50))
