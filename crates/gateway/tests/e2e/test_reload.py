"""Reloading the configuration of a node that runs: what changes at once, what does not, and that no socket is lost."""

import asyncio
import json
import signal

import pytest
from support import tokens
from support.cluster import ask
from support.demo import DevNode
from support.issuer import Issuer, Key, serving
from support.node import ORIGIN, Node, laid_over, toml
from support.process import PATIENCE, eventually, own_address, until
from support.requests import bearer
from support.subscribers import Subscriber, together
from websockets.exceptions import InvalidStatus

OTHER_SECRET = "89abcdef" * 8
OTHER_KEY = {"kid": "next", "algorithm": "HS256", "secret": OTHER_SECRET}
OTHER_ORIGIN = "https://other.example.com"


@pytest.fixture
def node(tmp_path):
    with Node("reloaded", tmp_path, None) as node:
        yield node


def configure(node, changes):
    """Writes the file, with `changes` over what the node began with."""
    (node.directory / "causeway.toml").write_text(toml(laid_over(node.settings, changes)))


def reload(node):
    """Over HTTP: the status and the answer."""
    status, _, body = ask(node.admin, "POST", "/admin/reload")
    return status, json.loads(body)


def undo(node):
    """As it began: the tasks that keep published keys go with them, which is looked at in the end."""
    configure(node, {})
    assert reload(node)[0] == 200


def reload_by_signal(node, outcome="is reloaded"):
    """Until the log says how it went; returns that line."""
    before = node.log().count("the configuration is")
    node.child.send_signal(signal.SIGHUP)
    until(lambda: node.log().count("the configuration is") > before, "the node has reloaded")
    (*_, line) = [line for line in node.log().splitlines() if "the configuration is" in line]
    assert f"the configuration {outcome}" in line, line
    return line


def verdict(node, token=None, origin=None, source=None):
    headers = bearer(token) | ({"Origin": origin} if origin else {})
    return ask(node.public, "GET", "/v1/connect", headers, source=source)[0]


def keys(changes):
    return {change["key"] for change in changes}


def test_keys_change_and_whoever_is_in_stays_in(node):
    async def story():
        old, new = tokens.token(), tokens.token(secret=OTHER_SECRET)
        async with Subscriber(node.connect_url(), ["orders.1"], old) as subscriber:
            assert verdict(node, new) == 401
            configure(node, {"auth": {"keys": [tokens.KEY | {"secret": OTHER_SECRET}]}})
            line = await asyncio.to_thread(reload_by_signal, node)
            assert "auth.keys (main, with other content)" in line and OTHER_SECRET not in node.log()
            assert (verdict(node, new), verdict(node, old)) == (204, 401)
            # What its token has proved holds until that expires.
            assert (await subscriber.command("subscribe", topics=["orders.2"]))["topics"] == ["orders.2"]
            refreshed = await subscriber.command("authenticate", token=new)
            assert refreshed["op"] == "authenticated" and subscriber.open
            configure(node, {"auth": {"keys": [tokens.KEY, OTHER_KEY]}})
            assert "auth.keys (main → main, next)" in await asyncio.to_thread(reload_by_signal, node)
            assert (verdict(node, new), verdict(node, old)) == (401, 204), "each by the key that its kid names"

    asyncio.run(story())


def test_a_secret_is_read_again_from_its_file(node, tmp_path):
    secret_file = tmp_path / "secret"
    secret_file.write_text(tokens.SECRET)
    configure(node, {"auth": {"keys": [{"kid": "main", "algorithm": "HS256", "secret_file": str(secret_file)}]}})
    assert (reload(node)[0], verdict(node)) == (200, 204)
    secret_file.write_text(OTHER_SECRET)
    _, told = reload(node)
    assert told == {"changed": [{"key": "auth.keys", "from": "main", "to": "main"}], "needs_restart": []}
    assert verdict(node) == 401


def issued_by(**places):
    """Issuers by name, each with one table of keys."""
    return {"auth": {"keys": [], "issuers": [{"issuer": name, "keys": [table]} for name, table in places.items()]}}


def test_published_keys_are_kept_and_new_ones_fetched(node, tmp_path):
    kept, other = Key("kept", tmp_path), Key("other", tmp_path)

    def issuers(**places):
        configure(node, issued_by(**places))
        status, told = reload(node)
        assert status == 200, told
        return told["changed"]

    with serving(Issuer(kept)) as first, serving(Issuer(other)) as second:
        us, them = {"jwks_url": first.url}, {"jwks_url": second.url}
        assert {"key": "auth.issuers", "from": "none", "to": f"us ({first.url})"} in issuers(us=us)
        until(lambda: f"{first.url} keys=1" in node.log(), "the new set is fetched, without a restart")
        assert (verdict(node, kept.token(iss="us")), first.asked) == (204, 1)
        # From now on its issuer is away: whatever holds, holds from memory.
        first.status = 500
        second.status = 500
        issuers(us=us, them=them)
        assert verdict(node, kept.token(iss="us")) == 204, "the same set goes on with what it has"
        until(lambda: second.asked >= 1, "the other set is asked for")
        assert verdict(node, other.token(iss="them")) == 401
        assert node.admin_status("/readyz") == 200, "an issuer that was added in vain sends nobody away"
        second.status = 200
        until(lambda: verdict(node, other.token(iss="them")) == 204, "it is asked for until it answers")
        assert first.asked == 1, "no reload fetches what is there"
        issuers(us=us | {"refresh": "1m"}, them=them)
        assert verdict(node, kept.token(iss="us")) == 204, "asked for in another rhythm, it keeps what it has, too"
        until(lambda: first.asked == 2, "and begins anew")
        issuers(us=us | {"algorithms": ["ES256"]}, them=them)
        assert verdict(node, kept.token(iss="us")) == 401, "its algorithm is not allowed any more"
    undo(node)


def test_published_keys_that_are_not_named_any_more_are_not_fetched(node):
    with serving(Issuer()) as dropped, serving(Issuer()) as named:
        dropped.status = named.status = 500
        configure(node, {"auth": {"keys": [tokens.KEY, {"jwks_url": dropped.url}]}})
        assert reload(node)[0] == 200
        until(lambda: dropped.asked == 2, "it is tried again, after 1 s, 2 s, 4 s")
        configure(node, {"auth": {"keys": [tokens.KEY, {"jwks_url": named.url}]}})
        assert reload(node)[0] == 200
        asked = dropped.asked
        until(lambda: named.asked >= 3, "the other is tried in the same rhythm, for longer than until the next was due")
        assert dropped.asked == asked
    undo(node)


def test_a_file_of_published_keys_is_read_again(node, tmp_path):
    old, new = Key("old", tmp_path), Key("new", tmp_path)
    file = tmp_path / "jwks.json"
    configure(node, {"auth": {"keys": [{"jwks_file": str(file)}]}})
    file.write_text(json.dumps({"keys": [old.jwk()]}))
    assert (reload(node)[0], verdict(node, old.token())) == (200, 204)
    file.write_text(json.dumps({"keys": [new.jwk()]}))
    assert reload(node)[1]["changed"] == [{"key": "auth.keys", "from": str(file), "to": str(file)}]
    assert (verdict(node, old.token()), verdict(node, new.token())) == (401, 204)
    file.write_text("no set")
    assert reload(node)[0] == 422
    assert verdict(node, new.token()) == 204
    undo(node)


def test_origins_change(node):
    assert (verdict(node, origin=ORIGIN), verdict(node, origin=OTHER_ORIGIN)) == (204, 403)
    configure(node, {"allowed_origins": [OTHER_ORIGIN]})
    _, told = reload(node)
    assert told["changed"] == [{"key": "allowed_origins", "from": f'["{ORIGIN}"]', "to": f'["{OTHER_ORIGIN}"]'}]
    assert (verdict(node, origin=ORIGIN), verdict(node, origin=OTHER_ORIGIN)) == (403, 204)


def test_limits_change_for_those_who_are_in_and_those_who_come(node):
    async def story():
        source = own_address()
        async with (
            Subscriber(node.connect_url(), ["a", "b"], source=source) as first,
            Subscriber(node.connect_url(), source=source) as second,
        ):
            assert verdict(node, source=source) == 204
            configure(node, {"limits": {"connections_per_ip": 2, "topics_per_connection": 2}})
            _, told = await asyncio.to_thread(reload, node)
            assert keys(told["changed"]) == {"limits.connections_per_ip", "limits.topics_per_connection"}
            assert verdict(node, source=source) == 429, "the two who are in are counted"
            assert verdict(node, source=own_address()) == 204

            async def refusals():
                reply = await first.command("subscribe", topics=["c"])
                await first.command("unsubscribe", topics=["c"])
                return [refused["code"] for refused in reply.get("refused", [])]

            # A worker follows with its next tick.
            async with asyncio.timeout(PATIENCE):
                while await refusals() != ["limit_exceeded"]:
                    await asyncio.sleep(0.05)
            assert first.open and second.open

        async with Subscriber(node.connect_url(), source=source):
            configure(node, {"limits": {"connections": 1}})
            await asyncio.to_thread(reload, node)
            assert verdict(node, source=own_address()) == 503

    asyncio.run(story())


def test_the_log_level_changes(node):
    def refused():
        """Refused upgrades are told at `info`."""
        return node.log().count("refused a request")

    async def knock():
        with pytest.raises(InvalidStatus):
            await Subscriber(node.connect_url(), token=tokens.token(ttl=-10)).__aenter__()

    configure(node, {"log": {"level": "info,causeway_gateway::node=warn"}})
    assert "log.level" in reload_by_signal(node)
    asyncio.run(knock())
    configure(node, {"log": {"level": "info"}})
    assert "log.level" in reload_by_signal(node)
    assert refused() == 0, "the log keeps its order"
    asyncio.run(knock())
    until(lambda: refused() == 1, "the refusal is logged")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"limits": {"connections": 0}}, "limits.connections"),
        ({"auth": {"keys": []}}, "auth.keys"),
        ({"auth": {"keys": [{"kid": "main", "algorithm": "HS256", "secret_file": "/nowhere"}]}}, "secret_file"),
        ({"log": {"level": "loud=very"}}, "log.level"),
        ({"heartbeat": {"ping_interval": "0s"}}, "heartbeat.ping_interval"),
        ({"limits": {"conections": 5}}, "limits.conections"),
    ],
)
def test_a_mistake_anywhere_changes_nothing(node, changes, named):
    # Good changes stand beside the mistake.
    configure(node, laid_over({"allowed_origins": [OTHER_ORIGIN]}, changes))
    status, refusal = reload(node)
    assert (status, refusal["code"]) == (422, "bad_configuration")
    assert named in refusal["message"] and "nothing has changed" in refusal["message"]
    assert named in reload_by_signal(node, outcome="is not reloaded")
    assert (verdict(node, origin=ORIGIN), verdict(node, origin=OTHER_ORIGIN)) == (204, 403)
    configure(node, {})
    assert reload(node) == (200, {"changed": [], "needs_restart": []})


def test_a_file_that_is_gone_changes_nothing(node):
    (node.directory / "causeway.toml").unlink()
    assert "causeway.toml" in reload_by_signal(node, outcome="is not reloaded")
    assert verdict(node) == 204


def test_what_needs_a_restart_is_said_each_time_and_the_rest_changes(node):
    restart = {
        "workers": 1, "heartbeat": {"ping_interval": "30s"}, "drain": {"window": "3s"}, "log": {"format": "json"},
        "limits": {"message_bytes": "32KiB"},
    }
    configure(node, laid_over({"allowed_origins": [OTHER_ORIGIN]}, restart))
    status, told = reload(node)
    assert status == 200 and keys(told["changed"]) == {"allowed_origins"}
    held_back = {"workers", "heartbeat.ping_interval", "drain.window", "log.format", "limits.message_bytes"}
    assert keys(told["needs_restart"]) == held_back
    status, told = reload(node)
    assert status == 200 and not told["changed"] and keys(told["needs_restart"]) == held_back
    assert "needs a restart: drain.window (1s → 3s)" in reload_by_signal(node).replace('"', "")


def test_the_admin_token_itself_can_be_changed(node):
    configure(node, {"admin": {"token": "f" * 32}})
    status, told = reload(node)
    assert status == 200 and told["changed"] == [{"key": "admin.token", "from": "not set", "to": '"***"'}]
    assert reload(node)[0] == 401
    assert ask(node.admin, "POST", "/admin/reload", bearer("f" * 32))[0] == 200


def test_reloading_under_load_loses_no_message_and_no_socket(node):
    rounds, size = 30, 40

    async def story():
        subscribers = [Subscriber(node.connect_url(), ["news"]) for _ in range(size)]
        publisher = Subscriber(node.connect_url(), token=tokens.token(publish=["news"]))
        async with together(subscribers), publisher:
            for number in range(rounds):
                configure(node, {
                    "auth": {"keys": [tokens.KEY, OTHER_KEY][: 1 + number % 2]},
                    "limits": {"connections": 1000 + number, "upgrades_per_ip_per_second": 5000 + number},
                })
                reloading = asyncio.create_task(asyncio.to_thread(reload, node))
                for _ in range(3):
                    assert (await publisher.command("publish", topic="news", data=number))["op"] == "published"
                status, told = await reloading
                assert status == 200 and "limits.connections" in keys(told["changed"])
            expected = [number for number in range(rounds) for _ in range(3)]
            await eventually(lambda: all(len(one.heard("news")) >= len(expected) for one in subscribers), "all is heard")
            assert all(one.heard("news") == expected and one.open for one in subscribers)

    asyncio.run(story())


def test_a_node_without_a_file_has_nothing_to_reload(tmp_path):
    with DevNode(tmp_path) as node:
        assert reload(node)[0] == 404
