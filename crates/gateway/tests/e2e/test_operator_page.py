"""The operator page of the admin listener in a real browser: what it shows, what it does, and for whom."""

import asyncio
import contextlib
import functools
import http.server
import json
import threading

import pytest
from support import tokens
from support.browser import Browser
from support.cluster import ask, running_cluster
from support.node import Node
from support.process import eventually, own_address, paused, until
from support.subscribers import Subscriber, together

TOKEN = "a token/of more=than 32 characters"
CLIENTS = 12


@pytest.fixture(scope="module")
def page():
    with Browser() as browser:
        yield browser


@pytest.fixture
def node(page, tmp_path):
    with Node("node", tmp_path, None) as node:
        yield node
        page.leave()


def test_it_shows_the_load_of_a_node_and_its_share_of_the_cluster(page, tmp_path):
    settings = {"limits": {"message_bytes": "1KiB"}}

    async def story(cluster):
        here, there = cluster.nodes
        clients = [Subscriber(node.connect_url(), ["orders.1"]) for node in [here] * CLIENTS + [there]]
        async with together(clients):
            await asyncio.to_thread(look, page, here)
            await eventually(lambda: figure(page, "connections") == CLIENTS, "its own connections are counted")
            await eventually(lambda: connections(page) == [CLIENTS, 1], "and those of both nodes, its own first")
            with publishing(cluster.redis, "orders.1"):
                await eventually(lambda: figure(page, "received") > 0, "messages from Redis are seen")
                await eventually(lambda: figure(page, "sent") >= 5 * figure(page, "received") > 0, "each goes to all its subscribers")
                await eventually(lambda: detail(page, "delivery").startswith("median "), "so is how long they took")
                await eventually(lambda: len(trace(page, "sent")) > 5, "and how it came to be")
            cluster.publish("orders.1", "x" * 2000)
            await eventually(lambda: "dropped, too large" in page.text("#reasons"), "what was lost is told")
        assert "of 1.00 GiB" in page.text("#waiting") and detail(page, "canary").startswith("link to Redis up")

    with running_cluster(tmp_path, settings) as cluster:
        asyncio.run(story(cluster))
        page.leave()
    assert not errors(page)


def test_it_comes_back_by_itself_after_a_restart_and_says_so(page, node):
    look(page, node)
    node.settings["admin_listen"] = node.admin
    node.kill()
    until(lambda: page.text("#status").startswith("back in "), "the page says that it is away")
    assert page.text("#notice").startswith("The node does not answer.")
    assert not any(page.each(".acts button", "!one.disabled")), "nothing can be done meanwhile"
    node.start()
    until(lambda: page.text("#status") == "live", "the page is back")
    until(lambda: any("was restarted" in line for line in told(page)), "and knows that the node is another")
    assert page.text("#ready") == "ready" and not page.text("#notice")


def test_an_action_asks_before_it_acts_and_then_ends_real_connections(page, node):
    async def story():
        async with together([Subscriber(node.connect_url(), ["orders.1"]) for _ in range(CLIENTS)]) as clients:
            await asyncio.to_thread(look, page, node)
            await eventually(lambda: figure(page, "connections") == CLIENTS, "all are counted")
            page.click("#shed")
            page.click("#ask-no")
            await asyncio.gather(*(client.settle() for client in clients))
            assert all(client.open and not client.pushed("drain") for client in clients), "nobody was told anything"
            page.click("#shed")
            page.fill("#percent", "50")
            page.click("#ask-yes")
            await eventually(lambda: sum(client.closes == [1012] for client in clients) == CLIENTS // 2, "half of them go")
            await eventually(lambda: f"{CLIENTS // 2} of {CLIENTS} connections" in told(page)[0], "the page says so")
            await eventually(lambda: "1012" in page.text("#reasons"), "and sees it")

    asyncio.run(story())
    assert not errors(page)


def test_a_session_is_found_and_ended(page, node):
    async def story():
        async with together([Subscriber(node.connect_url(), ["orders.1"], tokens.token(sub=name)) for name in ("alice", "bob")]) as (alice, bob):
            await asyncio.to_thread(look, page, node)
            until(lambda: page.each("#top", "!one.hidden") == [True], "what costs most is told")
            page.choose("#topics-by", "by_subscribers")
            await eventually(lambda: listed(page, "top-topics") == ["orders.1"], "the one topic leads")
            page.click("#top-topics button.name")
            await eventually(lambda: set(listed(page, "sessions")) == {session_of(alice), session_of(bob)}, "it leads to its sessions")
            page.fill("#by-topic", "")
            page.fill("#by-subject", "alice")
            page.click("#search button.main")
            await eventually(lambda: listed(page, "sessions") == [session_of(alice)], "one of them is looked for")

            (marked,) = page.each("#sessions .acts-cell", "one.marked = true")
            page.click("#sessions .acts-cell button:first-child")
            page.fill("#ended-topic", "orders.1")
            page.click("#ask-yes")
            await eventually(lambda: alice.pushed("unsubscribed"), "the client is told that its subscription has ended")
            await eventually(lambda: "unsubscribed from orders.1" in told(page)[0], "and so is the operator")
            await eventually(lambda: page.each("#sessions [data-label=topics]", "one.textContent") == ["0"], "whose list is renewed")
            assert page.each("#sessions .acts-cell", "one.marked") == [marked], "but not under the pointer"

            page.click("#sessions .acts-cell button:last-child")
            page.choose("#code", "4401")
            page.click("#ask-yes")
            assert await alice.closed() == 4401
            await eventually(lambda: "is disconnected" in told(page)[0], "the page says so")
            await bob.settle()
            assert bob.open and not bob.pushed("unsubscribed")

    asyncio.run(story())
    assert not errors(page)


def test_a_session_of_another_node_is_found_and_ended(page, doomed_cluster):
    here, there = doomed_cluster.nodes

    async def story():
        clients = [Subscriber(node.connect_url(), ["orders.1"], tokens.token(sub="alice")) for node in (here, there)]
        async with together(clients) as (near, far):
            await asyncio.to_thread(look, page, here)

            def search(fits, what):
                """As often as it takes: on a starved machine a node may be without an answer."""
                until(lambda: page.each("#sessions-card", "!one.hidden") == [True], "sessions can be searched")
                page.click("#search button.main")
                until(lambda: page.text("#found"), "something is found")
                return fits() or until(lambda: page.click("#search button.main") or fits(), what)

            rows = lambda: page.each("#sessions tbody tr", "[one.cells[1].innerText.trim(), one.cells[0].innerText.trim()]")  # noqa: E731
            both = [["node-a", session_of(near)], ["node-b", session_of(far)]]
            await asyncio.to_thread(search, lambda: rows() == both, "the sessions of both nodes are listed")
            page.click("#sessions tr:nth-child(2) .acts-cell button:last-child")
            page.click("#ask-yes")
            assert await far.closed() == 4403
            await eventually(lambda: told(page)[0].startswith("node-b was told: session "), "the page says who does it")
            await near.settle()
            assert near.open
            page.choose("#topics-by", "by_subscribers")
            await eventually(lambda: listed(page, "top-topics") == ["orders.1"], "what costs most is that of both")
            with paused(there):
                await eventually(lambda: page.text("#topics-without") == "without node-b", "whose part is missing is told")
            await eventually(lambda: page.text("#topics-without") == "", "until it is there again")

    asyncio.run(story())
    page.leave()
    assert not errors(page)


def test_a_subject_is_disconnected_on_all_nodes(page, doomed_cluster):
    here, there = doomed_cluster.nodes

    async def story():
        clients = [Subscriber(node.connect_url(), ["orders.1"], tokens.token(sub="alice")) for node in (here, there)]
        async with together(clients):
            await asyncio.to_thread(look, page, here)
            until(lambda: page.each("#sessions-card", "!one.hidden") == [True], "sessions can be searched")
            page.fill("#by-subject", "alice")
            page.click("#search button.main")
            await eventually(lambda: page.text("#disconnect-subject") == "Disconnect alice everywhere …", "a subject is more than a session")
            page.click("#disconnect-subject")
            page.click("#ask-yes")
            assert [await client.closed() for client in clients] == [4403, 4403]
            await eventually(lambda: told(page)[0].startswith("Connections of alice that are ended on this node: 1."), "the page tells its node's part")

    asyncio.run(story())
    page.leave()


def test_a_dialog_is_left_by_the_keyboard(page, node):
    look(page, node)
    for key, opened in [("\ue007", True), ("\ue00c", False)]:  # Enter, Escape
        page.press(key, on="#drain" if opened else "#ask-no")
        until(lambda: page.each("#ask", "one.open") == [opened], "the dialog follows")
    assert page.driver.execute_script("return document.activeElement.id") == "drain", "where one was before"
    assert node.admin_status("/readyz") == 200


def test_a_drain_is_watched_to_its_end(page, tmp_path):
    with Node("node", tmp_path, None, {"drain": {"lead_time": "2s", "window": "4s"}}) as node:

        async def story():
            async with together([Subscriber(node.connect_url(), ["orders.1"]) for _ in range(CLIENTS)]) as clients:
                await asyncio.to_thread(look, page, node)
                page.click("#drain")
                page.click("#ask-yes")
                await eventually(lambda: page.text("#ready") == "draining", "the page says that the node drains")
                await eventually(lambda: f"of {CLIENTS} connections are gone" in page.text("#drain-words"), "and how far it is")
                await eventually(lambda: all(client.closes == [1012] for client in clients), "everybody goes")

        asyncio.run(story())
        assert node.child.wait() == 0
    until(lambda: page.text("#status").startswith("back in "), "then the page waits for the node")


def test_with_a_token_the_page_shows_nothing_before_it_is_given(page, tmp_path):
    with Node("guarded", tmp_path, None, {"admin": {"token": TOKEN}}) as node:
        page.open(f"http://{node.admin}/")
        until(lambda: page.each("#token-form", "!one.hidden") == [True], "the page asks for the token")
        assert page.text("#status") == "token needed" and not page.text("#node") and page.each("#all", "one.hidden") == [True]
        page.fill("#token", "another token")
        page.click("#token-form button")
        until(lambda: "The token was refused." in told(page), "another is refused")
        page.fill("#token", TOKEN)
        page.click("#token-form button")
        until(lambda: page.text("#status") == "live", "the token opens the feed")
        page.click("#shed")
        page.click("#ask-yes")
        until(lambda: "0 of 0 connections" in told(page)[0], "and the actions")
        page.open(f"http://{node.admin}/")
        until(lambda: page.text("#status") == "live", "a reload of the page in this tab does not ask again")
        assert TOKEN not in node.log()
        page.leave()


def test_beyond_loopback_the_page_says_what_is_missing(page, tmp_path):
    # For the node this is no loopback address, though packets go nowhere else (RFC 4291 §2.5.5.2).
    address = own_address()
    node = Node("mapped", tmp_path, None, {"admin_listen": f"[::ffff:{address}]:0"})
    node.ready = lambda: node.listens() and ask(f"{address}:{node.admin.rpartition(':')[2]}", "GET", "/readyz")[0] == 200
    with node:
        page.open(f"http://{address}:{node.admin.rpartition(':')[2]}/")
        until(lambda: "admin.token" in page.text("#notice"), "the page says why it shows nothing")
        assert page.text("#status") == "refused" and not page.text("#node")
        page.leave()


def test_t9_a_foreign_page_neither_reads_the_feed_nor_acts(page, node, tmp_path):
    """Another site on the same machine, in the browser of somebody who may act."""
    tries = """
        const [node, done] = arguments, heard = [];
        const socket = new WebSocket(`ws://${node}/admin/feed`, ["causeway.feed.v1"]);
        socket.onmessage = ({ data }) => heard.push(data);
        socket.onclose = async () => {
            const forms = ["shed?percent=100", "drain", "reload"].map(path => fetch(`http://${node}/admin/${path}`, { method: "POST", mode: "no-cors" }));
            await Promise.allSettled(forms);
            const read = await fetch(`http://${node}/admin/addresses`).then(answer => answer.text(), () => "unreadable");
            done([heard, read]);
        };
    """

    async def story():
        async with Subscriber(node.connect_url(), ["orders.1"]) as client:
            with foreign_site(tmp_path) as site:
                await asyncio.to_thread(page.open, site)
                heard, read = await asyncio.to_thread(page.driver.execute_async_script, tries, node.admin)
            assert (heard, read) == ([], "unreadable")
            await client.settle()
            assert client.open and not client.pushed("drain")

    asyncio.run(story())
    assert node.admin_status("/readyz") == 200, "it does not drain"


def test_the_page_loads_nothing_from_elsewhere_and_cannot_be_framed(page, node):
    look(page, node)
    assert page.driver.execute_script("return performance.getEntriesByType('resource').every(one => one.name.startsWith(location.origin))")
    assert page.driver.execute_script(INLINE) is None, "no script of a page's text runs"
    headers = page.driver.execute_async_script("fetch('/').then(answer => arguments[0]([...answer.headers]))")
    policy = dict(headers)["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1200, 900), (390, 844)], ids=["desk", "phone"])
def test_it_can_be_read_everywhere(node, size, scheme):
    with Browser(size, scheme) as page:
        look(page, node)
        width, shown = page.driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert width <= shown, "nobody has to scroll sideways"
        unnamed = "one.checkVisibility() && !(one.innerText.trim() || one.labels?.length || one.getAttribute('aria-label'))"
        assert not any(page.each("button, input:not([hidden]), select", unnamed)), "everything that is used has a name"
        weak = [entry for entry in page.each("body *", CONTRAST) if entry and entry[0] < 4.5]
        assert not weak, "text stands out from its ground (WCAG 2.2, 1.4.3)"
        assert not errors(page)


INLINE = """
    const script = document.createElement("script");
    try { script.textContent = "window.ran = true"; document.head.append(script); } catch { /* refused even earlier */ }
    return window.ran;
"""

# The contrast of an element's own text with the ground behind it, and the text; null where it has none.
CONTRAST = """(() => {
    const own = [...one.childNodes].filter(node => node.nodeType === 3 && node.data.trim()).map(node => node.data.trim()).join(' ');
    if (!own || !one.checkVisibility() || one.closest(':disabled, .unseen')) return null;
    const channels = color => color.match(/[\\d.]+/g).map(Number);
    let ground = one;
    while (ground.parentElement && channels(getComputedStyle(ground).backgroundColor)[3] === 0) ground = ground.parentElement;
    const light = ([r, g, b]) => [r, g, b].map(c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const both = [getComputedStyle(one).color, getComputedStyle(ground).backgroundColor].map(color => light(channels(color)));
    return [(Math.max(...both) + 0.05) / (Math.min(...both) + 0.05), own];
})()"""


def look(page, node):
    page.open(f"http://{node.admin}/")
    until(lambda: page.text("#status") == "live", "the page is fed")
    until(lambda: page.text("#connections .value"), "and has drawn something")


def figure(page, tile):
    """The large figure of a tile, while it is one without a prefix."""
    words = page.text(f"#{tile} .value span:first-child").replace(",", "")
    return float(words) if words and words != "–" else 0


def detail(page, tile):
    return page.text(f"#{tile} .detail")


def listed(page, table):
    """The first column of a table."""
    return [words for words in page.each(f"#{table} tbody tr", "one.cells[0].innerText.trim()") if words != "Nothing to tell."]


def session_of(client):
    return client.welcome["session"]


def trace(page, tile):
    """The points of the drawing."""
    (path,) = page.each(f"#{tile} .trace:not(.second)", "one.getAttribute('d')")
    return path.split("L")


def connections(page):
    return [int(words.replace(",", "")) for words in page.each("#nodes tbody tr", "one.querySelector('.share').innerText")]


def told(page):
    """What the page says has happened, the newest first."""
    return page.texts("#log span") or [""]


def errors(page):
    """A node that is away is an error to the console, and no fault of the page."""
    return [line for line in page.console() if "ERR_CONNECTION_REFUSED" not in line]


@contextlib.contextmanager
def publishing(redis, topic):
    """Somebody who publishes until the story goes on."""
    enough = threading.Event()

    def publish():
        while not enough.wait(0.02):
            redis.publish([(topic, json.dumps({"total": 9}))])

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        yield
    finally:
        enough.set()
        publisher.join()


@contextlib.contextmanager
def foreign_site(directory):
    (directory / "index.html").write_text("<!doctype html><title>elsewhere</title>")
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer((own_address(), 0), functools.partial(quiet, directory=directory))
    threading.Thread(target=server.serve_forever).start()
    try:
        yield f"http://{server.server_address[0]}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
