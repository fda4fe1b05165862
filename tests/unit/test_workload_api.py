import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from workload.functions.orders.api import Intake, accept
from workload.functions.orders.claim_check import PayloadStore
from workload.functions.orders.settings import Setting


class Queue:
    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def send_message(self, **message: Any) -> None:
        self.messages.append(message)


class Bucket:
    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes) -> None:  # noqa: N803 -- boto3's names
        self.objects[f"{Bucket}/{Key}"] = Body


class Parameters:
    def __init__(self, value: str | ClientError) -> None:
        self.value = value

    def get_parameter(self, *, Name: str) -> dict[str, Any]:  # noqa: N803 -- boto3's names
        assert Name == "/orders/back-pressure"
        if isinstance(self.value, ClientError):
            raise self.value
        return {"Parameter": {"Value": self.value}}


THROTTLED = ClientError({"Error": {"Code": "ThrottlingException", "Message": ""}}, "GetParameter")


def intake(back_pressure: str | ClientError = "off") -> tuple[Intake, Queue, Bucket]:
    queue, bucket = Queue(), Bucket()
    setting = Setting(Parameters(back_pressure), "/orders/back-pressure", 1)
    return Intake(queue, PayloadStore(bucket, "payloads"), setting, "the-queue", 100), queue, bucket


def post(body: str, **more: Any) -> dict[str, Any]:
    return {"requestContext": {"http": {"method": "POST"}}, "body": body, **more}


def test_an_order_is_queued_under_its_own_id() -> None:
    to, queue, _ = intake()

    answer = accept(post('{"order_id": "o-1", "note": "hello"}'), to)

    assert (answer["statusCode"], json.loads(answer["body"])) == (202, {"order_id": "o-1"})
    (message,) = queue.messages
    assert message["QueueUrl"] == "the-queue"
    assert json.loads(message["MessageBody"]) == {"order_id": "o-1", "note": "hello"}


def test_an_order_without_an_id_gets_one() -> None:
    to, queue, _ = intake()

    given = json.loads(accept(post("{}"), to)["body"])["order_id"]

    assert json.loads(queue.messages[0]["MessageBody"]) == {"order_id": given}
    assert len(given) == 36


def test_a_base64_body_is_read() -> None:
    to, queue, _ = intake()

    accept(post(base64.b64encode(b'{"order_id": "o-1"}').decode(), isBase64Encoded=True), to)

    assert json.loads(queue.messages[0]["MessageBody"]) == {"order_id": "o-1"}


@pytest.mark.parametrize(
    "event",
    [
        post("not json"),
        post("[]"),
        post(""),
        post('{"order_id": "../etc"}'),
        post('{"order_id": "o-1/../o-2"}'),
        post('{"order_id": 7}'),
        post("=", isBase64Encoded=True),
        {"requestContext": {"http": {"method": "GET"}}},
    ],
)
def test_what_is_no_order_is_refused_with_an_example(event: dict[str, Any]) -> None:
    to, queue, _ = intake()

    answer = accept(event, to)

    assert answer["statusCode"] == 400
    assert "o-1" in json.loads(answer["body"])["error"]
    assert queue.messages == []


def test_a_payload_over_the_limit_goes_to_s3_and_a_pointer_to_the_queue() -> None:
    to, queue, bucket = intake()
    order = {"order_id": "o-1", "note": "x" * 200}

    accept(post(json.dumps(order)), to)

    ((where, stored),) = bucket.objects.items()
    assert json.loads(stored) == order
    (message,) = queue.messages
    pointer_class, pointer = json.loads(message["MessageBody"])
    assert pointer_class == "software.amazon.payloadoffloading.PayloadS3Pointer"
    assert f"{pointer['s3BucketName']}/{pointer['s3Key']}" == where
    assert message["MessageAttributes"]["ExtendedPayloadSize"] == {
        "DataType": "Number",
        "StringValue": str(len(stored)),
    }


def test_only_an_order_takes_the_time_of_a_check() -> None:
    slept: list[float] = []
    to, _, _ = intake()
    turned_away, _, _ = intake('{"state": "on"}')

    for where in (to, turned_away):
        accept(post("{}"), replace(where, work_ms=300, sleep=slept.append))
    accept(post("no order"), replace(to, work_ms=300, sleep=slept.append))

    assert slept == [0.3]


def test_back_pressure_answers_429_and_when_to_come_back() -> None:
    to, queue, _ = intake('{"state": "on", "retry_after_seconds": 7}')

    answer = accept(post('{"order_id": "o-1"}'), to)

    assert (answer["statusCode"], answer["headers"]["Retry-After"]) == (429, "7")
    assert queue.messages == []


@pytest.mark.parametrize(
    "value",
    [
        "off",
        '{"state": "off"}',
        "broken",
        '"on"',
        '{"state": "on", "retry_after_seconds": "soon"}',
        THROTTLED,
    ],
)
def test_orders_are_taken_when_back_pressure_is_off_or_unreadable(
    value: str | ClientError, capsys: pytest.CaptureFixture[str]
) -> None:
    to, queue, _ = intake(value)

    assert accept(post('{"order_id": "o-1"}'), to)["statusCode"] == 202

    assert len(queue.messages) == 1
    readable = value in ("off", '{"state": "off"}')
    assert ("back_pressure_unreadable" in capsys.readouterr().out) is not readable
