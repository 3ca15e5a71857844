"""The demo page in a real browser: what people see of Causeway first, said in words they understand."""

import json
import subprocess

import pytest
from support.browser import Browser
from support.demo import DevNode, HostLoad
from support.process import PATIENCE, until
from support.redis_server import RedisServer


@pytest.fixture
def redis(tmp_path):
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture
def node(tmp_path, redis):
    with DevNode(tmp_path, redis.url) as node:
        yield node


# It leaves before the node is asked what remains: a browser keeps connections for what it might ask next.
@pytest.fixture
def page(node):
    with Browser() as browser:
        yield browser


def test_this_machines_load_moves(page, node, redis, tmp_path):
    with HostLoad(tmp_path, redis.url):
        page.open(node.page("host.load"))
        until(lambda: page.text("#status") == "connected", "the page is connected")
        assert page.text("#session") == "node demo"

        first = until(lambda: figures(page), "the panel has figures")
        assert list(first) == ["cpu user", "cpu kernel", "memory used", "load 1 minute", "load running"]
        until(lambda: figures(page)["cpu user"] != first["cpu user"], "the figure has moved")
        until(lambda: min(page.each("#panel .trace", "one.points.length")) >= 10, "and every trace with it")

        reading = heard(redis, "host.load")
        until(lambda: ("host.load", reading) in messages(page), "the log shows what another subscriber heard")
    assert page.console() == []


def test_what_is_published_on_the_page_comes_back_to_it(page, node):
    open_with(page, node, "chat.1")
    data = {"text": "<b>héllo</b> ☂", "count": 3}
    page.fill("#publish-data", json.dumps(data, ensure_ascii=False))
    page.click("#publish")
    told(page, "Published to chat.1.")
    until(lambda: messages(page) == [("chat.1", data)], "the message is in the log")

    page.fill("#publish-data", "just words")
    assert page.text("#publish-hint") == "not JSON, sent as a string"
    page.click("#publish")
    until(lambda: messages(page) == [("chat.1", "just words"), ("chat.1", data)], "the newest is first")
    assert page.console() == []


def test_a_refused_topic_is_told_in_words(page, node):
    open_with(page, node, "chat.1")
    page.fill("#topic", "orders..42")
    page.click("#subscribe")
    refusal = told(page, "Subscribing to orders..42 was refused, bad_topic: ")
    assert len(refusal.partition("bad_topic: ")[2].split()) > 3, "it gives a reason"
    assert chips(page) == {"chat.1": "live", "orders..42": "refused"}

    page.fill("#publish-topic", "orders..42")
    page.click("#publish")
    told(page, "Publishing to orders..42 was refused, bad_topic: ")
    assert page.text("#status") == "connected"


def test_an_outage_of_redis_is_told_as_a_gap(page, node, redis):
    open_with(page, node, "chat.1")
    redis.kill()
    redis.start()
    gap = told(page, "Gap on chat.1: ")
    assert "messages may have been missed, because the node had lost its link to Redis." in gap

    redis.publish([("chat.1", '"after the gap"')])
    until(lambda: messages(page) == [("chat.1", "after the gap")], "delivery works again")
    assert page.text("#status") == "connected"
    assert not [note for note in notes(page) if note.startswith("Closed")]


def test_a_stopping_node_says_so_and_the_page_tries_to_come_back(page, node):
    open_with(page, node, "chat.1")
    node.stop()
    assert node.child.returncode == 0
    told(page, "This node is stopping. It will close the connection; the page comes back in ")
    told(page, "Closed with 1012, service restart. ")
    told(page, "No answer. The node does not answer. Trying again in ")
    assert page.text("#status").startswith(("back in ", "connecting"))


def test_the_printed_example_arrives_on_the_page(tmp_path):
    """Without Redis, as in the README's first step."""
    with DevNode(tmp_path) as node, Browser() as page:
        open_with(page, node, "chat.1")
        example = node.example()
        assert "curl " in example
        answer = subprocess.run(["sh", "-c", example], check=True, capture_output=True, text=True, timeout=PATIENCE)
        assert answer.stdout == "{}"
        until(lambda: messages(page) == [("chat.1", {"text": "hello"})], "the message is in the log")
        assert page.console() == []


def open_with(page, node, topic):
    page.open(node.page(topic))
    until(lambda: chips(page) == {topic: "live"}, f"{topic} is subscribed")


def chips(page):
    """Each wanted topic and how it stands."""
    return dict(page.each(".chip", "[one.dataset.topic, one.dataset.state]"))


def figures(page):
    """The panel's numbers by name, without their units, once they are drawn."""
    parts = "[one.querySelector('.name').innerText, one.querySelector('.value > span').innerText]"
    return dict(page.each("#panel .tile:has([points])", parts))


def messages(page):
    """(topic, data) of the messages in the log, newest first."""
    parts = "[one.querySelector('.topic').innerText, one.querySelector('pre').innerText]"
    return [(topic, json.loads(data)) for topic, data in page.each("#log .message:has(pre)", parts)]


def notes(page):
    return page.texts("#log .note p")


def told(page, words):
    """The notice in the log that begins with these words."""
    return until(lambda: next((note for note in notes(page) if note.startswith(words)), None), f"told: {words}")


def heard(redis, topic):
    with redis.client() as client, client.pubsub(ignore_subscribe_messages=True) as subscriber:
        subscriber.subscribe(topic)
        message = until(lambda: subscriber.get_message(timeout=1), f"a message on {topic}")
        return json.loads(message["data"])
