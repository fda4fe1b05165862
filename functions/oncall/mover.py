"""One worker's bounded round of replaying dead letters: it may die anywhere and loses none.

Each thread goes round: receive a chunk, archive it, send, delete what is confirmed, tell the
ledger. What holds:

- Nothing is sent or deleted before the chunk that holds it stands in the archive.
- A letter is deleted once SQS has confirmed its sending, with the sum of its body, or for good
  when it is quarantined or dropped; else it stays in the queue, whatever has happened.
- A letter is touched only as long as it is hidden from others for sure.
- A letter can arrive twice when nobody knows whether a call has worked: no answer to a send or a
  delete, or a death between the two. Such letters are counted; SQS itself may deliver a message of
  a standard queue twice, which is not.

Moments are seconds since 1970. Facts about SQS are from its API Reference and Developer Guide.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import batched
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from oncall import archive
from oncall.archive import DROPPED, LEFT, MAY_BE_SENT, NOT_DELETED, QUARANTINED, REPLAYED, Line
from oncall.letters import BATCH_ENTRIES, BOUNCED, Sorting, group_of, next_batch
from oncall.sqs_wire import Refused, Throttled, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from oncall.letters import Destination, Entry, Fate, Letter, Rules, Unmarked
    from oncall.sqs_wire import Sent

EMPTY_POLLS = 3
"""Long polls in a row that find nothing until a queue counts as empty: one may miss letters."""
_BACKOFF = 0.1
_LONGEST_BACKOFF = 5.0
_PAUSES = (0.0, *(_BACKOFF * 2**n for n in range(5)))
"""Seconds before each try of a call; after the last one, what it is about is left."""
_RECEIVE_TRIES = 10
_REFUSED_IN_A_ROW = 100
"""Of all that was sent: after so many, it is not the letters that SQS refuses."""
_MOST_UNDELETED = 1000
_DEDUPLICATION_SECONDS = 240
"""A FIFO queue knows a second try for five minutes; the rest is for the call to get there."""
_LONGEST_HIDDEN = 43_000
"""SQS hides a message for twelve hours at most, counted from its receiving."""
_NAP_SECONDS = 1.0


class Source(Protocol):
    """Where letters come from. Calls raise ``Unreachable``, ``Throttled`` or ``Refused``."""

    def receive(
        self, max_messages: int, visibility_seconds: int, wait_seconds: int
    ) -> list[Letter]:
        """Return up to ten letters, each with its ``ReceiptHandle``."""

    def delete(self, handles: dict[str, str], /) -> set[str]:
        """Delete up to ten, ``{MessageId: ReceiptHandle}``; return ids that failed."""

    def hide(self, handles: dict[str, str], seconds: int, /) -> set[str]:
        """Make up to ten visible in so many seconds; return ids that failed."""


class Sink(Protocol):
    """Where letters go."""

    def send(self, entries: Sequence[Entry], /) -> Sent:
        """Send up to ten. Raises ``Unreachable``, ``Throttled`` or ``Refused``."""


class Archive(Protocol):
    """Where chunks and ledgers are written."""

    def put(self, key: str, data: bytes, /) -> None:
        """Write, but never over what is there (S3 PutObject with ``If-None-Match: *``).

        Raises ``archive.Taken``, ``Unreachable``, ``Throttled`` or ``Refused``.
        """


@dataclass(frozen=True, slots=True)
class Ports:
    """What a worker reaches the world by."""

    source: Source
    """Threads may share it, as they may the others."""
    sink: Sink
    archive: Archive
    stop: Callable[[], bool]
    """Whether a person or a kill switch wants it to stop; asked before each batch."""
    clock: Callable[[], float]
    sleep: Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Order:
    """What one worker is to do in one round."""

    run: str
    worker: str
    """Unique among all workers of the run, tries after a crash too: it names the chunks."""
    deadline: float
    """When it stops. What is under way then, tries of a call and a ledger, takes seconds where SQS
    answers, and a minute or two where it does not."""
    most: int
    """Letters that it has in hand at most; those that were left do not count, so that a queue full
    of them does not keep a canary from flying."""
    destination: Destination
    rules: Rules
    max_replays: int
    fifo_source: bool
    rate: float = 0.0
    """Letters a second that it receives at most, all threads together; 0 for no limit."""
    threads: int = 1
    """A FIFO queue, on either side, gets one."""
    chunk_letters: int = 1000
    chunk_bytes: int = 4_194_304
    """Of bodies; a chunk may hold one receive more, up to 10 MiB."""
    chunk_seconds: float = 2.0
    """How long letters of a slow rate are gathered, then sent together."""
    visibility_seconds: int = 120
    """How long letters are hidden at a time, and come again after a crash. A FIFO queue knows for
    five minutes what the dead worker has sent, so it is well below that."""
    wait_seconds: int = 2
    """How long a poll that may find the queue empty waits, 1 to 20."""
    left_until: float = 0.0
    """Until when letters that are left stay hidden, if that is later than ``deadline``."""
    unmarked: Unmarked | None = None
    """Where letters lose their mark: what this run has replayed; the worker adds to it."""

    @property
    def ordered(self) -> bool:
        """Whether letters of a group keep their order."""
        return self.fifo_source or self.destination.fifo


@dataclass(slots=True)
class Tally:
    """What a worker has done; tallies add up."""

    archived: int = 0
    replayed: int = 0
    quarantined: int = 0
    dropped: int = 0
    left: dict[str, int] = field(default_factory=dict)
    """By reason: a word of ``letters``, a rule's name, SQS's code, or ``lapsed`` (hidden for too
    short a time), ``group_stopped``, ``unreachable``, ``throttled``, ``differs`` (the body that SQS
    confirms is not the letter's), ``stopped``, ``deadline``, ``failed``."""
    bounced: int = 0
    """Those of the quarantined that this run had replayed before."""
    received_again: int = 0
    possible_duplicates: int = 0
    """Letters that may be, or come to be, at the destination more than once."""
    ended: str = ""
    """``failed stopped deadline limit empty``; of several the first of these."""
    trouble: str = ""
    """Why it ``failed``: what was refused, or could not be reached."""
    seconds: float = 0.0
    """Of each worker, added up."""

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            archived=self.archived + other.archived,
            replayed=self.replayed + other.replayed,
            quarantined=self.quarantined + other.quarantined,
            dropped=self.dropped + other.dropped,
            left=dict(Counter(self.left) + Counter(other.left)),
            bounced=self.bounced + other.bounced,
            received_again=self.received_again + other.received_again,
            possible_duplicates=self.possible_duplicates + other.possible_duplicates,
            ended=min(self.ended, other.ended, key=_ENDS.index),
            trouble=self.trouble or other.trouble,
            seconds=self.seconds + other.seconds,
        )


_ENDS = ("failed", "stopped", "deadline", "limit", "empty", "")


def move(order: Order, ports: Ports) -> Tally:
    """Replay letters until there are none, or enough, or time is up, or somebody says stop.

    An error of a port that is none of its own is raised, and the letters in hand are as those of a
    dead worker: they come again.
    """
    started = ports.clock()
    worker = _Worker(order, ports)
    threads = 1 if order.ordered else order.threads
    if threads == 1:
        tally = _Thread(worker, 0).run()
    else:
        with ThreadPoolExecutor(threads) as pool:
            tally = sum(pool.map(worker.start, range(threads)), Tally())
    tally.seconds = ports.clock() - started
    return tally


class _Worker:
    """What a worker's threads share."""

    def __init__(self, order: Order, ports: Ports) -> None:
        self.order = order
        self.ports = ports
        self.sorting = Sorting(
            order.run, order.destination, order.rules, order.max_replays, order.unmarked
        )
        self.trouble = ""
        self.undeleted: dict[str, bool] = {}
        """Ids that are only to be deleted when they are received again, and whether each is counted
        as a possible duplicate until then."""
        self._lock = Lock()
        self._room = order.most
        self._free_at = 0.0
        self._refused = 0

    def start(self, number: int) -> Tally:
        """Run a thread; where one breaks, the others need not go on."""
        try:
            return _Thread(self, number).run()
        except BaseException as error:
            self.trouble = repr(error)
            raise

    def take(self, most: int) -> tuple[int, float]:
        """Return how many letters to receive next, and from when on; none when there are enough.

        At less than ten letters a second they are received one second's worth at a time, so that
        none lies hidden while it waits for its turn.
        """
        rate = self.order.rate
        if rate:
            most = min(most, max(1, int(rate)))
        with self._lock:
            count = min(most, BATCH_ENTRIES, self._room)
            self._room -= count
            if not rate or not count:
                return count, 0.0
            moment = max(self._free_at, self.ports.clock())
            self._free_at = moment + count / rate
            return count, moment

    def give_back(self, count: int) -> None:
        """Take no account of letters that did not come."""
        with self._lock:
            self._room += count
            if self.order.rate:
                self._free_at -= count / self.order.rate

    def left(self, count: int) -> None:
        """Take others for letters that were left."""
        with self._lock:
            self._room += count

    def accepted(self) -> None:
        """Note that the destination takes letters."""
        self._refused = 0

    def refused(self, why: str) -> None:
        """Note that it takes not this one; it is to blame if that goes on."""
        self._refused += 1
        if self._refused >= _REFUSED_IN_A_ROW:
            self.trouble = f"{self._refused} refusals in a row: {why}"

    def not_deleted(self, key: str, *, counted: bool) -> None:
        """Note a letter that is done with but may be in the queue still."""
        self.undeleted[key] = counted
        if len(self.undeleted) >= _MOST_UNDELETED:
            self.trouble = f"{len(self.undeleted)} letters could not be deleted"


@dataclass(slots=True)
class _Hand:
    """The chunk that a thread has in hand."""

    letters: dict[str, Letter] = field(default_factory=dict)
    """By ``MessageId``, in the order in which they came."""
    handles: dict[str, str] = field(default_factory=dict)
    """Of those that are neither deleted nor lost hold of."""
    lines: dict[str, Line] = field(default_factory=dict)
    """What has become of them so far."""
    places: dict[str, int] = field(default_factory=dict)
    """In that order, where it counts."""
    stops: dict[str, float] = field(default_factory=dict)
    """The place of the first letter of a group that was left; none behind it may pass it."""
    hidden_until: float = math.inf
    """When the first of them may be received by others."""
    since: float = math.inf
    """When it began to fill."""
    size: int = 0

    def is_full(self, order: Order, now: float) -> bool:
        return (
            len(self.letters) >= order.chunk_letters
            or self.size >= order.chunk_bytes
            or now - self.since >= order.chunk_seconds
        )

    def open(self) -> dict[str, str]:
        """Return the handles of those that nothing has become of yet."""
        return {key: handle for key, handle in self.handles.items() if key not in self.lines}


class _Delivery:
    """A batch on its way: what is still to be sent, and what is known of the rest."""

    def __init__(self, batch: dict[str, Entry], letters: Mapping[str, Letter]) -> None:
        self.rest = dict(batch)
        self.accepted = 0
        self._letters = letters
        self._lines: dict[str, Line] = {}
        self._why = dict.fromkeys(batch, "lapsed")
        self._doubts: set[str] = set()

    def not_sent(self, why: str) -> None:
        self._why |= dict.fromkeys(self.rest, why)

    def perhaps_sent(self) -> None:
        self.not_sent("unreachable")
        self._doubts |= self.rest.keys()

    def settle(self, line: Line) -> None:
        self._lines[line.id] = line
        self.rest.pop(line.id, None)

    def read(self, sent: Sent) -> str:
        """Take in an answer; return why SQS refuses a letter, if it does.

        ``SenderFault`` says that another try cannot help, which SQS also says of KMS throttling.
        """
        refused = ""
        for key, (new, digest) in sent.successful.items():
            if digest == self._letters[key]["MD5OfBody"]:
                self.accepted += 1
                self.settle(Line(key, REPLAYED, new=new))
            else:
                self._doubts.add(key)
                self.settle(Line(key, LEFT, "differs", new))
        for key, failure in sent.failed.items():
            if failure.sender_fault and "Throttl" not in failure.code:
                refused = failure.code
                self.settle(Line(key, LEFT, failure.code))
            else:
                self._why[key] = failure.code
        for key in self.rest.keys() - sent.failed.keys():
            self._why[key] = "unreachable"
            self._doubts.add(key)
        return refused

    def lines(self, *, known_again: bool) -> Iterator[Line]:
        """Tell each letter's fate; ``known_again``: the queue takes a second try for the first."""
        for key in self.rest:
            self._lines[key] = Line(key, LEFT, self._why[key])
        for key, line in self._lines.items():
            settled = known_again and line.outcome == REPLAYED
            yield line._replace(doubt=MAY_BE_SENT) if key in self._doubts and not settled else line


class _Thread:
    """One thread's round."""

    def __init__(self, worker: _Worker, number: int) -> None:
        self._worker = worker
        self._order = worker.order
        self._ports = worker.ports
        self._number = number
        self._chunks = 0
        self._failures = 0
        self._stopped: set[str] = set()
        """Where order counts: groups of which a letter was left in a hand before."""
        self._tally = Tally()

    def run(self) -> Tally:
        ended = ""
        while not ended:
            hand, ended = self._gather()
            if hand.letters:
                ended = self._work_off(hand) or ended
        self._tally.ended = ended
        self._tally.trouble = self._worker.trouble
        return self._tally

    def _why_end(self) -> str:
        if self._worker.trouble:
            return "failed"
        if self._ports.stop():
            return "stopped"
        return "deadline" if self._ports.clock() >= self._order.deadline else ""

    def _gather(self) -> tuple[_Hand, str]:
        """Receive a chunk; return it, and why there will be no other."""
        order, hand = self._order, _Hand()
        polls = 0
        while polls < EMPTY_POLLS:
            wanted, moment = self._worker.take(order.chunk_letters - len(hand.letters))
            if hand.is_full(order, moment):
                self._worker.give_back(wanted)
                return hand, ""
            ended = self._wait_until(moment)
            if ended:
                self._worker.give_back(wanted)
                self._hide(hand, hand.handles, 0)
                return _Hand(), ended
            if not wanted:
                return hand, "" if hand.letters else "limit"
            came = self._receive(hand, wanted)
            if came:
                polls = 0
                short = order.ordered and came < wanted
                if short or hand.is_full(order, self._ports.clock()):
                    return hand, ""
            elif hand.letters:
                return hand, ""
            elif came is None:
                self._ports.sleep(min(_LONGEST_BACKOFF, _BACKOFF * 2**self._failures))
            else:
                polls += 1
        return hand, "empty"

    def _wait_until(self, moment: float) -> str:
        """Sleep; return why to end, if that comes first."""
        while True:
            ended = self._why_end()
            seconds = moment - self._ports.clock()
            if ended or seconds <= 0:
                return ended
            self._ports.sleep(min(seconds, _NAP_SECONDS))

    def _receive(self, hand: _Hand, wanted: int) -> int | None:
        """Receive once into ``hand``; return how many came, ``None`` when the call has failed."""
        order, ports, worker = self._order, self._ports, self._worker
        # A poll that only adds to the hand need not be sure to find something; a FIFO queue hides
        # the rest of a group meanwhile, so that it would often wait in vain.
        wait = order.wait_seconds if not hand.letters else 0 if order.fifo_source else 1
        asked = ports.clock()
        try:
            letters = ports.source.receive(wanted, order.visibility_seconds, wait)
        except (Unreachable, Throttled, Refused) as error:
            worker.give_back(wanted)
            self._failures += 1
            if isinstance(error, Refused) or self._failures >= _RECEIVE_TRIES:
                worker.trouble = f"receiving letters failed, {type(error).__name__}: {error}"
            return None
        self._failures = 0
        again: dict[str, str] = {}
        for letter in letters:
            key, handle = letter["MessageId"], letter.pop("ReceiptHandle")
            if key in worker.undeleted:
                again[key] = handle
                continue
            if key in hand.letters:
                self._tally.received_again += 1
            hand.letters.setdefault(key, letter)
            hand.handles[key] = handle
            hand.size += len(letter["Body"])
        if letters:
            hand.hidden_until = min(hand.hidden_until, asked + order.visibility_seconds)
            hand.since = min(hand.since, ports.clock())
        if again:
            self._delete_again(again)
        worker.give_back(wanted - len(letters) + len(again))
        return len(letters)

    def _delete_again(self, handles: dict[str, str]) -> None:
        self._tally.received_again += len(handles)
        failed = self._until_done(self._ports.source.delete, handles)
        for key in handles.keys() - failed:
            self._tally.possible_duplicates -= self._worker.undeleted.pop(key, False)

    def _work_off(self, hand: _Hand) -> str:
        """Archive a chunk, send and delete what is to be, tell the rest; return why to end."""
        now, judge = self._ports.clock(), self._worker.sorting.judge
        judged = [judge(letter, now) for letter in hand.letters.values()]
        name = self._archive(hand, (fate for fate, _ in judged))
        if not name:
            self._hide(hand, hand.handles, 0)
            return "failed"
        self._tally.archived += len(hand.letters)
        waiting, gone = self._divide(hand, judged)
        ended = self._send_all(hand, waiting) or self._discard_all(hand, gone)
        self._stopped |= hand.stops.keys()
        freed = hand.open()
        for key in freed:
            self._leave(hand, Line(key, LEFT, ended))
        told = self._tell(hand, name)
        self._worker.left(sum(line.outcome == LEFT for line in hand.lines.values()))
        self._hide(hand, freed, 0)
        until = max(self._order.deadline, self._order.left_until)
        left = {key: handle for key, handle in hand.handles.items() if key not in freed}
        self._hide(hand, left, math.ceil(max(0, until - self._ports.clock())))
        return ended if told else "failed"

    def _divide(
        self, hand: _Hand, judged: list[tuple[Fate, int]]
    ) -> tuple[deque[tuple[Letter, int]], dict[str, Fate]]:
        """Return what is to be sent, and what is to be deleted; leave the rest."""
        waiting: deque[tuple[Letter, int]] = deque()
        gone: dict[str, Fate] = {}
        if self._order.ordered:
            hand.places = {key: place for place, key in enumerate(hand.letters)}
        for (key, letter), (fate, size) in zip(hand.letters.items(), judged, strict=True):
            if not self._may_touch(hand, key):
                continue
            if fate.then == "replay":
                waiting.append((letter, size))
            elif fate.then == "leave":
                self._leave(hand, Line(key, LEFT, fate.why))
                self._stop_group(hand, key)
            else:
                gone[key] = fate
        return waiting, gone

    def _archive(self, hand: _Hand, fates: Iterable[Fate]) -> str:
        """Archive a chunk; return its name, ``""`` if that cannot be done."""
        chunk = archive.pack_letters(zip(hand.letters.values(), fates, strict=True))
        while True:
            name = archive.chunk_name(self._order.worker, self._number, self._chunks)
            self._chunks += 1
            try:
                done = self._put(archive.archive_key(self._order.run, name), chunk)
            except archive.Taken:
                continue
            return name if done else ""

    def _tell(self, hand: _Hand, name: str) -> bool:
        """Write a chunk's ledger."""
        ledger = archive.pack_ledger(hand.lines.values())
        try:
            return self._put(archive.ledger_key(self._order.run, name), ledger)
        except archive.Taken:  # by a try whose answer was lost: the name is ours
            return True

    def _put(self, key: str, data: bytes) -> bool:
        error: Exception | None = None
        for pause in _PAUSES:
            self._pause(pause)
            try:
                self._ports.archive.put(key, data)
            except (Unreachable, Throttled) as failed:
                error = failed
            except Refused as refusal:
                error = refusal
                break
            else:
                return True
        self._worker.trouble = f"the archive does not take {key}, {type(error).__name__}: {error}"
        return False

    def _send_all(self, hand: _Hand, waiting: deque[tuple[Letter, int]]) -> str:
        """Send what is to be replayed; return why to end."""
        entry = self._worker.sorting.entry
        while waiting:
            ended = self._why_end()
            if ended:
                return ended
            self._keep_hidden(hand)
            letters = next_batch(waiting, ordered=self._order.ordered)
            keyed = ((letter["MessageId"], letter) for letter in letters)
            batch = {key: entry(letter) for key, letter in keyed if self._may_touch(hand, key)}
            if batch:
                self._send(hand, batch)
        return ""

    def _may_touch(self, hand: _Hand, key: str) -> bool:
        """Return whether a letter may be acted on; leave it where one before it has stayed."""
        if key in hand.lines:
            return False
        if self._order.ordered:
            group = group_of(hand.letters[key])
            if group in self._stopped or hand.places[key] > hand.stops.get(group, math.inf):
                self._leave(hand, Line(key, LEFT, "group_stopped"))
                return False
        return True

    def _stop_group(self, hand: _Hand, key: str) -> None:
        if self._order.ordered:
            group = group_of(hand.letters[key])
            hand.stops[group] = min(hand.places[key], hand.stops.get(group, math.inf))

    def _send(self, hand: _Hand, batch: dict[str, Entry]) -> None:
        """Send a batch and delete what is confirmed, before anything else is sent."""
        until = hand.hidden_until
        if self._order.destination.fifo:
            until = min(until, self._ports.clock() + _DEDUPLICATION_SECONDS)
        lines = self._deliver(hand, batch, until)
        failed = self._delete(hand, [line.id for line in lines if line.outcome == REPLAYED])
        for line in lines:
            if line.outcome == LEFT:
                self._leave(hand, line)
                self._stop_group(hand, line.id)
                continue
            doubt = line.doubt
            if line.id in failed:
                self._worker.not_deleted(line.id, counted=not doubt)
                doubt = doubt or NOT_DELETED
            hand.lines[line.id] = line._replace(doubt=doubt) if doubt else line
            self._worker.sorting.replayed(hand.letters[line.id])
            self._tally.replayed += 1
            self._tally.possible_duplicates += bool(doubt)

    def _deliver(self, hand: _Hand, batch: dict[str, Entry], until: float) -> list[Line]:
        """Send a batch until each letter's fate is known, or another try could do harm."""
        delivery = _Delivery(batch, hand.letters)
        for pause in _PAUSES:
            if not delivery.rest:
                break
            self._pause(pause)
            if self._ports.clock() >= until:
                break
            try:
                sent = self._ports.sink.send(list(delivery.rest.values()))
            except Throttled:
                delivery.not_sent("throttled")
            except Unreachable:
                delivery.perhaps_sent()
            except Refused as refusal:
                self._deliver_refused(hand, delivery, until, refusal)
                break
            else:
                refused = delivery.read(sent)
                if delivery.accepted:
                    self._worker.accepted()
                elif refused:
                    self._worker.refused(refused)
        return list(delivery.lines(known_again=self._order.destination.fifo))

    def _deliver_refused(
        self, hand: _Hand, delivery: _Delivery, until: float, refusal: Refused
    ) -> None:
        """Send one by one what SQS refuses together: one of them may be to blame, or all."""
        alone = len(delivery.rest) == 1
        for key, entry in list(delivery.rest.items()):
            if alone:
                self._worker.refused(str(refusal))
                delivery.settle(Line(key, LEFT, refusal.code))
            elif self._worker.trouble:
                delivery.settle(Line(key, LEFT, "failed"))
            else:
                for line in self._deliver(hand, {key: entry}, until):
                    delivery.settle(line)

    def _discard_all(self, hand: _Hand, gone: dict[str, Fate]) -> str:
        """Delete what the archive alone is to keep; return why to end."""
        for some in batched(gone.items(), BATCH_ENTRIES, strict=False):
            ended = self._why_end()
            if ended:
                return ended
            self._keep_hidden(hand)
            fates = {key: fate for key, fate in some if self._may_touch(hand, key)}
            failed = self._delete(hand, fates)
            for key, fate in fates.items():
                if key in failed:
                    self._worker.not_deleted(key, counted=False)
                outcome = DROPPED if fate.then == "drop" else QUARANTINED
                doubt = NOT_DELETED if key in failed else ""
                hand.lines[key] = Line(key, outcome, fate.why, doubt=doubt)
                self._tally.dropped += outcome == DROPPED
                self._tally.quarantined += outcome == QUARANTINED
                self._tally.bounced += fate == BOUNCED
        return ""

    def _leave(self, hand: _Hand, line: Line) -> None:
        hand.lines[line.id] = line
        left = self._tally.left
        left[line.reason] = left.get(line.reason, 0) + 1
        self._tally.possible_duplicates += bool(line.doubt)

    def _delete(self, hand: _Hand, keys: Iterable[str]) -> set[str]:
        """Delete letters; return those that are not known to be deleted."""
        handles = {key: hand.handles.pop(key) for key in keys}
        failed = self._until_done(self._ports.source.delete, handles)
        # A handle of before may delete nothing and say that it did (API Reference, DeleteMessage).
        return failed if self._ports.clock() < hand.hidden_until else set(handles)

    def _keep_hidden(self, hand: _Hand) -> None:
        """Hide what is in hand for longer, before others may receive it; let go what is lost.

        What may be in somebody else's hand is not touched again: it comes back by itself.
        """
        seconds = self._order.visibility_seconds
        asked = self._ports.clock()
        if asked < hand.hidden_until - seconds / 3:
            return
        lost: set[str] = set()
        for some in batched(hand.handles.items(), BATCH_ENTRIES, strict=False):
            failed = self._until_done(
                lambda few: self._ports.source.hide(few, seconds), dict(some), hand.hidden_until
            )
            lost |= failed if self._ports.clock() < hand.hidden_until else dict(some).keys()
        hand.hidden_until = asked + seconds
        for key in lost:
            del hand.handles[key]
            if key not in hand.lines:
                self._leave(hand, Line(key, LEFT, "lapsed"))
                self._stop_group(hand, key)

    def _hide(self, hand: _Hand, handles: Mapping[str, str], seconds: int) -> None:
        """Hide letters as far as they are still ours; where that fails they come again sooner."""
        for some in batched(handles.items(), BATCH_ENTRIES, strict=False):
            if self._ports.clock() >= hand.hidden_until:
                return
            with suppress(Unreachable, Throttled, Refused):
                self._ports.source.hide(dict(some), min(seconds, _LONGEST_HIDDEN))

    def _until_done(
        self,
        call: Callable[[dict[str, str]], set[str]],
        handles: dict[str, str],
        until: float = math.inf,
    ) -> set[str]:
        """Make a call about letters until none of them fails; return those that still do."""
        rest = handles
        for pause in _PAUSES:
            if not rest:
                break
            self._pause(pause)
            if self._ports.clock() >= until:
                break
            try:
                failed = call(rest)
            except (Unreachable, Throttled):
                continue
            except Refused as refusal:
                self._worker.trouble = str(refusal)
                break
            rest = {key: handle for key, handle in rest.items() if key in failed}
        return set(rest)

    def _pause(self, seconds: float) -> None:
        if seconds:
            self._ports.sleep(seconds)
