"""Redis and the way to it: it restarts, stalls, refuses, moves; the network in between swallows, delays, breaks into pieces."""

import asyncio
import contextlib
import itertools
import signal

import pytest
from experiment import EVERYBODY, NOBODY, PAUSE, TOPICS, assert_sockets_stayed, everyone
from network import Island, needs_own_mounts, needs_own_network, swallowed
from publishers import Service
from sentinel import watched_pair
from support.cluster import Cluster, running_cluster
from support.fault_proxy import FaultProxy
from support.nginx import Nginx
from support.node import Node
from support.process import eventually, free_port, own_address
from support.raw_client import RawClient, text
from support.redis_server import RedisServer
from support.stuck_thread import stuck, threads
from support.subscribers import Subscriber, together

# Detection, connecting in vain until its deadline, the pause before the next attempt: after that, a link that was
# swallowed by the network is there again.
AFTER_A_PARTITION = 4
# What comes in one go after a stall is no reason to cut a client: that is another story (F17).
ROOMY = {"limits": {"outbox_bytes": "16MiB"}}
short = pytest.mark.short


# The server.


@pytest.mark.parametrize("down", [pytest.param(0.4, marks=short), 4, 15, 60])
def test_f1_redis_is_killed_and_started_again(experiment, cluster, down):
    async def story():
        witnesses, *publishers = everyone(experiment, cluster)
        async with experiment.traffic(witnesses, *publishers):
            experiment.note(f"Redis is killed for {down} s")
            await asyncio.to_thread(cluster.redis.kill)
            await asyncio.sleep(down)
            await asyncio.to_thread(cluster.redis.start)
            await experiment.heals("Redis is there again", within=2)
            assert_sockets_stayed(witnesses)
            assert all(witness.told("gap") for witness in witnesses)

    asyncio.run(story())


@pytest.mark.parametrize("how", ["asked", "killed", "stopped"])
def test_f3_sentinel_promotes_the_replica(experiment, tmp_path, how):
    """The nodes know Redis by a place that leads to the master: here a proxy, elsewhere a name."""

    async def story(cluster, master, sentinel, way):
        witnesses, service, chatter = everyone(experiment, cluster)
        service.where = lambda: way.where
        async with experiment.traffic(witnesses, service, chatter):
            before = sentinel.master()
            experiment.note(f"fail-over, the master {how}")
            match how:
                case "asked": await asyncio.to_thread(sentinel.fail_over)
                case "killed": await asyncio.to_thread(master.kill)
                case "stopped": master.child.send_signal(signal.SIGSTOP)
            await eventually(lambda: sentinel.master() != before, "the replica is promoted")
            for link in [*cluster.links, way]:
                link.point_at(sentinel.master())
                link.cut()
            await experiment.heals("the replica is the master, and the place leads to it", within=5)
            assert_sockets_stayed(witnesses)

    with watched_pair(tmp_path) as (master, _, sentinel), contextlib.ExitStack() as stack:
        way, *links = [stack.enter_context(FaultProxy(master.where)) for _ in range(3)]
        nodes = [stack.enter_context(Node(f"node-{n}", tmp_path, link.url)) for n, link in enumerate(links)]
        nginx = stack.enter_context(Nginx(tmp_path, [node.public for node in nodes]))
        try:
            asyncio.run(story(Cluster(master, nodes, nginx, links), master, sentinel, way))
        finally:
            if how == "stopped":
                master.child.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("how", [pytest.param("stopped", marks=short), "paused", "slow network"])
def test_f6_redis_is_slow(experiment, linked_cluster, how):
    redis, links = linked_cluster.redis, linked_cluster.links

    async def story():
        witnesses, *publishers = everyone(experiment, linked_cluster)
        # However slow the network, as long as it brings something nobody is told anything.
        disturbed = NOBODY if how == "slow network" else EVERYBODY
        async with experiment.traffic(witnesses, *publishers, disturbed=disturbed):
            seconds = experiment.between(1, 5)
            experiment.note(f"Redis is {how} for {seconds:.1f} s")
            if how == "stopped":
                redis.child.send_signal(signal.SIGSTOP)
                await asyncio.sleep(seconds)
                redis.child.send_signal(signal.SIGCONT)
            elif how == "paused":
                with redis.client() as client:
                    client.client_pause(int(seconds * 1000))
                await asyncio.sleep(seconds)
            else:
                for link in links:
                    link.forth.delay, link.back.delay, link.back.jitter = 0.3, 0.3, 0.3
                await asyncio.sleep(seconds)
                for link in links:
                    link.forth.delay = link.back.delay = link.back.jitter = 0
            await experiment.heals("Redis is as fast as before", within=3)
            assert_sockets_stayed(witnesses)

    asyncio.run(story())


def test_f7_redis_cuts_a_node_that_does_not_read(experiment, tmp_path):
    async def story(cluster):
        stopped = cluster.nodes[0]
        witnesses, *publishers = everyone(experiment, cluster)
        flood = Service(lambda: cluster.redis.where, TOPICS, experiment.publications, 0.002, 50_000, name="flood")
        at_stopped = lambda client, topic: stopped.name in experiment.nodes_of(client)
        async with experiment.traffic(witnesses, *publishers, disturbed=at_stopped):
            with cluster.redis.client() as client:
                client.config_set("client-output-buffer-limit", "pubsub 1mb 512kb 5")
                links = lambda: len(client.client_list(_type="pubsub"))
                assert links() == 2
                experiment.note("node-a is stopped, and Redis keeps 1 MiB for it")
                stopped.child.send_signal(signal.SIGSTOP)
                flooding = asyncio.create_task(flood.run())
                try:
                    await eventually(lambda: links() == 1, "Redis cuts the link of node-a")
                    flood.over = True
                    await asyncio.sleep(experiment.between(4, 6))
                finally:
                    flood.over = True
                    stopped.child.send_signal(signal.SIGCONT)
                    await flooding
            await experiment.heals("node-a goes on", within=2)
            assert_sockets_stayed(witnesses)
            assert any(witness.told("gap") for witness in witnesses)

    with running_cluster(tmp_path, ROOMY) as cluster:
        asyncio.run(story(cluster))


@pytest.mark.parametrize("kind", [pytest.param("pubsub", marks=short), "normal"])
def test_f8_redis_is_told_to_kill_its_clients(experiment, cluster, kind):
    """The links on which nodes listen, or those on which they publish."""

    async def story():
        witnesses, *publishers = everyone(experiment, cluster)
        disturbed = NOBODY if kind == "normal" else EVERYBODY
        async with experiment.traffic(witnesses, *publishers, disturbed=disturbed):
            for _ in range(3):
                with cluster.redis.client() as client:
                    killed = client.client_kill_filter(_type=kind, skipme=True)
                assert killed >= 2, "both nodes have one"
                await experiment.heals(f"{killed} {kind} links are killed", within=0.5)
                await asyncio.sleep(experiment.between(0, 1.5))
            assert_sockets_stayed(witnesses)

    asyncio.run(story())


REFUSALS = {
    "no more clients": (("CONFIG", "SET", "maxclients", "1"), ("CONFIG", "SET", "maxclients", "1000")),
    "no right": (("ACL", "SETUSER", "default", "off"), ("ACL", "SETUSER", "default", "on")),
    "memory full": (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
    "read only": (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
}


@pytest.mark.parametrize("how", REFUSALS)
def test_f9_redis_refuses(experiment, cluster, how):
    """And all links are killed besides, so that nodes and services have to come in again."""
    begin, end = REFUSALS[how]

    async def story():
        witnesses, *publishers = everyone(experiment, cluster)
        async with experiment.traffic(witnesses, *publishers):
            with cluster.redis.client() as client:
                rejected = lambda: client.info("stats")["rejected_connections"]
                seconds, before = experiment.between(1, 5), rejected()
                experiment.note(f"Redis refuses, {how}, for {seconds:.1f} s")
                client.execute_command(*begin)
                client.client_kill_filter(_type="pubsub")
                client.client_kill_filter(_type="normal", skipme=True)
                await asyncio.sleep(seconds)
                # Two nodes with two links each, and the story's own service: none of them hammers.
                assert rejected() - before < 100 * (seconds + 1)
                client.execute_command(*end)
            await experiment.heals("Redis refuses no more", within=2)
            assert_sockets_stayed(witnesses)

    asyncio.run(story())


@pytest.mark.parametrize("thread", ["causeway-broker", "actix-rt"])
def test_f10_a_thread_of_the_node_stalls(experiment, tmp_path, thread):
    """The one that reads from Redis, or one that writes to clients. What gathers meanwhile is bounded, the rest announced."""
    room = 16 << 20

    async def story(cluster):
        stalling = cluster.nodes[0]
        witnesses, *publishers = everyone(experiment, cluster)
        flood = Service(lambda: cluster.redis.where, TOPICS, experiment.publications, 0.005, 20_000, name="flood")
        at_stalling = lambda client, topic: stalling.name in experiment.nodes_of(client)
        async with experiment.traffic(witnesses, *publishers, disturbed=at_stalling):
            seconds = experiment.between(2, 4)
            experiment.note(f"{thread} of node-a stalls for {seconds:.1f} s")
            resident = lambda: stalling.gauge("process_resident_memory_bytes")
            before = resident()
            with stuck(threads(stalling.child.pid, thread)[0]):
                flooding = asyncio.create_task(flood.run())
                await asyncio.sleep(seconds)
                flood.over = True
                await flooding
            assert resident() < before + room + (32 << 20)
            await experiment.heals("it goes on", within=2)
            assert_sockets_stayed(witnesses)

    with running_cluster(tmp_path, {"limits": {"outbox_bytes_total": f"{room >> 20}MiB", "outbox_bytes": "8MiB"}}) as cluster:
        asyncio.run(story(cluster))


# The network.


@pytest.mark.parametrize("way", [pytest.param("both ways", marks=short), "to Redis", "from Redis"])
def test_f4_f5_the_network_to_redis_swallows_everything(experiment, linked_cluster, way):
    """As a proxy can: connections can be made, and nothing comes through."""
    linked_cluster_held = {"both ways": FaultProxy.hold, "to Redis": lambda link: link.forth.hold(),
                           "from Redis": lambda link: link.back.hold()}[way]

    async def story():
        witnesses, *publishers = everyone(experiment, linked_cluster)
        async with experiment.traffic(witnesses, *publishers):
            experiment.note(f"nothing comes through, {way}")
            for link in linked_cluster.links:
                linked_cluster_held(link)
            await noticed(experiment, linked_cluster.nodes)
            for link in linked_cluster.links:
                link.release()
            await experiment.heals("everything comes through", within=AFTER_A_PARTITION)
            assert_sockets_stayed(witnesses)

    asyncio.run(story())


@needs_own_network
@pytest.mark.parametrize("way", ["both ways", "to Redis", "from Redis"])
def test_f4_f5_packets_to_redis_vanish(experiment, tmp_path, way):
    """As networks do: no answer, no reset, and nobody is told."""

    async def story(cluster, there, here):
        ways = {"both ways": [(here, there), (there, here)], "to Redis": [(here, there)], "from Redis": [(there, here)]}[way]
        witnesses, _, *publishers = everyone(experiment, cluster)
        service = Service(lambda: cluster.redis.where, TOPICS, experiment.publications, PAUSE)
        async with experiment.traffic(witnesses, service, *publishers):
            experiment.note(f"packets vanish, {way}")
            with swallowed(*ways):
                await noticed(experiment, cluster.nodes)
            # The kernel tries a connection again after 1, 2, 4 s, and the node gives up on it after 2 s.
            await experiment.heals("packets arrive", within=AFTER_A_PARTITION)
            assert_sockets_stayed(witnesses)

    with Island() as first, Island() as second, contextlib.ExitStack() as stack:
        redis = stack.enter_context(RedisServer(tmp_path, port=6379, address=first.address, prefix=first.prefix))
        settings = {"trusted_proxies": [f"{second.ours}/32"]}
        nodes = [
            stack.enter_context(Node(name, tmp_path, redis.url, settings, address=second.address, prefix=second.prefix))
            for name in ("node-a", "node-b")
        ]
        nginx = stack.enter_context(Nginx(tmp_path, [node.public for node in nodes]))
        asyncio.run(story(Cluster(redis, nodes, nginx, []), first.address, second.address))


async def noticed(experiment, nodes):
    """Within seven seconds: two until the link is asked for a sign of life, two more until it is given up, and some."""
    with experiment.time("every node has noticed", within=7):
        await eventually(
            lambda: all(node.admin_status("/readyz") == 503 for node in nodes), "no node calls itself ready"
        )
    await asyncio.sleep(experiment.between(0, 3))


def test_f27_what_comes_late_and_in_pieces_comes_in_order_all_the_same(experiment, linked_cluster):
    async def story():
        witnesses, *publishers = everyone(experiment, linked_cluster)
        async with experiment.traffic(witnesses, *publishers, disturbed=NOBODY):
            experiment.note("Redis's stream comes in pieces of up to 40 bytes, now and then late")
            for way in [way for link in linked_cluster.links for way in (link.forth, link.back)]:
                way.piece_bytes_max, way.jitter = 40, 0.2
            await asyncio.sleep(experiment.between(3, 6))
            await experiment.heals("nothing: it goes on like this", within=1)

    asyncio.run(story())


@pytest.mark.parametrize("how", ["a reset", "one half closed, to Redis", "one half closed, from Redis"])
def test_f8_the_network_ends_the_link_to_redis(experiment, linked_cluster, how):
    async def story():
        witnesses, *publishers = everyone(experiment, linked_cluster)
        async with experiment.traffic(witnesses, *publishers):
            for link in linked_cluster.links:
                ended = {
                    "a reset": link.cut,
                    "one half closed, to Redis": lambda: link.half_close(link.forth),
                    "one half closed, from Redis": lambda: link.half_close(link.back),
                }[how]()
                assert ended >= 1
            await experiment.heals(f"the links ended: {how}", within=0.5)
            assert_sockets_stayed(witnesses)

    asyncio.run(story())


@needs_own_mounts
def test_f30_the_name_of_redis_leads_elsewhere(experiment, tmp_path):
    hosts = tmp_path / "hosts"
    # A mount of its own for each node: nobody else looks into this file.
    as_hosts = ["unshare", "--mount", "sh", "-c", f'mount --bind "{hosts}" /etc/hosts && exec "$@"', "sh"]

    async def story(cluster, following):
        witnesses, service, chatter = everyone(experiment, cluster)
        place = [cluster.redis.where]
        service.where = lambda: place[0]
        async with experiment.traffic(witnesses, service, chatter):
            experiment.note("the name leads to another Redis, and the old one is killed")
            hosts.write_text(f"{following.address} redis.test\n")
            place[0] = following.where
            await asyncio.to_thread(cluster.redis.kill)
            await experiment.heals("the old one is gone", within=2)
            assert_sockets_stayed(witnesses)

    with contextlib.ExitStack() as stack:
        port = free_port(address := own_address())
        redis = stack.enter_context(RedisServer(tmp_path, address=address, port=port))
        following = stack.enter_context(RedisServer(tmp_path, "following", port=port))
        hosts.write_text(f"{redis.address} redis.test\n")
        nodes = [
            stack.enter_context(Node(name, tmp_path, f"redis://redis.test:{port}", prefix=as_hosts))
            for name in ("node-a", "node-b")
        ]
        nginx = stack.enter_context(Nginx(tmp_path, [node.public for node in nodes]))
        asyncio.run(story(Cluster(redis, nodes, nginx, []), following))


# What comes through it.

LIMIT = 64 << 10  # limits.message_bytes


def test_f25_a_message_is_larger_than_the_node_takes(experiment, cluster):
    """It is announced to the subscribers of its topic; the others do not notice."""
    large = "large.1"

    async def story():
        witnesses, *publishers = everyone(experiment, cluster, topics=[*TOPICS, large])
        sizes = itertools.count()
        only_large = lambda client, topic: topic == large
        async with experiment.traffic(witnesses, *publishers, disturbed=only_large):
            for size in (LIMIT - 1, LIMIT, LIMIT + 1, 10 * LIMIT):
                experiment.note(f"a message of {size} bytes")
                name = f"large-{next(sizes)}"
                await Service(publishers[0].where, [large], experiment.publications, 0, size, rounds=1, name=name).run()
            await asyncio.to_thread(oversized_command, cluster.nodes[0])
            await experiment.heals("the last of them is through", within=1)
            followers = [witness for witness in witnesses if large in witness.topics]
            assert followers, "somebody follows the topic; another seed would do"
            for witness in followers:
                heard = {event.publisher.split(".")[0] for event in witness.histories[large] if event.kind == "message"}
                assert {"large-0", "large-1"} <= heard and not {"large-2", "large-3"} & heard
                assert {event.why for event in witness.told("gap")} == {"overload"}
            assert_sockets_stayed(witnesses)

    asyncio.run(story())


def oversized_command(node):
    """A client that sends too much ends itself and nobody else."""
    with RawClient(node.public).upgrade() as client:
        client.send_as_long_as_it_is_taken(text("x" * (10 * LIMIT)), 1)
        assert (1009).to_bytes(2, "big") in client.rest(may_reset=True)


POISON = [b"", b"\0", b"\xff\xfe", b"{", b"[" * LIMIT, b'{"op":"message"}', b'"\\ud800"', b"1e999999", b"\r\n$5\r\n", bytes(range(256))]


def test_f26_poisonous_messages_harm_nobody(experiment, cluster):
    async def story():
        witnesses, *publishers = everyone(experiment, cluster)
        async with (
            together([Subscriber(node.connect_url(), ["poison.1"]) for node in cluster.nodes]) as tasters,
            experiment.traffic(witnesses, *publishers, disturbed=NOBODY),
        ):
            experiment.note(f"{len(POISON)} poisonous messages, in some order, three times")
            doses = experiment.random.sample(POISON * 3, len(POISON) * 3)
            await asyncio.to_thread(cluster.redis.publish, [("poison.1", dose) for dose in doses])
            for taster in tasters:
                await eventually(lambda: len(taster.heard("poison.1")) == len(doses), "each of them arrives as it is")
                assert taster.open and taster.pushes == []
            await experiment.heals("they are all through", within=1)
            for node in cluster.nodes:
                assert node.child.poll() is None and "panicked" not in node.log()

    asyncio.run(story())
