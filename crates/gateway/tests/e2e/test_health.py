"""Health means that messages are delivered: what /readyz and /livez say when they are not, and when they are again."""

import signal

import pytest
from support.cluster import ask
from support.fault_proxy import FaultProxy
from support.node import Node
from support.process import until
from support.redis_server import RedisServer
from support.stuck_thread import stuck, threads


@pytest.fixture
def redis(tmp_path):
    with RedisServer(tmp_path) as redis:
        yield redis


@pytest.fixture
def node(tmp_path, redis):
    with Node("node", tmp_path, redis.url) as node:
        yield node


def health(node, path):
    status, _, words = ask(node.admin, "GET", path)
    return status, words.decode().strip()


def becomes(node, status, path="/readyz"):
    """The words of `path` once it answers with `status`."""
    until(lambda: health(node, path)[0] == status, f"{path} answers {status}")
    return health(node, path)[1]


def test_a_node_is_ready_when_a_message_has_gone_round_and_says_how_long_it_took(node):
    assert health(node, "/readyz") == (200, "ready")
    assert node.gauge("causeway_ready") == 1
    assert node.gauge("causeway_canary_round_trip_seconds_count") >= 1
    assert node.gauge("causeway_messages_received_total") == 0, "canaries are not anybody's messages"


def test_a_redis_that_answers_pings_and_publishes_nothing_is_noticed(node, redis):
    with redis.client() as client:
        client.client_pause(60_000, all=False)  # publishes wait, everything else is answered
        assert becomes(node, 503).startswith("three canaries in a row did not come back")
        assert node.gauge("causeway_redis_link_up") == 1, "the link itself is well"
        assert node.gauge("causeway_canary_misses") >= 3
        assert node.gauge("causeway_ready") == 0
        client.client_unpause()
        becomes(node, 200)
        until(lambda: node.gauge("causeway_canary_misses") == 0, "canaries come back")


def test_a_stopped_redis_is_noticed_and_so_is_its_return(node, redis):
    redis.child.send_signal(signal.SIGSTOP)
    assert becomes(node, 503) != "draining"
    assert health(node, "/livez") == (200, "alive"), "a restart of the node would not help"
    redis.child.send_signal(signal.SIGCONT)
    becomes(node, 200)


def test_a_partition_of_one_direction_is_noticed_and_heals(tmp_path, redis):
    with FaultProxy(redis.where) as proxy, Node("node", tmp_path, proxy.url) as node:
        proxy.back.hold()
        becomes(node, 503)
        proxy.back.release()
        becomes(node, 200)


def test_a_killed_link_is_replaced(node, redis):
    with redis.client() as client:
        assert client.client_kill_filter(_type="pubsub") == 1
    until(lambda: node.gauge("causeway_redis_reconnects_total") == 1, "the link is established again")
    becomes(node, 200)


@pytest.mark.parametrize(("name", "words"), [("actix-rt", "worker"), ("causeway-broker", "the broker's thread")])
def test_a_thread_that_does_not_come_round_to_its_work_is_not_alive(node, name, words):
    assert health(node, "/livez") == (200, "alive")
    named = threads(node.child.pid, name)
    # The worker of the admin listener was started last; the others are the public one's.
    with stuck(named[0]):
        said = becomes(node, 503, "/livez")
    assert said.startswith(words) and "has been stuck for" in said, said
    assert becomes(node, 200, "/livez") == "alive"
