"""Gaps of SQS messages: limits, batches, receipt handles, attributes, and threads that lose them.

AWS:

- A message's attributes count towards its size, so towards the queue's MaximumMessageSize and a
  batch's 1 MiB; it has ten at most, each with a value, of type String, Number or Binary
  (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html,
  https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html).
- An entry of a batch has MessageSystemAttributes as well; their MD5 is answered
  (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatchRequestEntry.html).
- Deleting by an old receipt handle succeeds and may delete nothing; the visibility of a message
  that is not in flight cannot be changed, nor to more than twelve hours
  (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_DeleteMessage.html,
  https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ChangeMessageVisibility.html).
  In a FIFO queue a handle is worth nothing after its visibility timeout.
- GetQueueAttributes answers what is asked for; queues are encrypted (`SqsManagedSseEnabled`)
  (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_GetQueueAttributes.html).
- No message is lost between a sender and a consumer
  (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/standard-queues.html):
  MiniStack's pollers of event source mappings replace a queue's list while requests append to it.
"""
# ruff: noqa: SLF001 -- a bridge works on MiniStack's internals

import base64
import itertools
import re
import threading
import time
from collections.abc import Callable
from typing import Any

from ministack.services import lambda_svc, sqs

from local.aws.bridges.bridge import Bridge

type _Message = dict[str, Any]
type _Queue = dict[str, Any]

BRIDGE = Bridge("sqs_messages")
_BATCH_BYTES = 1_048_576
_ATTRIBUTES = 10
_NAME = re.compile(r"(?!\.)(?!(?i:aws|amazon)\.)[A-Za-z0-9_.-]{1,256}(?<!\.)")
_HANDLE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LONGEST_SECONDS = 43_200
_KNOWN = {
    "All", "ApproximateNumberOfMessages", "ApproximateNumberOfMessagesDelayed",
    "ApproximateNumberOfMessagesNotVisible", "ContentBasedDeduplication", "CreatedTimestamp",
    "DeduplicationScope", "DelaySeconds", "FifoQueue", "FifoThroughputLimit",
    "KmsDataKeyReusePeriodSeconds", "KmsMasterKeyId", "LastModifiedTimestamp",
    "MaximumMessageSize", "MessageRetentionPeriod", "Policy", "QueueArn",
    "ReceiveMessageWaitTimeSeconds", "RedriveAllowPolicy", "RedrivePolicy",
    "SqsManagedSseEnabled", "VisibilityTimeout",
}  # fmt: skip


# --- Threads -----------------------------------------------------------------------------------

# Whoever takes messages out of a list holds this, and takes them out of the list itself: appending
# needs no lock then, and is never lost.
_lock = threading.RLock()
BRIDGE.replace(sqs, "_queues_lock")(_lock)


def take_out(queue: _Queue, wanted: Callable[[_Message], bool]) -> list[_Message]:
    """Remove and return a queue's messages that `wanted` is true of."""
    with _lock:
        messages = queue["messages"]
        places = [place for place, message in enumerate(messages) if wanted(message)]
        found = [messages[place] for place in places]
        for place in reversed(places):
            del messages[place]
    return found


@BRIDGE.replace(sqs, "_collect_msgs")
def collect(queue: _Queue, number: int, visibility: int) -> list[_Message]:
    """Receive up to `number` messages; two consumers never get the same."""
    with _lock:
        if queue["is_fifo"]:
            return list(_collect(queue, number, visibility))
        # MiniStack looks at every message each time, which makes a deep queue slow.
        now = time.time()
        visible = (message for message in queue["messages"] if message["visible_at"] <= now)
        few = {**queue, "messages": list(itertools.islice(visible, number))}
        return list(_collect(few, number, visibility))


@BRIDGE.replace(sqs, "_expire_retained")
def _expire_retained(queue: _Queue) -> None:
    until = time.time() - int(queue["attributes"].get("MessageRetentionPeriod", "345600"))

    def expired(message: _Message) -> bool:
        since = message.get("enqueued_at") or message.get("sent_at")
        return since is not None and float(since) <= until

    take_out(queue, expired)


@BRIDGE.replace(sqs, "_delete_messages_for_esm")
def _delete_messages_for_esm(url: str, handles: set[str]) -> None:
    if handles:
        take_out(sqs._get_q(url), lambda message: message.get("receipt_handle") in handles)


# --- Sending -----------------------------------------------------------------------------------


@BRIDGE.replace(sqs, "_act_send_message")
def _act_send_message(data: dict[str, Any], url: str) -> dict[str, Any]:
    queue = sqs._get_q(data.get("QueueUrl", url), "sqs:SendMessage")
    attributes = data.get("MessageAttributes") or {}
    if problem := _problem(attributes):
        raise sqs._Err("InvalidParameterValue", problem)
    limit = int(queue["attributes"].get("MaximumMessageSize", _BATCH_BYTES))
    if data.get("MessageBody") and _size(data) > limit:
        raise sqs._Err(
            "InvalidParameterValue",
            "One or more parameters are invalid. Reason: Message must be shorter than "
            f"{limit} bytes.",
        )
    answer: dict[str, Any] = _send(data, url)
    if system := sqs._md5_msg_attrs(data.get("MessageSystemAttributes")):
        answer["MD5OfMessageSystemAttributes"] = system
    return answer


# Looked up at each call: what counts messages wraps the function itself.
@BRIDGE.replace(sqs._HANDLERS, "SendMessage")
def _send_message(data: dict[str, Any], url: str) -> Any:
    return sqs._act_send_message(data, url)


@BRIDGE.replace(sqs._HANDLERS, "SendMessageBatch")
def _send_message_batch(data: dict[str, Any], url: str) -> dict[str, Any]:
    url = data.get("QueueUrl", url)
    sqs._get_q(url, "sqs:SendMessage")
    entries = data.get("Entries") or []
    sqs._validate_batch_entries(entries, "SendMessageBatchRequestEntry")
    if (size := sum(map(_size, entries))) > _BATCH_BYTES:
        raise sqs._Err(
            "BatchRequestTooLong",
            f"Batch requests cannot be longer than {_BATCH_BYTES} bytes. "
            f"You have sent {size} bytes.",
        )
    return _each(
        entries,
        lambda entry: sqs._act_send_message({**entry, "QueueUrl": url}, url),
    )


def _each(
    entries: list[dict[str, Any]], act: Callable[[dict[str, Any]], dict[str, Any] | None]
) -> dict[str, Any]:
    """Do a batch's entries one by one; each succeeds or fails by itself."""
    done: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    for entry in entries:
        try:
            done.append({**(act(entry) or {}), "Id": entry["Id"]})
        except sqs._Err as error:
            failed.append(
                {
                    "Id": entry["Id"],
                    "Code": sqs._QUERY_COMPAT_CODES.get(error.code, error.code),
                    "Message": error.message,
                    "SenderFault": True,
                }
            )
    return {"Successful": done, "Failed": failed}


def _size(message: dict[str, Any]) -> int:
    """Return what counts: the body, and each attribute's name, type and value."""
    size = len((message.get("MessageBody") or "").encode())
    for name, attribute in (message.get("MessageAttributes") or {}).items():
        size += len(name.encode()) + len(attribute.get("DataType", "").encode())
        size += len(_value(attribute))
    return size


def _value(attribute: dict[str, Any]) -> bytes:
    if attribute.get("DataType", "").startswith("Binary"):
        value = attribute.get("BinaryValue") or b""
        return base64.b64decode(value) if isinstance(value, str) else bytes(value)
    return str(attribute.get("StringValue") or "").encode()


def _problem(attributes: dict[str, Any]) -> str:
    if len(attributes) > _ATTRIBUTES:
        return (
            f"Number of message attributes [{len(attributes)}] exceeds the allowed maximum "
            f"[{_ATTRIBUTES}]."
        )
    for name, attribute in attributes.items():
        if not _NAME.fullmatch(name):
            return f"The message (user) attribute name '{name}' is invalid."
        kind = attribute.get("DataType", "").partition(".")[0]
        if kind not in {"Binary", "Number", "String"}:
            return (
                f"The type of message (user) attribute '{name}' is invalid. You must use only the "
                "following supported type prefixes: Binary, Number, String."
            )
        if not _value(attribute):
            return (
                f"Message (user) attribute '{name}' must contain a non-empty value of type "
                f"'{kind}'."
            )
    return ""


# --- Receipt handles ---------------------------------------------------------------------------


@BRIDGE.replace(sqs._HANDLERS, "DeleteMessage")
def _delete_message(data: dict[str, Any], url: str) -> dict[str, Any]:
    _delete(sqs._get_q(data.get("QueueUrl", url), "sqs:DeleteMessage"), data)
    return {}


@BRIDGE.replace(sqs._HANDLERS, "DeleteMessageBatch")
def _delete_message_batch(data: dict[str, Any], url: str) -> dict[str, Any]:
    queue = sqs._get_q(data.get("QueueUrl", url), "sqs:DeleteMessage")
    entries = data.get("Entries") or []
    sqs._validate_batch_entries(entries, "DeleteMessageBatchRequestEntry")
    return _each(entries, lambda entry: _delete(queue, entry))


@BRIDGE.replace(sqs._HANDLERS, "ChangeMessageVisibility")
def _change_visibility(data: dict[str, Any], url: str) -> dict[str, Any]:
    _change(sqs._get_q(data.get("QueueUrl", url), "sqs:ChangeMessageVisibility"), data)
    return {}


@BRIDGE.replace(sqs._HANDLERS, "ChangeMessageVisibilityBatch")
def _change_visibility_batch(data: dict[str, Any], url: str) -> dict[str, Any]:
    queue = sqs._get_q(data.get("QueueUrl", url), "sqs:ChangeMessageVisibility")
    entries = data.get("Entries") or []
    sqs._validate_batch_entries(entries, "ChangeMessageVisibilityBatchRequestEntry")
    return _each(entries, lambda entry: _change(queue, entry))


def _delete(queue: _Queue, request: dict[str, Any]) -> None:
    handle = _handle(request)
    with _lock:
        place = _place(queue, handle)
        if place is None:
            return
        if queue["is_fifo"] and queue["messages"][place]["visible_at"] <= time.time():
            raise _not_usable(handle, "The receipt handle has expired.")
        del queue["messages"][place]


def _change(queue: _Queue, request: dict[str, Any]) -> None:
    handle, seconds = _handle(request), int(request.get("VisibilityTimeout", -1))
    if not 0 <= seconds <= _LONGEST_SECONDS:
        raise sqs._Err(
            "InvalidParameterValue",
            f"Value {seconds} for parameter VisibilityTimeout is invalid. Reason: Must be between "
            f"0 and {_LONGEST_SECONDS}, if provided.",
        )
    with _lock:
        place, now = _place(queue, handle), time.time()
        if place is None:
            raise _not_usable(
                handle, "Message does not exist or is not available for visibility timeout change."
            )
        message = queue["messages"][place]
        if message["visible_at"] <= now:
            raise sqs._Err("MessageNotInflight", "The message referred to isn't in flight.")
        message["visible_at"] = now + seconds
    if not seconds:
        lambda_svc.esm_wake.set()


def _place(queue: _Queue, handle: str) -> int | None:
    for place, message in enumerate(queue["messages"]):
        if message.get("receipt_handle") == handle:
            return place
    return None


def _handle(request: dict[str, Any]) -> str:
    handle = request.get("ReceiptHandle") or ""
    if not handle:
        raise sqs._Err("MissingParameter", "The request must contain the parameter ReceiptHandle.")
    if not _HANDLE.fullmatch(handle):
        raise sqs._Err(
            "ReceiptHandleIsInvalid", f'The input receipt handle "{handle}" is not a valid one.'
        )
    return str(handle)


def _not_usable(handle: str, reason: str) -> Exception:
    error: Exception = sqs._Err(
        "InvalidParameterValue",
        f"Value {handle} for parameter ReceiptHandle is invalid. Reason: {reason}",
    )
    return error


# --- Attributes --------------------------------------------------------------------------------


@BRIDGE.replace(sqs._HANDLERS, "GetQueueAttributes")
def _get_queue_attributes(data: dict[str, Any], url: str) -> dict[str, Any]:
    names = data.get("AttributeNames") or []
    if unknown := [name for name in names if name not in _KNOWN]:
        raise sqs._Err("InvalidAttributeName", f"Unknown Attribute {unknown[0]}.")
    answer: dict[str, Any] = _attributes(data, url)
    if not names:
        return {}
    found = answer["Attributes"]
    if not {"All", "SqsManagedSseEnabled"}.isdisjoint(names):
        found = {"SqsManagedSseEnabled": str("KmsMasterKeyId" not in found).lower(), **found}
    return {"Attributes": found}


_collect = BRIDGE.original(sqs, "_collect_msgs")
_send = BRIDGE.original(sqs, "_act_send_message")
_attributes = BRIDGE.original(sqs._HANDLERS, "GetQueueAttributes")
