"""Process a batch of orders: call the downstream, then write each order once."""

import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import boto3
from botocore.exceptions import ClientError

from .claim_check import BadPointerError, PayloadStore
from .logs import log
from .settings import Setting

# What is left of the timeout must cover the order's own time and this, for the write and answer.
MARGIN_MS = 500
# Longer than the queues keep a message (4 + 14 days), so that a replay still finds the order.
ORDER_TTL_SECONDS = 30 * 24 * 3600


class PoisonMessageError(Exception):
    """A message that can never be processed."""


class DownstreamError(Exception):
    """The downstream refused an order; trying again later may work."""


class BatchFailedError(Exception):
    """Every order of the batch failed.

    Raised rather than reported, because a batch that reports its failures counts as a success:
    without this AWS/Lambda Errors would stay at zero while nothing gets done.
    """


@dataclass(frozen=True)
class Downstream:
    """How the service that the worker depends on behaves: milliseconds a call, share failing."""

    latency_ms: float = 0.0
    error_rate: float = 0.0

    @classmethod
    def parse(cls, setting: dict[str, Any]) -> "Downstream":
        """Read `{"latency_ms": 0 or more, "error_rate": 0 to 1}`; what is absent is healthy."""
        return cls(float(setting.get("latency_ms", 0)), float(setting.get("error_rate", 0)))


@dataclass(frozen=True)
class Work:
    """What the worker needs to process orders; `sleep` takes seconds, `chance` gives [0, 1)."""

    dynamodb: Any
    payloads: PayloadStore
    table: str
    work_ms: float
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random
    clock: Callable[[], float] = time.time


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Process an SQS batch; answers with the messages to deliver again."""
    downstream = Downstream.parse(downstream_setting().read())
    return process_batch(event["Records"], downstream, work(), context.get_remaining_time_in_millis)


def process_batch(
    records: list[dict[str, Any]],
    downstream: Downstream,
    work: Work,
    remaining_ms: Callable[[], float],
) -> dict[str, Any]:
    """Process each record; a failing one does not stop the others.

    Returns `{"batchItemFailures": [{"itemIdentifier": message id}]}`. Raises BatchFailedError if
    no record succeeded.
    """
    started = work.clock()
    cost_ms = work.work_ms + downstream.latency_ms
    failures: dict[str, str] = {}
    for record in records:
        if remaining_ms() < cost_ms + MARGIN_MS:
            # Give the rest back instead of timing out, which would repeat the finished ones too.
            failures[record["messageId"]] = "OutOfTime"
            continue
        try:
            process(record, downstream, work)
        except (PoisonMessageError, BadPointerError, DownstreamError, ClientError) as error:
            failures[record["messageId"]] = type(error).__name__
            log("order_failed", message_id=record["messageId"], error=repr(error))
    log(
        "batch_done",
        orders=len(records),
        failed=len(failures),
        milliseconds=round((work.clock() - started) * 1000),
    )
    if records and len(failures) == len(records):
        raise BatchFailedError(
            f"All {len(records)} orders failed: {', '.join(sorted(set(failures.values())))}."
        )
    return {"batchItemFailures": [{"itemIdentifier": message} for message in failures]}


def process(record: dict[str, Any], downstream: Downstream, work: Work) -> None:
    """Process one order; doing it again changes nothing."""
    order = read_order(record, work)
    if order.get("poison"):
        raise PoisonMessageError(f"Order {order['order_id']} is poison.")
    work.sleep((work.work_ms + downstream.latency_ms) / 1000)
    if work.chance() < downstream.error_rate:
        raise DownstreamError(f"The downstream refused order {order['order_id']}.")
    write_once(order, record, work)


def read_order(record: dict[str, Any], work: Work) -> dict[str, Any]:
    """Return the order, fetching it from S3 when the message is a pointer."""
    order = parse(record["body"])
    if isinstance(order, list):
        order = parse(work.payloads.get(order))
    if not isinstance(order, dict) or not isinstance(order.get("order_id"), str):
        raise PoisonMessageError("The message is neither an order nor a pointer to one.")
    return order


def parse(text: str) -> Any:
    """Read JSON; what is not JSON is poison."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise PoisonMessageError(f"The message is not JSON: {error}.") from error


def write_once(order: dict[str, Any], record: dict[str, Any], work: Work) -> None:
    """Write the order unless its id is there already: SQS delivers at least once."""
    now = work.clock()
    try:
        work.dynamodb.put_item(
            TableName=work.table,
            Item={
                "order_id": {"S": order["order_id"]},
                "message_id": {"S": record["messageId"]},
                "sent_at_ms": {"N": record["attributes"]["SentTimestamp"]},
                "processed_at_ms": {"N": str(round(now * 1000))},
                "payload_bytes": {"N": str(len(json.dumps(order).encode()))},
                "expires_at": {"N": str(round(now) + ORDER_TTL_SECONDS)},
            },
            ConditionExpression="attribute_not_exists(order_id)",
        )
    except work.dynamodb.exceptions.ConditionalCheckFailedException:
        log("order_repeated", order_id=order["order_id"], message_id=record["messageId"])


@cache
def work() -> Work:
    """Build the clients from the function's environment, once per execution environment."""
    return Work(
        dynamodb=boto3.client("dynamodb"),
        payloads=PayloadStore(boto3.client("s3"), os.environ["PAYLOAD_BUCKET"]),
        table=os.environ["ORDERS_TABLE"],
        work_ms=float(os.environ["WORK_MS"]),
    )


@cache
def downstream_setting() -> Setting:
    """Return the parameter that says how the downstream behaves."""
    return Setting(
        boto3.client("ssm"),
        os.environ["DOWNSTREAM_PARAMETER"],
        float(os.environ["SETTINGS_CACHE_SECONDS"]),
    )
