"""Nodes, what stands in front of them and what they stand on: they die, drain, starve; clocks jump; files run out."""

import asyncio
import contextlib
import os
import signal
import time

import pytest
from confinement import Clock, MemoryGroup, needs_faketime, needs_memory_groups
from experiment import NOBODY, TOPICS, WITNESSES, assert_sockets_stayed, everyone
from publishers import Service
from support import tokens
from support.cluster import Cluster, ask, running_cluster
from support.nginx import Nginx
from support.node import Node
from support.process import eventually, own_address
from support.raw_client import RawClient, text
from support.redis_server import RedisServer
from support.requests import HANDSHAKE, bearer
from support.subscribers import Subscriber, together

short = pytest.mark.short


def through_nginx(experiment, cluster):
    """Whoever loses its node finds the other."""
    return everyone(experiment, cluster, urls=[cluster.nginx.connect_url(), cluster.nginx.connect_url(tls=True)])


def only_of(experiment, node):
    return lambda client, topic: node.name in experiment.nodes_of(client)


# Their ends.


@short
def test_f11_a_node_is_killed(experiment, cluster):
    victim = experiment.random.choice(cluster.nodes)

    async def story():
        witnesses, *publishers = through_nginx(experiment, cluster)
        async with experiment.traffic(witnesses, *publishers, disturbed=only_of(experiment, victim)):
            experiment.note(f"{victim.name} is killed")
            await asyncio.to_thread(victim.kill)
            await experiment.heals("it is dead", within=5)
            assert {event.why for witness in witnesses for event in witness.told("ended")} == {"1006"}

    asyncio.run(story())


@short
def test_f12_a_node_is_told_to_end(experiment, cluster):
    leaving = experiment.random.choice(cluster.nodes)

    async def story():
        witnesses, *publishers = through_nginx(experiment, cluster)
        async with experiment.traffic(witnesses, *publishers, disturbed=only_of(experiment, leaving)):
            experiment.note(f"{leaving.name} gets SIGTERM")
            # Half a second for the proxy to notice, one to send everybody away, and five.
            with experiment.time("it has exited", within=6.5):
                leaving.child.send_signal(signal.SIGTERM)
                await eventually(lambda: leaving.child.poll() is not None, "it has exited")
            assert leaving.child.returncode == 0
            await experiment.heals("it has exited", within=5)
            assert {event.why for witness in witnesses for event in witness.told("ended")} == {"1012"}

    asyncio.run(story())


HERD = int(os.environ.get("CAUSEWAY_CLIENTS", 300))
HERD_PER_ADDRESS = 200


def test_f18_a_herd_comes_back(experiment, tmp_path):
    """A third of many clients lose their node at once."""

    async def story(cluster):
        victim = cluster.nodes[-1]
        urls = [cluster.nginx.connect_url()]
        sources = [own_address() for _ in range(0, HERD, HERD_PER_ADDRESS)]
        herd = experiment.some_witnesses(urls, HERD, topics_max=1)
        for number, witness in enumerate(herd):
            witness.options["local_addr"] = (sources[number % len(sources)], 0)
        service = Service(lambda: cluster.redis.where, TOPICS, experiment.publications, 0.1)
        async with experiment.traffic(herd, service, disturbed=only_of(experiment, victim)):
            held = victim.gauge("causeway_connections")
            assert held > HERD / 5
            experiment.note(f"node-c is killed with {held:.0f} of {HERD} clients")
            await asyncio.to_thread(victim.kill)
            await experiment.heals("it is dead", within=30)

    with running_cluster(tmp_path, names=["node-a", "node-b", "node-c"]) as cluster:
        asyncio.run(story(cluster))


# In front: nginx.


def test_f14_nginx_is_reloaded(experiment, cluster):
    async def story():
        witnesses, *publishers = through_nginx(experiment, cluster)
        async with experiment.traffic(witnesses, *publishers, disturbed=NOBODY):
            for _ in range(3):
                experiment.note("nginx is reloaded")
                await asyncio.to_thread(cluster.nginx.reload)
                await asyncio.sleep(experiment.between(0, 0.5))

    asyncio.run(story())


@pytest.mark.parametrize("ping_interval", ["1s", "60s"])
def test_f15_an_idle_socket_outlasts_nginx_if_it_is_pinged_often_enough(experiment, tmp_path, ping_interval):
    """With the shipped times there is a factor of four between the two; here both are shorter, or the pings too rare."""
    settings = {"heartbeat": {"ping_interval": ping_interval, "pong_timeout": "5s"}}
    shorter = {"proxy_read_timeout 120s": "proxy_read_timeout 4s", "proxy_send_timeout 120s": "proxy_send_timeout 4s"}

    async def story(nginx, node):
        async with Subscriber(nginx.connect_url(), ["idle"]) as idle:
            if ping_interval == "1s":
                await asyncio.sleep(experiment.between(9, 12))
                await idle.settle()
                assert idle.open
            else:
                assert await idle.closed() == 1006, "without pings nginx cuts it, and says nothing"
        await eventually(lambda: node.gauge("causeway_connections") == 0, "nothing is left of it")

    with Node("node", tmp_path, None, settings) as node, Nginx(tmp_path, [node.public] * 2, shorter) as nginx:
        asyncio.run(story(nginx, node))


def test_f16_a_node_is_gone_behind_nginx(experiment, cluster):
    """nginx asks the dead one first, because it has the fewest connections, and goes on; nobody is turned away."""
    gone, other = cluster.nodes

    async def story():
        await asyncio.to_thread(gone.kill)
        newcomers = [Subscriber(cluster.nginx.connect_url(number % 2 == 1), ["news"], trust=cluster.nginx.trust() if number % 2 else None) for number in range(20)]
        async with together(newcomers):
            assert {one.welcome["node"] for one in newcomers} == {other.name}
            await asyncio.to_thread(cluster.publish, "news", "1")
            for one in newcomers:
                await eventually(lambda: one.heard("news") == [1], "it hears everything")
        await asyncio.to_thread(other.kill)
        status, headers, _ = await asyncio.to_thread(ask, cluster.nginx.plain, "GET", "/v1/connect", bearer())
        assert status == 503 and int(headers["Retry-After"]) > 0
        await asyncio.to_thread(gone.start)
        async with Subscriber(cluster.nginx.connect_url(), ["news"]) as back:
            assert back.welcome["node"] == gone.name, "it is used as soon as it is back"

    asyncio.run(story())


# Below: clocks, processor, memory, descriptors, the disk.


@needs_faketime
def test_f19_the_clock_of_a_node_is_wrong_and_jumps(experiment, tmp_path):
    """Newcomers are judged by it, within the leeway; whoever is in stays, however far it jumps."""
    clock = Clock(tmp_path)

    def verdict(node):
        issued_now = tokens.token(ttl=3600, iat=int(time.time()))
        status, _, body = ask(node.public, "GET", "/v1/connect", bearer(issued_now))
        return status

    async def story(cluster):
        odd = cluster.nodes[0]
        witnesses, *publishers = everyone(experiment, cluster)
        async with experiment.traffic(witnesses, *publishers, disturbed=NOBODY):
            for ahead in experiment.random.sample([5, -5, 7200, -7200, 86400, 0], 6):
                experiment.note(f"the clock of node-a is {ahead:+d} s ahead")
                clock.set(ahead)
                good = 204 if abs(ahead) <= 5 else 401
                await eventually(lambda: verdict(odd) == good, f"{ahead:+d} s ahead, it answers with {good}")
                await asyncio.sleep(experiment.between(0.3, 1.2))

    with contextlib.ExitStack() as stack:
        settings = {"auth": {"leeway": "10s", "keys": [tokens.KEY]}}
        redis = stack.enter_context(RedisServer(tmp_path))
        nodes = [
            stack.enter_context(Node("node-a", tmp_path, redis.url, settings, prefix=clock.prefix)),
            stack.enter_context(Node("node-b", tmp_path, redis.url, settings)),
        ]
        nginx = stack.enter_context(Nginx(tmp_path, [node.public for node in nodes]))
        asyncio.run(story(Cluster(redis, nodes, nginx, [])))


DESCRIPTORS = 300


def test_f22_a_node_has_fewer_descriptors_than_clients_come(experiment, tmp_path):
    """It keeps some for Redis and the admin listener: who comes too many is refused, and everybody else is served."""
    prefix = ["prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}", "--"]

    def upgrade(node, clients):
        client = clients.enter_context(RawClient(node.public))
        client.send(("GET /v1/connect HTTP/1.1\r\nHost: x\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in {**HANDSHAKE, **bearer()}.items()) + "\r\n").encode())
        return client.socket.recv(12)

    async def story(cluster):
        scarce = cluster.nodes[0]
        witnesses, *publishers = everyone(experiment, cluster)
        async with experiment.traffic(witnesses, *publishers, disturbed=NOBODY):
            with contextlib.ExitStack() as clients:
                answers = [await asyncio.to_thread(upgrade, scarce, clients) for _ in range(DESCRIPTORS)]
                assert set(answers) == {b"HTTP/1.1 101", b"HTTP/1.1 503"}
                experiment.note("there are more clients than descriptors", let_in=answers.count(b"HTTP/1.1 101"))
                assert scarce.admin_status("/readyz") == 200, "the admin listener answers"
                await experiment.heals("nobody else notices", within=1)
                with cluster.redis.client() as client:
                    client.client_kill_filter(_type="normal", skipme=True)
                await experiment.heals("there are descriptors for new links to Redis", within=1)
            gone = lambda: scarce.gauge("causeway_connections") <= WITNESSES
            await eventually(gone, "they have gone")
            with contextlib.ExitStack() as clients:
                assert await asyncio.to_thread(upgrade, scarce, clients) == b"HTTP/1.1 101"

    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(RedisServer(tmp_path))
        nodes = [
            stack.enter_context(Node("node-a", tmp_path, redis.url, prefix=prefix)),
            stack.enter_context(Node("node-b", tmp_path, redis.url)),
        ]
        nginx = stack.enter_context(Nginx(tmp_path, [node.public for node in nodes]))
        asyncio.run(story(Cluster(redis, nodes, nginx, [])))


@needs_memory_groups
def test_f23_a_node_has_little_memory_and_many_readers_that_do_not_read(experiment, tmp_path):
    """Each on a topic of its own, so that no frame is shared. The budget is kept, and the kernel need not end anybody."""
    limits = {"outbox_bytes": "4MiB", "outbox_bytes_total": "96MiB"}

    async def story(cluster, group):
        little = cluster.nodes[0]
        witnesses, *publishers = everyone(experiment, cluster)
        # The flood may be more than the node can take in; then it says so.
        async with experiment.traffic(witnesses, *publishers, disturbed=only_of(experiment, little)):
            with contextlib.ExitStack() as clients:
                for number in range(80):
                    client = clients.enter_context(RawClient(little.public, receive_buffer=4096).upgrade())
                    client.send(text(f'{{"id":1,"op":"subscribe","topics":["stalled.{number}"]}}'))
                await eventually(lambda: little.gauge("causeway_topics") >= 80, "all are subscribed")
                experiment.note("80 clients that do not read have 4 MiB each sent to them")
                for _ in range(80):
                    batch = [(f"stalled.{number}", b'"' + b"x" * 50_000 + b'"') for number in range(80)]
                    await asyncio.to_thread(cluster.redis.publish, batch)
                cut = lambda: little.counter("causeway_connections_closed_total", code=4413)
                await eventually(cut, "some of them are cut")
                experiment.note("the flood is over", peak_bytes=group.peak_bytes(), cut=cut())
                assert little.child.poll() is None and group.kills() == 0
            await experiment.heals("the flood is over", within=2)
            assert_sockets_stayed(witnesses)

    with MemoryGroup(256 << 20) as group, contextlib.ExitStack() as stack:
        redis = stack.enter_context(RedisServer(tmp_path))
        nodes = [
            stack.enter_context(Node("node-a", tmp_path, redis.url, {"limits": limits}, prefix=group.prefix)),
            stack.enter_context(Node("node-b", tmp_path, redis.url)),
        ]
        nginx = stack.enter_context(Nginx(tmp_path, [node.public for node in nodes]))
        asyncio.run(story(Cluster(redis, nodes, nginx, []), group))


@pytest.mark.parametrize("how", ["a stall of 4 s", "a tenth of a processor"])
def test_f24_a_node_hardly_gets_any_processor(experiment, tmp_path, how):
    """It is stopped and let go on, as a scheduler might. Nobody is taken for dead who has answered in time."""
    settings = {"heartbeat": {"ping_interval": "1s", "pong_timeout": "5s"}}

    async def story(cluster):
        starved = cluster.nodes[0]
        witnesses, *publishers = everyone(experiment, cluster)
        # The link to Redis is lost after four seconds in which nothing was heard, and then there is a gap.
        gaps = lambda client, topic: starved.name in experiment.nodes_of(client)
        async with experiment.traffic(witnesses, *publishers, disturbed=gaps):
            experiment.note(f"node-a gets {how}")
            stops, goes = ([4.0], [0.0]) if how == "a stall of 4 s" else ([0.27] * 20, [0.03] * 20)
            for stopped, going in zip(stops, goes):
                starved.child.send_signal(signal.SIGSTOP)
                await asyncio.sleep(stopped)
                starved.child.send_signal(signal.SIGCONT)
                await asyncio.sleep(going)
            await experiment.heals("it gets what it needs", within=2)
            assert_sockets_stayed(witnesses)

    with running_cluster(tmp_path, settings) as cluster:
        asyncio.run(story(cluster))


@pytest.mark.parametrize("where", ["a full disk", "a pipe that nobody reads"])
def test_f29_the_log_cannot_be_written(experiment, tmp_path, where):
    async def story(cluster):
        witnesses, *publishers = everyone(experiment, cluster)
        silenced = cluster.nodes[0]
        async with experiment.traffic(witnesses, *publishers, disturbed=NOBODY):
            # At this level every connection that ends is a line.
            tries = [asyncio.to_thread(ask, silenced.public, "GET", "/v1/connect", bearer()) for _ in range(20)]
            assert {status for status, *_ in await asyncio.gather(*tries)} == {204}
            for _ in range(20):
                async with together([Subscriber(silenced.connect_url(), ["news"]) for _ in range(50)]):
                    pass
            await experiment.heals("a thousand connections came and went", within=1)
            assert silenced.admin_status("/livez") == 200

    with contextlib.ExitStack() as stack:
        target = "/dev/full"
        if where != "a full disk":
            target = str(tmp_path / "pipe")
            os.mkfifo(target)
            # Opened so that the other end can be, and never read.
            stack.callback(os.close, os.open(target, os.O_RDWR))
        prefix = ["sh", "-c", f'exec "$@" 2>{target}', "sh"]
        redis = stack.enter_context(RedisServer(tmp_path))
        nodes = [
            stack.enter_context(Node("node-a", tmp_path, redis.url, {"log": {"level": "debug"}}, prefix=prefix)),
            stack.enter_context(Node("node-b", tmp_path, redis.url)),
        ]
        nginx = stack.enter_context(Nginx(tmp_path, [node.public for node in nodes]))
        asyncio.run(story(Cluster(redis, nodes, nginx, [])))


def test_f28_keys_are_changed_under_load(experiment, cluster):
    """The old key is good until it is removed; whoever is in stays in."""
    node = cluster.nodes[0]
    other = {"kid": "next", "algorithm": "HS256", "secret": "5e" * 32}

    def give(*keys):
        node.settings["auth"]["keys"] = list(keys)
        node.command()  # writes the configuration
        node.child.send_signal(signal.SIGHUP)

    def verdict(**options):
        return ask(node.public, "GET", "/v1/connect", bearer(tokens.token(**options)))[0]

    async def story():
        witnesses, *publishers = everyone(experiment, cluster)
        async with experiment.traffic(witnesses, *publishers, disturbed=NOBODY):
            for _ in range(3):
                for keys, good in (([tokens.KEY, other], 204), ([other], 401), ([tokens.KEY], 204)):
                    experiment.note(f"the keys are {[key['kid'] for key in keys]}")
                    give(*keys)
                    await eventually(lambda: verdict() == good, f"the old key is {'good' if good == 204 else 'gone'}")
                    await asyncio.sleep(experiment.between(0, 0.3))

    asyncio.run(story())
