"""Dead letters, the queue that they go back to, its consumer, and workers that may die."""

import random
from collections import Counter
from dataclasses import dataclass, field
from itertools import count

import pytest

from oncall import archive
from oncall.letters import Destination, compile_rules
from oncall.mover import Order, Ports, Tally, move
from tests.unit.sqs_model import REFUSED_BODY, Bucket, Clock, Faults, Killed, Odds, Queue

RUN = "orders-dlq-1"
CALM_AFTER = 12
MOST_ROUNDS = 40
RULES = compile_rules(
    [
        {"name": "refunds", "when": {"body_matches": "refund"}, "then": "quarantine"},
        {"name": "stale", "when": {"body_matches": "stale"}, "then": "drop"},
        {"name": "kept", "when": {"body_matches": "kept"}, "then": "leave"},
    ]
)


@dataclass
class World:
    rng: random.Random
    fifo: bool = False
    odds: Odds = field(default_factory=Odds)
    chunk: int = 25
    visibility: int = 120
    most: int = 10_000
    rate: float = 0.0
    threads: int = 1
    run: str = RUN
    consumes: float = 0.2
    stops: float = 0.0
    calm: bool = False

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.dlq = Queue("dlq", self.clock, self.rng, fifo=self.fifo)
        self.queue = Queue(
            "orders", self.clock, self.rng, fifo=self.fifo, dead_letters=self.dlq, max_receives=2
        )
        self.bucket = Bucket()
        self.consumed: set[str] = set()
        self.tallies: list[Tally] = []
        self.kills = 0
        self.rivals = 0
        self.archived: dict[str, tuple[str, set[str]]] = {}
        self._names = count()

    def fill(self, bodies: list[str], groups: int = 5) -> None:
        for number, body in enumerate(bodies):
            system = {"AWSTraceHeader": f"Root={number}"}
            if self.fifo:
                system["MessageGroupId"] = f"g{self.rng.randrange(groups)}"
            attributes = {"n": {"DataType": "Number", "StringValue": str(number)}}
            self.dlq.put(body, attributes, system)

    def consume(self) -> None:
        """Take what has arrived, but for what cannot be worked on."""
        some = self.queue.receive(10, 5, 0)
        done = {
            one["MessageId"]: one["ReceiptHandle"] for one in some if "bounce" not in one["Body"]
        }
        self.consumed |= {one["Body"] for one in some if one["MessageId"] in done}
        if done:
            self.queue.delete(done)

    def order(self, seconds: float = 300) -> Order:
        return Order(
            run=self.run,
            worker=f"{next(self._names):03}",
            deadline=self.clock() + seconds,
            most=self.most,
            destination=Destination(self.fifo, self.queue.max_message_bytes),
            rules=RULES,
            max_replays=3,
            fifo_source=self.fifo,
            rate=self.rate,
            threads=self.threads,
            chunk_letters=self.chunk,
            visibility_seconds=self.visibility,
        )

    def faults(self, odds: Odds | None = None) -> Faults:
        queues = (self.dlq, self.queue)
        odds = odds or (Odds() if self.calm else self.odds)
        return Faults(self.clock, self.rng, odds, queues, self.bucket)

    def ports(self, faults: Faults) -> Ports:
        def meanwhile() -> None:
            if self.rng.random() < self.consumes:
                self.consume()

        def rival() -> None:
            self.rivals += 1
            other = self.faults(Odds())
            self.tallies.append(move(self.order(), self.ports(other)))

        faults.meanwhile = meanwhile
        faults.rival = rival
        stop = (lambda: self.rng.random() < self.stops) if self.stops else (lambda: False)
        return Ports(faults, faults, faults, stop, self.clock, self.clock.sleep)

    def round(self, kill_at: int = 0, *, after: bool = False) -> Tally | None:
        """Let a worker do a round; return nothing if it dies. Others work on for two minutes."""
        faults = self.faults()
        faults.kill_at, faults.kill_after = kill_at, after
        tally = None
        try:
            tally = move(self.order(), self.ports(faults))
            self.tallies.append(tally)
        except Killed:
            self.kills += 1
        for _ in range(10):
            self.clock.sleep(13)
            self.consume()
        return tally

    def finish(self, kills: int = 0) -> None:
        """Let workers go on, some of which die, until nothing fails and nothing is left to do."""
        idle = 0
        for number in range(MOST_ROUNDS):
            if number == CALM_AFTER or idle:
                self.calm, self.stops, self.dlq.short, kills = True, 0.0, 0.0, 0
            at = self.rng.randrange(1, 120) if kills else 0
            tally = self.round(at, after=self.rng.random() < 0.5)
            kills -= tally is None
            if tally is None or tally.ended != "empty" or self.queue.messages:
                idle = 0
                continue
            idle = 0 if tally.replayed + tally.quarantined + tally.dropped else idle + 1
            if idle > 2:
                self._check_progress()
                return
            self.clock.sleep(200 * idle)  # what the round has left is visible again
        pytest.fail("it does not come to an end")

    def check(self) -> archive.Balance:
        self._read_archive()
        self._check_places()
        self._check_ledgers()
        if self.fifo:
            self._check_order()
        return self._check_bounds()

    def _read_archive(self) -> None:
        for key in self.bucket.keys("incidents/"):
            if "/archive/" in key:
                for letter, then, _ in archive.read_letters(self.bucket[key]):
                    seen = self.archived.setdefault(letter["MessageId"], (letter["Body"], set()))
                    seen[1].add(then)

    def _check_places(self) -> None:
        """Nothing is lost, and nothing of a letter but its receive count."""
        kept = {body for body, then in self.archived.values() if then & {"quarantine", "drop"}}
        here = {one.body for queue in (self.dlq, self.queue) for one in queue.messages.values()}
        places = kept | here | self.consumed | self.dlq.expired
        lost = {one.body for one in self.dlq.arrivals} - places
        assert not lost, f"lost: {sorted(lost)[:5]}"
        originals = {one.body: one for one in self.dlq.arrivals}
        for one in self.queue.arrivals:
            original = originals[one.body]
            assert one.attributes["n"] == original.attributes["n"]
            assert one.system["AWSTraceHeader"] == original.system["AWSTraceHeader"]
            assert one.group == original.group

    def _check_ledgers(self) -> None:
        arrived = {one.body for one in self.queue.arrivals}
        outcomes: dict[str, set[str]] = {}
        for key in self.bucket.keys("incidents/"):
            if "/ledger/" in key:
                for line in archive.read_ledger(self.bucket[key]):
                    outcomes.setdefault(line.id, set()).add(line.outcome)
        for key, told in outcomes.items():
            body = self.archived[key][0]
            if archive.REPLAYED in told:
                assert body in arrived, f"{key} was not replayed"
            if told == {archive.LEFT} and not self.kills:
                assert key in self.dlq.messages or body in self.dlq.expired, f"{key} is not there"

    def _check_progress(self) -> None:
        """What stays is what has to, and in a group what is behind that."""
        stuck: set[str] = set()
        for one in self.dlq.messages.values():
            if any(flavour in one.body for flavour in ("kept", "damaged", REFUSED_BODY)):
                stuck.add(one.group)
            else:
                assert self.fifo, f"{one.body} could have gone"
                assert one.group in stuck, f"{one.body} could have gone"

    def _check_order(self) -> None:
        latest: dict[str, int] = {}
        seen: set[str] = set()
        for one in self.queue.arrivals:
            if one.body in seen:
                continue
            seen.add(one.body)
            number = int(one.attributes["n"]["StringValue"])
            assert number > latest.get(one.group, -1), f"{one.body} came too late in {one.group}"
            latest[one.group] = number

    def _check_bounds(self) -> archive.Balance:
        balance = archive.reconcile(self.bucket, self.run)
        assert balance.balanced, balance
        assert balance.archived == len(self.archived)
        copies = Counter(one.body for one in self.queue.arrivals) - self.queue.redriven
        twice = sum(number > 1 for number in copies.values())
        assert twice <= balance.possible_duplicates + balance.unknown, (twice, balance)
        counted = sum(tally.possible_duplicates for tally in self.tallies)
        if not self.kills:
            assert twice <= counted, (twice, counted)
            failed = any(tally.ended == "failed" for tally in self.tallies)
            assert not balance.unknown or failed or self.odds.lost_reply, balance
        return balance
