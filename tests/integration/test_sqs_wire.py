"""sqs_wire against boto3: the same calls, the same answers, the same contents of queues."""

import itertools
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.credentials import Credentials, RefreshableCredentials
from botocore.exceptions import NoCredentialsError

from oncall import sqs_wire
from oncall.sqs_wire import Queue, Refused, Throttled, Unreachable
from tests.integration.sqs_servers import (
    REGION,
    BotoQueue,
    Fault,
    LocalSqs,
    close,
    error,
    session_with,
    silence,
    written,
)

type AnyQueue = Queue | BotoQueue
MEBIBYTE = 1024 * 1024
_names = itertools.count()
TRACE = {
    "AWSTraceHeader": {
        "DataType": "String",
        "StringValue": "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1",
    }
}
PLAIN: list[dict[str, Any]] = [
    {"Id": "bare", "MessageBody": "x"},
    {"Id": "unicode", "MessageBody": 'Grüße, 世界 🌍 \u2028 \\ " \t\n\r </Body>'},
    {"Id": "space", "MessageBody": " "},
    {
        "Id": "attributes",
        "MessageBody": "{}",
        "MessageAttributes": {
            "text": {"DataType": "String", "StringValue": "ä 🌍"},
            "number": {"DataType": "Number", "StringValue": "-12.50e3"},
            "binary": {"DataType": "Binary", "BinaryValue": "AAH/gA=="},
            "text.kind": {"DataType": "String.uuid", "StringValue": "6f9619ff"},
            "number_kind": {"DataType": "Number.int", "StringValue": "7"},
            "binary-kind": {"DataType": "Binary.gif", "BinaryValue": "R0lG"},
        },
    },
    {
        "Id": "ten",
        "MessageBody": "ten attributes",
        "MessageAttributes": {
            f"a{number}": {"DataType": "String", "StringValue": str(number)} for number in range(10)
        },
    },
    {"Id": "trace", "MessageBody": "traced", "MessageSystemAttributes": TRACE},
    {"Id": "fair", "MessageBody": "of a tenant", "MessageGroupId": "tenant-1"},
]
FIFO: list[dict[str, Any]] = [
    {
        "Id": str(number),
        "MessageBody": f"letter {number}",
        "MessageGroupId": f"group-{number % 3}",
        "MessageDeduplicationId": f"once-{number // 2}",
    }
    for number in range(8)
]


@dataclass
class Service:
    """A running SQS."""

    session: boto3.session.Session
    region: str
    queue: Callable[[str], str]
    """Makes a queue, given the end of its name; returns its URL."""


@pytest.fixture(scope="module")
def local() -> Iterator[LocalSqs]:
    with LocalSqs() as server:
        yield server


@pytest.fixture(params=["embedded", "fast"])
def service(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, local: LocalSqs
) -> Service:
    if request.param == "embedded":
        aws = request.getfixturevalue("embedded_aws")

        def make(suffix: str) -> str:
            name = f"queue-{next(_names)}{suffix}"
            fifo = {"FifoQueue": "true"} if suffix else {}
            created = aws.client("sqs").create_queue(QueueName=name, Attributes=fifo)
            return str(created["QueueUrl"])

        return Service(aws.session(), aws.region, make)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", local.url)
    local.faults.clear()
    return Service(local.session(), REGION, local.queue)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch, local: LocalSqs) -> LocalSqs:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", local.url)
    local.faults.clear()
    local.called.clear()
    return local


@pytest.fixture
def opened() -> Iterator[Callable[..., AnyQueue]]:
    queues: list[AnyQueue] = []

    def open_(kind: type[AnyQueue], *arguments: Any) -> AnyQueue:
        queues.append(kind(*arguments))
        return queues[-1]

    yield open_
    for queue in queues:
        queue.close()


@pytest.fixture
def pair(service: Service, opened: Callable[..., AnyQueue]) -> Callable[..., list[AnyQueue]]:
    """Open two new queues, one by each client."""

    def make(suffix: str = "") -> list[AnyQueue]:
        return [
            opened(kind, service.session, service.queue(suffix), service.region)
            for kind in (Queue, BotoQueue)
        ]

    return make


def _everything(queue: AnyQueue) -> list[dict[str, Any]]:
    """Receive what there is, without what differs between two messages that are alike."""
    found = []
    while messages := queue.receive(10, 60, 0):
        for message in messages:
            del message["MessageId"], message["ReceiptHandle"]
            for name in ("SentTimestamp", "ApproximateFirstReceiveTimestamp", "SequenceNumber"):
                message.get("Attributes", {}).pop(name, None)
            found.append(message)
    return sorted(found, key=lambda message: str(message["Body"]))


def _said(call: Callable[[], object]) -> object:
    """Return what a call answers or raises, in a form to compare."""
    try:
        return call()
    except (Refused, Throttled, Unreachable) as raised:
        return type(raised), getattr(raised, "code", None), getattr(raised, "message", None)


@pytest.mark.parametrize("entries", [PLAIN, FIFO], ids=["standard", "fifo"])
def test_what_is_sent_is_the_same_and_read_the_same(
    pair: Callable[..., list[AnyQueue]],
    service: Service,
    opened: Callable[..., AnyQueue],
    entries: list[dict[str, Any]],
) -> None:
    ours, twin = pair(".fifo" if entries is FIFO else "")
    answers = [queue.send(entries) for queue in (ours, twin)]
    sums = [{key: md5 for key, (_, md5) in answer.successful.items()} for answer in answers]
    assert sums[0] == sums[1]
    assert set(sums[0]) == {entry["Id"] for entry in entries}
    assert answers[0].failed == answers[1].failed == {}

    crossed = opened(Queue, service.session, twin.url, service.region)
    by_ours = ours.receive(10, 0, 1)
    assert len(by_ours) == (4 if entries is FIFO else 7)
    # Each queue is read by both clients, and both queues hold the same.
    counts = [_everything(queue) for queue in (ours, crossed)]
    for messages in counts:
        for message in messages:
            message["Attributes"].pop("ApproximateReceiveCount")
    assert counts[0] == counts[1]


@pytest.mark.parametrize("entries", [PLAIN, FIFO], ids=["standard", "fifo"])
def test_one_queue_is_read_alike_by_both(
    service: Service, opened: Callable[..., AnyQueue], entries: list[dict[str, Any]]
) -> None:
    url = service.queue(".fifo" if entries is FIFO else "")
    ours, twin = (opened(kind, service.session, url, service.region) for kind in (Queue, BotoQueue))
    twin.send(entries)
    read = []
    for queue in (ours, twin):
        messages = queue.receive(10, 60, 1)
        queue.hide({one["MessageId"]: one["ReceiptHandle"] for one in messages}, 0)
        for message in messages:
            del message["ReceiptHandle"]
            del message["Attributes"]["ApproximateReceiveCount"]
        read.append(sorted(messages, key=lambda one: str(one["MessageId"])))
    assert read[0] == read[1]
    assert len(read[0]) == (4 if entries is FIFO else 7)


def test_what_was_received_can_be_sent_as_it_is(pair: Callable[..., list[AnyQueue]]) -> None:
    source, target = pair()
    source.send(PLAIN)
    before = source.receive(10, 60, 1)
    target.send(
        [
            {
                "Id": one["MessageId"],
                "MessageBody": one["Body"],
                "MessageAttributes": one.get("MessageAttributes", {}),
            }
            for one in before
        ]
    )
    after = {one["Body"]: one for one in target.receive(10, 60, 1)}
    assert set(after) == {one["Body"] for one in before}
    for one in before:
        again = after[one["Body"]]
        assert again.get("MessageAttributes") == one.get("MessageAttributes")
        assert again.get("MD5OfMessageAttributes") == one.get("MD5OfMessageAttributes")


def test_failed_entries_are_told_and_the_others_done(pair: Callable[..., list[AnyQueue]]) -> None:
    entries = [
        {"Id": "good", "MessageBody": "good"},
        {"Id": "bad", "MessageBody": "bad \x01"},
        {"Id": "fine", "MessageBody": "fine"},
    ]
    answers = []
    for queue in pair():
        sent = queue.send(entries)
        received = queue.receive(10, 60, 1)
        handles = {one["MessageId"]: one["ReceiptHandle"] for one in received}
        assert {key for key, _ in sent.successful.values()} == set(handles)
        answers.append(
            (
                set(sent.successful),
                sent.failed,
                queue.hide({"wrong": "no-handle", **handles}, 60),
                queue.delete({"wrong": "no-handle", **handles}),
            )
        )
    assert answers[0] == answers[1]
    sent_ids, failed, not_hidden, not_deleted = answers[0]
    assert sent_ids == {"good", "fine"}
    assert failed["bad"].code == "InvalidMessageContents"
    assert failed["bad"].sender_fault
    assert not_hidden == not_deleted == {"wrong"}


def test_refusals_have_boto3s_codes(
    service: Service, pair: Callable[..., list[AnyQueue]], opened: Callable[..., AnyQueue]
) -> None:
    eleven = {f"id-{number}": "handle" for number in range(11)}
    same = [{"Id": "a", "MessageBody": "x"}, {"Id": "a", "MessageBody": "y"}]
    calls: list[Callable[[AnyQueue], object]] = [
        lambda queue: queue.delete({}),
        lambda queue: queue.delete(eleven),
        lambda queue: queue.hide(eleven, 0),
        lambda queue: queue.send(same),
        lambda queue: queue.receive(11, 0, 0),
        lambda queue: queue.send(
            [{"Id": name, "MessageBody": "x" * 700_000} for name in ("a", "b")]
        ),
    ]
    ours, twin = pair()
    answers = [[_said(partial(call, queue)) for call in calls] for queue in (ours, twin)]
    assert answers[0] == answers[1]
    assert all(isinstance(one, tuple) and one[0] is Refused for one in answers[0])

    url = f"{ours.url}-absent"
    absent = [
        _said(partial(opened(kind, service.session, url, service.region).receive, 1, 0, 0))
        for kind in (Queue, BotoQueue)
    ]
    assert absent[0] == absent[1]
    assert absent[0][1] == "AWS.SimpleQueueService.NonExistentQueue"  # type: ignore[index]  # a tuple


def test_a_mebibyte_goes_through(pair: Callable[..., list[AnyQueue]]) -> None:
    for body in ("x" * MEBIBYTE, "🌍" * (MEBIBYTE // 4)):
        for queue in pair():
            sent = queue.send([{"Id": "big", "MessageBody": body}])
            assert not sent.failed
            (message,) = queue.receive(10, 60, 1)
            assert message["Body"] == body
            assert message["MD5OfBody"] == sent.successful["big"][1]


def test_a_signature_by_another_secret_is_refused(
    fast: LocalSqs, opened: Callable[..., AnyQueue]
) -> None:
    wrong = session_with(Credentials("AKIDEXAMPLE", "another"))
    for kind in (Queue, BotoQueue):
        queue = opened(kind, wrong, fast.queue(), REGION)
        with pytest.raises(Refused) as refused:
            queue.receive(1, 0, 0)
        assert refused.value.code == "SignatureDoesNotMatch"


@pytest.mark.parametrize("kind", [Queue, BotoQueue])
def test_expired_credentials_are_renewed(
    fast: LocalSqs, opened: Callable[..., AnyQueue], kind: type[AnyQueue]
) -> None:
    given = Counter[str]()

    def renew() -> dict[str, str]:
        given["times"] += 1
        token = f"token-{given['times']}"
        fast.secrets = {f"AKID{given['times']}": ("secret", token)}
        # Botocore asks anew at fifteen minutes, and must at ten.
        minutes = 5 if given["times"] < 3 else 60
        expiry = datetime.now(UTC) + timedelta(minutes=minutes)
        return {
            "access_key": f"AKID{given['times']}",
            "secret_key": "secret",
            "token": token,
            "expiry_time": expiry.isoformat(),
        }

    before = fast.secrets
    try:
        credentials = RefreshableCredentials.create_from_metadata(renew(), renew, "test")
        queue = opened(kind, session_with(credentials), fast.queue(), REGION)
        for _ in range(4):
            assert queue.receive(1, 0, 0) == []
        assert given["times"] == 3

        fast.secrets = {"AKIDOTHER": ("secret", None)}
        with pytest.raises(Refused) as refused:
            queue.receive(1, 0, 0)
        assert refused.value.code == "ExpiredToken"
    finally:
        fast.secrets = before


def test_without_credentials_there_is_no_queue(
    fast: LocalSqs, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = fast.session()
    monkeypatch.setattr(session, "get_credentials", lambda: None)
    with pytest.raises(NoCredentialsError):
        Queue(session, fast.queue(), REGION)


CALLS: dict[str, Callable[[Queue], object]] = {
    "ReceiveMessage": lambda queue: queue.receive(1, 0, 0),
    "SendMessageBatch": lambda queue: queue.send([{"Id": "a", "MessageBody": "x"}]),
    "DeleteMessageBatch": lambda queue: queue.delete({"a": "h" * 40}),
    "ChangeMessageVisibilityBatch": lambda queue: queue.hide({"a": "h" * 40}, 0),
}


@pytest.mark.parametrize("action", CALLS)
def test_a_connection_that_was_closed_while_idle_is_replaced(fast: LocalSqs, action: str) -> None:
    with Queue(fast.session(), fast.queue(), REGION) as queue:
        CALLS[action](queue)
        fast.close_all()
        CALLS[action](queue)
    assert fast.called == [action, action]


@pytest.mark.parametrize("action", CALLS)
def test_a_request_that_met_the_end_of_its_connection_is_made_again_unless_it_sends(
    fast: LocalSqs, action: str
) -> None:
    with Queue(fast.session(), fast.queue(), REGION) as queue:
        CALLS[action](queue)
        fast.faults.append(close)
        if action == "SendMessageBatch":
            with pytest.raises(Unreachable):
                CALLS[action](queue)
            assert fast.called == [action] * 2
        else:
            CALLS[action](queue)
            assert fast.called == [action] * 3
            # Once only, and never on a connection that was just made.
            fast.faults.extend([close, close])
            with pytest.raises(Unreachable):
                CALLS[action](queue)
            assert fast.called == [action] * 5
            fast.faults.append(close)
            with pytest.raises(Unreachable):
                CALLS[action](queue)
            assert fast.called == [action] * 6
        CALLS[action](queue)


@pytest.mark.parametrize(
    "fault",
    [
        written(b"HTTP/1.1 200 OK\r\nContent-Le", then_close=True),
        written(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", then_close=True),
        written(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{"),
        written(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
        written(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"),
        written(b"220 mail.example ESMTP\r\n\r\n"),
        error(500, "InternalFailure"),
        error(502, "BadGateway"),
        silence,
    ],
    ids=["head", "body", "json", "chunked", "list", "smtp", "500", "502", "silence"],
)
@pytest.mark.parametrize("action", CALLS)
def test_what_says_nothing_about_the_outcome_is_unreachable_and_not_repeated(
    fast: LocalSqs, monkeypatch: pytest.MonkeyPatch, action: str, fault: Fault
) -> None:
    monkeypatch.setattr(sqs_wire, "READ_SECONDS", 0.2)
    with Queue(fast.session(), fast.queue(), REGION) as queue:
        CALLS[action](queue)
        fast.faults.append(fault)
        with pytest.raises(Unreachable):
            CALLS[action](queue)
        assert fast.called == [action] * 2
        CALLS[action](queue)  # on another connection where that one is out of step


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (403, "RequestThrottled"),
        (400, "ThrottlingException"),
        (400, "KMS.ThrottlingException"),
        (400, "KmsThrottled"),
        (429, "Whatever"),
        (503, "ServiceUnavailable"),
    ],
)
def test_throttling_is_told_from_refusal(fast: LocalSqs, status: int, code: str) -> None:
    with Queue(fast.session(), fast.queue(), REGION) as queue:
        fast.faults.append(error(status, code))
        with pytest.raises(Throttled, match=code):
            queue.receive(1, 0, 0)


def test_an_error_without_the_query_header_is_known_by_its_type(fast: LocalSqs) -> None:
    body = b'{"__type":"com.amazonaws.sqs#OverLimit","message":"too many in flight"}'
    head = f"HTTP/1.1 403 Forbidden\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with Queue(fast.session(), fast.queue(), REGION) as queue:
        fast.faults.append(written(head + body))
        with pytest.raises(Refused, match="OverLimit: too many in flight"):
            queue.receive(1, 0, 0)


def test_an_answer_in_pieces_is_put_together(fast: LocalSqs) -> None:
    answer = b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\nConnection: close\r\n\r\n{"Messages": [] }'

    def drip(connection: Any) -> None:
        for number, byte in enumerate(answer):
            connection.later(0.002 * (number + 1), connection.write, bytes([byte]))

    with Queue(fast.session(), fast.queue(), REGION) as queue:
        fast.faults.append(drip)
        made = len(fast.connections)
        assert queue.receive(1, 0, 0) == []
        # The server said that it would close, so the connection is not kept.
        assert queue.receive(1, 0, 0) == []
        assert len(fast.connections) == made + 2


def test_waiting_for_messages_takes_longer_than_an_answer_may(
    fast: LocalSqs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqs_wire, "READ_SECONDS", 0.3)
    with Queue(fast.session(), fast.queue(), REGION) as queue:
        began = time.monotonic()
        assert queue.receive(10, 60, 1) == []
        assert time.monotonic() - began >= 0.95
        later = threading.Timer(0.3, queue.send, [[{"Id": "a", "MessageBody": "x"}]])
        later.start()
        assert [one["Body"] for one in queue.receive(10, 60, 1)] == ["x"]
        later.join()


def test_nobody_listening_is_unreachable(monkeypatch: pytest.MonkeyPatch, fast: LocalSqs) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", f"http://127.0.0.1:{bound.getsockname()[1]}")
        with (
            Queue(fast.session(), fast.queue(), REGION) as queue,
            pytest.raises(Unreachable, match="refused"),
        ):
            queue.receive(1, 0, 0)


def test_sixty_four_threads_move_each_message_once(
    service: Service, opened: Callable[..., AnyQueue]
) -> None:
    source = opened(Queue, service.session, service.queue(""), service.region)
    target = opened(Queue, service.session, service.queue(""), service.region)
    bodies = [f"letter {number}" for number in range(1000)]
    for start in range(0, 1000, 10):
        source.send(
            [
                {"Id": str(k), "MessageBody": body}
                for k, body in enumerate(bodies[start : start + 10])
            ]
        )

    def move(_: int) -> None:
        while messages := source.receive(10, 60, 0):
            sent = target.send(
                [{"Id": one["MessageId"], "MessageBody": one["Body"]} for one in messages]
            )
            assert not sent.failed
            assert not source.delete({one["MessageId"]: one["ReceiptHandle"] for one in messages})

    with ThreadPoolExecutor(64) as pool:
        list(pool.map(move, range(64)))
    assert sorted(one["Body"] for one in _everything(target)) == sorted(bodies)
    assert source.receive(10, 0, 0) == []


def test_certificates_are_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Callable[..., AnyQueue]
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(  # noqa: S603 -- fixed words; the machine's own openssl
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    with LocalSqs(context=context) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", server.url)
        url = server.queue()
        stranger = opened(Queue, server.session(), url, REGION)
        with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED"):
            stranger.receive(1, 0, 0)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        queue = opened(Queue, server.session(), url, REGION)
        big = "x" * (MEBIBYTE - 10)
        queue.send([{"Id": "a", "MessageBody": big}])
        assert [one["Body"] for one in queue.receive(1, 60, 0)] == [big]
        # The end of a connection is seen through TLS as well.
        server.close_all()
        queue.send([{"Id": "b", "MessageBody": "after"}])
        server.faults.append(close)
        assert [one["Body"] for one in queue.receive(10, 60, 0)] == ["after"]
        assert len(server.called) == 5
