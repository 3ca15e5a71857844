"""Clients are sent away before their node stops, or because others have more room: told first, evenly, and nothing is lost."""

import asyncio
import contextlib
import dataclasses
import json
import os
import re
import signal
import time

import pytest
from support import tokens
from support.cluster import ask, running_cluster
from support.crowd import SIZE, crowd, publish_to_all, shares
from support.histogram import BUCKET, Histogram
from support.node import CUT_SHORT, Node
from support.process import PATIENCE, eventually, own_address
from support.requests import bearer
from support.subscribers import Subscriber, together
from support.travellers import Traveller, now

ADMIN_TOKEN = "an operator's token of thirty-two bytes"


def post(node, path, headers=None):
    status, _, body = ask(node.admin, "POST", path, headers)
    return status, json.loads(body)


def followers(node, count, **options):
    return [Subscriber(node.connect_url(), ["news"], **options) for _ in range(count)]


@contextlib.contextmanager
def a_node(directory, **settings):
    with Node("drained", directory, None, settings) as node:
        yield node


# The end of a node.


def test_a_second_signal_ends_the_drain_at_once_and_shows_in_the_exit_status(tmp_path):
    window = 120

    async def story(node):
        async with together(followers(node, 20)) as subscribers:
            node.child.send_signal(signal.SIGTERM)
            await eventually(lambda: all(one.pushed("drain") for one in subscribers), "all are told")
            node.child.send_signal(signal.SIGTERM)
            before = time.monotonic()
            await asyncio.to_thread(node.child.wait, PATIENCE)
            assert time.monotonic() - before < window / 2, "long before the drain would have come to its end"
            assert node.child.returncode == CUT_SHORT
            assert "a second signal: stopping at once" in node.log()
            codes = [await one.closed() for one in subscribers]
            assert codes.count(1006) > 10, "most had not had their turn"

    with a_node(tmp_path, drain={"lead_time": "0s", "window": f"{window}s"}) as node:
        asyncio.run(story(node))


def test_a_drain_tells_how_far_it_has_come(tmp_path):
    async def story(node):
        async with together(followers(node, 30)):
            node.child.send_signal(signal.SIGTERM)
            left = lambda: node.gauge("causeway_drain_connections_remaining")
            assert await eventually(left, "the drain shows in the metrics") == 30
            await eventually(lambda: 0 < left() < 30, "some have gone")
            told = lambda: node.gauge("causeway_drain_announcements_total") == 30
            await eventually(told, "each worker has told its own")
            await asyncio.to_thread(node.child.wait, 20)

    with a_node(tmp_path, drain={"lead_time": "0s", "window": "3s"}) as node:
        assert node.gauge("causeway_drain_connections_remaining") == 0
        asyncio.run(story(node))
        (begun,) = lines_of(node, "stopping: draining connections")
        assert re.search(r"by=.?signal.? connections=30", begun), begun
        progress = [int(re.search(r"remaining=(\d+)", line)[1]) for line in lines_of(node, " draining remaining=")]
        assert len(progress) >= 2 and progress == sorted(progress, reverse=True) and progress[-1] < 30, progress
        (done,) = lines_of(node, " drained remaining=")
        assert "remaining=0" in done
        assert node.child.returncode == 0


def lines_of(node, words):
    # The words come first, the figures behind them.
    plain = re.sub(r"\x1b\[[\d;]*m", "", node.log())
    return [line for line in plain.splitlines() if words in line]


def test_a_drain_that_is_asked_for_over_http_is_the_same_and_the_first_signal_is_no_second(tmp_path):
    async def story(node):
        async with together(followers(node, 20)) as subscribers:
            answer = {"connections": 20, "lead_time_ms": 200, "window_ms": 2000}
            assert await asyncio.to_thread(post, node, "/admin/drain") == (202, answer)
            assert node.admin_status("/readyz") == 503
            assert ask(node.public, "GET", "/v1/connect", bearer())[0] == 503
            assert (await asyncio.to_thread(post, node, "/admin/drain"))[0] == 202, "asked twice is asked once"
            assert (await asyncio.to_thread(post, node, "/admin/shed?percent=10"))[0] == 503, "all are leaving"
            # A supervisor that goes on to stop the node.
            node.child.send_signal(signal.SIGTERM)
            assert {await one.closed() for one in subscribers} == {1012}
            assert all(len(one.pushed("drain")) == 1 for one in subscribers)
            await asyncio.to_thread(node.child.wait, 20)
            assert node.child.returncode == 0

    with a_node(tmp_path, drain={"lead_time": "200ms", "window": "2s"}) as node:
        asyncio.run(story(node))


# A share.


def test_after_scaling_out_a_share_moves_to_the_new_node(doomed_cluster):
    old, new = doomed_cluster.nodes
    nginx = doomed_cluster.nginx

    def goes_to_the_new_node():
        ask(nginx.plain, "GET", "/v1/connect", bearer())
        # nginx logs a request once it is over, which may be later than its answer is here.
        return f'upstream="{new.public}"' in nginx.access_log.read_text()

    async def story():
        await asyncio.to_thread(new.kill)
        async with together(crowd(nginx, returns=True)) as subscribers:
            assert await shares([old]) == [SIZE]
            await asyncio.to_thread(new.start)
            await eventually(goes_to_the_new_node, "nginx has noticed the new node")

            answer = {"told": SIZE // 4, "of": SIZE, "window_ms": 1000}
            assert await asyncio.to_thread(post, old, "/admin/shed?percent=25") == (202, answer)
            moved = await eventually(
                lambda: len(went := [one for one in subscribers if one.closes]) == SIZE // 4 and went, "a quarter goes"
            )
            await eventually(lambda: all(one.subscribed for one in subscribers), "all have come back")
            assert old.admin_status("/readyz") == 200
            assert await shares([old, new]) == [SIZE - SIZE // 4, SIZE // 4]
            for one in moved:
                assert one.closes == [1012] and len(one.pushed("drain")) == 1
            await publish_to_all(doomed_cluster.redis, '"after"')
            for one in subscribers:
                await eventually(lambda: all(one.heard(topic) == ["after"] for topic in one.topics), "all hear it")
                assert one in moved or one.pushes == []
            assert old.gauge("causeway_drain_announcements_total") == SIZE // 4
            assert old.counter("causeway_connections_closed_total", code="1012") == SIZE // 4
            assert old.gauge("causeway_drain_connections_remaining") == 0, "it is not draining"

    asyncio.run(story())


def test_only_whoever_may_act_on_a_node_sends_anybody_away(tmp_path):
    with a_node(tmp_path, admin={"token": ADMIN_TOKEN}) as node:
        for path in ("/admin/drain", "/admin/shed?percent=10"):
            assert post(node, path)[0] == 401
        assert post(node, "/admin/shed?percent=10", bearer(ADMIN_TOKEN)) == (202, {"told": 0, "of": 0, "window_ms": 1000})
        assert node.admin_status("/readyz") == 200


@pytest.mark.parametrize("query", ["", "?percent=0", "?percent=101", "?percent=-1", "?percent=ten", "?percent=1&of=2"])
def test_a_share_that_is_none_is_refused_with_the_reason(cluster, query):
    status, refusal = post(cluster.nodes[0], f"/admin/shed{query}")
    assert (status, refusal["code"]) == (400, "malformed") and refusal["message"]


# A rolling restart. docs/operations.md shows what it prints with CAUSEWAY_CLIENTS=2000.

CLIENTS = int(os.environ.get("CAUSEWAY_CLIENTS", 300))
CLIENTS_PER_ADDRESS = 200
TOPICS = [f"orders.{number}" for number in range(20)]
LEAD_TIME = 1.0
WINDOW = max(3.0, CLIENTS / 200)
PUBLISH_INTERVAL = 0.5
# What a starved machine may add: to a pause, and to a message or a close on its way.
LATE = 2.0


@pytest.mark.alone
def test_a_rolling_restart_under_load_tells_everybody_makes_no_spike_and_loses_nothing(tmp_path, capsys):
    settings = {"drain": {"lead_time": f"{LEAD_TIME}s", "window": f"{WINDOW}s"}}
    with running_cluster(tmp_path, settings, ["node-a", "node-b", "node-c"]) as cluster:
        travellers, published, restarts = asyncio.run(rolling_restart(cluster))
    stays = [stay for one in travellers for stay in one.stays]
    with capsys.disabled():
        print(f"\n{CLIENTS} clients come back, by {BUCKET * 1000:.0f} ms since SIGTERM; "
              f"lead time {LEAD_TIME:.0f} s, window {WINDOW:.0f} s")
        for restart in restarts:
            asked, came = restart.asked(stays), restart.came(stays)
            print(f"{restart.node} asked {asked}")
            print(f"{restart.node} came  {came}; the test's own loop up to {restart.lag:.1f} s late")
            assert sum(asked.counts) == sum(came.counts) == restart.held, "who left came back, and nobody else"
            # Pauses are drawn by chance: a fair bucket is off by its square root, and one in a million by five of them.
            assert asked.most <= asked.even + 5 * asked.even ** 0.5, "nobody is asked to come in a spike"
            # While the test's own loop stood still, nobody could come; then all did who should have.
            assert came.most <= (3 + restart.lag / BUCKET) * came.even, "and nobody does"
    for one in travellers:
        assert_polite(one)
        assert_nothing_lost(one, published)


@dataclasses.dataclass
class Restart:
    """All moments are of the loop's clock."""

    node: str
    held: int  # clients, before
    began: float
    ended: float
    lag: float  # of the test's loop, at worst

    def asked(self, stays):
        """When clients were to come back."""
        return self._histogram(stay.comes_back_at for stay in stays if stay.comes_back_at)

    def came(self, stays):
        return self._histogram(stay.opened_at for stay in stays)

    def _histogram(self, moments):
        return Histogram([moment - self.began for moment in moments if self.began < moment < self.ended], WINDOW)


async def rolling_restart(cluster):
    """The travellers, when each number was published, and the restarts."""
    token = tokens.token()
    sources = [own_address() for _ in range(0, CLIENTS, CLIENTS_PER_ADDRESS)]
    crowd = [
        Traveller(cluster.nginx.connect_url(), TOPICS[number % len(TOPICS)], token, sources[number % len(sources)])
        for number in range(CLIENTS)
    ]
    async with together(crowd) as travellers, asyncio.TaskGroup() as tasks:
        published, is_over = [], asyncio.Event()
        publisher = tasks.create_task(publish(cluster.redis, published, is_over))
        restarts = [await restart(node, cluster.nodes, travellers) for node in cluster.nodes]
        is_over.set()
        await publisher
        last = len(published) - 1
        await eventually(lambda: all(one.numbers[-1:] == [last] for one in travellers), "all hear the last number")
    return travellers, published, restarts


async def publish(redis, published, is_over):
    """Counts up on every topic. The last number is for everybody to hear."""
    is_last = False
    while not is_last:
        is_last = is_over.is_set()
        number, began = len(published), now()
        await asyncio.to_thread(redis.publish, [(topic, str(number)) for topic in TOPICS])
        published.append((began, now()))
        await asyncio.sleep(PUBLISH_INTERVAL)


async def restart(node, nodes, travellers):
    # The gauges follow the sockets with a little delay.
    def counted():
        return sum(node.gauge("causeway_connections") for node in nodes) == CLIENTS

    await eventually(counted, "every connection is counted")
    held, began = int(node.gauge("causeway_connections")), now()
    lags = []
    watch = asyncio.create_task(watch_lag(lags))
    await asyncio.to_thread(node.stop)
    assert node.child.returncode == 0
    await asyncio.to_thread(node.start)
    await eventually(lambda: all(one.subscribed for one in travellers), "all have come back", 30)
    watch.cancel()
    return Restart(node.name, held, began, now(), max(lags))


async def watch_lag(lags):
    while True:
        due = now() + 0.02
        await asyncio.sleep(0.02)
        lags.append(now() - due)


def assert_polite(one):
    """It was told before each close, and was back when it was told to be."""
    *ended, last = one.stays
    for stay, following in zip(ended, one.stays[1:]):
        assert stay.code == 1012
        assert stay.told_at is not None and stay.told_at <= stay.closed_at
        assert stay.comes_back_at - stay.told_at <= WINDOW + 1
        assert stay.closed_at <= stay.comes_back_at + LATE
        assert stay.comes_back_at <= following.opened_at <= stay.comes_back_at + LATE
    assert len(one.pushed("drain")) == len(ended)


def assert_nothing_lost(one, published):
    assert one.numbers == sorted(set(one.numbers)), "in order, none twice"
    stays = one.numbers_of_stays()
    for numbers in stays:
        assert numbers == list(range(numbers[0], numbers[-1] + 1)) if numbers else True, "none is missing"
    missed = set(range(len(published))) - set(one.numbers)
    for number in missed:
        began, ended = published[number]
        away = [(a.closed_at, b.subscribed_at) for a, b in zip(one.stays, one.stays[1:])]
        assert any(left - LATE <= ended and began <= back for left, back in away), f"{number} was missed: {away}"
