import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from workload.functions.orders.claim_check import PayloadStore
from workload.functions.orders.worker import BatchFailedError, Downstream, Work, process_batch

HEALTHY = Downstream()


class Table:
    class exceptions:  # noqa: N801 -- boto3's name
        class ConditionalCheckFailedException(Exception):  # noqa: N818 -- boto3's name
            pass

    def __init__(self) -> None:
        self.items: dict[str, dict[str, Any]] = {}

    def put_item(
        self,
        *,
        TableName: str,  # noqa: N803 -- boto3's names
        Item: dict[str, Any],  # noqa: N803 -- boto3's names
        ConditionExpression: str,  # noqa: N803 -- boto3's names
    ) -> None:
        assert (TableName, ConditionExpression) == ("orders", "attribute_not_exists(order_id)")
        if Item["order_id"]["S"] in self.items:
            raise self.exceptions.ConditionalCheckFailedException
        self.items[Item["order_id"]["S"]] = Item


class Bucket:
    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803 -- boto3's names
        return {"Body": io.BytesIO(self.objects[f"{Bucket}/{Key}"])}


class World:
    """A worker whose sleeping moves the clock instead of taking time."""

    def __init__(self, chance: float = 0.5, **objects: bytes) -> None:
        self.now = 1_000.0
        self.table = Table()
        self.work = Work(
            dynamodb=self.table,
            payloads=PayloadStore(Bucket({"payloads/big": objects.get("big", b"")}), "payloads"),
            table="orders",
            work_ms=100,
            sleep=self.pass_time,
            chance=lambda: chance,
            clock=lambda: self.now,
        )

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    def deadline(self, seconds: float) -> Callable[[], float]:
        end = self.now + seconds
        return lambda: (end - self.now) * 1000

    def process(
        self, *bodies: Any, downstream: Downstream = HEALTHY, seconds: float = 30
    ) -> list[str]:
        records = [
            {
                "messageId": f"m-{number}",
                "body": body if isinstance(body, str) else json.dumps(body),
                "attributes": {"SentTimestamp": "999000"},
            }
            for number, body in enumerate(bodies)
        ]
        answer = process_batch(records, downstream, self.work, self.deadline(seconds))
        return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


def pointer(bucket: str) -> list[Any]:
    name = "software.amazon.payloadoffloading.PayloadS3Pointer"
    return [name, {"s3BucketName": bucket, "s3Key": "big"}]


def test_orders_are_written_with_the_time_they_took() -> None:
    world = World()

    assert world.process({"order_id": "o-1"}, {"order_id": "o-2"}) == []

    assert list(world.table.items) == ["o-1", "o-2"]
    item = world.table.items["o-2"]
    assert item["sent_at_ms"] == {"N": "999000"}
    assert item["processed_at_ms"] == {"N": "1000200"}
    assert item["expires_at"] == {"N": str(1_000 + 30 * 86_400)}


def test_an_order_that_comes_twice_is_written_once() -> None:
    world = World()

    assert world.process({"order_id": "o-1"}, {"order_id": "o-1"}) == []

    assert world.table.items["o-1"]["message_id"] == {"S": "m-0"}


@pytest.mark.parametrize(
    "bad",
    [
        {"order_id": "o-1", "poison": True},
        "not json",
        "7",
        {"note": "no id"},
        pointer("somebody-elses"),
        ["SomethingElse", {"s3BucketName": "payloads", "s3Key": "big"}],
    ],
)
def test_a_message_that_can_never_work_fails_alone(bad: Any) -> None:
    world = World(big=b'{"order_id": "o-9"}')

    assert world.process({"order_id": "o-0"}, bad, {"order_id": "o-2"}) == ["m-1"]

    assert list(world.table.items) == ["o-0", "o-2"]


def test_a_pointer_is_followed_to_the_payload() -> None:
    payload = json.dumps({"order_id": "o-1", "note": "x" * 1000}).encode()
    world = World(big=payload)

    assert world.process(pointer("payloads")) == []

    assert world.table.items["o-1"]["payload_bytes"] == {"N": str(len(payload))}


def test_a_batch_in_which_nothing_worked_is_an_error_of_the_function() -> None:
    with pytest.raises(BatchFailedError, match="All 2 orders failed: DownstreamError, Poison"):
        World().process(
            {"order_id": "o-1"},
            {"order_id": "o-2", "poison": True},
            downstream=Downstream(error_rate=1),
        )


@pytest.mark.parametrize(("chance", "fails"), [(0.29, True), (0.3, False)])
def test_the_downstream_fails_at_its_error_rate(chance: float, fails: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    world = World(chance=chance)

    if fails:
        with pytest.raises(BatchFailedError):
            world.process({"order_id": "o-1"}, downstream=Downstream(error_rate=0.3))
    else:
        world.process({"order_id": "o-1"}, downstream=Downstream(error_rate=0.3))

    assert bool(world.table.items) is not fails


def test_a_slow_downstream_costs_its_latency_and_the_rest_is_given_back_in_time() -> None:
    world = World()
    orders = [{"order_id": f"o-{number}"} for number in range(4)]

    failed = world.process(*orders, downstream=Downstream(latency_ms=900), seconds=3)

    assert failed == ["m-2", "m-3"]
    assert world.now == pytest.approx(1_002)


def test_downstream_settings_default_to_healthy() -> None:
    assert Downstream.parse({}) == HEALTHY
    assert Downstream.parse({"latency_ms": 50, "error_rate": 0.1}) == Downstream(50, 0.1)
