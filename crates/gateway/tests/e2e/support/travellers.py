"""Subscribers that are sent from node to node, and remember each stay."""

import asyncio
import dataclasses

from .subscribers import Subscriber


@dataclasses.dataclass
class Stay:
    """One socket. All moments are of the loop's clock."""

    opened_at: float
    place: int  # of the first message among all that the traveller has heard
    subscribed_at: float = None
    told_at: float = None
    comes_back_at: float = None
    closed_at: float = None
    code: int = None


class Traveller(Subscriber):
    """It has one topic, whose messages are numbers."""

    def __init__(self, url, topic, token, source):
        super().__init__(url, [topic], token, source=source, returns=True)
        self.stays = []

    @property
    def numbers(self):
        return self.heard(self.topics[0])

    def numbers_of_stays(self):
        places = [stay.place for stay in self.stays] + [None]
        return [self.numbers[begin:end] for begin, end in zip(places, places[1:])]

    async def _open(self):
        await super()._open()
        self.stays.append(Stay(now(), len(self.numbers)))

    async def _read(self):
        await super()._read()
        self.stays[-1].closed_at, self.stays[-1].code = now(), self.socket.close_code

    def _take(self, frame):
        super()._take(frame)
        stay = self.stays[-1]
        if stay.subscribed_at is None and self.subscribed:
            stay.subscribed_at = now()
        if stay.told_at is None and len(self.pushed("drain")) == len(self.stays):
            stay.told_at, stay.comes_back_at = now(), self.comes_back_at


def now():
    return asyncio.get_running_loop().time()
