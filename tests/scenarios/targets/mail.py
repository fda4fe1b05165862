"""Dead letters as a story gives them, as they lie in the embedded SQS's memory, and as they arrive.

What a letter of each kind looks like, from AWS's documentation:

- of an SQS queue: the system attribute DeadLetterQueueSourceArn, the time at which it was first
  sent and its count of receives (SQS Developer Guide, "Using dead-letter queues");
- of a function: the event, with RequestID, ErrorCode and ErrorMessage (Lambda Developer Guide,
  "Adding a dead-letter queue");
- of a rule: the event, with RULE_ARN, TARGET_ARN and the error (EventBridge User Guide, "Using
  dead-letter queues to process undelivered events");
- of a topic: SNS's envelope (SNS Developer Guide, "HTTP/HTTPS notification JSON format");
- of a custom event bus: a record that is not the event.
"""

import base64
import hashlib
import json
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ministack.services import sqs

from oncall.letters import MARK

_TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
_GROUP: Mapping[str, Any] = {
    "count": 1,
    "age_seconds": 600,
    "receives": 3,
    "replays": 0,
    "kind": "queue",
    "source": 1,
    "damaged": False,
}
"""What is so of letters of which a story says nothing else."""
_KEPT = ("SenderId", "SentTimestamp", "AWSTraceHeader", "DeadLetterQueueSourceArn")

type Json = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """What is to be the same wherever a letter is met again."""

    token: str
    """The secret in its body, by which the story knows it."""
    body: str
    digest: str
    attributes: str
    """Its message attributes as text, the replay mark among them."""
    unmarked: str
    """The same without the mark."""
    mark: str
    group: str
    trace: str
    system: tuple[str, ...]
    """When it was sent, by whom, its trace, and where it died."""


@dataclass
class Mail:
    """Everything that has ever lain in a story's dead-letter queue or come to its sources."""

    dlq: str
    """The ARN of the dead-letter queue."""
    sources: list[str]
    secret: str = field(default_factory=lambda: f"secret-{uuid.uuid4().hex[:12]}")
    """In every body and in an attribute of every letter."""
    dead: dict[str, Seen] = field(default_factory=dict)
    """By MessageId, all that were ever dead letters."""
    tokens: list[str] = field(default_factory=list)
    """Of all letters, in the order in which they were given."""
    arrived: list[tuple[str, Seen]] = field(default_factory=list)
    """MessageId and letter, of all that consumers have taken, in order."""
    events: list[Any] = field(default_factory=list)
    """What the function was called with, in order."""
    function_arn: str = ""
    """Whom a rule's letters were for."""
    received: dict[str, int] = field(default_factory=dict)
    """How often each letter that was given had been received, by MessageId."""
    returned: set[str] = field(default_factory=set)
    """MessageIds of those that have become dead letters again."""

    def queue(self, arn: str) -> Json:
        """Return a queue as the embedded SQS holds it; within ``request_scope``."""
        found: Json = sqs._queue_by_arn(arn)
        return found

    def give(self, groups: Any) -> None:
        """Put letters into the dead-letter queue, as SQS has them after a redrive."""
        queue = self.queue(self.dlq)
        for group in [{"count": groups}] if isinstance(groups, int) else groups:
            wanted = {**_GROUP, **group}
            for _ in range(wanted["count"]):
                message = self._message(wanted, queue)
                self.register(message)
                self.received[message["id"]] = message["receive_count"]
                queue["messages"].append(message)

    def vanish(self, count: int) -> None:
        """Let somebody delete dead letters that nobody has told of."""
        messages = self.queue(self.dlq)["messages"]
        for message in messages[-count:]:
            self.tokens.remove(self.dead.pop(message["id"]).token)
        del messages[-count:]

    def give_again(self, event: Any) -> None:
        """Let an event that a function has failed on once more be a dead letter, as Lambda does."""
        queue = self.queue(self.dlq)
        wanted = {**_GROUP, "age_seconds": 0, "receives": 0, "kind": "function"}
        body = json.dumps(event)
        message = self._message(wanted, queue, self.token(body))
        message |= {"body": body, "md5_body": _md5(body)}
        self.register(message)
        self.returned.add(f"call {len(self.events) - 1}")
        queue["messages"].append(message)

    def _message(self, wanted: Mapping[str, Any], queue: Json, token: str = "") -> Json:
        number = len(self.tokens)
        if not token:
            token = f"{self.secret}-{number:05}"
            self.tokens.append(token)
        message_id = str(uuid.uuid4())
        body, attributes = _CONTENT[wanted["kind"]](wanted, token)
        if "TARGET_ARN" in attributes:
            attributes["TARGET_ARN"] = _attribute(self.function_arn)
        if wanted["replays"]:
            earlier = f"{wanted['replays']};an-earlier-run;{uuid.uuid4()}"
            attributes[MARK] = {"DataType": "String", "StringValue": earlier}
        now = time.time()
        system = {
            "SenderId": "AIDAPRODUCER",
            "SentTimestamp": str(int((now - wanted["age_seconds"]) * 1000)),
            "AWSTraceHeader": _TRACE,
        }
        if wanted["kind"] == "queue":
            sources = self.sources or [f"{self.dlq}-source-that-is-gone"]
            system["DeadLetterQueueSourceArn"] = sources[wanted["source"] - 1]
        group = wanted.get("group", "all" if queue["is_fifo"] else None)
        if isinstance(group, list):
            group = group[number % len(group)]
        queue["fifo_seq"] += 1
        digest = _md5(body)
        message = {
            "id": message_id,
            "body": body,
            "md5_body": "0" * len(digest) if wanted["damaged"] else digest,
            "sent_at": now,
            "visible_at": now,
            "receive_count": wanted["receives"],
            "first_receive_at": now - wanted["age_seconds"] / 2,
            "message_attributes": attributes,
            "sys": system,
            "group_id": group,
        }
        if queue["is_fifo"]:
            message |= {"dedup_id": message_id, "seq": str(queue["fifo_seq"]).zfill(20)}
        sqs._ensure_msg_fields(message)
        return message

    def register(self, message: Json, source: str = "") -> None:
        """Note a dead letter as it is; ``source`` is the queue in which it has just died."""
        system = dict(message["sys"])
        if source:
            system["DeadLetterQueueSourceArn"] = source
        self.dead[message["id"]] = self.seen({**message, "sys": system})

    def seen(self, message: Json) -> Seen:
        """Return what is to be the same of a message in the embedded SQS's memory."""
        return self.read(
            {
                "Body": message["body"],
                "MD5OfBody": message["md5_body"],
                "MessageAttributes": message["message_attributes"],
                "Attributes": {
                    **message["sys"],
                    **({"MessageGroupId": message["group_id"]} if message["group_id"] else {}),
                },
            }
        )

    def read(self, letter: Json) -> Seen:
        """Return what is to be the same of a letter as SQS answers it."""
        attributes = dict(letter.get("MessageAttributes") or {})
        system = letter["Attributes"]
        everything = _text(attributes)
        mark = attributes.pop(MARK, {})
        return Seen(
            token=self.token(letter["Body"]),
            body=letter["Body"],
            digest=letter["MD5OfBody"],
            attributes=everything,
            unmarked=_text(attributes),
            mark=str(mark.get("StringValue", "")),
            group=str(system.get("MessageGroupId", "")),
            trace=str(system.get("AWSTraceHeader", "")),
            system=tuple(str(system.get(name, "")) for name in _KEPT),
        )

    def token(self, body: str) -> str:
        """Return the secret that is in a text."""
        found = re.search(rf"{self.secret}-\d{{5}}", body)
        return found[0] if found else ""

    def delivered(self) -> list[tuple[str, Seen]]:
        """Return the letters that the function was called for, each by its call's number."""
        dead = {letter.token: letter for letter in self.dead.values()}
        found = []
        for number, event in enumerate(self.events):
            letter = dead[self.token(json.dumps(event))]
            was = json.loads(letter.body)
            same = (
                event == was or event.get("Records", [{}])[0].get("Sns", {}).items() >= was.items()
            )
            assert same, f"{letter.token} was not delivered as it was"
            found.append((f"call {number}", letter))
        return found

    def lying(self, arn: str) -> list[Json]:
        """Return the messages of a queue, hidden ones too; within ``request_scope``."""
        queue = self.queue(arn)
        return list(queue["messages"]) if queue else []

    def letters(self) -> list[tuple[str, Seen]]:
        """Return all that have come to sources or function, in order; within ``request_scope``."""
        waiting = [
            (message["id"], self.seen(message))
            for arn in self.sources
            for message in self.lying(arn)
        ]
        return [*self.arrived, *self.delivered(), *waiting]


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _text(attributes: Mapping[str, Any]) -> str:
    plain = {
        name: {key: _plain(value) for key, value in attribute.items() if value}
        for name, attribute in attributes.items()
    }
    return json.dumps(plain, sort_keys=True)


def _plain(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _attributes(wanted: Mapping[str, Any], token: str) -> Json:
    """Return attributes in SQS's shape; without a word of the story's, one of each type."""
    given = wanted.get("attributes")
    if given is None:
        binary = base64.b64encode(token.encode() + bytes(range(32))).decode()
        given = {"card": token, "attempt": 2, "signature": {"binary": binary}}
    return {name: _attribute(value) for name, value in given.items()}


def _attribute(value: Any) -> Json:
    if isinstance(value, dict):
        return {"DataType": "Binary", "BinaryValue": value["binary"]}
    kind = "String" if isinstance(value, str) else "Number"
    return {"DataType": kind, "StringValue": str(value)}


def _body(wanted: Mapping[str, Any], token: str) -> str:
    """Return the body that the story gives, with the secret in it, as large as it is to be."""
    given = wanted.get("body", {})
    size = int(wanted.get("bytes", 0))
    if isinstance(given, str):
        text = f"{given} {token}"
        return text + "." * (size - len(text.encode()))
    document = {"card": token, **given}
    short = size - len(json.dumps({**document, "padding": ""}).encode())
    return json.dumps({**document, "padding": "." * short} if short > 0 else document)


def _of_queue(wanted: Mapping[str, Any], token: str) -> tuple[str, Json]:
    return _body(wanted, token), _attributes(wanted, token)


def _of_function(wanted: Mapping[str, Any], token: str) -> tuple[str, Json]:
    attributes = {
        "RequestID": str(uuid.uuid4()),
        "ErrorCode": 200,
        "ErrorMessage": f"refused {token}",
    }
    return _body(wanted, token), {name: _attribute(value) for name, value in attributes.items()}


def _of_rule(wanted: Mapping[str, Any], token: str) -> tuple[str, Json]:
    attributes = {
        "RULE_ARN": "arn:aws:events:eu-west-1:123456789012:rule/orders",
        "TARGET_ARN": "",
        "ERROR_CODE": "NO_PERMISSIONS",
        "ERROR_MESSAGE": f"refused {token}",
        "EXHAUSTED_RETRY_CONDITION": "MaximumRetryAttempts",
        "RETRY_ATTEMPTS": 3,
    }
    return _body(wanted, token), {name: _attribute(value) for name, value in attributes.items()}


def _of_topic(wanted: Mapping[str, Any], token: str) -> tuple[str, Json]:
    envelope = {
        "Type": "Notification",
        "MessageId": str(uuid.uuid4()),
        "TopicArn": "arn:aws:sns:eu-west-1:123456789012:orders",
        "Message": _body(wanted, token),
        "Timestamp": "2026-11-23T03:02:11.000Z",
        "SignatureVersion": "1",
    }
    return json.dumps(envelope), {}


def _of_bus(wanted: Mapping[str, Any], token: str) -> tuple[str, Json]:
    record = {
        "busArn": "arn:aws:events:eu-west-1:123456789012:event-bus/orders",
        "targetArn": "arn:aws:sqs:eu-west-1:123456789012:orders",
        "errorCode": "ACCESS_DENIED",
        "exhaustedRetryCondition": "MaximumRetryAttempts",
        "failedMessages": [{"id": str(uuid.uuid4()), "body": _body(wanted, token)}],
    }
    return json.dumps(record), {}


_CONTENT = {
    "queue": _of_queue,
    "function": _of_function,
    "rule": _of_rule,
    "topic": _of_topic,
    "record": _of_bus,
    "unknown": _of_queue,
}
