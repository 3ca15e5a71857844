"""What comes back after its asker has left."""

import asyncio

from support import tokens
from support.process import eventually, paused
from support.subscribers import Subscriber

SETTINGS = {"workers": 1}


def test_a_reply_for_someone_who_left_harms_nobody_else(cluster):
    """The newcomer is given the place in the worker's tables that the one who left had."""
    node = cluster.nodes[0]

    async def story():
        with paused(cluster.redis):
            async with Subscriber(node.connect_url(), token=tokens.token(publish=["**"])) as hasty:
                await hasty.socket.send('{"id":9,"op":"publish","topic":"chat.1","data":1}')
                await hasty.settle()
            await eventually(lambda: node.gauge("causeway_connections") == 0, "the hasty one has left")
            newcomer = await Subscriber(node.connect_url()).__aenter__()
        failed_or_not = lambda: sum(
            node.counter("causeway_publishes_total", outcome=outcome) for outcome in ("published", "unavailable")
        )
        await eventually(lambda: failed_or_not() == 1, "the publish has an outcome")
        await newcomer.settle()
        assert newcomer.open and newcomer.pushes == []
        await newcomer.__aexit__()

    asyncio.run(story())
