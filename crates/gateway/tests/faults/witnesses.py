"""Clients that remember when each thing was told to them, and come back whatever happens."""

import asyncio
import collections
import json
import time

from audit import Event
from support.subscribers import Subscriber
from websockets.exceptions import ConnectionClosed

# Before it asks again for what Redis did not confirm in time.
ASK_AGAIN_AFTER = 0.1


class Witness(Subscriber):
    """Its topics' payloads are {"by": publisher, "n": number}. `name` is what the audit calls it."""

    def __init__(self, name, url, topics, **options):
        super().__init__(url, topics, returns=True, **options)
        self.name = name
        self.histories = {topic: [] for topic in topics}
        self.newest = collections.defaultdict(float)  # topic → when the newest message that was heard was published
        self._wanting = set()  # topics that the present socket has not confirmed

    def told(self, kind):
        """The events of one kind, of all its topics."""
        return [event for events in self.histories.values() for event in events if event.kind == kind]

    async def _open(self):
        await super()._open()
        self._wanting = set(self.topics)

    async def _read(self):
        await super()._read()
        if not self.returns:
            return  # it leaves by itself: everything is over
        for topic in self.topics:
            self._note(topic, "ended", why=str(self.socket.close_code))

    def _take(self, frame):
        told = json.loads(frame)
        if told.get("id") == self._topics_id and told["op"] == "subscribed":
            self._confirmed(told)
            return
        super()._take(frame)
        if told["op"] == "message":
            data = told["data"]
            self._note(told["topic"], "message", publisher=data["by"], number=data["n"])
            self.newest[told["topic"]] = max(self.newest[told["topic"]], data["at"])
        elif told["op"] == "gap":
            self._note(told["topic"], "gap", lasted=told["lasted_ms"] / 1000, why=told["reason"])

    def _confirmed(self, told):
        for topic in told["topics"]:
            self._note(topic, "subscribed")
        self._wanting -= set(told["topics"])
        if self._wanting:
            assert {refusal["code"] for refusal in told["refused"]} == {"broker_unavailable"}, told
            asyncio.get_running_loop().create_task(self._ask_again(self.socket))
        else:
            self.confirmations += 1

    async def _ask_again(self, socket):
        await asyncio.sleep(ASK_AGAIN_AFTER)
        try:
            await socket.send(json.dumps({"id": self._topics_id, "op": "subscribe", "topics": sorted(self._wanting)}))
        except ConnectionClosed:
            pass  # the next socket asks for all

    def _note(self, topic, kind, **more):
        self.histories[topic].append(Event(time.monotonic(), kind, **more))
