"""What every client heard, held against everything that was published: the promise, judged from outside.

- No silent gap: what a client missed of a topic lies within a gap that it was told of, or between two of its connections.
- No duplicates, nothing that nobody published, and nothing of a topic before its `subscribed`.
- The order of a publisher is kept, and all clients hear a topic's publishers mixed in one order.
- Whoever a fault does not concern has neither gap nor end.

Places in a client's stream decide, not clocks: nothing may be missing between two messages unless a gap was told between
them. The clock is asked only whether what is missing at a gap lies within the time that the gap names. Knows no sockets and
no processes, so that it can be tried with invented histories (test_audit.py).
"""

import collections
import dataclasses

# How much earlier than a gap says something may have been missed, in seconds: what lies between the node's clock and the
# client's arrival of the push. On a starved machine that is more than a network takes.
LATE = 3.0


@dataclasses.dataclass
class Publication:
    """Numbers of a publisher on a topic count from 0. Moments are of the monotonic clock."""

    topic: str
    publisher: str
    number: int
    began: float
    # "accepted": it was confirmed. "unknown": nobody knows whether it was carried out. "refused": it was not.
    outcome: str = "unknown"
    ended: float = None


@dataclasses.dataclass
class Event:
    """Something that a client noticed of one topic."""

    at: float
    kind: str  # "subscribed", "message", "gap", "ended" (its connection)
    publisher: str = None
    number: int = None
    lasted: float = None  # seconds, of a gap
    why: str = None  # a gap's reason, the code of an end


@dataclasses.dataclass
class Stretch:
    """Of a client's stream: nothing may be missing from `subscribed` or a gap to the next gap or end."""

    began: float
    heard: dict = dataclasses.field(default_factory=lambda: collections.defaultdict(list))  # publisher → numbers
    closed_by: Event = None  # None: it lasted until everything was over


@dataclasses.dataclass
class Audit:
    published: int = 0
    accepted: int = 0
    heard: int = 0
    announced: int = 0  # messages that were missed and said to be
    gaps: int = 0
    ends: int = 0
    violations: list = dataclasses.field(default_factory=list)


def audit(publications, histories, disturbed=lambda client, topic: True):
    """`histories` is (client, topic) → its events in order. `disturbed` says who may have gaps and ends."""
    by_topic = collections.defaultdict(lambda: collections.defaultdict(list))
    for publication in publications:
        by_topic[publication.topic][publication.publisher].append(publication)
    result = Audit(len(publications), sum(one.outcome == "accepted" for one in publications))
    for (client, topic), events in histories.items():
        _Stream(client, topic, events, by_topic[topic], result).judge(disturbed(client, topic))
    for topic in by_topic:
        streams = {client: events for (client, name), events in histories.items() if name == topic}
        _one_order(topic, streams, result)
    return result


class _Stream:
    """What one client heard of one topic."""

    def __init__(self, client, topic, events, published, result):
        self.name = f"{client} on {topic}"
        self.events = events
        self.published = {publisher: {one.number: one for one in all} for publisher, all in published.items()}
        self.result = result

    def judge(self, may_be_disturbed):
        stretches = self._stretches(may_be_disturbed)
        self._no_strangers_and_no_duplicates()
        for number, stretch in enumerate(stretches):
            following = stretches[number + 1] if number + 1 < len(stretches) else None
            for publisher, published in self.published.items():
                self._complete(stretch, following, publisher, published)

    def _stretches(self, may_be_disturbed):
        stretches, present = [], None
        for event in self.events:
            if event.kind in ("gap", "ended"):
                self.result.gaps += event.kind == "gap"
                self.result.ends += event.kind == "ended"
                if not may_be_disturbed:
                    self._complain(f"was disturbed: {event.kind} ({event.why})", event.at)
                if event.kind == "gap" and present is None:
                    self._complain("a gap without a subscription", event.at)
                if present:
                    present.closed_by, present = event, None
            if event.kind == "message":
                self.result.heard += 1
                if present is None:
                    self._complain(f"{_told(event)} outside a subscription", event.at)
                else:
                    present.heard[event.publisher].append(event.number)
            if event.kind in ("subscribed", "gap") and present is None:
                present = Stretch(event.at)
                stretches.append(present)
        return stretches

    def _no_strangers_and_no_duplicates(self):
        seen = collections.Counter()
        for event in self.events:
            if event.kind != "message":
                continue
            publication = self.published.get(event.publisher, {}).get(event.number)
            if publication is None or publication.outcome == "refused":
                self._complain(f"{_told(event)} was never published", event.at)
            seen[event.publisher, event.number] += 1
            if seen[event.publisher, event.number] == 2:
                self._complain(f"{_told(event)} is a duplicate", event.at)

    def _complete(self, stretch, following, publisher, published):
        """Nothing is missing within the stretch, and what is missing behind it lies within what was announced."""
        heard = stretch.heard.get(publisher, [])
        for before, after in zip(heard, heard[1:]):
            if after < before:
                self._complain(f"{publisher} {after} comes behind {before}: out of order", stretch.began)
        owed = [number for number, one in published.items() if one.began > stretch.began and one.outcome == "accepted"]
        first = min(heard[:1] + owed[:1], default=None)
        if first is None:
            return
        last = max(heard, default=first - 1) if stretch.closed_by else max(published)
        missing = self._missing(published, first, last, heard)
        if missing:
            self._complain(f"{publisher} {missing} missing: a silent gap", published[missing[0]].began)
        if stretch.closed_by and stretch.closed_by.kind == "gap":
            self._within_the_gap(stretch.closed_by, publisher, published, last, following)
        elif stretch.closed_by:
            self._between_connections(publisher, published, last, following)

    def _within_the_gap(self, gap, publisher, published, last, following):
        heard_next = following.heard.get(publisher, [])
        until = min(heard_next, default=max(published) + 1) - 1
        for number in self._missing(published, last + 1, until, heard_next):
            one = published[number]
            if one.began > gap.at:
                break  # the next stretch owes it
            if one.ended < gap.at - gap.lasted - LATE:
                self._complain(f"{publisher} {number} missing, {gap.at - one.ended:.1f} s before the end of a gap "
                               f"of {gap.lasted:.1f} s: a silent gap", one.began)
            else:
                self.result.announced += 1

    def _between_connections(self, publisher, published, last, following):
        """Between a connection's last message and the next `subscribed` anything may be missing."""
        until = following.began if following else float("inf")
        heard_next = set(following.heard.get(publisher, [])) if following else set()
        self.result.announced += sum(
            one.outcome == "accepted" and number > last and one.began <= until and number not in heard_next
            for number, one in published.items()
        )

    def _missing(self, published, first, last, heard):
        """Of the numbers from `first` to `last`. Of what was not confirmed nobody can say that it is missing."""
        heard = set(heard)
        return [
            number for number in range(first, last + 1)
            if number not in heard and number in published and published[number].outcome == "accepted"
        ]

    def _complain(self, what, at):
        self.result.violations.append({"at": at, "what": f"{self.name}: {what}"})


def _one_order(topic, streams, result):
    """Redis puts the publications of a topic in one order, and everybody hears it in that order."""
    heard = {
        client: [(event.publisher, event.number) for event in events if event.kind == "message"]
        for client, events in streams.items()
    }
    reference = max(heard, key=lambda client: len(heard[client]), default=None)
    place = {message: at for at, message in enumerate(heard.get(reference, []))}
    for client, messages in heard.items():
        places = [place[message] for message in messages if message in place]
        if places != sorted(places):
            what = f"{client} on {topic}: out of order, seen from {reference}"
            result.violations.append({"at": streams[client][-1].at, "what": what})


def _told(event):
    return f"{event.publisher} {event.number}"
