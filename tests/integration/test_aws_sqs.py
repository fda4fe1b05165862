import base64
import hashlib
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from ministack.core.responses import request_scope
from ministack.services import sqs as ministack_sqs

from local.aws import AwsAccount
from local.aws.bridges import sqs_messages

_TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
_MEBIBYTE = 1_048_576


def _queue(aws: AwsAccount, name: str = "orders", **attributes: str) -> str:
    return aws.client("sqs").create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]  # type: ignore[arg-type]  # names of attributes


def _receive(aws: AwsAccount, url: str, **more: Any) -> Any:
    arguments = {
        "MaxNumberOfMessages": 10,
        "MessageSystemAttributeNames": ["All"],
        "MessageAttributeNames": ["All"],
        **more,
    }
    return aws.client("sqs").receive_message(QueueUrl=url, **arguments).get("Messages", [])


def _error(call: Callable[..., Any], **arguments: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def _text(value: str) -> dict[str, str]:
    return {"DataType": "String", "StringValue": value}


def _wire(kind: str, name: str, value: bytes) -> bytes:
    """Encode an attribute as SQS's developer guide says its MD5 is computed."""
    parts = [name.encode(), kind.encode()]
    encoded = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    mark = b"\x02" if kind.startswith("Binary") else b"\x01"
    return encoded + mark + len(value).to_bytes(4, "big") + value


def test_what_a_queue_says_of_itself(aws: AwsAccount) -> None:
    policy = json.dumps({"redrivePermission": "denyAll"})
    url = _queue(aws, RedriveAllowPolicy=policy)
    client = aws.client("sqs")
    found = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert found["MaximumMessageSize"] == str(_MEBIBYTE)
    assert found["MessageRetentionPeriod"] == "345600"
    assert abs(int(found["CreatedTimestamp"]) - time.time()) < 10
    assert found["RedriveAllowPolicy"] == policy
    assert found["SqsManagedSseEnabled"] == "true"
    assert client.get_queue_attributes(QueueUrl=url).get("Attributes", {}) == {}
    assert _error(client.get_queue_attributes, QueueUrl=url, AttributeNames=["Depth"])[0] == (
        "InvalidAttributeName"
    )


def test_digests_and_attributes_of_every_kind(aws: AwsAccount) -> None:
    url = _queue(aws)
    sent = aws.client("sqs").send_message(
        QueueUrl=url,
        MessageBody="hé",
        MessageAttributes={
            "text": _text("täxt"),  # type: ignore[dict-item]  # a plain attribute
            "number.1": {"DataType": "Number.int", "StringValue": "7"},
            "bytes": {"DataType": "Binary.gz", "BinaryValue": b"\x00\xff"},
        },
        MessageSystemAttributes={"AWSTraceHeader": _text(_TRACE)},  # type: ignore[dict-item]  # as above
    )
    digest = hashlib.md5(
        _wire("Binary.gz", "bytes", b"\x00\xff")
        + _wire("Number.int", "number.1", b"7")
        + _wire("String", "text", "täxt".encode()),
        usedforsecurity=False,
    ).hexdigest()
    system = hashlib.md5(_wire("String", "AWSTraceHeader", _TRACE.encode()), usedforsecurity=False)
    body = hashlib.md5("hé".encode(), usedforsecurity=False).hexdigest()
    assert sent["MD5OfMessageBody"] == body
    assert sent["MD5OfMessageAttributes"] == digest
    assert sent["MD5OfMessageSystemAttributes"] == system.hexdigest()
    [message] = _receive(aws, url)
    assert message["MD5OfBody"] == body
    assert message["MD5OfMessageAttributes"] == digest
    assert message["MessageAttributes"]["bytes"] == {
        "DataType": "Binary.gz",
        "BinaryValue": b"\x00\xff",
    }
    assert message["Attributes"]["AWSTraceHeader"] == _TRACE


def test_a_batch_keeps_each_entrys_trace_and_group(aws: AwsAccount) -> None:
    url = _queue(aws)
    entry = {
        "Id": "a",
        "MessageBody": "x",
        "MessageGroupId": "tenant-1",
        "MessageSystemAttributes": {"AWSTraceHeader": _text(_TRACE)},
    }
    aws.client("sqs").send_message_batch(QueueUrl=url, Entries=[entry])  # type: ignore[list-item]  # a plain entry
    [message] = _receive(aws, url)
    assert message["Attributes"]["AWSTraceHeader"] == _TRACE
    assert message["Attributes"]["MessageGroupId"] == "tenant-1"
    with sqs_messages.BRIDGE.off():
        aws.client("sqs").send_message_batch(QueueUrl=url, Entries=[entry])  # type: ignore[list-item]  # as above
        [message] = _receive(aws, url)
    assert "AWSTraceHeader" not in message["Attributes"]


def test_a_batch_is_ten_entries_and_a_mebibyte_with_their_attributes(aws: AwsAccount) -> None:
    url, send = _queue(aws), aws.client("sqs").send_message_batch
    entries = [{"Id": str(n), "MessageBody": "x" * 104_857} for n in range(10)]
    assert len(send(QueueUrl=url, Entries=entries)["Successful"]) == 10  # type: ignore[arg-type]  # plain entries
    entries[0] |= {"MessageAttributes": {"a": _text("123456")}}  # type: ignore[dict-item]  # as above
    code, text = _error(send, QueueUrl=url, Entries=entries)
    assert code == "AWS.SimpleQueueService.BatchRequestTooLong"
    assert text.endswith(f"You have sent {_MEBIBYTE - 6 + 13} bytes.")
    more = [{"Id": str(n), "MessageBody": "x"} for n in range(11)]
    assert _error(send, QueueUrl=url, Entries=more)[0] == (
        "AWS.SimpleQueueService.TooManyEntriesInBatchRequest"
    )


def test_an_entry_is_held_to_the_queues_own_size(aws: AwsAccount) -> None:
    url, client = _queue(aws, MaximumMessageSize="1024"), aws.client("sqs")
    small = {"Id": "small", "MessageBody": "x" * 1014, "MessageAttributes": {"a": _text("123")}}
    large = {"Id": "large", "MessageBody": "x" * 1015, "MessageAttributes": {"a": _text("123")}}
    answer = client.send_message_batch(QueueUrl=url, Entries=[small, large])  # type: ignore[list-item]  # plain entries
    assert [entry["Id"] for entry in answer["Successful"]] == ["small"]
    [failed] = answer["Failed"]
    assert (failed["Id"], failed["Code"], failed["SenderFault"]) == (
        "large",
        "InvalidParameterValue",
        True,
    )
    with sqs_messages.BRIDGE.off():
        answer = client.send_message_batch(QueueUrl=url, Entries=[large])  # type: ignore[list-item]  # as above
    assert len(answer["Successful"]) == 1  # attributes do not count


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({f"a{n}": _text("x") for n in range(11)}, "[11] exceeds the allowed maximum [10]"),
        ({"a": {"DataType": "Boolean", "StringValue": "x"}}, "type of message (user) attribute"),
        ({"a": _text("")}, "non-empty value"),
        ({"AWS.a": _text("x")}, "name 'AWS.a' is invalid"),
    ],
)
def test_attributes_that_sqs_refuses(
    aws: AwsAccount, attributes: dict[str, Any], reason: str
) -> None:
    url, client = _queue(aws), aws.client("sqs")
    arguments: Any = {"QueueUrl": url, "MessageBody": "x", "MessageAttributes": attributes}
    code, text = _error(client.send_message, **arguments)
    assert code == "InvalidParameterValue"
    assert reason in text
    with sqs_messages.BRIDGE.off():
        client.send_message(**arguments)


def test_an_old_handle_deletes_nothing_and_says_nothing(aws: AwsAccount) -> None:
    url, client = _queue(aws), aws.client("sqs")
    client.send_message(QueueUrl=url, MessageBody="x")
    [first] = _receive(aws, url, VisibilityTimeout=0)
    [second] = _receive(aws, url, VisibilityTimeout=30)
    client.delete_message(QueueUrl=url, ReceiptHandle=first["ReceiptHandle"])
    client.change_message_visibility(
        QueueUrl=url, ReceiptHandle=second["ReceiptHandle"], VisibilityTimeout=0
    )
    [third] = _receive(aws, url)
    handles = [first["ReceiptHandle"], third["ReceiptHandle"], third["ReceiptHandle"], "nonsense"]
    answer = client.delete_message_batch(
        QueueUrl=url,
        Entries=[{"Id": str(n), "ReceiptHandle": handle} for n, handle in enumerate(handles)],
    )
    assert [entry["Id"] for entry in answer["Successful"]] == ["0", "1", "2"]
    assert [entry["Code"] for entry in answer["Failed"]] == ["ReceiptHandleIsInvalid"]
    with sqs_messages.BRIDGE.off():
        code, _ = _error(client.delete_message, QueueUrl=url, ReceiptHandle=first["ReceiptHandle"])
    assert code == "ReceiptHandleIsInvalid"


def test_visibility_changes_one_by_one_in_a_batch(aws: AwsAccount) -> None:
    url, client = _queue(aws), aws.client("sqs")
    for body in ("back", "gone", "free"):
        client.send_message(QueueUrl=url, MessageBody=body)
    handles = {m["Body"]: m["ReceiptHandle"] for m in _receive(aws, url, VisibilityTimeout=30)}
    client.delete_message(QueueUrl=url, ReceiptHandle=handles["gone"])
    client.change_message_visibility(
        QueueUrl=url, ReceiptHandle=handles["free"], VisibilityTimeout=0
    )
    wanted = [("back", 0), ("gone", 0), ("free", 0), ("back", 43_201)]
    answer = client.change_message_visibility_batch(
        QueueUrl=url,
        Entries=[
            {"Id": str(n), "ReceiptHandle": handles[body], "VisibilityTimeout": seconds}
            for n, (body, seconds) in enumerate(wanted)
        ],
    )
    assert [entry["Id"] for entry in answer["Successful"]] == ["0"]
    assert [entry["Code"] for entry in answer["Failed"]] == [
        "InvalidParameterValue",
        "AWS.SimpleQueueService.MessageNotInflight",
        "InvalidParameterValue",
    ]
    assert sorted(message["Body"] for message in _receive(aws, url)) == ["back", "free"]


def test_fifo_order_locking_and_repetitions(aws: AwsAccount) -> None:
    url, client = _queue(aws, "orders.fifo", FifoQueue="true"), aws.client("sqs")

    def send(body: str, group: str, once: str) -> Any:
        return client.send_message(
            QueueUrl=url, MessageBody=body, MessageGroupId=group, MessageDeduplicationId=once
        )

    first, again = send("a1", "a", "1"), send("changed", "a", "1")
    assert first["MessageId"] == again["MessageId"]
    send("a2", "a", "2")
    send("b1", "b", "3")
    [a1] = _receive(aws, url, MaxNumberOfMessages=1, VisibilityTimeout=1)
    assert a1["Body"] == "a1"
    assert [message["Body"] for message in _receive(aws, url)] == ["b1"]  # a is locked
    time.sleep(1.05)
    code, text = _error(client.delete_message, QueueUrl=url, ReceiptHandle=a1["ReceiptHandle"])
    assert (code, text.endswith("The receipt handle has expired.")) == (
        "InvalidParameterValue",
        True,
    )
    messages = _receive(aws, url)
    assert [message["Body"] for message in messages] == ["a1", "a2"]
    for message in messages:
        client.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    send("after all", "a", "2")  # remembered even after it was deleted
    assert _receive(aws, url) == []


def test_a_long_poll_waits_and_wakes_up(aws: AwsAccount) -> None:
    url = _queue(aws)
    begun = time.monotonic()
    assert _receive(aws, url, WaitTimeSeconds=1) == []
    assert time.monotonic() - begun >= 1
    later = threading.Timer(
        0.5, aws.client("sqs").send_message, kwargs={"QueueUrl": url, "MessageBody": "x"}
    )
    begun = time.monotonic()
    later.start()
    assert len(_receive(aws, url, WaitTimeSeconds=10)) == 1
    assert 0.4 < time.monotonic() - begun < 3
    later.join()


def test_a_client_of_ones_own_speaks_json_over_http(aws: AwsAccount) -> None:
    url = _queue(aws)
    credentials = Credentials(aws.account, "test")

    def call(operation: str, **document: Any) -> tuple[int, Any, str]:
        body = json.dumps({"QueueUrl": url, **document}).encode()
        headers = {
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": f"AmazonSQS.{operation}",
        }
        request = AWSRequest("POST", aws.endpoint_url + "/", headers=headers, data=body)
        SigV4Auth(credentials, "sqs", aws.region).add_auth(request)
        plain = urllib.request.Request(  # noqa: S310 -- the emulator's own address
            aws.endpoint_url + "/", data=body, headers=dict(request.headers.items()), method="POST"
        )
        try:
            with urllib.request.urlopen(plain) as answer:  # noqa: S310 -- as above
                return answer.status, json.loads(answer.read()), ""
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read()), error.headers["x-amzn-query-error"]

    binary = base64.b64encode(b"\x00\xff").decode()
    attribute = {"b": {"DataType": "Binary", "BinaryValue": binary}}
    entry = {"Id": "1", "MessageBody": "x", "MessageAttributes": attribute}
    status, sent, _ = call("SendMessageBatch", Entries=[entry])
    assert (status, sent["Successful"][0]["Id"]) == (200, "1")
    _, received, _ = call(
        "ReceiveMessage", MessageAttributeNames=["All"], MessageSystemAttributeNames=["All"]
    )
    [message] = received["Messages"]
    assert message["MessageAttributes"] == attribute  # what was received can be sent as it is
    assert call("DeleteMessage", ReceiptHandle=message["ReceiptHandle"])[0] == 200
    status, error, legacy = call("SendMessageBatch", Entries=[])
    assert (status, error["__type"].rpartition("#")[2]) == (400, "EmptyBatchRequest")
    assert legacy == "AWS.SimpleQueueService.EmptyBatchRequest;Sender"


class _BusyList(list[Any]):
    """A queue's list to which somebody else sends while it is read."""

    late: dict[str, Any] | None = None

    def __iter__(self) -> Any:
        yield from super().__iter__()
        if self.late:
            late, self.late = self.late, None
            self.append(late)


def test_what_is_sent_while_a_poller_deletes_is_not_lost(aws: AwsAccount) -> None:
    url, client = _queue(aws), aws.client("sqs")

    def remaining() -> int:
        client.send_message(QueueUrl=url, MessageBody="first")
        [message] = _receive(aws, url)
        key = (aws.account, aws.region, url)
        queue = next(q for k, q in ministack_sqs._queues.all_items() if k == key)
        [stored] = queue["messages"]
        queue["messages"] = _BusyList(queue["messages"])
        queue["messages"].late = {**stored, "receipt_handle": None}
        with request_scope(aws.account, aws.region):
            ministack_sqs._delete_messages_for_esm(url, {message["ReceiptHandle"]})
        left = len(queue["messages"])
        client.purge_queue(QueueUrl=url)
        return left

    assert remaining() == 1
    with sqs_messages.BRIDGE.off():
        assert remaining() == 0
