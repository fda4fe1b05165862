"""A fast SQS on 127.0.0.1, so that a benchmark measures clients: one process, all in memory.

It speaks AWS JSON 1.0 and, for older SDKs, the Query protocol with answers in XML. MD5 sums are
right (SQS Developer Guide, "Calculating the MD5 message digest for message attributes"), messages
are hidden, come back and can be waited for. FIFO queues number, remember deduplication ids for
five minutes and keep the order; they do not lock groups. Nobody is authenticated.

    with Server(latency=0.02) as server:      # its own process, ends with the block
        server.fill("orders-dlq", 20_000)     # answers with the queue's URL
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import heapq
import itertools
import json
import re
import struct
import subprocess
import sys
import time
import uuid
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl
from urllib.request import Request, urlopen
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ACCOUNT = "000000000000"
LIFETIME_SECONDS = 1800
"""A server that nobody stopped ends by itself."""
MOST_MESSAGES = 1_000_000
_WAIT_STEP = 0.02
_FIVE_MINUTES = 300
_MEBIBYTE = 1024 * 1024
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class SqsError(Exception):
    """An error as SQS answers it: by its JSON name and by the code of the Query protocol."""

    def __init__(self, code: str, message: str, name: str = "", status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.name = name or code.rsplit(".", 1)[-1]
        self.status = status


@dataclass(slots=True)
class Stored:
    """A message. `fixed` is the part of its JSON that no receive changes, as text."""

    fixed: str
    system: str
    id: str
    received: int = 0
    first: int = 0
    handle: str = ""


@dataclass
class Queue:
    """Messages that are visible, in order; those in flight by id; when they come back."""

    name: str
    visible: deque[Stored] = field(default_factory=deque)
    hidden: dict[str, tuple[Stored, float]] = field(default_factory=dict)
    returns: list[tuple[float, str]] = field(default_factory=list)
    remembered: dict[str, tuple[float, dict[str, Any]]] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(10**19))

    @property
    def fifo(self) -> bool:
        return self.name.endswith(".fifo")

    def hide(self, message: Stored, until: float) -> None:
        self.hidden[message.id] = message, until
        heapq.heappush(self.returns, (until, message.id))

    def bring_back(self, now: float) -> None:
        while self.returns and self.returns[0][0] <= now:
            until, key = heapq.heappop(self.returns)
            found = self.hidden.get(key)
            # Hidden anew or deleted meanwhile: then another entry speaks for it, or none.
            if found is not None and found[1] == until:
                del self.hidden[key]
                self.visible.appendleft(found[0])

    def find(self, handle: str) -> Stored | None:
        found = self.hidden.get(handle[:36])
        return found[0] if found is not None and found[0].handle == handle else None


class Sqs:
    """What is stored and what the calls do; parameters and answers in the shape of the JSON."""

    def __init__(self) -> None:
        self.queues: dict[str, Queue] = {}
        self.count = 0

    def call(self, action: str, given: dict[str, Any], host: str) -> tuple[str, bool]:
        """Return the answer as JSON text, and whether a wait could still bring messages."""
        if action in {"CreateQueue", "GetQueueUrl"}:
            name = given["QueueName"]
            if action == "CreateQueue":
                self.queues.setdefault(name, Queue(name))
            elif name not in self.queues:
                raise self._absent()
            return json.dumps({"QueueUrl": f"http://{host}/{ACCOUNT}/{name}"}), False
        if action == "ListQueues":
            prefix = given.get("QueueNamePrefix", "")
            names = [name for name in self.queues if name.startswith(prefix)]
            urls = [f"http://{host}/{ACCOUNT}/{name}" for name in names]
            return json.dumps({"QueueUrls": urls}), False
        queue = self.queues.get(given.get("QueueUrl", "").rsplit("/", 1)[-1])
        if queue is None:
            raise self._absent()
        work = _CALLS.get(action)
        if work is None:
            raise SqsError("InvalidAction", f"{action} is not played here")
        if action == "ReceiveMessage":
            text = self.receive(queue, given)
            return text, text == "{}"
        return json.dumps(work(self, queue, given)), False

    @staticmethod
    def _absent() -> SqsError:
        return SqsError(
            "AWS.SimpleQueueService.NonExistentQueue",
            "The specified queue does not exist.",
            "QueueDoesNotExist",
        )

    def receive(self, queue: Queue, given: Mapping[str, Any]) -> str:
        most = int(given.get("MaxNumberOfMessages", 1))
        if not 1 <= most <= 10:
            raise SqsError("InvalidParameterValue", f"Value {most} for MaxNumberOfMessages")
        now = time.time()
        queue.bring_back(now)
        until = now + int(given.get("VisibilityTimeout", 30))
        wanted = given.get("MessageAttributeNames")
        plain = bool(wanted and "All" in wanted)
        names = given.get("MessageSystemAttributeNames") or given.get("AttributeNames") or ()
        found = []
        for _ in range(min(most, len(queue.visible))):
            message = queue.visible.popleft()
            message.received += 1
            message.first = message.first or int(now * 1000)
            message.handle = f"{message.id}#{message.received:08d}{'A' * 100}"
            queue.hide(message, until)
            fixed = message.fixed if plain else message.fixed.split(',"MessageAttributes"')[0]
            system = (
                f',"Attributes":{{{message.system},"ApproximateReceiveCount":"{message.received}",'
                f'"ApproximateFirstReceiveTimestamp":"{message.first}"}}'
                if "All" in names
                else ""
            )
            found.append(f'{{{fixed},"ReceiptHandle":"{message.handle}"{system}}}')
        return f'{{"Messages":[{",".join(found)}]}}' if found else "{}"

    def store(self, queue: Queue, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Store a message; return the answer's entry without its Id. Raises SqsError."""
        body = entry["MessageBody"]
        if not body:
            raise SqsError("MissingParameter", "The request must contain a body.")
        if _ILLEGAL.search(body):
            raise SqsError("InvalidMessageContents", "The message contains illegal characters.")
        key = str(uuid.UUID(int=next(_ids)))
        digest = hashlib.md5(body.encode(), usedforsecurity=False).hexdigest()
        answer = {"MessageId": key, "MD5OfMessageBody": digest}
        fixed = {"MessageId": key, "MD5OfBody": digest, "Body": body}
        system = {"SenderId": "AIDAEXAMPLE", "SentTimestamp": str(int(time.time() * 1000))}
        if attributes := entry.get("MessageAttributes"):
            answer["MD5OfMessageAttributes"] = attributes_md5(attributes)
            fixed["MessageAttributes"] = attributes
            fixed["MD5OfMessageAttributes"] = answer["MD5OfMessageAttributes"]
        if extra := entry.get("MessageSystemAttributes"):
            system["AWSTraceHeader"] = extra["AWSTraceHeader"]["StringValue"]
            answer["MD5OfMessageSystemAttributes"] = attributes_md5(extra)
        if "MessageGroupId" in entry:
            system["MessageGroupId"] = entry["MessageGroupId"]
        if queue.fifo:
            before = self._number(queue, entry, answer, system)
            if before is not None:
                return before
        self._keep(queue, Stored(_inside(fixed), _inside(system), key), entry)
        return answer

    @staticmethod
    def _number(
        queue: Queue, entry: Mapping[str, Any], answer: dict[str, Any], system: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Number a FIFO message, or return the answer that its like got minutes ago."""
        if "MessageGroupId" not in entry:
            raise SqsError("MissingParameter", "The request must contain MessageGroupId.")
        dedup = (
            entry.get("MessageDeduplicationId")
            or hashlib.sha256(entry["MessageBody"].encode()).hexdigest()
        )
        before = queue.remembered.get(dedup)
        if before is not None and time.time() < before[0] + _FIVE_MINUTES:
            return before[1]
        answer["SequenceNumber"] = str(next(queue.numbers))
        system["MessageDeduplicationId"] = dedup
        system["SequenceNumber"] = answer["SequenceNumber"]
        queue.remembered[dedup] = time.time(), answer
        return None

    def _keep(self, queue: Queue, message: Stored, entry: Mapping[str, Any]) -> None:
        self.count += 1
        if self.count > MOST_MESSAGES:
            raise SqsError("OverLimit", "This server holds no more messages.", status=403)
        delay = int(entry.get("DelaySeconds", 0))
        if delay:
            queue.hide(message, time.time() + delay)
        else:
            queue.visible.append(message)

    def send_batch(self, queue: Queue, given: Mapping[str, Any]) -> dict[str, Any]:
        entries = _entries(given)
        size = sum(_size(entry) for entry in entries)
        if size > _MEBIBYTE:
            raise SqsError(
                "AWS.SimpleQueueService.BatchRequestTooLong",
                f"Batch requests cannot be longer than {_MEBIBYTE} bytes. You have sent {size}.",
            )
        return self._each(entries, lambda entry: self.store(queue, entry))

    def send(self, queue: Queue, given: Mapping[str, Any]) -> dict[str, Any]:
        return self.store(queue, given)

    def delete_batch(self, queue: Queue, given: Mapping[str, Any]) -> dict[str, Any]:
        return self._each(_entries(given), lambda entry: self.delete(queue, entry))

    def delete(self, queue: Queue, given: Mapping[str, Any]) -> dict[str, Any]:
        handle = given["ReceiptHandle"]
        if len(handle) < 40:
            raise SqsError("ReceiptHandleIsInvalid", f'"{handle}" is not a receipt handle.')
        if queue.find(handle) is not None:
            del queue.hidden[handle[:36]]
            self.count -= 1
        return {}

    def hide_batch(self, queue: Queue, given: Mapping[str, Any]) -> dict[str, Any]:
        return self._each(_entries(given), lambda entry: self.hide(queue, entry))

    def hide(self, queue: Queue, given: Mapping[str, Any]) -> dict[str, Any]:
        found = queue.find(given["ReceiptHandle"])
        if found is None:
            raise SqsError("ReceiptHandleIsInvalid", "The receipt handle is not in flight.")
        queue.hide(found, time.time() + int(given["VisibilityTimeout"]))
        return {}

    def attributes(self, queue: Queue, _given: Mapping[str, Any]) -> dict[str, Any]:
        queue.bring_back(time.time())
        counts = {
            "ApproximateNumberOfMessages": str(len(queue.visible)),
            "ApproximateNumberOfMessagesNotVisible": str(len(queue.hidden)),
            "ApproximateNumberOfMessagesDelayed": "0",
            "QueueArn": f"arn:aws:sqs:eu-west-1:{ACCOUNT}:{queue.name}",
        }
        return {"Attributes": counts}

    def purge(self, queue: Queue, _given: Mapping[str, Any]) -> dict[str, Any]:
        self.count -= len(queue.visible) + len(queue.hidden)
        self.queues[queue.name] = Queue(queue.name)
        return {}

    def fill(self, queue: Queue, given: Mapping[str, Any]) -> dict[str, Any]:
        """Not of SQS: put many like messages of `BodyBytes` in, each with a number of its own."""
        for number in range(int(given["Count"])):
            self.store(queue, sample(number, int(given["BodyBytes"])))
        return {}

    def _each(
        self, entries: list[dict[str, Any]], work: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> dict[str, Any]:
        done: list[dict[str, Any]] = []
        failed: list[dict[str, Any]] = []
        for entry in entries:
            try:
                done.append({"Id": entry["Id"], **work(entry)})
            except SqsError as error:
                failed.append(
                    {
                        "Id": entry["Id"],
                        "Code": error.code,
                        "Message": str(error),
                        "SenderFault": error.status < 500,
                    }
                )
        return {"Successful": done, **({"Failed": failed} if failed else {})}


_CALLS: Mapping[str, Callable[[Sqs, Queue, Mapping[str, Any]], dict[str, Any]]] = {
    "ChangeMessageVisibility": Sqs.hide,
    "ChangeMessageVisibilityBatch": Sqs.hide_batch,
    "DeleteMessage": Sqs.delete,
    "DeleteMessageBatch": Sqs.delete_batch,
    "Fill": Sqs.fill,
    "GetQueueAttributes": Sqs.attributes,
    "PurgeQueue": Sqs.purge,
    "ReceiveMessage": lambda *_: {},
    "SendMessage": Sqs.send,
    "SendMessageBatch": Sqs.send_batch,
}
_ids = itertools.count(uuid.uuid4().int >> 96 << 96)


def _inside(document: Mapping[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"))[1:-1]


def _entries(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = given.get("Entries") or []
    prefix = "AWS.SimpleQueueService."
    if not entries:
        raise SqsError(f"{prefix}EmptyBatchRequest", "There should be at least one entry.")
    if len(entries) > 10:
        raise SqsError(
            f"{prefix}TooManyEntriesInBatchRequest", "Maximum number of entries per request are 10."
        )
    if len({entry["Id"] for entry in entries}) < len(entries):
        raise SqsError(f"{prefix}BatchEntryIdsNotDistinct", "An Id is repeated.")
    return entries


def _size(entry: Mapping[str, Any]) -> int:
    size = len(entry["MessageBody"].encode())
    for name, value in (entry.get("MessageAttributes") or {}).items():
        binary = base64.b64decode(value.get("BinaryValue", ""))
        text = value.get("StringValue", "")
        size += len(name) + len(value["DataType"]) + len(binary) + len(text.encode())
    return size


def attributes_md5(attributes: Mapping[str, Mapping[str, str]]) -> str:
    """Return the MD5 of message attributes as SQS computes it."""
    parts = []
    for name in sorted(attributes):
        value = attributes[name]
        kind = value["DataType"].encode()
        binary = "BinaryValue" in value
        data = base64.b64decode(value["BinaryValue"]) if binary else value["StringValue"].encode()
        raw = name.encode()
        parts.append(
            struct.pack(">I", len(raw))
            + raw
            + struct.pack(">I", len(kind))
            + kind
            + (b"\2" if binary else b"\1")
            + struct.pack(">I", len(data))
            + data
        )
    return hashlib.md5(b"".join(parts), usedforsecurity=False).hexdigest()


def sample(number: int, body_bytes: int) -> dict[str, Any]:
    """Return a send entry as an order service would leave it: JSON, attributes, a trace header."""
    body = json.dumps(
        {"order": number, "customer": f"c-{number % 977}", "error": "timeout", "pad": ""}
    )
    body = f"{body[:-2]}{'x' * max(0, body_bytes - len(body))}{body[-2:]}"
    return {
        "MessageBody": body,
        "MessageAttributes": {
            "tenant": {"DataType": "String", "StringValue": f"tenant-{number % 17}"},
            "attempt": {"DataType": "Number", "StringValue": "3"},
            "digest": {"DataType": "Binary", "BinaryValue": "AAECAwQFBgcICQ=="},
        },
        "MessageSystemAttributes": {
            "AWSTraceHeader": {
                "DataType": "String",
                "StringValue": f"Root=1-5759e988-{number:024x};Sampled=1",
            }
        },
    }


# The Query protocol: parameters by dotted names in, XML out.

_LISTS = {
    "SendMessageBatchRequestEntry": "Entries",
    "DeleteMessageBatchRequestEntry": "Entries",
    "ChangeMessageVisibilityBatchRequestEntry": "Entries",
    "AttributeName": "AttributeNames",
    "MessageAttributeName": "MessageAttributeNames",
    "MessageSystemAttributeName": "MessageSystemAttributeNames",
}
_MAPS = {
    "MessageAttribute": "MessageAttributes",
    "MessageSystemAttribute": "MessageSystemAttributes",
}


def from_query(body: bytes) -> tuple[str, dict[str, Any]]:
    """Return the action and its parameters as the JSON protocol would carry them."""
    tree: dict[str, Any] = {}
    for name, value in parse_qsl(body.decode(), keep_blank_values=True):
        node = tree
        *above, last = name.split(".")
        for part in above:
            node = node.setdefault(part, {})
        node[last] = value
    return tree.pop("Action"), _shaped(tree)


def _shaped(tree: dict[str, Any]) -> dict[str, Any]:
    shaped: dict[str, Any] = {}
    for name, value in tree.items():
        if name in _LISTS:
            ordered = [value[key] for key in sorted(value, key=int)]
            shaped[_LISTS[name]] = [
                _shaped(one) if isinstance(one, dict) else one for one in ordered
            ]
        elif name in _MAPS:
            shaped[_MAPS[name]] = {one["Name"]: one["Value"] for one in value.values()}
        else:
            shaped[name] = value
    return shaped


def to_xml(action: str, answer: dict[str, Any]) -> str:
    """Return the answer of an action as the Query protocol words it."""
    parts: list[str] = []
    for name, value in answer.items():
        if name == "Messages":
            parts += [_element("Message", _message_fields(message)) for message in value]
        elif name == "QueueUrls":
            parts += [_xml("QueueUrl", url) for url in value]
        elif name == "Attributes":
            parts += _pairs("Attribute", value)
        elif name == "Successful":
            parts += [_xml(f"{action}ResultEntry", one) for one in value]
        elif name == "Failed":
            parts += [_xml("BatchResultErrorEntry", one) for one in value]
        else:
            parts.append(_xml(name, value))
    return (
        f'<?xml version="1.0"?><{action}Response xmlns="http://queue.amazonaws.com/doc/2012-11-05/">'
        f"<{action}Result>{''.join(parts)}</{action}Result><ResponseMetadata><RequestId>"
        f"{uuid.UUID(int=0)}</RequestId></ResponseMetadata></{action}Response>"
    )


def _message_fields(message: dict[str, Any]) -> str:
    parts = []
    for name, value in message.items():
        if name == "Attributes":
            parts += _pairs("Attribute", value)
        elif name == "MessageAttributes":
            parts += _pairs("MessageAttribute", value)
        else:
            parts.append(_xml(name, value))
    return "".join(parts)


def _pairs(name: str, values: Mapping[str, Any]) -> list[str]:
    return [_element(name, _xml("Name", key) + _xml("Value", one)) for key, one in values.items()]


def _xml(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return _element(name, "".join(_xml(key, one) for key, one in value.items()))
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return _element(name, escape(text, {"\r": "&#13;"}))


def _element(name: str, inner: str) -> str:
    return f"<{name}>{inner}</{name}>"


@dataclass(frozen=True, slots=True)
class Called:
    """A request as it arrived; header names are lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes


class Connection(asyncio.Protocol):
    """One keep-alive connection. Requests on it are answered in turn, as no client pipelines."""

    def __init__(self, sqs: Sqs, latency: float = 0) -> None:
        self.sqs = sqs
        self.latency = latency
        self.transport: asyncio.Transport | None = None
        self._data = b""
        self._parts: list[bytes] = []
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        # Big bodies arrive in many pieces; joining them once keeps that linear.
        self._parts.append(data)
        self._missing -= len(data)
        if self._missing > 0:
            return
        data = b"".join(self._parts)
        self._parts = [data]
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return
        lines = data[:end].decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        size = end + 4 + int(headers.get("content-length", "0"))
        if len(data) < size:
            self._missing = size - len(data)
            if headers.get("expect"):
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return
        self._parts = []
        self._missing = 0
        self.answer(Called(lines[0].split(" ")[1], headers, data[end + 4 : size]))

    def answer(self, called: Called) -> None:
        """Do what is asked at once; answer after the latency, or when a wait is over."""
        query = "x-amz-target" not in called.headers
        action = called.headers.get("x-amz-target", "").removeprefix("AmazonSQS.")
        host = called.headers.get("host", "")
        try:
            if query:
                action, given = from_query(called.body)
                given.setdefault("QueueUrl", called.path)
            else:
                given = json.loads(called.body or b"{}")
            text, empty = self.sqs.call(action, given, host)
        except SqsError as error:
            self.refuse(error, query=query)
            return
        wait = float(given.get("WaitTimeSeconds", 0))
        if empty and wait > 0:
            self._wait(action, given, host, time.monotonic() + wait, query=query)
        else:
            self.later(self.latency, self._document, action, text, query)

    def _wait(
        self, action: str, given: dict[str, Any], host: str, deadline: float, *, query: bool
    ) -> None:
        text, empty = self.sqs.call(action, given, host)
        if empty and time.monotonic() < deadline and not self._gone():
            asyncio.get_running_loop().call_later(
                _WAIT_STEP, lambda: self._wait(action, given, host, deadline, query=query)
            )
        else:
            self.later(self.latency, self._document, action, text, query)

    def _gone(self) -> bool:
        return self.transport is None or self.transport.is_closing()

    def _document(self, action: str, text: str, query: bool) -> None:  # noqa: FBT001 -- a callback
        if query:
            self.respond(200, to_xml(action, json.loads(text)).encode(), "text/xml")
        else:
            self.respond(200, text.encode(), "application/x-amz-json-1.0")

    def refuse(self, error: SqsError, *, query: bool) -> None:
        """Answer an error."""
        fault = "Sender" if error.status < 500 else "Receiver"
        if query:
            text = (
                f"<ErrorResponse><Error><Type>{fault}</Type><Code>{error.code}</Code>"
                f"<Message>{escape(str(error))}</Message></Error></ErrorResponse>"
            )
            self.respond(error.status, text.encode(), "text/xml")
            return
        document = {"__type": f"com.amazonaws.sqs#{error.name}", "message": str(error)}
        self.respond(
            error.status,
            json.dumps(document).encode(),
            "application/x-amz-json-1.0",
            f"x-amzn-query-error: {error.code};{fault}\r\n",
        )

    def respond(self, status: int, body: bytes, kind: str, more: str = "") -> None:
        """Write an answer."""
        head = (
            f"HTTP/1.1 {status} -\r\nx-amzn-RequestId: {uuid.UUID(int=0)}\r\n"
            f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
        )
        self.write(head.encode() + body)

    def later(self, seconds: float, work: Callable[..., None], *arguments: Any) -> None:
        """Do it after so many seconds, or at once."""
        if seconds:
            asyncio.get_running_loop().call_later(seconds, work, *arguments)
        else:
            work(*arguments)

    def write(self, data: bytes) -> None:
        """Write to a client that may be gone."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)


class Server:
    """The server in a process of its own, from `with` to its end."""

    def __init__(self, latency: float = 0) -> None:
        self.latency = latency
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(  # noqa: S603 -- our own interpreter and file
            [sys.executable, str(Path(__file__)), str(self.latency)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{self._process.stdout.readline().strip()}"
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._process is not None
        return self._process.pid

    def fill(self, name: str, count: int, body_bytes: int = 600) -> str:
        """Empty a queue, put so many messages in, return its URL."""
        url = str(self.call("CreateQueue", QueueName=name)["QueueUrl"])
        self.call("PurgeQueue", QueueUrl=url)
        if count:
            self.call("Fill", QueueUrl=url, Count=count, BodyBytes=body_bytes)
        return url

    def length(self, url: str) -> int:
        """Return how many messages a queue holds, in flight ones too."""
        counts = self.call("GetQueueAttributes", QueueUrl=url)["Attributes"]
        return int(counts["ApproximateNumberOfMessages"]) + int(
            counts["ApproximateNumberOfMessagesNotVisible"]
        )

    def call(self, action: str, **given: Any) -> dict[str, Any]:
        """Make a call without a signature."""
        request = Request(  # noqa: S310 -- our own server's URL
            self.url, json.dumps(given).encode(), {"X-Amz-Target": f"AmazonSQS.{action}"}
        )
        with urlopen(request, timeout=300) as answer:  # noqa: S310 -- as above
            document: dict[str, Any] = json.load(answer)
            return document


async def _main(latency: float) -> None:
    loop = asyncio.get_running_loop()
    sqs = Sqs()
    server = await loop.create_server(lambda: Connection(sqs, latency), "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 -- how the parent learns it
    # Whoever started it holds the other end of stdin; when that is gone, nobody needs it.
    gone = loop.run_in_executor(None, sys.stdin.read)
    await asyncio.wait([gone], timeout=LIFETIME_SECONDS)
    server.close()


if __name__ == "__main__":
    asyncio.run(_main(float(sys.argv[1])))
