"""What a dead letter is and what becomes of it: pure.

A letter is a message as SQS's JSON protocol gives it (API Reference, ReceiveMessage), without its
receipt handle: ``MessageId``, ``Body``, ``MD5OfBody``, ``Attributes`` (system attributes, all text)
and ``MessageAttributes`` in the shape in which they are sent, binary as base64. An extended
client's pointer to S3 is a letter like any other, and goes verbatim.

Sizes are bytes as SQS counts them, moments seconds since 1970. Facts about SQS are from its
Developer Guide, "Message quotas" (quotas-messages) and "Message metadata" (sqs-message-metadata).
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from oncall.errors import BadInput

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterator, Mapping

type Letter = dict[str, Any]
type Entry = dict[str, Any]
"""A SendMessageBatchRequestEntry; its ``Id`` is the letter's ``MessageId``."""

MARK = "runbook-replay"
"""The message attribute that counts replays: ``<count>;<run>;<MessageId before the first>``."""
MOST_ATTRIBUTES = 10
BATCH_ENTRIES = 10
BATCH_BYTES = 1_048_576
_FATES = ("replay", "quarantine", "drop", "leave")
_ERROR_ATTRIBUTES = ("ErrorCode", "ErrorMessage", "ERROR_CODE", "ERROR_MESSAGE")
"""Lambda's ("Dead-letter queues" in its guide, for asynchronous calls) and EventBridge's."""


class Fate(NamedTuple):
    """What becomes of a letter, and why."""

    then: str
    """``replay quarantine drop leave``"""
    why: str
    """The rule's name, or one of the words below; ``""`` when no rule matched."""


REPLAY = Fate("replay", "")
BOUNCED = Fate("quarantine", "bounced")
"""This run has replayed it, and it is back."""
TOO_OFTEN = Fate("quarantine", "replayed_too_often")
DAMAGED = Fate("leave", "damaged")
"""Its body is not the one that ``MD5OfBody`` was made of."""
TEN_ATTRIBUTES = Fate("leave", "ten_attributes")
"""No room for the mark, without which a letter could go round for ever."""
TOO_LARGE = Fate("leave", "too_large")
NO_GROUP = Fate("leave", "no_group")
"""A FIFO queue takes nothing without a ``MessageGroupId``."""
_OURS = frozenset(
    fate.why for fate in (BOUNCED, TOO_OFTEN, DAMAGED, TEN_ATTRIBUTES, TOO_LARGE, NO_GROUP)
)

_REGEX: Mapping[str, Any] = {"type": "string", "minLength": 1, "format": "regex"}
_SECONDS: Mapping[str, Any] = {"type": "number", "minimum": 0}
_COUNT: Mapping[str, Any] = {"type": "integer", "minimum": 1}
RULES_SCHEMA: Mapping[str, Any] = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "pattern": r"^[A-Za-z0-9_-]{1,60}$"},
            "when": {
                "type": "object",
                "properties": {
                    "attributes": {"type": "object", "additionalProperties": _REGEX},
                    "body_schema": {"type": ["object", "boolean"]},
                    "body_matches": _REGEX,
                    "error": _REGEX,
                    "source": _REGEX,
                    "older_than_seconds": _SECONDS,
                    "younger_than_seconds": _SECONDS,
                    "received_at_least": _COUNT,
                    "replays_at_least": _COUNT,
                },
                "additionalProperties": False,
            },
            "then": {"enum": list(_FATES)},
        },
        "required": ["name", "when", "then"],
        "additionalProperties": False,
    },
}
"""The rules' own schema; regular expressions are Python's and are searched for."""
_EXAMPLE = json.dumps(
    [{"name": "expired", "when": {"older_than_seconds": 864000}, "then": "quarantine"}]
)
_FORMATS = Draft202012Validator.FORMAT_CHECKER


class _Case:
    """One letter before the rules; its body is parsed once, and only if a rule wants it."""

    __slots__ = ("_document", "letter", "now", "replays")

    def __init__(self, letter: Letter, now: float, replays: int) -> None:
        self.letter = letter
        self.now = now
        self.replays = replays
        self._document: list[Any] | None = None

    def documents(self) -> list[Any]:
        """Return the body as JSON in a list of one, an empty list when it is not JSON."""
        if self._document is None:
            try:
                self._document = [json.loads(self.letter["Body"])]
            except (ValueError, RecursionError):
                self._document = []
        return self._document

    def has(self, name: str, pattern: re.Pattern[str]) -> bool:
        """Return whether a text or number attribute of this name matches; a binary one never."""
        attribute = (self.letter.get("MessageAttributes") or {}).get(name, {})
        text = attribute.get("StringValue")
        return text is not None and pattern.search(text) is not None

    def age(self) -> float:
        return self.now - sent_at(self.letter)


type _Holds = Callable[[_Case], bool]


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules, checked and compiled; the first one whose conditions all hold decides."""

    compiled: tuple[tuple[Fate, tuple[_Holds, ...]], ...] = ()

    def decide(self, letter: Letter, now: float, replays: int) -> Fate:
        """Return what the rules say; a letter that none is about is replayed."""
        case = _Case(letter, now, replays)
        for fate, conditions in self.compiled:
            if all(holds(case) for holds in conditions):
                return fate
        return REPLAY


def compile_rules(raw: Any) -> Rules:
    """Read a list of ``{"name", "when", "then"}`` as ``RULES_SCHEMA`` describes it.

    Raises ``BadInput`` with one sentence that names the field, what is wrong and an example.
    """
    wrong = min(
        Draft202012Validator(RULES_SCHEMA, format_checker=_FORMATS).iter_errors(raw),
        key=lambda error: list(map(str, error.path)),
        default=None,
    )
    if wrong is not None:
        field = ".".join(["rules", *map(str, wrong.path)])
        raise BadInput(f"{field}: {wrong.message[:300]}. Give for example {_EXAMPLE}.")
    taken = set(_OURS)
    compiled: list[tuple[Fate, tuple[_Holds, ...]]] = []
    for number, rule in enumerate(raw):
        name, when = rule["name"], rule["when"]
        if name in taken:
            raise BadInput(
                f"rules.{number}.name: {name!r} is taken, by another rule or by what is decided "
                f"before all rules ({', '.join(sorted(_OURS))}). Give for example {_EXAMPLE}."
            )
        taken.add(name)
        if "body_schema" in when:
            _check_schema(f"rules.{number}.when.body_schema", when["body_schema"])
        conditions = tuple(_CONDITIONS[kind](value) for kind, value in when.items())
        compiled.append((Fate(rule["then"], name), conditions))
    return Rules(tuple(compiled))


def _check_schema(field: str, schema: Any) -> None:
    """Refuse what would only fail at the first letter; nothing is ever fetched from elsewhere."""
    try:
        Draft202012Validator.check_schema(schema)
        resolver = Registry().resolver_with_root(DRAFT202012.create_resource(schema))
        for reference in _references(schema):
            resolver.lookup(reference)
    except SchemaError as error:
        wrong = error.message
    except Unresolvable:
        wrong = f"it refers to {reference!r}, which is not in it"
    else:
        return
    raise BadInput(
        f"{field}: {wrong[:300]}. Give a JSON Schema (2020-12), for example "
        f'{{"properties": {{"currency": {{"const": "EUR"}}}}, "required": ["currency"]}}.'
    )


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key in {"$ref", "$dynamicRef"} and isinstance(value, str):
                yield value
            yield from _references(value)
    elif isinstance(schema, list):
        for one in schema:
            yield from _references(one)


def _attributes_match(patterns: Mapping[str, str]) -> _Holds:
    compiled = [(name, re.compile(pattern)) for name, pattern in patterns.items()]
    return lambda case: all(case.has(name, pattern) for name, pattern in compiled)


def _body_fits(schema: Any) -> _Holds:
    validator = Draft202012Validator(schema, registry=Registry())

    def holds(case: _Case) -> bool:
        try:
            return any(validator.is_valid(document) for document in case.documents())
        except RecursionError:  # a schema that refers to itself, a body nested as deep as that
            return False

    return holds


def _body_matches(text: str) -> _Holds:
    pattern = re.compile(text)
    return lambda case: pattern.search(case.letter["Body"]) is not None


def _error_matches(text: str) -> _Holds:
    pattern = re.compile(text)
    return lambda case: any(case.has(name, pattern) for name in _ERROR_ATTRIBUTES)


def _source_matches(text: str) -> _Holds:
    pattern = re.compile(text)
    return lambda case: (
        pattern.search(case.letter["Attributes"].get("DeadLetterQueueSourceArn", "")) is not None
    )


def _received_at_least(count: int) -> _Holds:
    return lambda case: int(case.letter["Attributes"]["ApproximateReceiveCount"]) >= count


_CONDITIONS: Mapping[str, Callable[[Any], _Holds]] = {
    "attributes": _attributes_match,
    "body_schema": _body_fits,
    "body_matches": _body_matches,
    "error": _error_matches,
    "source": _source_matches,
    "older_than_seconds": lambda seconds: lambda case: case.age() > seconds,
    "younger_than_seconds": lambda seconds: lambda case: case.age() < seconds,
    "received_at_least": _received_at_least,
    "replays_at_least": lambda count: lambda case: case.replays >= count,
}


class Mark(NamedTuple):
    """What the replay mark says."""

    replays: int
    run: str
    """The run that has replayed the letter last."""
    first_id: str
    """Its ``MessageId`` when it was first replayed; every replay gives it a new one."""


def read_mark(letter: Letter) -> Mark | None:
    """Return the letter's replay mark; ``None`` when there is none that reads as one."""
    attribute = (letter.get("MessageAttributes") or {}).get(MARK)
    if attribute is None:
        return None
    parts = str(attribute.get("StringValue")).split(";")
    if len(parts) != len(Mark._fields) or not (parts[0].isascii() and parts[0].isdigit()):
        return None
    return Mark(int(parts[0]), parts[1], parts[2])


@dataclass(frozen=True, slots=True)
class Destination:
    """What the queue that letters are sent to takes."""

    fifo: bool
    max_message_bytes: int
    """Its ``MaximumMessageSize``: 1,024 to 1,048,576."""


class Unmarked:
    """What a run has replayed to where letters lose their mark, known again by their bodies.

    ``since`` is when the run looked at the queue first: what was sent before is no letter that has
    come back, whatever its body. ``delivered`` returns what is delivered of a letter's body.
    Threads may share it.
    """

    def __init__(self, since: float, delivered: Callable[[str], str]) -> None:
        self._since = since
        self._delivered = delivered
        self._sums: set[bytes] = set()

    def replayed(self, body: str) -> None:
        """Take note of a letter that was delivered."""
        self._sums.add(body_sum(self._delivered(body)))

    def has_come_back(self, letter: Letter) -> bool:
        """Return whether a letter was delivered by this run, and is dead again."""
        return sent_at(letter) > self._since and body_sum(letter["Body"]) in self._sums


def body_sum(body: str) -> bytes:
    """Return what a body is known by, however its JSON is written."""
    try:
        text = json.dumps(json.loads(body), sort_keys=True)
    except (ValueError, RecursionError):
        text = body
    return hashlib.md5(text.encode(errors="surrogatepass"), usedforsecurity=False).digest()


def sent_at(letter: Letter) -> float:
    """Return when a letter was first sent: a dead-letter queue that is not FIFO keeps that."""
    return int(letter["Attributes"]["SentTimestamp"]) / 1000


class Sorting:
    """Decides about letters, and makes what is sent of them, for one run."""

    def __init__(
        self,
        run: str,
        destination: Destination,
        rules: Rules,
        max_replays: int,
        unmarked: Unmarked | None = None,
    ) -> None:
        self._unmarked = unmarked
        self._run = run
        self._fifo = destination.fifo
        self._most_bytes = destination.max_message_bytes
        self._rules = rules
        self._max_replays = max_replays

    def judge(self, letter: Letter, now: float) -> tuple[Fate, int]:
        """Return what becomes of a letter, and the size of its entry.

        What cannot be sent is left only where the rules want it sent: quarantine needs no room.
        """
        # Surrogates, which JSON can hold and UTF-8 cannot, make another sum and so a damaged body.
        body = letter["Body"].encode(errors="surrogatepass")
        attributes = letter.get("MessageAttributes") or {}
        mark = read_mark(letter) if MARK in attributes else None
        size = len(body) + len(MARK) + len("String") + len(self._mark(letter, mark).encode())
        for name, value in attributes.items():
            if name != MARK:
                size += _attribute_size(name, value)
        if hashlib.md5(body, usedforsecurity=False).hexdigest() != letter["MD5OfBody"]:
            return DAMAGED, size
        if mark is not None:
            if mark.run == self._run:
                return BOUNCED, size
            if mark.replays >= self._max_replays:
                return TOO_OFTEN, size
        if self._unmarked is not None and self._unmarked.has_come_back(letter):
            return BOUNCED, size
        fate = REPLAY
        if self._rules.compiled:
            fate = self._rules.decide(letter, now, mark.replays if mark else 0)
        if fate.then == "replay":
            return self._obstacle(letter, size) or fate, size
        return fate, size

    def _obstacle(self, letter: Letter, size: int) -> Fate | None:
        attributes = letter.get("MessageAttributes") or {}
        if len(attributes) >= MOST_ATTRIBUTES and MARK not in attributes:
            return TEN_ATTRIBUTES
        if size > self._most_bytes:
            return TOO_LARGE
        if self._fifo and not group_of(letter):
            return NO_GROUP
        return None

    def replayed(self, letter: Letter) -> None:
        """Take note of a letter whose sending is confirmed."""
        if self._unmarked is not None:
            self._unmarked.replayed(letter["Body"])

    def entry(self, letter: Letter) -> Entry:
        """Return what is sent: the letter with all that it had, and its mark.

        To a FIFO queue it goes under a deduplication id of run and letter, so that SQS knows a
        second try and never takes a letter for one that came by within five minutes (Developer
        Guide, "Using the message deduplication ID").
        """
        key, system = letter["MessageId"], letter["Attributes"]
        attributes = letter.get("MessageAttributes") or {}
        mark = self._mark(letter, read_mark(letter) if MARK in attributes else None)
        entry = {
            "Id": key,
            "MessageBody": letter["Body"],
            "MessageAttributes": {
                **attributes,
                MARK: {"DataType": "String", "StringValue": mark},
            },
        }
        trace, group = system.get("AWSTraceHeader"), system.get("MessageGroupId")
        if trace:
            entry["MessageSystemAttributes"] = {
                "AWSTraceHeader": {"DataType": "String", "StringValue": trace}
            }
        if group:  # on standard queues it is what makes them fair
            entry["MessageGroupId"] = group
        if self._fifo:
            digest = hashlib.sha256(f"{self._run} {key}".encode())
            entry["MessageDeduplicationId"] = digest.hexdigest()
        return entry

    def _mark(self, letter: Letter, mark: Mark | None) -> str:
        if mark is None:
            return f"1;{self._run};{letter['MessageId']}"
        return f"{mark.replays + 1};{self._run};{mark.first_id}"


def _attribute_size(name: str, value: Mapping[str, Any]) -> int:
    size = len(name.encode()) + len(value["DataType"].encode())
    text = value.get("StringValue")
    if text is not None:
        return size + len(text.encode(errors="surrogatepass"))
    binary = value.get("BinaryValue") or ""
    return size + len(binary) * 3 // 4 - binary[-2:].count("=")


def group_of(letter: Letter) -> str:
    """Return the letter's ``MessageGroupId``, ``""`` when it has none."""
    return str(letter["Attributes"].get("MessageGroupId", ""))


def next_batch(waiting: deque[tuple[Letter, int]], *, ordered: bool) -> list[Letter]:
    """Take what one SendMessageBatch may hold from the front of letters with their sizes.

    Ten entries, 1 MiB together. ``ordered`` takes at most one letter of each group: SQS answers for
    each entry on its own, and a second letter must not arrive where the first one fails.
    """
    batch: list[Letter] = []
    passed: list[tuple[Letter, int]] = []
    groups: set[str] = set()
    room = BATCH_BYTES
    while waiting and len(batch) < BATCH_ENTRIES:
        letter, size = waiting[0]
        if ordered and group_of(letter) in groups:
            passed.append(waiting.popleft())
            continue
        if size > room and batch:
            break
        waiting.popleft()
        batch.append(letter)
        room -= size
        if ordered:
            groups.add(group_of(letter))
    waiting.extendleft(reversed(passed))
    return batch
