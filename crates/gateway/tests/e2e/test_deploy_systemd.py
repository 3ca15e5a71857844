"""systemd's own tools accept the shipped unit and find it well locked up, and a node can live with what it is left."""

import asyncio
import re
import shutil
import signal
import subprocess

import pytest
from support import tokens
from support.cluster import ask
from support.facts import ROOT, in_force, seconds, size
from support.node import CUT_SHORT, Node, binary
from support.process import PATIENCE, until
from support.redis_server import RedisServer
from support.requests import HANDSHAKE, bearer
from support.subscribers import Subscriber

UNIT = (ROOT / "deploy/systemd/causeway.service").read_text()
SETTINGS = re.findall(r"^(\w+)=(.*)$", UNIT, re.M)
COMMAND = "/usr/local/bin/causeway"
# Of 10. What is left is the network, which is what a gateway is for.
EXPOSURE_MAX = 1.5

# Both tools work on files: no systemd has to run here.
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed: the unit was NOT checked"
)


def setting(name):
    (value,) = [value for key, value in SETTINGS if key == name]
    return value


def analyze(*arguments):
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=PATIENCE)


@pytest.fixture
def unit(tmp_path):
    """Where it is installed the command has another place."""
    path = tmp_path / "causeway.service"
    path.write_text(UNIT.replace(COMMAND, binary()))
    return path


@needs_systemd
def test_systemd_accepts_the_unit(unit):
    told = analyze("verify", "--man=no", str(unit))
    # A key that it does not know is only a warning.
    assert (told.returncode, told.stderr) == (0, "")


@needs_systemd
def test_the_unit_is_well_locked_up(unit):
    told = analyze("security", "--offline=true", f"--threshold={EXPOSURE_MAX * 10:.0f}", str(unit))
    assert told.returncode == 0, told.stdout + told.stderr
    assert float(re.search(r"Overall exposure level for causeway.service: ([\d.]+)", told.stdout)[1]) <= EXPOSURE_MAX


@needs_systemd
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: the filter was NOT tried")
def test_the_filter_lets_through_every_system_call_of_a_node(tmp_path):
    with RedisServer(tmp_path) as redis, TracedNode("node", tmp_path, redis.url) as node:
        asyncio.run(a_short_life(redis, node))
        node.stop()
    made = node.system_calls()
    assert {"accept4", "epoll_wait", "connect"} <= made, made
    assert made - allowed_calls() == set()


class TracedNode(Node):
    """The node itself is the child; strace looks on from aside."""

    def command(self):
        return ["strace", "-D", "-f", "-qq", "-o", str(self.directory / "calls"), *super().command()]

    def system_calls(self):
        calls = self.directory / "calls"
        until(lambda: "exit_group(0" in calls.read_text(), "strace has written everything")
        # The first call is strace's own: it begins the node.
        return set(re.findall(r"^\d+ +(\w+)\(", calls.read_text(), re.M)) - {"execve"}


async def a_short_life(redis, node):
    token = tokens.token(subscribe=["**"], publish=["**"])
    async with Subscriber(node.connect_url(), ["chat.1"], token=token) as subscriber:
        await asyncio.to_thread(redis.publish, [("chat.1", "1")])
        assert (await subscriber.command("publish", topic="chat.1", data=2))["op"] == "published"
        await subscriber.settle()
    await asyncio.to_thread(ask, node.public, "GET", "/v1/connect", {**HANDSHAKE, **bearer("no token")})
    for path in ("/livez", "/readyz", "/metrics"):
        assert await asyncio.to_thread(node.admin_status, path) == 200


def allowed_calls():
    """What SystemCallFilter= comes to, line by line as systemd.exec(5) has it."""
    allowed = set()
    for key, value in SETTINGS:
        if key == "SystemCallFilter" and value.startswith("~"):
            allowed -= calls_of(value[1:].split())
        elif key == "SystemCallFilter":
            allowed |= calls_of(value.split())
    # systemd lets these through always, or nothing could be begun or ended.
    return allowed | calls_of(["@default"])


def calls_of(words):
    calls = set()
    for word in words:
        if word.startswith("@"):
            lines = analyze("syscall-filter", word).stdout.splitlines()[1:]
            inside = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
            assert inside, f"systemd does not know {word}"
            calls |= calls_of(inside)
        else:
            calls.add(word)
    return calls


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """The smallest configuration for it: everything else has its default."""
    directory = tmp_path_factory.mktemp("systemd")
    secret = directory / "secret"
    secret.write_text("5e" * 32)
    file = directory / "causeway.toml"
    file.write_text(f'[[auth.keys]]\nkid = "main"\nalgorithm = "HS256"\nsecret_file = "{secret}"\n')
    return in_force(file)


def test_the_drain_has_its_time(config):
    drain = sum(seconds(config["drain"][key]) for key in ("lead_time", "window"))
    assert seconds(setting("TimeoutStopSec")) >= drain + 5
    assert getattr(signal, setting("KillSignal")) == signal.SIGTERM
    assert int(setting("SuccessExitStatus")) == CUT_SHORT, "whoever ends the drain does not want another start"


def test_there_is_room_for_the_limits_of_a_node(config):
    assert int(setting("LimitNOFILE")) > config["limits"]["connections"]
    assert size(setting("MemoryMax")) >= 2 * size(config["limits"]["outbox_bytes_total"])


def test_the_secret_is_where_its_head_says():
    name, _, source = setting("LoadCredential").partition(":")
    assert f'secret_file = "/run/credentials/causeway.service/{name}"' in UNIT
    assert f"#   {source} " in UNIT


def test_it_serves_what_it_has_checked():
    checked, served = (setting(key).split() for key in ("ExecStartPre", "ExecStart"))
    assert checked[0] == served[0] == COMMAND
    assert (checked[1], served[1]) == ("check", "serve") and checked[2:] == served[2:]
