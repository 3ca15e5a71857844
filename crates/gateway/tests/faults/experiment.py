"""One fault, under traffic: clients that listen, others that publish, the fault, and at the end the audit and a report."""

import asyncio
import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import platform
import random
import re
import subprocess
import time

from audit import Audit, audit
from publishers import Chatter, Service
from support.node import binary
from support.process import PATIENCE, eventually
from support.subscribers import together
from witnesses import Witness

TOPICS = [f"orders.{number}" for number in range(8)]
WITNESSES = 12
# Between two publications of one publisher, in seconds. Each topic hears of each some two times a second.
PAUSE = 0.03
# What a starved machine may add to the time that something is said to heal within.
STARVED = 5.0
QUIET = (0.3, 0.8)  # seconds of traffic before a fault

# Who a fault may disturb, told by client and topic.
EVERYBODY = lambda client, topic: True
NOBODY = lambda client, topic: False

SEED = os.environ.get("CAUSEWAY_SEED") or str(random.randrange(1 << 32))


class Experiment:
    """Named after its story, `test_f7_…[variant]`; what chance decides in it follows from the seed and that name."""

    def __init__(self, story, reports):
        self.story = story
        self.fault_id = re.match(r"test_(f\d+)_", story)[1].upper()
        self.reports = pathlib.Path(reports)
        self.random = random.Random(f"{SEED} {story}")
        self.replay = f"scripts/faults --seed {SEED} --only {self.fault_id}"
        self.began = time.monotonic()
        self.timeline = []
        self.timings = []
        self.publications = []
        self.witnesses = []
        self.judgement = Audit()

    # What a story says.

    def note(self, what, **more):
        self.timeline.append({"at": round(time.monotonic() - self.began, 3), "what": what, **more})

    def between(self, least, most):
        return self.random.uniform(least, most)

    def some_witnesses(self, urls, count=WITNESSES, name="client", topics=TOPICS, topics_max=4, trust=None):
        """Each has some of the topics, and enters by one of the `urls` in turn."""

        def witness(number):
            url = urls[number % len(urls)]
            some = self.random.sample(topics, self.random.randint(1, topics_max))
            return Witness(f"{name}-{number}", url, some, trust=trust if url.startswith("wss") else None)

        return [witness(number) for number in range(count)]

    @contextlib.asynccontextmanager
    async def traffic(self, witnesses, service, *publishers, disturbed=EVERYBODY):
        """Afterwards everybody has heard the last of everything, and the audit has found nothing to complain of."""
        publishers = [service, *publishers]
        self.witnesses = witnesses
        try:
            async with together(witnesses):
                running = [asyncio.create_task(publisher.run()) for publisher in publishers]
                self.note("traffic begins", witnesses=len(witnesses), publishers=[one.name for one in publishers])
                await asyncio.sleep(self.between(*QUIET))
                try:
                    yield
                    await self._everybody_hears_since(time.monotonic())
                finally:
                    for publisher in publishers:
                        publisher.over = True
                    await asyncio.gather(*running)
                await self._all_is_heard(service.where)
        finally:
            self._judge(disturbed)
        violations = self.judgement.violations
        told = "\n".join(violation["what"] for violation in violations[:20])
        assert not violations, f"{told}\n{len(violations)} violations, replay with {self.replay}"

    def nodes_of(self, client):
        """The names of all nodes that a client has been at."""
        (witness,) = [witness for witness in self.witnesses if witness.name == client]
        return {json.loads(frame)["node"] for frame in witness.frames if '"op":"welcome"' in frame}

    @contextlib.contextmanager
    def time(self, what, within):
        """The time that something takes is at most `within` seconds, where not starved."""
        since = time.monotonic()
        yield
        took = time.monotonic() - since
        self.note(what, took=round(took, 3))
        self.timings.append({"what": what, "within": within, "took": round(took, 3)})
        assert took <= within + STARVED, f"{what}: after {took:.1f} s; replay with {self.replay}"

    async def heals(self, what, within):
        """From now on (`what` has happened) everybody hears every topic again after `within` seconds, where not starved."""
        self.note(what)
        with self.time(f"healed: {what}", within):
            await self._everybody_hears_since(time.monotonic())

    def report(self, failure):
        """Writes down what happened; `failure` is what the story ended with, if not well."""
        disturbances = [
            {"at": round(event.at - self.began, 3), "who": witness.name, "topic": topic, "what": event.kind, "why": event.why}
            for witness in self.witnesses for topic, events in witness.histories.items()
            for event in events if event.kind in ("gap", "ended")
        ]
        report = {
            "fault": self.fault_id, "story": self.story, "seed": SEED, "replay": self.replay, "versions": versions(),
            "timeline": self.timeline, "timings": self.timings, "disturbances": disturbances, "failure": failure,
            "audit": dataclasses.asdict(self.judgement),
        }
        self.reports.mkdir(parents=True, exist_ok=True)
        file = re.sub(r"[^\w.]+", "-", f"{self.fault_id} {self.story} {SEED}").strip("-")
        (self.reports / f"{file}.json").write_text(json.dumps(report, indent=1))

    # What happens behind it.

    async def _everybody_hears_since(self, since):
        """On each of its topics something that was published after that moment."""
        hears = lambda witness: all(witness.newest[topic] > since for topic in witness.topics)
        await eventually(lambda: all(map(hears, self.witnesses)), "everybody hears every topic")

    async def _all_is_heard(self, where):
        """What was confirmed before the publishers ended is on its way, in front of what is published now."""
        since = time.monotonic()
        topics = sorted({topic for witness in self.witnesses for topic in witness.topics})
        await Service(where, topics, self.publications, pause=0, name="end", rounds=1).run()
        await self._everybody_hears_since(since)
        for witness in self.witnesses:
            await witness.settle()

    def _judge(self, disturbed):
        histories = {
            (witness.name, topic): events for witness in self.witnesses for topic, events in witness.histories.items()
        }
        self.judgement = audit(self.publications, histories, disturbed)
        for violation in self.judgement.violations:
            violation["at"] = round(violation["at"] - self.began, 3)


def everyone(experiment, cluster, topics=TOPICS, urls=None):
    """Witnesses through nginx with and without TLS, and at each node; a service and a client that publish."""
    nginx = cluster.nginx
    urls = urls or [nginx.connect_url(), nginx.connect_url(tls=True), *(node.connect_url() for node in cluster.nodes)]
    return (
        experiment.some_witnesses(urls, trust=nginx.trust(), topics=topics),
        Service(lambda: cluster.redis.where, topics, experiment.publications, PAUSE),
        Chatter(nginx.connect_url(), topics, experiment.publications, PAUSE),
    )


def assert_sockets_stayed(witnesses):
    for witness in witnesses:
        assert witness.open, f"{witness.name} was closed with {witness.closes}"


@functools.cache
def versions():
    def first_line(*command):
        told = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        return (told.stdout + told.stderr).strip().splitlines()[0]

    return {
        "causeway": first_line(binary(), "--version"),
        "redis": first_line("redis-server", "--version"),
        "nginx": first_line("nginx", "-v"),
        "python": platform.python_version(),
        "kernel": platform.release(),
    }
