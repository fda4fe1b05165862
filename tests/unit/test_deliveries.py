"""Deliveries to a function: each letter one event, what fails told one by one."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from oncall import deliveries
from oncall.deliveries import FunctionSink


class FakeLambda:
    def __init__(self, answers: Iterator[Exception | None]) -> None:
        self.answers = answers
        self.got: list[dict[str, Any]] = []

    def invoke(self, **given: Any) -> dict[str, Any]:
        self.got.append(given)
        error = next(self.answers)
        if error is not None:
            raise error
        return {"ResponseMetadata": {"RequestId": f"request-{len(self.got)}"}}


def refused(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": code}}, "Invoke")


def test_each_letter_has_its_own_fate() -> None:
    answers = iter(
        [
            None,
            refused("TooManyRequestsException"),
            refused("RequestTooLargeException"),
            ReadTimeoutError(endpoint_url="x"),
            None,
        ]
    )
    client: Any = FakeLambda(answers)
    entries = [{"Id": str(n), "MessageBody": f'{{"n": {n}}}'} for n in range(5)]

    sent = FunctionSink(client, "arn", "function").send(entries)

    assert sent.successful.keys() == {"0", "4"}
    assert sent.successful["4"][0] == "request-5"
    assert sent.failed["1"].sender_fault is False
    assert sent.failed["2"].sender_fault is True
    assert [one["Payload"] for one in client.got][:2] == [b'{"n": 0}', b'{"n": 1}']
    assert {one["InvocationType"] for one in client.got} == {"Event"}


@pytest.mark.parametrize("kind", ["function", "rule"])
def test_an_event_goes_as_it_was(kind: str) -> None:
    assert deliveries.event_of(kind, '{"a":  1}') == '{"a":  1}'


def test_a_notification_goes_as_a_subscribed_function_gets_it() -> None:
    envelope = {
        "Type": "Notification",
        "MessageId": "1",
        "TopicArn": "arn:aws:sns:us-east-1:123456789012:orders",
        "Message": "hello",
        "Timestamp": "2026-11-26T00:00:00Z",
        "SigningCertURL": "https://cert",
        "UnsubscribeURL": "https://unsubscribe",
    }
    [record] = json.loads(deliveries.event_of("topic", json.dumps(envelope)))["Records"]
    assert record["EventSource"] == "aws:sns"
    assert record["Sns"] == {
        "Type": "Notification",
        "MessageId": "1",
        "TopicArn": "arn:aws:sns:us-east-1:123456789012:orders",
        "Subject": None,
        "Message": "hello",
        "Timestamp": "2026-11-26T00:00:00Z",
        "SigningCertUrl": "https://cert",
        "UnsubscribeUrl": "https://unsubscribe",
        "MessageAttributes": {},
    }
