"""SQS in memory with a clock of its own, as far as moving dead letters can go wrong on it.

Amazon SQS Developer Guide and API Reference; where they leave open what happens, the worst does:
an old receipt handle of a standard queue deletes nothing and says that it did. ``Faults`` sits
between a worker and the queues and makes calls fail, by a seed.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from oncall import archive
from oncall.letters import Entry, Letter
from oncall.sqs_wire import Failure, Refused, Sent, Throttled, Unreachable

BATCH_BYTES = 1_048_576
DEDUPLICATION_SECONDS = 300
REFUSED_BODY = "no character of XML"
"""A body that SQS answers with InvalidMessageContents."""


class Clock:
    """Virtual time, in seconds since 1970."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds


@dataclass(slots=True)
class Message:
    key: str
    body: str
    attributes: dict[str, Any]
    system: dict[str, str]
    sent_at: float
    visible_at: float = 0.0
    receives: int = 0
    receipts: int = 0
    """The latest handle's number; others are old."""

    @property
    def group(self) -> str:
        return self.system.get("MessageGroupId", "")

    def wire(self) -> Letter:
        return {
            "MessageId": self.key,
            "ReceiptHandle": f"{self.key}#{self.receipts}",
            "MD5OfBody": "0" * 32 if "damaged" in self.body else md5(self.body),
            "Body": self.body,
            "Attributes": {
                **self.system,
                "SentTimestamp": str(int(self.sent_at * 1000)),
                "ApproximateReceiveCount": str(self.receives),
            },
            "MessageAttributes": dict(self.attributes),
        }


def md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def size_of(entry: Entry) -> int:
    size = len(entry["MessageBody"].encode())
    for name, value in entry["MessageAttributes"].items():
        size += len(name) + len(value["DataType"]) + len(value["StringValue"].encode())
    return size


@dataclass
class Queue:
    name: str
    clock: Clock
    rng: random.Random
    fifo: bool = False
    retention: float = 14 * 86400
    max_message_bytes: int = BATCH_BYTES
    dead_letters: "Queue | None" = None
    max_receives: int = 3
    short: float = 0.0
    """How likely a poll of a standard queue misses what is there."""
    messages: dict[str, Message] = field(default_factory=dict)
    arrivals: list[Message] = field(default_factory=list)
    """All that was ever sent here."""
    redriven: Counter[str] = field(default_factory=Counter)
    """Bodies that went to the dead-letter queue."""
    expired: set[str] = field(default_factory=set)
    _known: dict[str, tuple[float, str]] = field(default_factory=dict)
    _ids: int = 0

    def put(self, body: str, attributes: dict[str, Any], system: dict[str, str]) -> Message:
        self._ids += 1
        key = f"{self.name}-{self._ids:08}"
        message = Message(key, body, attributes, system, self.clock.now)
        self.messages[key] = message
        self.arrivals.append(message)
        return message

    def expire(self) -> None:
        for message in list(self.messages.values()):
            if message.sent_at + self.retention <= self.clock.now:
                del self.messages[message.key]
                self.expired.add(message.body)

    def receive(
        self, max_messages: int, visibility_seconds: int, wait_seconds: int
    ) -> list[Letter]:
        assert 1 <= max_messages <= 10
        assert 0 <= wait_seconds <= 20
        self.expire()
        now = self.clock.now
        found = self._visible(now)
        if not self.fifo and found:
            self.rng.shuffle(found)
            # Short polls ask some of the hosts only; long polls ask all, and may still miss some.
            if self.rng.random() < (self.short if wait_seconds else min(1, self.short * 3)):
                found = found[: self.rng.randrange(len(found))] if self.rng.random() < 0.5 else []
        taken: list[Message] = []
        for message in found:
            if len(taken) == max_messages:
                break
            message.receives += 1
            if self.dead_letters is not None and message.receives > self.max_receives:
                self._redrive(message, self.dead_letters)
                continue
            message.visible_at = now + visibility_seconds
            message.receipts += 1
            taken.append(message)
        if not taken:
            self.clock.sleep(wait_seconds)
        return [message.wire() for message in taken]

    def _visible(self, now: float) -> list[Message]:
        if not self.fifo:
            return [one for one in self.messages.values() if one.visible_at <= now]
        locked: set[str] = set()
        found: list[Message] = []
        for message in self.messages.values():
            if message.group in locked:
                continue
            if message.visible_at > now:
                locked.add(message.group)
            else:
                found.append(message)
        # A message is hidden with those of its group behind it, wherever it stands.
        return [one for one in found if one.group not in locked]

    def _redrive(self, message: Message, to: "Queue") -> None:
        del self.messages[message.key]
        self.redriven[message.body] += 1
        message.visible_at = 0.0
        message.receipts += 1
        message.system = {**message.system, "DeadLetterQueueSourceArn": f"arn:{self.name}"}
        if to.fifo:
            message.system["MessageDeduplicationId"] = message.key
            message.sent_at = self.clock.now
        to.messages[message.key] = message

    def held(self, key: str, handle: str) -> tuple[Message | None, bool]:
        """Return the message, and whether the handle is the latest."""
        message = self.messages.get(key)
        return message, message is not None and handle == f"{key}#{message.receipts}"

    def delete(self, handles: dict[str, str]) -> set[str]:
        assert 1 <= len(handles) <= 10
        failed = set()
        for key, handle in handles.items():
            message, latest = self.held(key, handle)
            if message is None:
                continue
            if self.fifo and (not latest or message.visible_at <= self.clock.now):
                failed.add(key)
            elif latest:
                del self.messages[key]
        return failed

    def hide(self, handles: dict[str, str], seconds: int) -> set[str]:
        assert 1 <= len(handles) <= 10
        assert 0 <= seconds <= 43_200
        failed = set()
        for key, handle in handles.items():
            message, latest = self.held(key, handle)
            hidden = message is not None and message.visible_at > self.clock.now
            if message is None or not hidden or (self.fifo and not latest):
                failed.add(key)
            else:
                message.visible_at = self.clock.now + seconds
        return failed

    def send(self, entries: Sequence[Entry]) -> Sent:
        if len(entries) > 10:
            raise Refused("AWS.SimpleQueueService.TooManyEntriesInBatchRequest", "")
        if len({entry["Id"] for entry in entries}) < len(entries):
            raise Refused("AWS.SimpleQueueService.BatchEntryIdsNotDistinct", "")
        if sum(map(size_of, entries)) > BATCH_BYTES:
            raise Refused("AWS.SimpleQueueService.BatchRequestTooLong", "")
        successful: dict[str, tuple[str, str]] = {}
        failed: dict[str, Failure] = {}
        for entry in entries:
            wrong = self._wrong(entry)
            if wrong:
                failed[entry["Id"]] = Failure(wrong, sender_fault=True, message="")
            else:
                new = self._accept(entry)
                successful[entry["Id"]] = (new, md5(entry["MessageBody"]))
        return Sent(successful, failed)

    def _wrong(self, entry: Entry) -> str:
        if REFUSED_BODY in entry["MessageBody"]:
            return "InvalidMessageContents"
        if size_of(entry) > self.max_message_bytes or len(entry["MessageAttributes"]) > 10:
            return "InvalidParameterValue"
        if self.fifo and not (entry.get("MessageGroupId") and entry.get("MessageDeduplicationId")):
            return "MissingParameter"
        if not self.fifo and "MessageDeduplicationId" in entry:
            return "InvalidParameterValue"
        return ""

    def _accept(self, entry: Entry) -> str:
        dedup = entry.get("MessageDeduplicationId", "")
        when, known = self._known.get(dedup, (-DEDUPLICATION_SECONDS, ""))
        if dedup and self.clock.now - when < DEDUPLICATION_SECONDS:
            return known
        system = {}
        if "MessageGroupId" in entry:
            system["MessageGroupId"] = entry["MessageGroupId"]
        trace = entry.get("MessageSystemAttributes", {}).get("AWSTraceHeader")
        if trace:
            system["AWSTraceHeader"] = trace["StringValue"]
        new = self.put(entry["MessageBody"], entry["MessageAttributes"], system).key
        if dedup:
            self._known[dedup] = (self.clock.now, new)
        return new


class Bucket(dict[str, bytes]):
    """S3 with conditional writes, and a record of which ids stand in it as what."""

    def __init__(self) -> None:
        super().__init__()
        self.classes: dict[str, set[str]] = {}

    def put(self, key: str, data: bytes) -> None:
        if key in self:
            raise archive.Taken(key)
        self[key] = data
        if "/archive/" in key:
            for letter, then, _ in archive.read_letters(data):
                self.classes.setdefault(letter["MessageId"], set()).add(then)

    def keys(self, prefix: str = "") -> Iterable[str]:  # type: ignore[override]  # S3's, not dict's
        return sorted(key for key in self if key.startswith(prefix))

    def get(self, key: str) -> bytes:  # type: ignore[override]  # as above
        return self[key]


class Killed(BaseException):
    """The process has died here; no handler of errors may see it."""


@dataclass
class Odds:
    """How likely a call goes wrong in each way, 0 to 1."""

    lost_request: float = 0.0
    lost_reply: float = 0.0
    throttled: float = 0.0
    failed: float = 0.0
    """Each entry of a batch, by SQS's fault."""
    sender_fault: float = 0.0
    """Each entry of a batch that is sent."""
    differs: float = 0.0
    """Each entry of a batch that is sent: SQS confirms another body."""
    stall: float = 0.0
    """A call takes longer than letters stay hidden, and somebody else works meanwhile."""


class Faults:
    """A worker's way to the queues and the bucket: ``mover``'s source, sink and archive in one."""

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        odds: Odds,
        queues: tuple[Queue, Queue],
        bucket: Bucket,
    ) -> None:
        self.clock = clock
        self.rng = rng
        self.odds = odds
        self.source, self.destination = queues
        self.bucket = bucket
        self.calls = 0
        self.kill_at = 0
        self.kill_after = False
        self.dead = False
        self.meanwhile: Callable[[], None] = lambda: None
        """What others do while a call is under way."""
        self.rival: Callable[[], None] = lambda: None
        """What others do while a call stalls."""

    def receive(
        self, max_messages: int, visibility_seconds: int, wait_seconds: int
    ) -> list[Letter]:
        return self._call(
            lambda: self.source.receive(max_messages, visibility_seconds, wait_seconds)
        )

    def delete(self, handles: dict[str, str]) -> set[str]:
        for key in handles:
            assert key in self.bucket.classes, f"{key} was deleted before it was archived"
        return self._some(handles, self.source.delete)

    def hide(self, handles: dict[str, str], seconds: int) -> set[str]:
        for key, handle in handles.items():
            message, latest = self.source.held(key, handle)
            assert message is None or latest, f"{key} is touched while somebody else holds it"
        return self._some(handles, lambda rest: self.source.hide(rest, seconds))

    def put(self, key: str, data: bytes) -> None:
        self._call(lambda: self.bucket.put(key, data))

    def send(self, entries: Sequence[Entry]) -> Sent:
        for entry in entries:
            assert entry["Id"] in self.bucket.classes, f"{entry['Id']} sent before it was archived"
        failed: dict[str, Failure] = {}
        for entry in entries:
            if self._happens(self.odds.failed):
                failed[entry["Id"]] = Failure("InternalError", sender_fault=False, message="")
            elif self._happens(self.odds.sender_fault):
                failed[entry["Id"]] = Failure("InvalidContents", sender_fault=True, message="")
        rest = [entry for entry in entries if entry["Id"] not in failed]
        sent = self._call(lambda: self.destination.send(rest) if rest else Sent({}, {}))
        confirmed = {
            key: (new, "another" if self._happens(self.odds.differs) else digest)
            for key, (new, digest) in sent.successful.items()
        }
        return Sent(confirmed, {**sent.failed, **failed})

    def _some(
        self, handles: dict[str, str], call: Callable[[dict[str, str]], set[str]]
    ) -> set[str]:
        failed = {key for key in handles if self._happens(self.odds.failed)}
        rest = {key: handle for key, handle in handles.items() if key not in failed}
        return self._call(lambda: call(rest) if rest else set()) | failed

    def _happens(self, chance: float) -> bool:
        return bool(chance) and self.rng.random() < chance

    def _call[T](self, do: Callable[[], T]) -> T:
        self.calls += 1
        dies = self.calls == self.kill_at
        if self.dead or (dies and not self.kill_after):
            self.dead = True
            raise Killed
        self.clock.sleep(0.02)
        self.meanwhile()
        odds = self.odds
        if self._happens(odds.throttled):
            raise Throttled
        if self._happens(odds.lost_request):
            self.clock.sleep(5)
            raise Unreachable
        if self._happens(odds.stall):
            self._stall()
        answer = do()
        if dies:
            self.dead = True
            raise Killed
        if self._happens(odds.stall):
            self._stall()
        if self._happens(odds.lost_reply):
            self.clock.sleep(10)
            raise Unreachable
        return answer

    def _stall(self) -> None:
        self.clock.sleep(self.rng.choice((1, 50, 130, 400)))
        self.rival()
