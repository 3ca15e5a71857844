"""The audit complains of every kind of history that breaks the promise, and of none that keeps it."""

import pytest
from audit import LATE, Event, Publication, audit

pytestmark = pytest.mark.short


def published(*numbers, publisher="p", topic="news", outcome="accepted"):
    """Number n is published at second n."""
    return [Publication(topic, publisher, number, number, outcome, number + 0.1) for number in numbers]


def stream(*words):
    """A history in short: "sub@0", "3" (message 3 of p, half a second after it was published), "q3" (of q), "gap@7/2"
    (told at second 7, of 2 seconds), "end@9"."""
    events = []
    for word in words:
        kind, _, moment = word.partition("@")
        if kind in ("sub", "end"):
            events.append(Event(float(moment), {"sub": "subscribed", "end": "ended"}[kind], why="1006"))
        elif kind == "gap":
            at, _, lasted = moment.partition("/")
            events.append(Event(float(at), "gap", lasted=float(lasted), why="broker_lost"))
        else:
            number = int(kind.removeprefix("q"))
            events.append(Event(number + 0.5, "message", "q" if kind.startswith("q") else "p", number))
    return events


def complaints(publications, *streams, disturbed=True, topic="news"):
    histories = {(f"c{number}", topic): events for number, events in enumerate(streams)}
    result = audit(publications, histories, lambda client, topic: disturbed)
    return [violation["what"] for violation in result.violations]


TEN = published(*range(10))
LONG = 100 + LATE

KEPT = {
    "everything": stream("sub@-1", *map(str, range(10))),
    "from the subscribed on": stream("sub@3", *map(str, range(4, 10))),
    "from a little before it on": stream("sub@3", *map(str, range(3, 10))),
    "what is missing is within the gap": stream("sub@-1", "0", "1", "2", "gap@6/4", "7", "8", "9"),
    "a gap in which nothing was missed": stream("sub@-1", "0", "1", "2", "gap@2.9/1", *map(str, range(3, 10))),
    "two gaps": stream("sub@-1", "0", "gap@3/3", "gap@6/2", "7", "8", "9"),
    "the end of a connection and a new one": stream("sub@-1", "0", "1", "end@2", "sub@6", "7", "8", "9"),
    "the end of a connection for good": stream("sub@-1", "0", "1", "end@2"),
    "confirmed again": stream("sub@-1", "0", "sub@0.9", *map(str, range(1, 10))),
    "never subscribed": stream(),
}

BROKEN = {
    "a silent gap in the middle": (stream("sub@-1", *map(str, [0, 1, 2, 4, 5, 6, 7, 8, 9])), "p [3] missing: a silent gap"),
    "a silent gap at the beginning": (stream("sub@-1", *map(str, range(1, 10))), "p [0] missing: a silent gap"),
    "a silent gap at the end": (stream("sub@-1", *map(str, range(9))), "p [9] missing: a silent gap"),
    "nothing at all": (stream("sub@-1"), "missing: a silent gap"),
    "a gap told before what is missing": (
        stream("sub@-1", "0", "gap@0.9/1", *map(str, [1, 2, 4, 5, 6, 7, 8, 9])), "p [3] missing: a silent gap"),
    "a gap told after what is missing": (
        stream("sub@-1", *map(str, [0, 1, 2, 4, 5]), "gap@6/6", "7", "8", "9"), "p [3] missing: a silent gap"),
    "missing behind a gap": (stream("sub@-1", "0", "gap@3/3", *map(str, range(5, 10))), "p [4] missing: a silent gap"),
    "missing behind a new connection's subscribed": (
        stream("sub@-1", "0", "end@1", "sub@2", *map(str, range(4, 10))), "p [3] missing: a silent gap"),
    "a duplicate": (stream("sub@-1", *map(str, [0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9])), "p 2 is a duplicate"),
    "a duplicate over two connections": (
        stream("sub@-1", "0", "1", "end@1.6", "sub@1.7", *map(str, range(1, 10))), "p 1 is a duplicate"),
    "two that changed places": (stream("sub@-1", *map(str, [0, 1, 3, 2, 4, 5, 6, 7, 8, 9])), "out of order"),
    "a message that nobody published": (stream("sub@-1", *map(str, range(11))), "p 10 was never published"),
    "a message before the subscription": (stream("0", "sub@0.6", *map(str, range(1, 10))), "p 0 outside a subscription"),
    "a message behind the end": (stream("sub@-1", "0", "end@1", "1"), "p 1 outside a subscription"),
    "a gap without a subscription": (stream("gap@1/1", *map(str, range(2, 10))), "a gap without a subscription"),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_history_that_keeps_the_promise_is_fine(name):
    assert complaints(TEN, KEPT[name]) == []


@pytest.mark.parametrize("name", BROKEN)
def test_a_history_that_breaks_the_promise_is_not(name):
    history, complaint = BROKEN[name]
    assert any(complaint in told for told in complaints(TEN, history)), complaints(TEN, history)


def test_what_was_missed_long_before_a_gap_is_not_within_it():
    publications = published(0, 1, LONG, LONG + 1)
    for number, one in enumerate(publications):
        one.number = number
    history = [
        Event(-1, "subscribed"), Event(0.5, "message", "p", 0),
        Event(LONG + 0.5, "gap", lasted=2.0, why="broker_lost"), Event(LONG + 1.5, "message", "p", 3),
    ]
    (complaint,) = complaints(publications, history)
    assert "p 1 missing" in complaint and "of a gap of 2.0 s: a silent gap" in complaint


def test_whoever_is_not_concerned_has_neither_gap_nor_end():
    for name in ("what is missing is within the gap", "the end of a connection and a new one"):
        (complaint,) = complaints(TEN, KEPT[name], disturbed=False)
        assert "was disturbed" in complaint
    assert complaints(TEN, KEPT["everything"], disturbed=False) == []


def test_what_was_not_confirmed_may_arrive_or_not_and_what_was_refused_must_not():
    for outcome, ends_well in [("unknown", (True, True)), ("accepted", (True, False)), ("refused", (False, True))]:
        publications = published(0) + published(1, outcome=outcome) + published(2)
        heard, not_heard = stream("sub@-1", "0", "1", "2"), stream("sub@-1", "0", "2")
        assert (complaints(publications, heard) == [], complaints(publications, not_heard) == []) == ends_well, outcome


def test_each_publisher_and_each_topic_counts_alone():
    publications = TEN + published(*range(10), publisher="q") + published(*range(10), topic="other")
    assert complaints(publications, stream("sub@-1", *[word for n in range(10) for word in (f"{n}", f"q{n}")])) == []
    (complaint,) = complaints(publications, stream("sub@-1", *map(str, range(10)), *[f"q{n}" for n in range(9)]))
    assert "q [9] missing" in complaint


def test_all_clients_hear_the_publishers_in_one_order():
    publications = published(0, 1) + published(0, 1, publisher="q")
    one, same, other = ("0", "q0", "1", "q1"), ("0", "q0", "1", "q1"), ("q0", "0", "1", "q1")
    assert complaints(publications, stream("sub@-1", *one), stream("sub@-1", *same)) == []
    (complaint,) = complaints(publications, stream("sub@-1", *one), stream("sub@-1", *other))
    assert "c1 on news: out of order, seen from c0" in complaint


def test_it_counts_what_it_saw():
    history = KEPT["what is missing is within the gap"]
    result = audit(TEN, {("c", "news"): history})
    assert (result.published, result.accepted, result.heard, result.announced, result.gaps, result.ends) == (10, 10, 6, 4, 1, 0)
    result = audit(TEN, {("c", "news"): KEPT["the end of a connection and a new one"]})
    assert (result.heard, result.announced, result.gaps, result.ends) == (5, 5, 0, 1)
