"""Hostile clients of every kind at once, beside a hundred honest ones: these hear everything, and nothing is left of those.

Seventy here, because a debug build takes its time over each; CAUSEWAY_HOSTILE=500 with a release build is what docs/reliability.md
tells of. How long the honest ones wait is printed, and `-s` shows it: before, while the crowd keeps the same machine busy at
another node, and while it is at theirs. The kinds are drawn by a seed: CAUSEWAY_SEED=… for the same again.
"""

import asyncio
import contextlib
import itertools
import json
import os
import pathlib
import random
import subprocess
import sys
import time

import pytest
from support import tokens
from support.footprint import descriptors, resident_bytes
from support.process import PATIENCE, eventually
from support.remains import OWN_TOPICS
from support.subscribers import Subscriber, together
from test_costly_input import p99

HOSTILE, HONEST = int(os.environ.get("CAUSEWAY_HOSTILE", 70)), 100
SECONDS = int(os.environ.get("CAUSEWAY_SECONDS", 5))
SEED = os.environ.get("CAUSEWAY_SEED") or str(random.randrange(1 << 32))
OUTBOX_BYTES, MESSAGE_BYTES, HEAD_BYTES = 256 << 10, 64 << 10, 128 << 10
# What one of them may take: what waits for it and what it has not finished to say. Or the head of its request, before that.
BOUND = HOSTILE * max(OUTBOX_BYTES + MESSAGE_BYTES, HEAD_BYTES)
# What an allocator keeps of what came and went.
KEPT_BYTES_MAX = 16 << 20

SETTINGS = {"workers": 1, "limits": {"outbox_bytes": "256KiB", "message_bytes": "64KiB"}}


@contextlib.contextmanager
def hostile_crowd(node):
    """Yields what ends them and says how often each kind began and was cut."""
    token = tokens.token(sub="mallory")
    # They have machines of their own; here they must leave this one to the others.
    command = ["chrt", "--idle", "0", sys.executable, "-m", "support.hostile", node.public, token, SEED, str(HOSTILE)]
    child = subprocess.Popen(command, cwd=pathlib.Path(__file__).parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield lambda: json.loads(child.communicate(timeout=PATIENCE)[0])
    finally:
        child.kill()
        child.wait()


@pytest.mark.alone
def test_a_hostile_crowd_costs_nobody_else_anything(cluster):
    print(f"replay with CAUSEWAY_SEED={SEED}")
    node, other = cluster.nodes

    async def story():
        honest = [Subscriber(node.connect_url(), [f"news.{number}"]) for number in range(HONEST)]
        async with together(honest):
            await run(honest)

    async def run(honest):
        before = await trace(node)
        over = asyncio.Event()
        # Also while the others are away: what the honest ones hear is no different then.
        publishing = asyncio.create_task(publish(over))
        quiet = p99(await waits(honest))
        with hostile_crowd(other) as end:
            await eventually(lambda: other.gauge("causeway_connections") > HOSTILE // 8, "they are at the other node")
            elsewhere = p99(await waits(honest))
            await asyncio.to_thread(end)
        with hostile_crowd(node) as end:
            attacked = lambda: node.gauge("causeway_connections") > HONEST + HOSTILE // 8
            await eventually(attacked, "they have come")
            loud = p99(await waits(honest))
            closed = lambda code: node.counter("causeway_connections_closed_total", code=code)
            await eventually(lambda: all(map(closed, [1008, 1009, 4413, 4429])), "each kind that got in is cut")
            over.set()
            published, most = await publishing
            cut = await asyncio.to_thread(end)
        print(f"{HOSTILE} hostile clients: p99 of {HONEST} honest ones {quiet * 1000:.1f} ms, {elsewhere * 1000:.1f} ms beside those at "
              f"another node, became {loud * 1000:.1f} ms; resident memory rose by {(most - before['resident']) / (1 << 20):.1f} MiB; "
              f"begun and cut: {cut}")
        assert most - before["resident"] <= BOUND
        assert all(began > 0 for began, _ in cut.values()), cut
        for number, one in enumerate(honest):
            await eventually(lambda: len(one.heard(f"news.{number}")) == published, "they hear all of theirs")  # noqa: B023
            assert one.heard(f"news.{number}") == list(range(published))
            assert one.open and one.pushes == []
        after = await trace(node)
        assert after["descriptors"] <= before["descriptors"] + 1
        assert await settled(honest, node, before["resident"] + KEPT_BYTES_MAX), f"{resident_bytes(node)} stay resident"
        assert node.child.poll() is None and "panicked" not in node.log()

    async def publish(over):
        """A number to each honest client and a large message to those who do not read, on and on; says how many numbers, and
        how much memory the node had at most."""
        number, most = 0, 0
        while not over.is_set():
            news = [(f"news.{one}", number) for one in range(HONEST)]
            await asyncio.to_thread(cluster.redis.publish, [("flood", json.dumps("x" * 60_000)), *news])
            number, most = number + 1, max(most, resident_bytes(node))
            await asyncio.sleep(0.05)
        return number, most

    asyncio.run(story())


async def waits(honest):
    """How long each answer took, one question after the other, whoever's turn it is."""
    took, end = [], time.monotonic() + SECONDS
    for one in itertools.cycle(honest):
        asked = time.monotonic()
        if asked > end and len(took) > 100:
            return took
        await one.settle()
        took.append(time.monotonic() - asked)
        await asyncio.sleep(0.001)


async def settled(honest, node, bytes_max):
    """Whether memory goes back so far. An allocator returns what is free some time later, and while it is asked for more."""
    end = time.monotonic() + PATIENCE
    while (resident := resident_bytes(node)) > bytes_max and time.monotonic() < end:
        for one in honest:
            await one.settle()
        await asyncio.sleep(0.2)
    print(f"{resident / (1 << 20):.1f} MiB stay resident, {PATIENCE - (end - time.monotonic()):.1f} s later")
    return resident <= bytes_max


async def trace(node):
    """What is left once only the honest clients are."""
    await eventually(lambda: node.gauge("causeway_connections") == HONEST, "only they are connected")
    await eventually(lambda: node.gauge("causeway_redis_topics") == HONEST + OWN_TOPICS, "only their topics are subscribed to")
    assert node.gauge("causeway_subscriptions") == HONEST and node.gauge("causeway_topics") == HONEST
    return {"descriptors": descriptors(node), "resident": resident_bytes(node)}
