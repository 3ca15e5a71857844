"""The live feed of a node's admin listener, as the operator page reads it."""

import asyncio
import base64
import json

from websockets.asyncio.client import connect

from .process import PATIENCE

PATH = "/admin/feed"
SUBPROTOCOL = "causeway.feed.v1"


def subprotocols(token=None):
    """What a browser offers; the token is in base64url, because not every character may stand there."""
    encoded = token and base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
    return [SUBPROTOCOL, *([f"causeway.bearer64.{encoded}"] if token else [])]


def feed(node, token=None, **options):
    return connect(f"ws://{node.admin}{PATH}", subprotocols=subprotocols(token), proxy=None, **options)


async def told(reader, condition):
    """The first snapshot for which the condition holds."""

    async def look():
        while not condition(snapshot := json.loads(await reader.recv())):
            pass
        return snapshot

    return await asyncio.wait_for(look(), PATIENCE)
