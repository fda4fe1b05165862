"""Accept an order over the function URL and put it on the queue."""

import base64
import binascii
import json
import os
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import boto3
from botocore.exceptions import ClientError

from .claim_check import PayloadStore
from .logs import log
from .settings import Setting, UnreadableSettingError

ORDER_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
DEFAULT_RETRY_AFTER_SECONDS = 30


class BadOrderError(Exception):
    """The request is not an order; the message tells the caller what to send."""


@dataclass(frozen=True)
class Intake:
    """Where accepted orders go, and how long one takes to check; `sleep` takes seconds."""

    sqs: Any
    payloads: PayloadStore
    back_pressure: Setting
    queue_url: str
    inline_limit_bytes: int
    work_ms: float = 0
    sleep: Callable[[float], None] = time.sleep


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Answer 202 with the order's id, 400 for a bad order, 429 while back-pressure is on."""
    return accept(event, intake())


def accept(event: dict[str, Any], to: Intake) -> dict[str, Any]:
    """Check the back-pressure and the order, then queue it.

    A caller that is told to come back later is told so at once: only orders take `work_ms`.
    """
    retry_after = seconds_to_wait(to.back_pressure)
    if retry_after is not None:
        log("order_rejected", reason="back-pressure", retry_after_seconds=retry_after)
        return answer(
            429,
            {"error": f"Too many orders; try again in {retry_after} s."},
            {"Retry-After": str(retry_after)},
        )
    try:
        order = parse_order(event)
    except BadOrderError as error:
        return answer(400, {"error": str(error)})
    to.sleep(to.work_ms / 1000)
    enqueue(order, to)
    return answer(202, {"order_id": order["order_id"]})


def seconds_to_wait(back_pressure: Setting) -> int | None:
    """Return the seconds to send as Retry-After, or None to accept.

    An unreadable setting accepts: losing orders because of a lost switch would be worse than
    the surge that it guards against. The log says so each time.
    """
    try:
        setting = back_pressure.read()
        if setting.get("state") != "on":
            return None
        return max(1, int(setting.get("retry_after_seconds", DEFAULT_RETRY_AFTER_SECONDS)))
    except (ClientError, UnreadableSettingError, TypeError, ValueError) as error:
        log("back_pressure_unreadable", error=type(error).__name__, message=str(error))
        return None


def parse_order(event: dict[str, Any]) -> dict[str, Any]:
    """Read the order out of a function URL event (payload format 2.0)."""
    method = event["requestContext"]["http"]["method"]
    if method != "POST":
        raise BadOrderError(f'Send the order with POST, not {method}: {{"order_id": "o-1"}}.')
    body = event.get("body") or ""
    try:
        if event.get("isBase64Encoded"):
            body = base64.b64decode(body).decode()
        order = json.loads(body)
    except (ValueError, binascii.Error):
        order = None
    if not isinstance(order, dict):
        raise BadOrderError('The body must be a JSON object, for example {"order_id": "o-1"}.')
    order.setdefault("order_id", str(uuid.uuid4()))
    if not (isinstance(order["order_id"], str) and ORDER_ID.fullmatch(order["order_id"])):
        raise BadOrderError("order_id must be 1 to 64 letters, digits or hyphens, for example o-1.")
    return order


def enqueue(order: dict[str, Any], to: Intake) -> None:
    """Send the order, or a pointer to it when it is too big for a message (claim check)."""
    payload = json.dumps(order).encode()
    if len(payload) <= to.inline_limit_bytes:
        message: dict[str, Any] = {"MessageBody": payload.decode()}
    else:
        # A name of its own for each request: sending an order id again must not change the
        # payload of a message that is already queued.
        key = f"orders/{order['order_id']}/{uuid.uuid4()}.json"
        message = to.payloads.put(key, payload)
    to.sqs.send_message(QueueUrl=to.queue_url, **message)
    log("order_accepted", order_id=order["order_id"], bytes=len(payload))


def answer(
    status: int, body: dict[str, Any], headers: dict[str, str] | None = None
) -> dict[str, Any]:
    """Shape a function URL response (payload format 2.0)."""
    return {
        "statusCode": status,
        "headers": {"Content-Type": "application/json", **(headers or {})},
        "body": json.dumps(body),
    }


@cache
def intake() -> Intake:
    """Build the clients from the function's environment, once per execution environment."""
    return Intake(
        sqs=boto3.client("sqs"),
        payloads=PayloadStore(boto3.client("s3"), os.environ["PAYLOAD_BUCKET"]),
        back_pressure=Setting(
            boto3.client("ssm"),
            os.environ["BACK_PRESSURE_PARAMETER"],
            float(os.environ["SETTINGS_CACHE_SECONDS"]),
        ),
        queue_url=os.environ["QUEUE_URL"],
        inline_limit_bytes=int(os.environ["INLINE_LIMIT_BYTES"]),
        work_ms=float(os.environ["WORK_MS"]),
    )
